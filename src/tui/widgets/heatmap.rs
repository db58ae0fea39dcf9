//! The matrix: rows need indices, columns would lend them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Window, strip, write};
use crate::domain::Pattern;
use crate::tui::app::App;
use crate::tui::color::Depth;
use crate::tui::format::hundredths;
use crate::tui::layout::{Cell, Layout};
use crate::tui::screens::overlap::Marks;
use crate::tui::theme::{Role, Shade};

/// Returns how a pair of layers looks.
pub fn shade(app: &App, row: usize, column: usize) -> Shade {
    let cursor = app.cursor;
    let apart = app.pattern().is_some_and(|p| p.source(row) != p.source(column));
    Shade {
        value: app.similarity(row, column).map(|e| e.value),
        faded: app.screens.overlap.marks == Marks::Spotlight && apart,
        crossed: row == cursor.row || column == cursor.column,
        cursor: row == cursor.row && column == cursor.column,
    }
}

/// Draws the matrix with its margin.
pub fn draw(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some((map, area)) = layout.map.and_then(|m| Some((m, m.matrix?))) else { return };
    let total = app.pattern().map_or(0, Pattern::len);
    if app.matrix(app.screens.overlap.measure.metric()).is_none_or(|m| m.layers != total) {
        super::status::waiting(app, area, buf);
        return;
    }
    let (rows, columns) = windows(app, layout, map.cell, area);
    match map.cell {
        Cell::Block { w, h } => blocks(app, area, rows, columns, (w, h), buf),
        Cell::Half => halves(app, area, rows, columns, 1, buf),
        Cell::Pooled(k) => halves(app, area, rows, columns, k as usize, buf),
    }
    margin(app, area, rows, map.cell, buf);
}

/// Returns which layers are seen: rows, then columns.
pub fn windows(app: &App, layout: &Layout, cell: Cell, area: Rect) -> (Window, Window) {
    let total = app.pattern().map_or(0, Pattern::len);
    let (_, down) = cell.layers(area.width, area.height);
    let rows = Window::around(app.cursor.row, down, total);
    let rows = match cell {
        Cell::Pooled(k) => Window { first: rows.first / k as usize * k as usize, ..rows },
        _ => rows,
    };
    (rows, strip::window(app, layout))
}

/// One column for each layer, half a row for each `k` layers.
fn halves(app: &App, area: Rect, rows: Window, columns: Window, k: usize, buf: &mut Buffer) {
    let total = app.pattern().map_or(0, Pattern::len);
    for position in area.intersection(buf.area).positions() {
        let column = columns.first + (position.x - area.x) as usize;
        let upper = rows.first + 2 * (position.y - area.y) as usize * k;
        let cell = &mut buf[position];
        let shades = [upper, upper + k].map(|row| (row < total && column < total).then(|| pool(app, row, column, k)));
        match shades {
            [None, _] => {}
            [Some(a), Some(b)] if a.value.is_none() && b.value.is_none() && !a.cursor && !b.cursor => {
                cell.set_char('╱').set_style(app.theme.role(Role::Border));
            }
            [Some(a), b] => app.theme.paint_pair(cell, a, b.unwrap_or(Shade::of(None))),
        }
    }
}

