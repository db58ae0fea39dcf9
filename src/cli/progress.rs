//! Progress on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::output::OutputArgs;
use super::say::{say, say_progress};

/// Time between two lines where stderr is a file.
const PAUSE: Duration = Duration::from_secs(30);

/// One line that is overwritten on a terminal; in a file a line every half a minute, none of short runs.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Returns a line that is shown if there is somebody to see it.
    pub fn new(output: &OutputArgs) -> Self {
        Self::of(!output.quiet())
    }

    /// Returns a line that is shown if it is wanted and there is somebody to see it.
    pub fn of(wanted: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { shown: wanted, terminal, last: (!terminal).then(Instant::now) }
    }

    /// Shows how far something has come, at most 20 times a second.
    pub fn tell(&mut self, what: &str, share: f64) {
        let now = Instant::now();
        let pause = if self.terminal { Duration::from_millis(50) } else { PAUSE };
        if !self.shown || self.last.is_some_and(|last| now - last < pause) {
            return;
        }
        self.last = Some(now);
        let line = format!("{what} {:.0} %", share * 100.0);
        if self.terminal { say_progress(&line) } else { say(&line) }
    }
}

impl Progress {
    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown && self.terminal && self.last.take().is_some() {
            say_progress("");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
