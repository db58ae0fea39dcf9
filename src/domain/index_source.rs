//! Where the indices of Full layers come from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where the indices of Full layers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexSource {
    /// The checkpoint's own lightning indexers.
    #[default]
    Checkpoint,
    /// Each layer's own attention, exact and averaged over heads: needs no indexer, and saves no time.
    Oracle,
    /// Lightning indexers from a file of this name beside the checkpoint; they replace or complete its own.
    Sidecar(String),
}

impl IndexSource {
    /// Returns whether a Full layer computes all of its attention only to choose from it.
    pub fn is_oracle(&self) -> bool {
        *self == Self::Oracle
    }
}

impl fmt::Display for IndexSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Oracle => f.write_str("oracle"),
            Self::Sidecar(name) => f.write_str(name),
        }
    }
}
