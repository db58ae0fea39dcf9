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

/// The phases with their names, glyphs without colours, and colours, which no role has.
const PHASES: [(&str, char, Rgb); 5] = [
    ("idx", '█', Rgb(130, 120, 225)),
    ("topk", '▓', Rgb(190, 180, 245)),
    ("attn", '▒', Rgb(64, 160, 170)),
    ("mlp", '░', Rgb(176, 146, 116)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{Options, ThemeChoice};

    /// A colour means one thing: a Full layer, B, a warning, an error, a phase.
    #[test]
    fn roles_and_phases_have_colours_of_their_own() {
        for background in [ThemeChoice::Dark, ThemeChoice::Light] {
            let theme = Theme::new(Options { theme: background, ..Options::default() }, Depth::True);
            let roles = [Role::Accent, Role::Good, Role::Warn, Role::Bad, Role::Full, Role::Second];
            let phases = PHASES[..4].iter().map(|(name, _, color)| ((*name).to_owned(), *color));
            let all: Vec<(String, Rgb)> =
                roles.iter().map(|role| (format!("{role:?}"), theme.rgb(*role))).chain(phases).collect();
            for (i, (a, x)) in all.iter().enumerate() {
                for (b, y) in &all[..i] {
                    let apart: u32 =
                        [x.0.abs_diff(y.0), x.1.abs_diff(y.1), x.2.abs_diff(y.2)].map(u32::from).iter().sum();
                    assert!(apart >= 60, "{a} and {b} look alike on {background:?}: {apart}");
                }
            }
        }
    }
}
