//! What can be wrong with a session or a trace.

use std::io;
use std::path::{Path, PathBuf};

use crate::input;

/// Why a session or trace file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {verb} '{}': {source}", path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("'{}' is not a {kind}: {reason}", path.display())]
    Invalid {
        /// `trace` or `session`.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer version.
    #[error("'{}' has schema {found}, but this version reads schema {known} at most", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema found.
        found: u32,
        /// The newest schema that can be read.
        known: u32,
    },
}

impl FileError {
    /// Returns an error of the operating system.
    pub(super) fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { verb, path: path.to_owned(), source }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => Some(input::hint(source).into()),
            Self::Invalid { kind: "journal", .. } => {
                Some("start anew without --resume; the journal is then kept beside it as .journal.old".into())
            }
            Self::Invalid { kind: "trace", .. } => Some("'indexscope record MODEL --out FILE' writes a trace".into()),
            Self::Invalid { .. } => Some("the dashboard writes sessions with 'w'".into()),
            Self::Schema { .. } => Some("update indexscope".into()),
        }
    }
}
