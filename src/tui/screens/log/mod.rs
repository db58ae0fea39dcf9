//! The Log screen: what happened so far.

mod keys;
mod view;

use std::collections::VecDeque;

use super::{Needs, ScreenSpec, nowhere};
use crate::tui::app::Message;

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "Log",
    key: "5",
    help: "Show what happened so far",
    needs: Needs::Nothing,
    actions: keys::ACTIONS,
    wheel: Some(["log-up", "log-down"]),
    draw: |app, _, body, buf| view::draw(app, body, buf),
    hit: nowhere,
};

/// Messages that are remembered.
const KEPT: usize = 1000;

/// The messages so far, the newest last, and how far a person has scrolled back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    messages: VecDeque<Message>,
    /// Messages below the last one that is seen.
    pub back: usize,
}

impl State {
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
