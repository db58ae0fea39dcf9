//! What happened, in words.

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

/// The line that tells what happened last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What is said.
    pub text: String,
    /// How it sounds.
    pub tone: Tone,
}
