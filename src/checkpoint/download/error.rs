//! What can go wrong while a checkpoint is downloaded.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No connection, or no answer.
    #[error("'{url}' cannot be reached: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An answer of another status than success.
    #[error("the Hub answers '{url}' with status {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that does not describe a model's files.
    #[error("what '{url}' answers is no list of a model's files: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The repository holds nothing that can be opened.
    #[error("'{repo}' has neither config.json with safetensors nor one .gguf file, but {files}")]
    NoModel {
        /// Owner and name.
        repo: String,
        /// Its weights.
        files: String,
    },
    /// The connection was cut, and again before anything more came.
    #[error("the download of '{file}' broke off after {have} of {size} bytes: {reason}")]
    BrokenOff {
        /// The file.
        file: String,
        /// Bytes that came.
        have: u64,
        /// Bytes of the file.
        size: u64,
        /// What is wrong.
        reason: String,
    },
    /// The bytes that came are not those that the Hub names.
    #[error("the download of '{file}' was thrown away: its hash is {got}, not {want}")]
    Damaged {
        /// The file.
        file: String,
        /// The hash that the Hub names.
        want: String,
        /// The hash of what came.
        got: String,
    },
    /// Another process has the file open.
    #[error("'{}' is being written by another process", .0.display())]
    Busy(PathBuf),
    /// The cache cannot be written.
    #[error("'{}' cannot be written: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DownloadError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "check the network, and HF_ENDPOINT and HTTPS_PROXY where they are set",
            Self::Refused { status: 401 | 403, .. } => {
                "check the name; a gated or private model needs a token with access to it in HF_TOKEN"
            }
            Self::Refused { status: 404, .. } => "check the name and the revision",
            Self::Refused { .. } | Self::Answer { .. } => "try again later, and check HF_ENDPOINT where it is set",
            Self::NoModel { .. } => {
                "of several .gguf files, 'hf download ORG/NAME FILE' fetches one; other forms must be converted first"
            }
            Self::BrokenOff { .. } => "what came is kept: the same command goes on from there",
            Self::Damaged { .. } => "run the same command again; a proxy that alters files could be the cause",
            Self::Busy(_) => "wait until it is done, then run the same command again",
            Self::Io { .. } => "check permissions and free space, or name another cache in HF_HUB_CACHE",
        }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}
