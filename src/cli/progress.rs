//! Progress on a terminal's stderr, and Ctrl-C.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::CliError;
use super::output::OutputArgs;
use crate::engine::{Cancel, Generation};

/// How long an interrupted command may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

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
            eprint!("\r\x1b[2K{what} {:.0} %", share * 100.0);
            let _ = std::io::stderr().flush();
        }
    }
}

impl Progress {
    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown && self.last.take().is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Returns a token that Ctrl-C makes stale; work that does not heed it is ended after two seconds.
///
/// # Errors
/// When the system refuses the signal handler.
pub fn cancel_on_interrupt() -> Result<Cancel, CliError> {
    let generation = Generation::default();
    let cancel = generation.advance();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            generation.advance();
            std::thread::sleep(PATIENCE);
            eprintln!("interrupted");
            std::process::exit(130);
        }
    });
    Ok(cancel)
}
