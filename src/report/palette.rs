//! Colours of figures: a data map that rises in luminance, and inks that a page may turn dark.

/// A colour with 8 bits per channel.
pub(super) type Rgb = (u8, u8, u8);

/// What is drawn with; on a page each is a CSS variable, so that dark, light and print have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Letters and numbers.
    Text,
    /// Axes, labels of lesser weight.
    Dim,
    /// Grid lines.
    Grid,
    /// Data of first interest.
    Accent,
    /// Other data.
    Other,
    /// One of several lines; four colours return in turn.
    Curve(usize),
    /// A colour of the data map.
    Data(Rgb),
}

impl Ink {
    /// Returns the CSS variable and the colour on white.
    pub fn css(self) -> (&'static str, Rgb) {
        match self {
            Self::Text => ("--text", (30, 34, 42)),
            Self::Dim => ("--dim", (98, 102, 112)),
            Self::Grid => ("--grid", (222, 226, 234)),
            Self::Accent => ("--accent", (0, 92, 160)),
            Self::Other => ("--other", (205, 130, 0)),
            Self::Curve(i) => CURVES[i % CURVES.len()],
            Self::Data(rgb) => ("", rgb),
        }
    }
}

/// Variables and colours of lines, told apart by most kinds of sight (after Okabe and Ito, darkened for white).
const CURVES: [(&str, Rgb); 4] =
    [("--curve1", (196, 90, 0)), ("--curve2", (0, 130, 96)), ("--curve3", (164, 70, 124)), ("--curve4", (90, 90, 90))];

/// Returns a colour as `#rrggbb`.
pub(super) fn hex((r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Viridis at nine equal steps.
const VIRIDIS: [Rgb; 9] = [
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
];

/// Returns the colour of a value from 0 to 1; values outside take the nearest end.
pub(super) fn viridis(value: f64) -> Rgb {
    let at = value.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let low = (at as usize).min(VIRIDIS.len() - 2);
    let ((r, g, b), (r2, g2, b2)) = (VIRIDIS[low], VIRIDIS[low + 1]);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (at - low as f64)).round() as u8;
    (mix(r, r2), mix(g, g2), mix(b, b2))
}
