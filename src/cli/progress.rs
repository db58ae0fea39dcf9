//! Progress on a terminal's stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::output::OutputArgs;
use super::say::say_progress;

/// One line that is overwritten; nothing where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Returns a line that is shown if there is somebody to see it.
    pub fn new(output: &OutputArgs) -> Self {
        Self::of(!output.quiet())
    }

    /// Returns a line that is shown if it is wanted and there is somebody to see it.
    pub fn of(wanted: bool) -> Self {
        Self { shown: wanted && std::io::stderr().is_terminal(), last: None }
    }

    /// Shows how far something has come, at most 20 times a second.
    pub fn tell(&mut self, what: &str, share: f64) {
        let now = Instant::now();
        if self.shown && self.last.is_none_or(|last| now - last >= Duration::from_millis(50)) {
            self.last = Some(now);
            say_progress(&format!("{what} {:.0} %", share * 100.0));
        }
    }
}

impl Progress {
    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown && self.last.take().is_some() {
            say_progress("");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
