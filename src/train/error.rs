//! Why a training run cannot start or go on.

use std::path::PathBuf;

use crate::checkpoint::{CheckpointError, SidecarError};
use crate::domain::PatternError;
use crate::model::ModelError;
use crate::model::tokenizer::TokenizerError;

/// Why a training run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe is missing or wrong.
    #[error("the recipe {path} cannot be used: {reason}", path = path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A training text is missing, not UTF-8 or not xz.
    #[error("the text {path} cannot be read: {reason}", path = path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A text is too short for one sequence.
    #[error("{path} has {tokens} tokens, but a sequence needs {needed}", path = path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Tokens that it has.
        tokens: usize,
        /// Tokens that it should have.
        needed: usize,
    },
    /// A file of the run cannot be written.
    #[error("{path} cannot be written: {reason}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The folder of a new run holds another one.
    #[error("{path} already holds a run", path = .0.display())]
    Occupied(PathBuf),
    /// The saved state is missing, damaged or of another recipe.
    #[error("the run in {path} cannot be resumed: {reason}", path = path.display())]
    Resume {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Loss or gradient became NaN or infinite.
    #[error("the {what} became {value} at step {step} of the {stage} stage; the state saved before it is kept")]
    NonFinite {
        /// `loss`, `language-model loss` or `gradient norm`.
        what: &'static str,
        /// What it became.
        value: f64,
        /// Step within the stage, from 0.
        step: u64,
        /// Name of the stage.
        stage: &'static str,
    },
    /// A step was told to stop; nothing has changed.
    #[error("the step was stopped")]
    Stopped,
    /// What was asked of a training of indexers makes no sense for this model.
    #[error("{reason}")]
    Indexers {
        /// What makes no sense.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Not even one query row fits into the memory allowed.
    #[error("a step on one query row of {seq_len} tokens needs {}, but --max-memory allows {}", mib(*.needed), mib(*.allowed))]
    Memory {
        /// Tokens per sequence.
        seq_len: usize,
        /// Bytes that the smallest step needs.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The sidecar that training starts from cannot be used.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// The model's part of the work failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model has a number of layers that no pattern can describe.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The tokenizer's part of the work failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The recipe's `[model]` is not an architecture that can be built.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl TrainError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Recipe { .. } => "assets/demo/recipe.toml is a working example",
            Self::Text { .. } => "texts are UTF-8, or xz streams named .xz, relative to the recipe",
            Self::Short { .. } => "use shorter sequences (data.sequence_length, --seq-len) or give more text",
            Self::Occupied(_) => "go on with it by --resume, or name another --out",
            Self::Resume { .. } => "without --resume, under another name, a run starts anew",
            Self::NonFinite { .. } => "lower the learning rate and start anew",
            Self::Tokenizer(error) => return error.hint(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Sidecar(error) => return Some(error.hint()),
            Self::Memory { .. } => "raise --max-memory or lower --seq-len",
            Self::Indexers { hint, .. } => hint,
            Self::Write { .. } => {
                "make room on the disk, and check the permissions; --resume goes on from the last saved state"
            }
            Self::Stopped => "--resume goes on from the last saved state",
            Self::Model(error) if error.hint().is_some() => return error.hint(),
            Self::Model(_) | Self::Pattern(_) => "'indexscope info MODEL' shows whether the model can be run",
        };
        Some(hint.to_owned())
    }
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

/// Returns a number of bytes for people.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
