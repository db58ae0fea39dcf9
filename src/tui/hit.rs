//! What lies under the mouse: the inverse of the view, from the same geometry.

use ratatui::layout::Position;

use super::action::Action;
use super::app::{App, Cursor};
use super::screens::Screen;
use super::widgets::status;

/// Something that can be clicked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hit {
    /// The name of a screen.
    Screen(Screen),
    /// A hint in the last line.
    Action(&'static Action),
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
        return hint.map(|(_, action)| Hit::Action(action));
    }
    (app.screen.spec().hit)(app, &layout, at)
}
