//! Meters and stacked bars.

use ratatui::style::Style;

use crate::domain::PhaseShare;
use crate::tui::color::{Depth, Rgb};
use crate::tui::theme::{Role, Theme};

/// Returns a meter of `width` columns, an eighth of a column fine, with its empty part.
pub fn meter(share: f64, width: usize, theme: Theme) -> Vec<(String, Style)> {
    const EIGHTHS: [char; 8] = ['░', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let (whole, rest) = (eighths / 8, eighths % 8);
    let mut full: String = std::iter::repeat_n('█', whole).collect();
    let mut used = whole;
    if rest > 0 && whole < width {
        full.push(if theme.ascii { '=' } else { EIGHTHS[rest] });
        used += 1;
    }
    let empty: String = std::iter::repeat_n(if theme.ascii { '.' } else { '░' }, width - used).collect();
    vec![(full, theme.role(Role::Text)), (empty, theme.role(Role::Border))]
}

/// The phases with their names, glyphs without colours, and colours (Okabe and Ito).
const PHASES: [(&str, char, Rgb); 5] = [
    ("idx", '█', Rgb(230, 159, 0)),
    ("topk", '▓', Rgb(213, 94, 0)),
    ("attn", '▒', Rgb(86, 180, 233)),
    ("mlp", '░', Rgb(0, 158, 115)),
    ("rest", '·', Rgb(136, 141, 152)),
];

fn parts(share: PhaseShare) -> [f64; 5] {
    [share.indexer, share.topk, share.attention, share.mlp, share.rest]
}

fn style(theme: Theme, color: Rgb, stale: bool) -> Style {
    if theme.depth == Depth::None {
        return theme.role(if stale { Role::Dim } else { Role::Text });
    }
    let color = if stale { color.toward(theme.ground(), 0.45) } else { color };
    Style::default().fg(theme.color(color))
}

/// Returns one bar of `width` columns in which each phase has its share.
pub fn breakdown(share: PhaseShare, width: usize, theme: Theme, stale: bool) -> Vec<(String, Style)> {
    let mut drawn = 0;
    let mut sum = 0.0;
    let mut pieces = Vec::new();
    for (part, (_, glyph, color)) in parts(share).iter().zip(PHASES) {
        sum += part;
        let end = ((sum * width as f64).round() as usize).min(width);
        let glyph = if theme.depth == Depth::None { glyph } else { '█' };
        pieces.push((glyph.to_string().repeat(end.saturating_sub(drawn)), style(theme, color, stale)));
        drawn = end.max(drawn);
    }
    pieces
}

/// Returns the phases' names with their shares in percent.
pub fn legend(share: PhaseShare, theme: Theme, stale: bool) -> Vec<(String, Style)> {
    let mut pieces = Vec::new();
    for (part, (name, glyph, color)) in parts(share).iter().zip(PHASES) {
        let glyph = if theme.depth == Depth::None { format!("{glyph}") } else { String::new() };
        pieces.push((format!("{glyph}{name} {:.0} ", part * 100.0), style(theme, color, stale)));
    }
    pieces.push(("%".into(), theme.role(Role::Dim)));
    pieces
}
