//! What can go wrong while a model is loaded or run.

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A tensor that the config demands is not there.
    #[error("the checkpoint has no tensor '{0}'")]
    Missing(String),
    /// A tensor has another shape than the config demands.
    #[error("tensor '{name}' has shape {got:?}, but config.json demands {want:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<usize>,
        /// The shape that the config implies.
        want: Vec<usize>,
    },
    /// A layer was asked to run an indexer that it does not have.
    #[error("layer {0} cannot be Full: the checkpoint has no indexer weights for it")]
    NoIndexer(usize),
    /// Layer 0, or a layer after no Full layer, was asked to reuse indices.
    #[error("layer {0} is Shared, but no earlier layer has selected anything")]
    NothingToShare(usize),
    /// Models of this family do not support something.
    #[error("{what} is not supported for models of type {family}")]
    Unsupported {
        /// `model_type` of config.json.
        family: &'static str,
        /// What was asked for.
        what: &'static str,
    },
    /// A table of experts names one that does not exist.
    #[error("tensor '{table}' names expert {expert}, but there are {experts} experts")]
    NoExpert {
        /// The table.
        table: String,
        /// The expert.
        expert: u32,
        /// Experts of a layer.
        experts: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        id: u32,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// Sequences of one batch differ in length, or there are none.
    #[error("a batch needs sequences of one length, got lengths {0:?}")]
    Batch(Vec<usize>),
    /// More tokens than the cache was made for.
    #[error("the cache has room for {capacity} tokens, {wanted} were to be kept")]
    CacheFull {
        /// Its size in tokens.
        capacity: usize,
        /// Tokens after the append.
        wanted: usize,
    },
    /// A layer became Full in the middle of a sequence: the index keys of its earlier tokens were never made.
    #[error("layer {layer} has index keys of {have} tokens, but {want} precede: it was Shared before")]
    IndexKeysMissing {
        /// The layer.
        layer: usize,
        /// Index keys kept.
        have: usize,
        /// Tokens kept.
        want: usize,
    },
    /// Weights of an indexer hold NaN or infinity.
    #[error("the indexer '{0}' has weights that are no finite numbers")]
    NotFinite(String),
    /// Newer work replaced this forward; not an error to a person.
    #[error("the forward was stopped")]
    Stopped,
    /// Reading the checkpoint failed.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(candle_core::Error),
    /// The device has no room for a tensor.
    #[error(transparent)]
    OutOfMemory(candle_core::Error),
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        // candle passes on what a driver says as text only; this is the one place that reads it.
        let said = error.to_string().to_lowercase();
        let is_out_of_memory = ["out of memory", "out_of_memory"].iter().any(|words| said.contains(words));
        if is_out_of_memory { Self::OutOfMemory(error) } else { Self::Tensor(error) }
    }
}

impl ModelError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Unsupported { .. } => "models of GLM-5 and DeepSeek-V3.2 and dense ones support it",
            Self::Missing(_) | Self::Shape { .. } | Self::NoExpert { .. } => {
                "check that config.json and the .safetensors files belong to the same checkpoint"
            }
            Self::NoIndexer(_) | Self::NothingToShare(_) => {
                "'indexscope info MODEL' lists the layers that have an indexer; the first must be Full"
            }
            Self::Token { .. } => "the tokens must come from the model's own tokenizer",
            Self::Batch(_) | Self::CacheFull { .. } | Self::IndexKeysMissing { .. } | Self::Stopped => {
                "this is a fault of the program: please report it with the command that shows it"
            }
            Self::NotFinite(_) => "train these indexers again, or download the checkpoint again",
            Self::OutOfMemory(_) => {
                "use shorter sequences (--seq-len; --context or --chunk of bench), --dtype bf16 or --device cpu"
            }
            Self::Tensor(_) => "try --device cpu, shorter sequences (--seq-len), or less work at a time",
        };
        Some(hint.to_owned())
    }
}

/// Result of everything in [`crate::model`].
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
