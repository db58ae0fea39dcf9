//! Training progress.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::CliError;
use super::say::{say, say_progress};
use crate::shown::shown_lines;

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Steps over which the speed is averaged.
const WINDOW: usize = 20;

/// Tells how training goes: a line that overwrites itself on a terminal, plain lines in the log.
pub(super) struct Progress {
    log: Option<File>,
    terminal: bool,
    recent: VecDeque<Instant>,
    last_line: Option<Instant>,
}

impl Progress {
    /// Opens the log, if there is to be one; `quiet` leaves the terminal alone.
    pub(super) fn new(log: Option<&std::path::Path>, quiet: bool) -> Result<Self, CliError> {
        let open =
            |path| File::options().create(true).append(true).open(path).map_err(|e| CliError::file("the log", path, e));
        let log = log.map(open).transpose()?;
        let terminal = std::io::stderr().is_terminal() && !quiet;
        Ok(Self { log, terminal, recent: VecDeque::new(), last_line: None })
    }

    /// Shows a step with the time left; at times, and where `last` is set, the log gets the line and `more`.
    pub(super) fn step(&mut self, line: &str, steps_left: u64, last: bool, more: impl FnOnce() -> String) {
        let now = Instant::now();
        self.recent.push_back(now);
        if self.recent.len() > WINDOW + 1 {
            self.recent.pop_front();
        }
        let steps = self.recent.len() - 1;
        let seconds = self.recent.front().map_or(0.0, |first| (now - *first).as_secs_f64());
        let eta = (steps > 0).then(|| (seconds / steps as f64 * steps_left as f64) as u64);
        let eta = eta.map(|eta| format!(" · ETA {}:{:02}:{:02}", eta / 3600, eta / 60 % 60, eta % 60));
        let line = line.to_owned() + &eta.unwrap_or_default();
        if self.terminal {
            say_progress(&line);
        }
        if self.last_line.is_none_or(|last| now - last >= LINE_EVERY) || last {
            self.last_line = Some(now);
            self.plain(&(line + &more()));
        }
    }

    /// Prints a line of its own everywhere.
    pub(super) fn line(&mut self, text: &str) {
        if self.terminal {
            say(text);
        }
        self.plain(text);
    }

    /// Writes a line to the log, which is not worth ending a training for.
    fn plain(&mut self, text: &str) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{}", shown_lines(text));
        }
    }
}
