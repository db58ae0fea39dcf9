//! Why a training run cannot start or go on.

use std::path::PathBuf;

use crate::model::tokenizer::TokenizerError;

/// Why a training run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe is missing or wrong.
    #[error("the recipe {path} cannot be used: {reason}\nhint: assets/demo/recipe.toml is a working example", path = path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A training text is missing, not UTF-8 or not xz.
    #[error("the text {path} cannot be read: {reason}\nhint: texts are UTF-8, or xz streams named .xz, relative to the recipe", path = path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A text is too short for one sequence.
    #[error("{path} has {tokens} tokens, but a sequence needs {needed}\nhint: lower data.sequence_length or give more text", path = path.display())]
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
    /// The saved state is missing, damaged or of another recipe.
    #[error("the run in {path} cannot be resumed: {reason}\nhint: without --resume, in an empty folder, a run starts anew", path = path.display())]
    Resume {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Loss or gradient became NaN or infinite.
    #[error("the {what} became {value} at step {step} of the {stage} stage; the state saved before it is kept\nhint: lower the learning rates in the recipe and resume from an earlier state, or start anew")]
    NonFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// What it became.
        value: f64,
        /// Step within the stage, from 0.
        step: u64,
        /// Name of the stage.
        stage: &'static str,
    },
    /// The model's part of the work failed.
    #[error("the model failed: {0}")]
    Model(String),
    /// The tokenizer's part of the work failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.to_string())
    }
}
