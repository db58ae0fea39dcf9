//! Why a figure cannot be drawn.

/// Why a figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The session does not hold what the figure shows.
    #[error("there is nothing to draw for '{figure}': {reason}")]
    Empty {
        /// The figure.
        figure: &'static str,
        /// What is missing.
        reason: &'static str,
    },
    /// The embedded font lacks a letter of a figure's text.
    #[error("the font of figures has no '{letter}' (U+{:04X})", u32::from(*letter))]
    Letter {
        /// The letter.
        letter: char,
    },
    /// A picture of no or too many pixels.
    #[error("a picture of {width} × {height} pixels cannot be made")]
    Pixels {
        /// Pixels from left to right.
        width: f64,
        /// Pixels from top to bottom.
        height: f64,
    },
}

impl ReportError {
    /// Returns what to do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Empty { figure: "overlap" | "scatter", .. } => Some("name a recording of the model: --trace FILE"),
            Self::Letter { .. } => Some("write the figure as .svg, which other programs draw in fonts of their own"),
            Self::Pixels { .. } => Some("a side has 1 to 20,000 pixels: choose --width and --dpi so"),
            Self::Empty { .. } => Some("measure more patterns in the dashboard, and save the session"),
        }
    }
}
