//! What lies under the mouse: the inverse of the view, from the same geometry.

use ratatui::layout::{Position, Rect};

use super::action::Action;
use super::app::{App, Cursor, Screen};
use super::layout::{Layout, MapView};
use super::widgets::{entries, heatmap, status, strip};
use crate::domain::Pattern;
use crate::tui::screens::history;

/// Something that can be clicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// The name of a screen.
    Screen(Screen),
    /// A hint in the last line.
    Action(Action),
    /// A letter of the strip.
    Layer(usize),
    /// A cell of a map.
    Pair(Cursor),
    /// An entry of the history.
    Entry(usize),
}

/// Returns what lies at a place of the screen, if it can be clicked.
pub fn hit(app: &App, x: u16, y: u16) -> Option<Hit> {
    let layout = app.layout();
    let at = Position { x, y };
    if let Some(area) = layout.header.filter(|a| a.contains(at)) {
        let tab = status::tabs(app, area).into_iter().find(|(tab, _)| tab.contains(at));
        return tab.map(|(_, screen)| Hit::Screen(screen));
    }
    if let Some(area) = layout.hints.filter(|a| a.contains(at)) {
        let hint = status::hint_places(app, area).into_iter().find(|(place, _)| place.contains(at));
        return hint.map(|(_, spec)| Hit::Action(spec.action));
    }
    match (app.screen, layout.brief) {
        (Screen::Overlap, _) => on_map(app, &layout, at),
        (Screen::History, Some(body)) => {
            let area = history::list_area(body);
            let row = y.checked_sub(area.y + 1).filter(|_| area.contains(at))?;
            entries::at(app, area, row).map(Hit::Entry)
        }
        _ => None,
    }
}

fn on_map(app: &App, layout: &Layout, at: Position) -> Option<Hit> {
    let axis = layout.axis?;
    let total = app.pattern().map_or(0, Pattern::len);
    let letters = [Some(axis.strip), axis.ruler, axis.coverage];
    let column = |area: Rect| strip::window(app, layout).first + ((at.x - area.x) / axis.cell.max(1)) as usize;
    if let Some(area) = letters.into_iter().flatten().find(|a| a.contains(at)) {
        return Some(column(area)).filter(|layer| *layer < total).map(Hit::Layer);
    }
    let map = layout.map?;
    if let Some(area) = map.ribbon.filter(|a| a.contains(at)) {
        let row = column(area);
        // Two distances share a row; the nearer one is taken.
        let column = row.checked_sub(2 * (at.y - area.y) as usize + 1)?;
        return (row < total).then_some(Hit::Pair(Cursor { row, column }));
    }
    let area = map.matrix.filter(|a| a.contains(at) && map.view != MapView::Ribbon)?;
    let (rows, columns) = heatmap::windows(app, layout, map.cell, area);
    let (across, down) = map.cell.layers(at.x - area.x + 1, at.y - area.y + 1);
    let (row, column) = (rows.first + down.max(1) - 1, columns.first + across.max(1) - 1);
    let inside = row < total && column < total;
    inside.then_some(Hit::Pair(Cursor { row, column }))
}
