//! Restores the terminal when a signal ends the program while the dashboard has it.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, Ordering};

/// The modes that the terminal had before the dashboard took it; null while the dashboard does not have it.
#[cfg(unix)]
static BEFORE: AtomicPtr<libc::termios> = AtomicPtr::new(std::ptr::null_mut());

/// Turns off what the dashboard turns on: synchronised updates, bracketed paste, mouse, hidden cursor, other screen.
#[cfg(unix)]
const MODES_OFF: &[u8] =
    b"\x1b[?2026l\x1b[?2004l\x1b[?1006l\x1b[?1015l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b[?25h\x1b[?1049l\x1b[0m";

/// Remembers the terminal's modes, before raw mode is turned on.
pub fn remember() {
    #[cfg(unix)]
    {
        // SAFETY: `termios` is plain data, which `tcgetattr` fills where it returns 0. The few bytes stay for the handlers.
        let before = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            (libc::tcgetattr(libc::STDIN_FILENO, &raw mut modes) == 0).then(|| Box::new(modes))
        };
        BEFORE.store(before.map_or(std::ptr::null_mut(), Box::into_raw), Ordering::Release);
    }
}

/// Forgets them, once the terminal has been restored.
pub fn forget() {
    #[cfg(unix)]
    BEFORE.store(std::ptr::null_mut(), Ordering::Release);
}

/// Restores the terminal if it is held. Async-signal-safe.
pub fn restore() {
    #[cfg(unix)]
    {
        let before = BEFORE.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !before.is_null() {
            // SAFETY: the pointer comes from `remember` and is never freed; write and tcsetattr are async-signal-safe.
            unsafe {
                libc::write(libc::STDOUT_FILENO, MODES_OFF.as_ptr().cast(), MODES_OFF.len());
                libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before);
            }
        }
    }
}

/// Writes to stderr without locks or allocation; errors are ignored. Async-signal-safe.
pub fn say_raw(text: &[u8]) {
    // SAFETY: the pointer and the length are those of a slice.
    #[cfg(unix)]
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
    }
    #[cfg(not(unix))]
    let _ = text;
}

/// Ends the program at once, without running what a normal end runs. Async-signal-safe.
pub fn exit_raw(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    #[cfg(unix)]
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}
