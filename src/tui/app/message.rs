//! What happened, in words.

use std::collections::VecDeque;
use std::time::Duration;

/// Messages that are remembered.
const KEPT: usize = 1000;

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

/// The messages so far, the newest last, and how far a person has scrolled back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    messages: VecDeque<Message>,
    /// Messages below the last one that is seen.
    pub back: usize,
}

impl Log {
    /// Adds a message; one that only repeats the last is not kept twice.
    pub fn push(&mut self, message: Message) {
        if self.messages.back().is_some_and(|last| last.text == message.text) {
            self.messages.pop_back();
        } else if self.back > 0 {
            // What is looked at stays where it is.
            self.back += 1;
        }
        if self.messages.len() == KEPT {
            self.messages.pop_front();
        }
        self.messages.push_back(message);
        self.back = self.back.min(self.messages.len() - 1);
    }

    /// Returns all messages, the oldest first.
    pub fn messages(&self) -> &VecDeque<Message> {
        &self.messages
    }

    /// Scrolls by so many messages, back for negative ones.
    pub fn scroll(&mut self, by: isize) {
        self.back = self.back.saturating_add_signed(-by).min(self.messages.len().saturating_sub(1));
    }
}
