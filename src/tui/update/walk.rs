//! Moving the pair that is looked at.

use crate::tui::action::Action;
use crate::tui::app::{App, Cursor};
use crate::tui::layout::MapView;

/// Runs an action that moves the cursor.
pub fn run(app: &mut App, action: Action) {
    let Some(pattern) = app.pattern() else { return };
    let last = pattern.len() - 1;
    let Cursor { row, column } = app.cursor;
    let ribbon = app.layout().map.is_none_or(|m| m.view == MapView::Ribbon);
    let full = |mut layers: Box<dyn Iterator<Item = usize>>| layers.find(|&l| pattern.is_full(l)).unwrap_or(row);
    match action {
        // In the ribbon a layer keeps its distance to the one that would lend it indices.
        Action::Left if ribbon => slide(app, row.saturating_sub(1)),
        Action::Right if ribbon => slide(app, (row + 1).min(last)),
        Action::Up if ribbon => app.cursor.column = (column + 1).min(row.saturating_sub(1)),
        Action::Down if ribbon => app.cursor.column = column.saturating_sub(1),
        Action::Left => app.cursor.column = column.saturating_sub(1),
        Action::Right => app.cursor.column = (column + 1).min(last),
        Action::Up => app.cursor.row = row.saturating_sub(1),
        Action::Down => app.cursor.row = (row + 1).min(last),
        Action::PreviousLayer => app.look_at(row.saturating_sub(1)),
        Action::NextLayer => app.look_at(row + 1),
        Action::PreviousFull => app.look_at(full(Box::new((0..row).rev()))),
        Action::NextFull => app.look_at(full(Box::new(row + 1..=last))),
        Action::First => app.look_at(0),
        Action::Last => app.look_at(last),
        _ => {}
    }
}

fn slide(app: &mut App, row: usize) {
    let distance = app.cursor.row.saturating_sub(app.cursor.column).max(1);
    app.cursor = Cursor { row, column: row.saturating_sub(distance) };
}
