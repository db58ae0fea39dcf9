//! The strip: one column of numbers, letter and coverage per layer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Window, write};
use crate::domain::{Pattern, Role as LayerRole};
use crate::tui::app::App;
use crate::tui::color::Depth;
use crate::tui::layout::{Axis, Layout};
use crate::tui::theme::{Role, Shade};

/// Below this share a Shared layer's coverage is marked.
pub const WEAK: f64 = 0.55;

/// Returns which layers the strip shows.
pub fn window(app: &App, layout: &Layout) -> Window {
    let total = app.pattern().map_or(0, Pattern::len);
    let Some(axis) = layout.axis else { return Window { first: 0, count: 0 } };
    let count = (axis.strip.width / axis.cell.max(1)) as usize;
    Window::around(marked(app, layout), count, total)
}

/// Returns the layer whose column the crosshair passes through: in the matrix that of the lender, else that of the layer
/// that needs indices.
fn marked(app: &App, layout: &Layout) -> usize {
    if layout.map.is_some_and(|m| m.matrix.is_some()) { app.cursor.column } else { app.cursor.row }
}

/// Draws ruler, letters and coverage.
pub fn draw(app: &App, layout: &Layout, buf: &mut Buffer) {
    let (Some(axis), Some(pattern)) = (layout.axis, app.pattern()) else { return };
    let theme = app.theme;
    let seen = window(app, layout);
    let margin = Rect { x: 0, width: axis.strip.x, ..axis.strip };
    let label = |area: Rect, text: &str, short: &str| {
        let text = if margin.width >= 4 { text } else { short };
        vec![(format!("{text:>width$}", width = area.width.saturating_sub(1) as usize), theme.role(Role::Dim))]
    };
    write(buf, margin, 0, &label(margin, "F/S", ""));
    numbers(app, axis, marked(app, layout), seen, buf);
    let locked = app.constraints().map(|c| c.locked_shared).unwrap_or_default();
    for at in 0..seen.count {
        let layer = seen.first + at;
        let (letter, style) = match pattern.role(layer) {
            LayerRole::Full => ("F", theme.role(Role::Full)),
            LayerRole::Shared if locked.contains(layer) => ("s", theme.role(Role::Dim)),
            LayerRole::Shared => ("S", theme.role(Role::Shared)),
        };
        let style = if layer == app.cursor.row { theme.role(Role::Cursor) } else { style };
        let area = Rect { x: axis.strip.x + at as u16 * axis.cell, width: axis.cell, ..axis.strip };
        write(buf, area, 0, &[(format!("{letter:^width$}", width = axis.cell as usize), style)]);
    }
    let row = axis.coverage;
    let (coverage, measured) = app.coverage();
    let side = Rect { x: 0, width: row.x, ..row };
    let mark = if measured { "●" } else { "≈" };
    let text = if side.width >= 4 { format!("cov{mark}") } else { mark.to_owned() };
    write(buf, side, 0, &[(text, theme.role(if measured { Role::Good } else { Role::Dim }))]);
    for at in 0..seen.count {
        let value = coverage.get(seen.first + at).copied().flatten().map(|e| e.value);
        let area = Rect { x: row.x + at as u16 * axis.cell, width: axis.cell, ..row };
        bar(app, area, value, measured, buf);
    }
}

fn bar(app: &App, area: Rect, value: Option<f64>, measured: bool, buf: &mut Buffer) {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let theme = app.theme;
    let Some(value) = value else {
        write(buf, area, 0, &[("╱".repeat(area.width as usize), theme.role(Role::Border))]);
        return;
    };
    let glyph = STEPS[((value.clamp(0.0, 1.0) * 7.0).round() as usize).min(7)];
    let weak = value < WEAK;
    let style = match (theme.depth, weak) {
        (_, true) => theme.role(Role::Bad),
        (Depth::None, false) => theme.role(if measured { Role::Text } else { Role::Dim }),
        _ => Style::default().fg(theme.color(theme.tint(Shade { faded: !measured, ..Shade::of(Some(value)) }))),
    };
    let text = if weak && theme.depth == Depth::None { "!".to_owned() } else { glyph.to_string() };
    write(buf, area, 0, &[(text.repeat(area.width as usize), style)]);
}

/// Draws the numbers of layers, and an arrow over the marked one.
fn numbers(app: &App, axis: Axis, marked: usize, seen: Window, buf: &mut Buffer) {
    let ruler = axis.ruler;
    let every = match axis.cell {
        1 => 10,
        2 => 5,
        _ => 1,
    };
    let theme = app.theme;
    for at in (0..seen.count).filter(|at| (seen.first + at).is_multiple_of(every)) {
        let text = format!("{:^width$}", seen.first + at, width = axis.cell as usize);
        let area = Rect { x: ruler.x + at as u16 * axis.cell, ..ruler };
        let area = Rect { width: ruler.right().saturating_sub(area.x), ..area };
        write(buf, area, 0, &[(text, theme.role(Role::Dim))]);
    }
    if let Some(at) = seen.place(marked) {
        let area = Rect { x: ruler.x + at as u16 * axis.cell, width: axis.cell, ..ruler };
        write(buf, area, 0, &[(format!("{:^width$}", "▾", width = axis.cell as usize), theme.role(Role::Text))]);
    }
}
