//! Ctrl-C, SIGTERM and SIGHUP: every command answers all three in the same way, with exit code 130.
//!
//! What is half written is removed. A command that has something to finish says so by [`cancel_on_interrupt`] or
//! [`stop_on_interrupt`]; any other ends at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::say::say;
use crate::atomic;
use crate::engine::{Cancel, Generation};

/// How long a command that was told to end may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a signal does.
enum Answer {
    /// Ends the program.
    End,
    /// Makes work stale, and ends the program where that is not heeded.
    Cancel(Generation),
    /// Sets a flag that work heeds once it has saved what it has; the second signal ends the program.
    Stop(Arc<AtomicBool>),
    /// Nothing: the dashboard has handlers of its own.
    Nothing,
}

static ANSWER: Mutex<Answer> = Mutex::new(Answer::End);

fn answer(by: Answer) {
    *ANSWER.lock().unwrap_or_else(PoisonError::into_inner) = by;
}

/// Begins to listen. Where that is impossible, signals end the program as the system has it.
pub(super) fn listen() {
    // A full disk by another name: the write fails, as with a full disk, instead of ending the program.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    let (ready, started) = sync_channel::<io::Result<()>>(1);
    let spawned = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let hangs_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        match Signals::new([SIGINT, SIGTERM].into_iter().chain(hangs_up)) {
            Err(error) => drop(ready.send(Err(error))),
            Ok(mut signals) => {
                let _ = ready.send(Ok(()));
                signals.forever().for_each(|_| heed());
            }
        }
    });
    if spawned.is_ok() {
        let _ = started.recv();
    }
}

fn heed() {
    let answer = ANSWER.lock().unwrap_or_else(PoisonError::into_inner);
    match &*answer {
        Answer::Nothing => {}
        Answer::End => end(),
        Answer::Cancel(generation) => {
            generation.advance();
            std::thread::sleep(PATIENCE);
            end();
        }
        Answer::Stop(stop) if stop.swap(true, Ordering::Relaxed) => end(),
        Answer::Stop(_) => say("stopping after this step, to save the training; a second Ctrl-C ends it at once"),
    }
}

fn end() -> ! {
    atomic::discard_all();
    say("interrupted");
    std::process::exit(130)
}

/// Returns whether the program was started with a signal ignored, as `nohup` does.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action, `sigaction` only fills the old one, which is plain data.
    #[allow(unsafe_code)]
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn is_ignored(_: i32) -> bool {
    false
}

/// Returns a token that a signal makes stale; work that does not heed it within two seconds is ended.
pub(super) fn cancel_on_interrupt() -> Cancel {
    let generation = Generation::default();
    let cancel = generation.advance();
    answer(Answer::Cancel(generation));
    cancel
}

/// Returns a flag that a signal sets, for work that saves what it has before it ends; the second signal ends it at once.
pub(super) fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    answer(Answer::Stop(Arc::clone(&stop)));
    stop
}

/// Leaves signals to the dashboard.
pub(super) fn leave_to_dashboard() {
    answer(Answer::Nothing);
}
