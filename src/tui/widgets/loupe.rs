//! The neighbourhood of the cursor in numbers.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::heatmap::shade;
use super::{Window, write};
use crate::tui::app::App;
use crate::tui::format::hundredths;
use crate::tui::theme::Role;

/// Layers shown in each direction.
const SIDE: usize = 5;
/// Columns per layer.
const WIDTH: usize = 4;

/// Columns that the loupe needs.
pub const COLUMNS: u16 = ((SIDE + 1) * WIDTH) as u16 + 1;

/// Draws the loupe: a row of layer numbers, then five layers below each other.
pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(pattern) = app.pattern() else { return };
    let theme = app.theme;
    let rows = Window::around(app.cursor.row, SIDE, pattern.len());
    let columns = Window::around(app.cursor.column, SIDE, pattern.len());
    let mut header = vec![(" ".repeat(WIDTH), theme.role(Role::Dim))];
    for column in columns.first..columns.first + columns.count {
        let role = if column == app.cursor.column { Role::Text } else { Role::Dim };
        header.push((format!("{column:>3} "), theme.role(role)));
    }
    write(buf, area, 0, &header);
    for (y, row) in (rows.first..rows.first + rows.count).enumerate() {
        let role = if row == app.cursor.row { Role::Text } else { Role::Dim };
        let mut line = vec![(format!("{row:>3} "), theme.role(role))];
        for column in columns.first..columns.first + columns.count {
            let shade = shade(app, row, column);
            let plain = crate::tui::theme::Shade { faded: false, crossed: false, ..shade };
            line.push(match shade.value {
                Some(value) => (format!("{:>3} ", hundredths(value)), theme.on_shade(plain)),
                None => ("╱╱╱ ".to_owned(), theme.role(Role::Border)),
            });
        }
        write(buf, area, y as u16 + 1, &line);
    }
}
