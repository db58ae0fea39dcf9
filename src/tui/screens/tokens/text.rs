//! Text as tokens, marked by which of two layers select them, broken into lines.

use std::fmt::Write;

use ratatui::style::Style;
use ratatui::text::Span;

use super::{Chosen, PairSets};
use crate::tui::app::App;
use crate::tui::color::Depth;
use crate::tui::theme::{Role, Theme};

/// Tokens before and after a key in which the two layers differ.
const NEIGHBOURS: usize = 3;

/// One token as it is drawn.
struct Piece {
    text: String,
    style: Style,
    /// Whether the line ends behind it.
    ends_line: bool,
}

/// Returns the style in which keys of a kind are drawn.
pub fn style(theme: Theme, chosen: Chosen) -> Style {
    theme.role(match chosen {
        Chosen::Neither => Role::Dim,
        Chosen::OnlyA => Role::Accent,
        Chosen::OnlyB => Role::Second,
        Chosen::Both => Role::Good,
    })
}

/// Returns the brackets that tell kinds of keys apart, which colours alone do only where there are some.
pub fn brackets(theme: Theme, chosen: Chosen) -> (&'static str, &'static str) {
    match chosen {
        _ if theme.depth != Depth::None => ("", ""),
        Chosen::Neither => ("", ""),
        Chosen::OnlyA => ("<", ">"),
        Chosen::OnlyB => ("(", ")"),
        Chosen::Both => ("[", "]"),
    }
}

/// Returns `rows` lines of the text: those that end with the query, or `back` lines before them as far as there are any.
pub fn lines(app: &App, sets: &PairSets, width: usize, rows: usize, back: usize) -> Vec<Vec<(String, Style)>> {
    let query = sets.query.position as usize;
    // A line holds at most as many tokens as columns, so these are enough whatever they are.
    let enough = (rows + back) * width + 1;
    let positions: Vec<usize> = if app.screens.tokens.only_differences {
        around(&sets.differences(), query)
    } else {
        (query.saturating_sub(enough)..=query).collect()
    };
    let positions = &positions[positions.len().saturating_sub(enough)..];
    let mut pieces = Vec::with_capacity(positions.len());
    for (at, &position) in positions.iter().enumerate() {
        if at > 0 && positions[at - 1] + 1 != position {
            pieces.push(Piece { text: " … ".into(), style: app.theme.role(Role::Border), ends_line: false });
        }
        pieces.extend(token(app, sets, position));
    }
    let mut lines = broken(pieces, width);
    lines.truncate(lines.len().saturating_sub(back).max(rows.min(lines.len())));
    lines.split_off(lines.len().saturating_sub(rows))
}

/// Returns the positions near any of `centres`, and that of the query.
fn around(centres: &[usize], query: usize) -> Vec<usize> {
    let mut all: Vec<usize> = Vec::new();
    for &centre in centres.iter().chain([&query]) {
        let from = centre.saturating_sub(NEIGHBOURS).max(all.last().map_or(0, |&last| last + 1));
        all.extend(from..=(centre + NEIGHBOURS).min(query));
    }
    all
}

/// Returns what is drawn for one token: a piece for every line of the text that it has a part in.
fn token(app: &App, sets: &PairSets, position: usize) -> Vec<Piece> {
    let raw = app.query_ids().get(position).map(|&id| app.token_text(id)).unwrap_or_default();
    let chosen = sets.chosen(position);
    let at_query = position == sets.query.position as usize;
    let style = if at_query { app.theme.role(Role::Cursor) } else { style(app.theme, chosen) };
    // Spaces before a word stay outside the brackets; a lone space is drawn only where it is marked.
    let word = raw.trim_start_matches(' ');
    let space = " ".repeat(raw.len() - word.len());
    let (open, close) = if at_query { ("▶", "") } else { brackets(app.theme, chosen) };
    let lone = word.is_empty() && (at_query || chosen != Chosen::Neither);
    let text = format!("{space}{open}{}{close}", if lone { "␣" } else { word });
    let part = |line: &str| Piece { text: visible(line), style, ends_line: line.ends_with('\n') };
    text.split_inclusive('\n').map(part).collect()
}

/// Returns a text with line breaks and control characters made visible.
fn visible(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push('↵'),
            '\t' => out.push('→'),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// Breaks pieces into lines; a piece that is longer than a line is cut.
fn broken(pieces: Vec<Piece>, width: usize) -> Vec<Vec<(String, Style)>> {
    let mut lines = vec![Vec::new()];
    // Spaces are dropped where the text was broken for want of room, and kept where it has a line break.
    let (mut used, mut wrapped) = (0, true);
    for Piece { text, style, ends_line } in pieces {
        if used > 0 && used + Span::raw(text.as_str()).width() > width {
            lines.push(Vec::new());
            (used, wrapped) = (0, true);
        }
        let text = if used == 0 && wrapped { text.trim_start_matches(' ').to_owned() } else { text };
        used += Span::raw(text.as_str()).width();
        lines.last_mut().expect("there is a line from the start").push((text, style));
        if ends_line {
            lines.push(Vec::new());
            (used, wrapped) = (0, false);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, ends_line: bool) -> Piece {
        Piece { text: text.into(), style: Style::default(), ends_line }
    }

    #[test]
    fn lines_break_between_tokens_and_after_line_breaks() {
        let pieces = [piece("one", false), piece(" two", false), piece(" three", true), piece("  日本", false)];
        let text: Vec<String> =
            broken(pieces.into(), 8).iter().map(|l| l.iter().map(|(t, _)| t.as_str()).collect()).collect();
        assert_eq!(text, ["one two", "three", "  日本"]);
    }

    #[test]
    fn neighbours_of_differences_are_shown_once() {
        assert_eq!(around(&[2, 5, 20], 21), [0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21]);
        assert_eq!(around(&[], 2), [0, 1, 2]);
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(visible("a\n\tb\u{7}"), "a↵→b\\x07");
    }
}
