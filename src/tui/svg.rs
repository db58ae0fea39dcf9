//! A drawn screen as a picture: the very cells, in the very colours.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::color::{Rgb, indexed_rgb};
use super::theme::{Role, Theme};

/// Width of a cell.
const W: u16 = 9;
/// Height of a cell.
const H: u16 = 18;
/// Blocks of one to eight eighths of the height.
const EIGHTHS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Returns `buffer` as an SVG picture on the background that `theme` is made for.
pub fn svg(buffer: &Buffer, theme: Theme) -> String {
    let area = buffer.area;
    let (width, height) = (area.width * W, area.height * H);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"15\" shape-rendering=\"crispEdges\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n",
        hex(theme.ground())
    );
    for y in 0..area.height {
        for x in 0..area.width {
            let cell = &buffer[(area.x + x, area.y + y)];
            draw(&mut out, cell, (x * W, y * H), theme);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, cell: &Cell, (x, y): (u16, u16), theme: Theme) {
    let reversed = cell.modifier.contains(Modifier::REVERSED);
    let text = rgb(cell.fg).unwrap_or(theme.rgb(Role::Text));
    let ground = rgb(cell.bg);
    let (mut ink, paper) = if reversed { (ground.unwrap_or(theme.ground()), Some(text)) } else { (text, ground) };
    if cell.modifier.contains(Modifier::DIM) {
        ink = ink.toward(theme.ground(), 0.4);
    }
    let mut rect = |y: u16, height: u16, color: Rgb| {
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{W}\" height=\"{height}\" fill=\"{}\"/>", hex(color));
    };
    if let Some(paper) = paper {
        rect(y, H, paper);
    }
    // Blocks are drawn as rectangles, so that no font leaves gaps between them.
    match cell.symbol() {
        " " | "" => {}
        "▀" => rect(y, H / 2, ink),
        block if EIGHTHS.contains(&block) => {
            let eighths = EIGHTHS.iter().position(|b| *b == block).map_or(8, |i| i as u16 + 1);
            let height = (H * eighths).div_ceil(8);
            rect(y + H - height, height, ink);
        }
        symbol => {
            let escaped = symbol.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let weight = if cell.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
            let _ = writeln!(out, "<text x=\"{x}\" y=\"{}\" fill=\"{}\"{weight}>{escaped}</text>", y + 14, hex(ink));
        }
    }
}

fn hex(color: Rgb) -> String {
    format!("#{:02x}{:02x}{:02x}", color.0, color.1, color.2)
}

fn rgb(color: Color) -> Option<Rgb> {
    match color {
        Color::Rgb(r, g, b) => Some(Rgb(r, g, b)),
        Color::Indexed(index) if index >= 16 => Some(indexed_rgb(index)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::Options;
    use crate::tui::color::Depth;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn cells_become_rectangles_and_text() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 2, 1));
        buffer.set_string(0, 0, "▀", Style::default().fg(Color::Rgb(255, 0, 0)).bg(Color::Rgb(0, 0, 255)));
        buffer.set_string(1, 0, "<", Style::default());
        let picture = svg(&buffer, Theme::new(Options::default(), Depth::True));
        assert!(picture.contains("<rect x=\"0\" y=\"0\" width=\"9\" height=\"9\" fill=\"#ff0000\"/>"), "{picture}");
        assert!(picture.contains("fill=\"#0000ff\"") && picture.contains("&lt;</text>"), "{picture}");
    }
}
