//! What happens to the dashboard, and what it asks of the outside.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{KeyEvent, MouseEvent};

use super::study::{Findings, Study};
use super::{Opened, Work};
use crate::analysis::{Metric, OverlapMatrix};
use crate::domain::Diagnostic;
use crate::domain::{Pattern, PatternSource, Sites, Stages, Trace};
use crate::engine::{Command, Update};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was used, which is told only while it is asked for.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has a new size.
    Resize(u16, u16),
    /// So much time has passed since the start.
    Tick(Duration),
    /// The worker tells something.
    Update(Update),
    /// The worker cannot be reached any more.
    Disconnected,
    /// A matrix of this recording is computed.
    Matrix(Arc<Trace>, Arc<OverlapMatrix>),
    /// A study of this recording is done, or not possible.
    Studied(Arc<Trace>, Result<Findings, Diagnostic>),
    /// The session files there are.
    Sessions(Vec<PathBuf>),
    /// A session was written, or not.
    Saved(Result<PathBuf, Diagnostic>),
    /// Unsaved work was put aside, or not.
    Autosaved(Result<(), Diagnostic>),
    /// A session was read, or not.
    Opened(PathBuf, Result<Opened, Diagnostic>),
    /// A pattern that was named by a file, and how it was named.
    PatternRead(String, Result<Pattern, Diagnostic>),
    /// The report was written, or not.
    Reported(Result<PathBuf, Diagnostic>),
}

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Post a command to the worker.
    Send(Command),
    /// Compute the matrix of a recording beside the screen.
    Compare(Arc<Trace>, Metric),
    /// Study a recording beside the screen.
    Study(Arc<Trace>, Study),
    /// Write a session.
    Save {
        /// Where; `None` for the session's own file.
        path: Option<PathBuf>,
        /// What.
        work: Work,
    },
    /// Put unsaved work aside.
    Autosave(Work),
    /// Read a session.
    Open(PathBuf),
    /// Look for sessions.
    ListSessions,
    /// Read the pattern that a file holds.
    ReadPattern {
        /// What names the file.
        source: PatternSource,
        /// The model's own pattern.
        native: Pattern,
        /// The layers that a pattern has a letter for.
        sites: Sites,
    },
    /// Write the report of the session.
    Report {
        /// What it tells.
        work: Work,
        /// The split over pipeline stages.
        stages: Stages,
    },
    /// Ask the terminal to tell of the mouse, or to keep it for itself.
    Mouse(bool),
    /// Put text on the clipboard.
    Copy(String),
    /// Hand the terminal back until the shell continues us.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// End.
    Quit,
}
