//! What happened, in words.

use std::time::Duration;

/// How a message sounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Something was done.
    #[default]
    Info,
    /// Something deserves a look.
    Warn,
    /// Something went wrong.
    Bad,
}

/// Something that was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What is said.
    pub text: String,
    /// How it sounds.
    pub tone: Tone,
    /// When, since the start of the dashboard.
    pub at: Duration,
}
