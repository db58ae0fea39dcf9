//! The only place that writes to stderr.
//!
//! Where stderr cannot be written there is nobody to read it: errors are ignored, and the command goes on.

use std::io::{IsTerminal, Write, stderr};

use crate::shown::shown;

/// Takes a line of progress away, which only a terminal shows.
const CLEAR: &str = "\r\x1b[2K";

/// Says a line, over the line of progress if there is one.
pub fn say(line: &str) {
    let clear = if stderr().is_terminal() { CLEAR } else { "" };
    write(&format!("{clear}{}\n", shown(line)));
}

/// Replaces the line of progress; an empty one takes it away. For terminals only.
pub fn say_progress(line: &str) {
    write(&format!("{CLEAR}{}", shown(line)));
}

fn write(text: &str) {
    let mut stderr = stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
