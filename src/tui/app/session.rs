//! The session's files, as far as the dashboard knows of them.

use std::path::PathBuf;
use std::time::Duration;

/// Where the session is saved, and whether it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// The session's file, once saved or opened.
    pub file: Option<PathBuf>,
    /// The file that the session will have where none is named; `None` where nothing can be autosaved beside it.
    pub usual: Option<PathBuf>,
    /// Whether there are changes that no file has.
    pub unsaved: bool,
    /// When unsaved work is next autosaved.
    pub autosave: Option<Duration>,
}
