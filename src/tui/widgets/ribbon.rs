//! The ribbon: every layer against those shortly before it, all that sharing can use.

use ratatui::buffer::Buffer;

use super::heatmap::shade;
use super::strip;
use crate::domain::Pattern;
use crate::tui::app::App;
use crate::tui::layout::Layout;
use crate::tui::theme::Shade;

/// Draws the ribbon: columns are layers, half rows are distances from 1 downwards.
pub fn draw(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some((area, axis)) = layout.map.and_then(|m| m.ribbon).zip(layout.axis) else { return };
    let total = app.pattern().map_or(0, Pattern::len);
    if app.matrix(app.screens.overlap.measure.metric()).is_none_or(|m| m.layers != total) {
        if layout.map.is_some_and(|m| m.matrix.is_none()) {
            super::status::waiting(app, area, buf);
        }
        return;
    }
    let seen = strip::window(app, layout);
    for position in area.intersection(buf.area).positions() {
        let layer = seen.first + ((position.x - area.x) / axis.cell) as usize;
        let distance = 2 * (position.y - area.y) as usize + 1;
        let cell = &mut buf[position];
        match [distance, distance + 1].map(|d| layer.checked_sub(d).map(|before| at(app, layer, before))) {
            [None, _] => {}
            [Some(a), Some(b)] if a.value.is_none() && b.value.is_none() && !a.cursor && !b.cursor => {
                cell.set_char('╱').set_style(app.theme.role(crate::tui::theme::Role::Border));
            }
            [Some(a), b] => app.theme.paint_pair(cell, a, b.unwrap_or(Shade::of(None))),
        }
    }
}

fn at(app: &App, layer: usize, before: usize) -> Shade {
    Shade { crossed: layer == app.cursor.row, ..shade(app, layer, before) }
}
