//! Why a pattern cannot be handed to an engine.

use std::path::{Path, PathBuf};

use super::SimulateError;
use crate::checkpoint::CheckpointError;
use crate::domain::{Pattern, PatternError};

/// Why an export is impossible.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An engine that is not known.
    #[error("engine '{0}' is not known; vllm, sglang, transformers, vllm-ascend, automodel and megatron are")]
    Engine(String),
    /// The engine goes by something else for this model type.
    #[error("{engine} would not run the pattern for model type '{model_type}': {reads}")]
    NotRead {
        /// Engine and version.
        engine: String,
        /// The model type.
        model_type: String,
        /// What it goes by, and the layers that it would run.
        reads: String,
    },
    /// No layer of the model selects keys.
    #[error("no layer of model type '{model_type}' selects keys with this config, so that there is nothing to share")]
    NoSites {
        /// The model type.
        model_type: String,
    },
    /// No reader would run the pattern from a config.json.
    #[error("no engine whose source was read would run the pattern from a config.json of model type '{model_type}'")]
    NoReader {
        /// The model type.
        model_type: String,
    },
    /// The model is dense, and no engine runs it with indexers.
    #[error("no serving engine runs model type '{0}' with top-k attention, so that there is nothing to export")]
    Dense(String),
    /// The engine fails on this pattern.
    #[error("{engine} cannot run the pattern: {reason}")]
    Refused {
        /// Engine and version.
        engine: String,
        /// What it raises.
        reason: String,
    },
    /// The engine hands no indices from one stage to the next.
    #[error("{engine} hands no indices to the next pipeline stage, and layer {layer} begins one as Shared")]
    StageHead {
        /// Engine and version.
        engine: String,
        /// The first layer of the stage.
        layer: usize,
    },
    /// The engine can be told a frequency only.
    #[error("{engine} reads a frequency and an offset only, and none gives {pattern}")]
    NotExpressible {
        /// Engine and version.
        engine: String,
        /// The pattern.
        pattern: Pattern,
    },
    /// A trained tensor has no place in the checkpoint.
    #[error("the trained tensor '{name}' cannot take its place in the checkpoint: {reason}")]
    Retrained {
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The config, or the stages, cannot be used.
    #[error(transparent)]
    Simulate(SimulateError),
    /// The model cannot have the pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The checkpoint cannot be read, or what was written is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A GGUF file, or a checkpoint that is part of the program, has no folder to copy.
    #[error("'{0}' is no Hugging Face folder that could be copied")]
    NoFolder(String),
    /// Something exists where the new checkpoint should go.
    #[error("'{}' exists already and is left as it is", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("'{}': {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("'{}' is not valid: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl ExportError {
    /// Returns what a person can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSites { .. } => Some(
                "indexers need index_topk, and layer_types or compress_ratios where only some layers have one".into(),
            ),
            Self::NotRead { .. } | Self::NoReader { .. } => {
                Some("'indexscope simulate' shows what every engine makes of this model's config".to_owned())
            }
            Self::StageHead { layer, .. } => {
                Some(format!("make layer {layer} Full, or move the boundary; sglang hands indices on"))
            }
            Self::NotExpressible { .. } => Some("freq:N,OFFSET names the patterns that it can run".to_owned()),
            Self::NoFolder(name) if name == "demo" => {
                Some("write it to a folder first: indexscope demo --write DIR".to_owned())
            }
            Self::NoFolder(_) => Some("give the model as a Hugging Face folder with safetensors".to_owned()),
            Self::Exists(_) => Some("give a name that does not exist yet".to_owned()),
            Self::Pattern(PatternError::NoIndexer(_)) => {
                Some("make that layer Shared; 'indexscope info MODEL' lists the locked layers".to_owned())
            }
            Self::Checkpoint(error) => error.hint(),
            Self::Retrained { .. } => Some("name a .safetensors file instead, for the indexers alone".to_owned()),
            Self::Engine(_) => Some("'indexscope export --help' lists the engines".to_owned()),
            Self::Dense(_) => Some("give a DSA checkpoint, such as DeepSeek-V3.2 or GLM-5".to_owned()),
            Self::Refused { .. } => {
                Some("choose another pattern or engine; 'indexscope simulate' shows all".to_owned())
            }
            Self::Io { source, .. } => Some(crate::input::hint(source).to_owned()),
            Self::Malformed { .. } => Some("download the checkpoint again, or correct that file".to_owned()),
            Self::Simulate(_) | Self::Pattern(_) => {
                Some("'indexscope info MODEL' prints the model's layers and its own pattern".to_owned())
            }
        }
    }

    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }
}
