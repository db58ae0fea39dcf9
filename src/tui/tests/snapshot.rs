//! A screen as text that a reviewer can read: the glyphs, then what colours lie before and behind them.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::tui::color::Rgb;
use crate::tui::theme::{Role, Theme};

fn grid(buffer: &Buffer, glyph: impl Fn(&Cell) -> String) -> String {
    let area = buffer.area;
    (0..area.height)
        .map(|y| (0..area.width).map(|x| glyph(&buffer[(x, y)])).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

/// Returns the characters alone.
pub fn glyphs(buffer: &Buffer) -> String {
    grid(buffer, |cell| cell.symbol().to_owned())
}

/// Returns glyphs, foreground, background and weight, one grid each; grids without content are left out.
///
/// A role's colour is a letter (d dim, a accent, g good, w warn, b bad, f Full, s second, e border, h header), a data colour a
/// digit of lightness, 0 to 9; weights are b bold, d dim, r reversed, u underlined bold.
pub fn dump(buffer: &Buffer, theme: Theme) -> String {
    let mut text = glyphs(buffer);
    let color = |color: Color| match color {
        Color::Reset => " ".to_owned(),
        Color::Rgb(r, g, b) => name(Rgb(r, g, b), theme),
        _ => "?".to_owned(),
    };
    let weight = |cell: &Cell| {
        let m = cell.modifier;
        let letter = match () {
            () if m.contains(Modifier::UNDERLINED) => 'u',
            () if m.contains(Modifier::REVERSED) => 'r',
            () if m.contains(Modifier::BOLD) => 'b',
            () if m.contains(Modifier::DIM) => 'd',
            () => ' ',
        };
        letter.to_string()
    };
    let grids = [
        ("foreground", grid(buffer, |cell| color(cell.fg))),
        ("background", grid(buffer, |cell| color(cell.bg))),
        ("weight", grid(buffer, weight)),
    ];
    for (title, grid) in grids.iter().filter(|(_, g)| !g.trim().is_empty()) {
        let _ = write!(text, "--- {title}\n{grid}");
    }
    text
}

fn name(color: Rgb, theme: Theme) -> String {
    let roles = [
        ('d', Role::Dim),
        ('a', Role::Accent),
        ('g', Role::Good),
        ('w', Role::Warn),
        ('b', Role::Bad),
        ('f', Role::Full),
        ('s', Role::Second),
        ('e', Role::Border),
        ('h', Role::Header),
    ];
    if color == theme.bar() {
        return "_".into();
    }
    let role = roles.iter().find(|(_, role)| theme.rgb(*role) == color).map(|(letter, _)| *letter);
    role.map_or_else(|| format!("{:.0}", color.luminance().sqrt() * 9.0), |letter| letter.to_string())
}