/// Returns the mean of `k` rows of a column.
fn pool(app: &App, row: usize, column: usize, k: usize) -> Shade {
    if k == 1 {
        return shade(app, row, column);
    }
    let total = app.pattern().map_or(0, Pattern::len);
    let shades: Vec<Shade> = (row..(row + k).min(total)).map(|row| shade(app, row, column)).collect();
    let values: Vec<f64> = shades.iter().filter_map(|s| s.value).collect();
    Shade {
        value: (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
        faded: shades.iter().all(|s| s.faded),
        crossed: shades.iter().any(|s| s.crossed),
        cursor: shades.iter().any(|s| s.cursor),
    }
}

/// So many columns and rows for each layer, with its value ×100 where there is room.
fn blocks(app: &App, area: Rect, rows: Window, columns: Window, (w, h): (u16, u16), buf: &mut Buffer) {
    let theme = app.theme;
    for r in 0..rows.count {
        for c in 0..columns.count {
            let shade = shade(app, rows.first + r, columns.first + c);
            let block = Rect::new(area.x + c as u16 * w, area.y + r as u16 * h, w, h).intersection(area);
            if shade.value.is_none() && !shade.cursor {
                for y in 0..block.height {
                    write(buf, block, y, &[("╱".repeat(w as usize), theme.role(Role::Border))]);
                }
                continue;
            }
            let numbers = w >= 3;
            for position in block.intersection(buf.area).positions() {
                let cell = &mut buf[position];
                if numbers && theme.depth <= Depth::Ansi {
                    cell.set_style(theme.on_shade(shade));
                } else {
                    theme.paint(cell, shade);
                }
            }
            if let (true, Some(value)) = (numbers, shade.value) {
                let number = hundredths(value);
                // Three digits would touch their neighbours in three columns; the loupe has all of them.
                let number = if number.len() >= w as usize { "==".to_owned() } else { number };
                let text = format!("{number:>width$}", width = (w as usize).div_ceil(2) + 1);
                write(buf, block, (h - 1) / 2, &[(text, theme.on_shade(shade))]);
            }
        }
    }
}

/// Layer numbers, the pointer, and a mark at every Full layer.
fn margin(app: &App, area: Rect, rows: Window, cell: Cell, buf: &mut Buffer) {
    let Some(pattern) = app.pattern() else { return };
    let theme = app.theme;
    let (per_row, height, every) = match cell {
        Cell::Block { h, .. } => (1, h, 1),
        Cell::Half => (2, 1, 10),
        Cell::Pooled(k) => (2 * k as usize, 1, 10),
    };
    for (y, first) in (rows.first..rows.first + rows.count).step_by(per_row).enumerate() {
        let y = area.y + y as u16 * height;
        let line = Rect::new(0, y, area.x, height).intersection(buf.area);
        let layers = first..(first + per_row).min(pattern.len());
        let pointed = layers.contains(&app.cursor.row);
        let label =
            if pointed { Some(app.cursor.row) } else { layers.clone().find(|&l| app.layer(l).is_multiple_of(every)) };
        let label = label.map_or_else(String::new, |l| app.layer(l).to_string());
        let role = theme.role(if pointed { Role::Text } else { Role::Dim });
        if area.x < 5 {
            // There is no room for pointer and mark: the label itself stands out.
            let role = if pointed { theme.role(Role::Cursor) } else { role };
            write(buf, line, (height - 1) / 2, &[(format!("{label:>width$}", width = area.x as usize), role)]);
            continue;
        }
        write(buf, line, (height - 1) / 2, &[(format!("{label:>3}{}", if pointed { "▸" } else { " " }), role)]);
        let half = (first + per_row / 2).min(pattern.len());
        let full = |mut l: std::ops::Range<usize>| l.any(|l| pattern.is_full(l));
        let mark = match (full(first..half.max(first + 1)), per_row > 1 && full(half..layers.end)) {
            (true, true) => "█",
            (true, false) => {
                if per_row > 1 {
                    "▀"
                } else {
                    "█"
                }
            }
            (false, true) => "▄",
            (false, false) if app.screens.overlap.marks == Marks::Brackets => "│",
            (false, false) => " ",
        };
        let style = if mark == "│" || theme.depth == Depth::None {
            theme.role(Role::Border)
        } else {
            ratatui::style::Style::default().fg(theme.color(theme.rgb(Role::Full)))
        };
        let column = Rect { x: area.x - 1, width: 1, ..line };
        for row in 0..height.min(column.height) {
            write(buf, column, row, &[(mark.to_owned(), style)]);
        }
    }
}
