//! The terminal while the dashboard has it: every mode that is turned on is turned off again, however it ends.

use std::io::{self, Write, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::terminal;

/// Whether the modes are on.
static HELD: AtomicBool = AtomicBool::new(false);
/// Whether the terminal tells of the mouse.
static MOUSE: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Holds the terminal; lets go of it when dropped.
#[derive(Debug)]
pub struct Guard;

impl Guard {
    /// Takes the terminal: raw mode, alternate screen, bracketed paste, no cursor.
    ///
    /// A panic of this thread first lets go of the terminal and is then reported as usual; one of another thread
    /// while the screen is held is left to whoever waits for that thread, because its text would spoil the screen.
    ///
    /// # Errors
    /// Those of the terminal; whatever was turned on is off again.
    pub fn take() -> io::Result<Self> {
        let owner = thread::current().id();
        HOOK.call_once(|| hook(owner));
        enter()?;
        Ok(Self)
    }

    /// Asks the terminal to tell of clicks and the wheel, or to keep them for itself.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn mouse(on: bool) -> io::Result<()> {
        MOUSE.store(on, Ordering::SeqCst);
        if on { execute!(stdout(), EnableMouseCapture) } else { execute!(stdout(), DisableMouseCapture) }
    }

    /// Lets go of the terminal, runs `between`, and takes it again.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn suspend(between: impl FnOnce()) -> io::Result<()> {
        let mouse = MOUSE.load(Ordering::SeqCst);
        leave();
        between();
        enter()?;
        if mouse { Self::mouse(true) } else { Ok(()) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    terminal::remember();
    enable_raw_mode()?;
    HELD.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide).inspect_err(|_| leave())
}

fn leave() {
    if HELD.swap(false, Ordering::SeqCst) {
        // The terminal may be gone; there is nobody left to tell.
        if MOUSE.swap(false, Ordering::SeqCst) {
            let _ = execute!(stdout(), DisableMouseCapture);
        }
        let _ = execute!(stdout(), EndSynchronizedUpdate, DisableBracketedPaste, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
        let _ = stdout().flush();
    }
    terminal::forget();
}

fn hook(owner: ThreadId) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().id() == owner {
            leave();
        }
        if !HELD.load(Ordering::SeqCst) {
            before(info);
        }
    }));
}
