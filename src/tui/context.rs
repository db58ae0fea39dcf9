//! Where keys mean something.

/// Where a key means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Always, also over a list or a prompt.
    Always,
    /// On every screen, while nothing lies over it.
    Screen,
    /// On the Overlap screen.
    Overlap,
    /// On the Tokens screen.
    Tokens,
    /// On the History screen.
    History,
    /// On the Search screen.
    Search,
    /// On the Log screen.
    Log,
    /// On the Engines screen.
    Engines,
    /// On the Train screen.
    Train,
    /// After `e`.
    Export,
    /// In lists and prompts.
    Overlay,
}

impl Context {
    /// Every context, in the order in which help and README show them.
    pub const ALL: [Self; 11] = [
        Self::Overlap,
        Self::Tokens,
        Self::History,
        Self::Search,
        Self::Log,
        Self::Engines,
        Self::Train,
        Self::Screen,
        Self::Export,
        Self::Overlay,
        Self::Always,
    ];

    /// Returns the heading under which help shows the keys.
    pub fn title(self) -> &'static str {
        match self {
            Self::Always => "Everywhere",
            Self::Screen => "Every screen",
            Self::Overlap => "Overlap screen",
            Self::Tokens => "Tokens screen",
            Self::History => "History screen",
            Self::Search => "Search screen",
            Self::Log => "Log screen",
            Self::Engines => "Engines screen",
            Self::Train => "Train screen",
            Self::Export => "Export (after e)",
            Self::Overlay => "Lists and prompts",
        }
    }
}
