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
}

impl ReportError {
    /// Returns what to do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Empty { figure: "overlap" | "scatter", .. } => Some("name a recording of the model: --trace FILE"),
            Self::Empty { .. } => Some("measure more patterns in the dashboard, and save the session"),
        }
    }
}
