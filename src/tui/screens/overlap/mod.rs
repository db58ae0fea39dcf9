//! The Overlap screen: strip, maps, the pair under the cursor, quality and speed.

pub mod keys;
pub mod update;
mod view;

use ratatui::layout::{Position, Rect};

use super::{Needs, ScreenSpec};
use crate::analysis::Metric;
use crate::domain::Pattern;
use crate::tui::app::{App, Cursor};
use crate::tui::hit::Hit;
use crate::tui::layout::{Layout, MapView, Wish};
use crate::tui::widgets::{heatmap, strip};

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "Overlap",
    key: "1",
    help: "Show the index sets, the strip, loss and speed",
    needs: Needs::Nothing,
    actions: keys::ACTIONS,
    wheel: Some(["zoom-in", "zoom-out"]),
    draw: |app, layout, _, buf| view::draw(app, layout, buf),
    hit,
};

/// What the screen remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What is drawn.
    pub measure: Measure,
    /// How groups are marked.
    pub marks: Marks,
    /// Which map is wanted, and how large.
    pub wish: Wish,
}

/// What is drawn of two layers' sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// |A∩B| / k.
    #[default]
    Overlap,
    /// |A∩B| / |A∪B|.
    Jaccard,
    /// (overlap − chance) / (1 − chance).
    AboveChance,
}

impl Measure {
    /// Returns the matrix from which it is drawn.
    pub fn metric(self) -> Metric {
        if self == Self::Jaccard { Metric::Jaccard } else { Metric::Overlap }
    }

    /// Returns the name, with the formula where it is short.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Jaccard => "Jaccard",
            Self::AboveChance => "above chance",
        }
    }

    /// Returns the next measure.
    pub fn next(self) -> Self {
        match self {
            Self::Overlap => Self::Jaccard,
            Self::Jaccard => Self::AboveChance,
            Self::AboveChance => Self::Overlap,
        }
    }
}

/// How groups are marked on the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Everything outside the groups steps back.
    #[default]
    Spotlight,
    /// Only the margin shows them.
    Brackets,
    /// Not at all.
    Off,
}

/// Finds a letter of the strip, or a cell of a map.
fn hit(app: &App, layout: &Layout, at: Position) -> Option<Hit> {
    let axis = layout.axis?;
    let total = app.pattern().map_or(0, Pattern::len);
    let letters = [axis.strip, axis.ruler, axis.coverage];
    let column = |area: Rect| strip::window(app, layout).first + ((at.x - area.x) / axis.cell.max(1)) as usize;
    if let Some(area) = letters.into_iter().find(|a| a.contains(at)) {
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
