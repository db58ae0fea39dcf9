//! The parts of the screen; each draws into any area without leaving it.

pub mod bars;
pub mod caption;
pub mod heatmap;
pub mod lists;
pub mod loupe;
pub mod overlay;
pub mod pair;
pub mod plot;
pub mod quality;
pub mod ribbon;
pub mod status;
pub mod strip;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Widget};

use super::theme::{Role, Theme};
use crate::domain::{Pattern, Role as LayerRole};

/// A run of consecutive layers of which so many are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first one.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl Window {
    /// Returns `count` of `total` with `centre` in the middle where possible.
    pub fn around(centre: usize, count: usize, total: usize) -> Self {
        let count = count.min(total);
        Self { first: centre.saturating_sub(count / 2).min(total - count), count }
    }

    /// Returns where `layer` is seen, if it is.
    pub fn place(self, layer: usize) -> Option<usize> {
        layer.checked_sub(self.first).filter(|at| *at < self.count)
    }
}

/// Writes styled pieces into one row of `area`, cut at its end.
pub fn write(buf: &mut Buffer, area: Rect, row: u16, pieces: &[(String, Style)]) {
    let area = area.intersection(buf.area);
    if row < area.height {
        let line = Line::from(pieces.iter().map(|(t, s)| Span::styled(t.as_str(), *s)).collect::<Vec<_>>());
        buf.set_line(area.x, area.y + row, &line, area.width);
    }
}

/// Writes pieces so that they end at the right edge of a row, if there is room for all of them.
pub fn write_right(buf: &mut Buffer, area: Rect, row: u16, pieces: &[(String, Style)]) {
    let width: usize = pieces.iter().map(|(t, _)| t.chars().count()).sum();
    if let Some(x) = area.width.checked_sub(width as u16) {
        write(buf, Rect { x: area.x + x, width: width as u16, ..area }, row, pieces);
    }
}

/// Returns the letters of a pattern, Full ones as on the strip.
pub fn letters(pattern: Pattern, theme: Theme) -> Vec<(String, Style)> {
    let style = |role| theme.role(if role == LayerRole::Full { Role::Full } else { Role::Shared });
    pattern.roles().map(|role| (role.letter().to_string(), style(role))).collect()
}

/// Draws a frame with a heading and returns what it encloses.
pub fn frame(buf: &mut Buffer, area: Rect, title: &str, theme: Theme) -> Rect {
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.role(Role::Border))
        .title(Span::styled(format!(" {title} "), theme.role(Role::Text)));
    let inner = block.inner(area);
    block.render(area.intersection(buf.area), buf);
    // Narrow panels need every column.
    if area.width < 42 { inner } else { Rect { x: inner.x + 1, width: inner.width - 2, ..inner } }
}

/// Cuts text into lines at spaces.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|l| l.is_empty() || l.chars().count() + 1 + word.chars().count() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Lets go of everything drawn in `area`.
pub fn clear(buf: &mut Buffer, area: Rect) {
    for position in area.intersection(buf.area).positions() {
        buf[position].reset();
    }
}
