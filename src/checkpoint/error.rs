//! What can be wrong with a checkpoint, each error naming the thing and saying what to do.

use std::path::{Path, PathBuf};

use crate::domain::PatternError;

use super::hub::MAIN;
use super::{Dtype, HubId, SidecarError};

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    // ---- files
    /// The folder does not exist or is not a folder.
    #[error("'{}' {}", .0.display(), if .0.exists() { "is not a folder" } else { "does not exist" })]
    NotAFolder(PathBuf),
    /// A file of another kind.
    #[error("'{}' is {what}", .path.display())]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A file that Git LFS has not fetched.
    #[error("'{}' is a Git LFS pointer, not the file itself", .0.display())]
    LfsPointer(PathBuf),
    /// Neither a folder nor a downloaded checkpoint.
    #[error("'{}' is neither a folder nor in the Hugging Face cache '{}'", .id.repo, .cache.display())]
    NotCached {
        /// What was asked for.
        id: HubId,
        /// The cache that was looked at.
        cache: PathBuf,
    },
    /// A checkpoint of which the cache holds only some files.
    #[error("'{}' is in the Hugging Face cache '{}', but without {lacks}", .id.repo, .cache.display())]
    PartlyCached {
        /// What was asked for.
        id: HubId,
        /// The cache that was looked at.
        cache: PathBuf,
        /// What is missing.
        lacks: String,
    },
    /// A folder of the cache holds several models.
    #[error("'{}' holds several .gguf files and no config.json", .folder.display())]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
    },
    /// A checkpoint cannot be downloaded.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Download(#[from] super::DownloadError),
    /// A file cannot be read.
    #[error("'{}' cannot be read: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds no safetensors.
    #[error("'{}' holds neither model.safetensors nor model.safetensors.index.json", .0.display())]
    NoWeights(PathBuf),
    /// The folder holds weights of another form.
    #[error(
        "'{}' holds neither model.safetensors nor model.safetensors.index.json, but {holds}", .folder.display()
    )]
    OtherWeights {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// A shard that the index names does not exist.
    #[error("shard '{shard}' is missing, although model.safetensors.index.json names it")]
    MissingShard {
        /// The shard's file name.
        shard: String,
    },
    /// A shard ends before its header says.
    #[error("shard '{shard}' is truncated: its header describes {need} bytes but the file has {have}")]
    Truncated {
        /// The shard's file name.
        shard: String,
        /// Bytes that the header accounts for.
        need: u64,
        /// Bytes of the file.
        have: u64,
    },
    /// A shard's header, or the index, makes no sense.
    #[error("'{file}' is not valid: {reason}")]
    Malformed {
        /// The file's name.
        file: String,
        /// What is wrong.
        reason: String,
    },

    // ---- config.json
    /// config.json is no JSON, or a value has the wrong type.
    #[error("config.json cannot be understood: {0}")]
    Config(#[from] serde_json::Error),
    /// Another architecture.
    #[error(
        "model type '{0}' is not supported; only glm_moe_dsa, deepseek_v32, deepseek_v4, minimax_m3_vl, llama, qwen2 and qwen3 are"
    )]
    ModelType(String),
    /// A value that the architecture does not allow.
    #[error("config.json: {key} is {value}, but {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why that cannot be.
        reason: String,
    },
    /// The roles of the layers are impossible.
    #[error("config.json: {0}")]
    Roles(#[from] PatternError),

    // ---- tensors
    /// Weights in a quantised format that is not read.
    #[error("the checkpoint is quantised ({0}); BF16, F16, F32 and block FP8 are read")]
    Quantised(String),
    /// A GGUF file of a DSA model, of which only the description is read.
    #[error("GGUF files of '{0}' are described, and not run")]
    GgufDsa(String),
    /// A tensor that the config demands is missing.
    #[error("tensor '{name}' is missing; config.json demands it with shape {shape:?}")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The demanded shape.
        shape: Vec<usize>,
    },
    /// A sidecar of indexers cannot be used.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// A file of indexers holds something else.
    #[error("'{}' holds tensor '{name}', which is no indexer's of the model's layers", .file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that nothing demands was asked for.
    #[error("tensor '{0}' does not exist in the checkpoint")]
    NoTensor(String),
    /// The index places a tensor in a shard that does not have it.
    #[error("tensor '{name}' is not in shard '{shard}', although model.safetensors.index.json places it there")]
    Misplaced {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A tensor's shape is not what the config demands.
    #[error("tensor '{name}' has shape {got:?}, but config.json demands {want:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The demanded shape.
        want: Vec<usize>,
    },
    /// An FP8 weight has no scales.
    #[error("tensor '{name}' is F8_E4M3, but its scales '{scales}' {shape:?} are missing")]
    MissingScales {
        /// The weight.
        name: String,
        /// The missing tensor.
        scales: String,
        /// Its shape, one scale per block.
        shape: Vec<usize>,
    },
    /// A tensor is stored in a dtype that cannot be computed with.
    #[error(
        "tensor '{name}' has dtype {dtype}, which is not supported; F64, F32, F16, BF16 and block-scaled F8_E4M3 matrices are"
    )]
    UnsupportedDtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// The config makes a layer Full that has no indexer.
    #[error("layer {layer} is Full, but the checkpoint has no indexer weights for it")]
    FullWithoutIndexer {
        /// The layer.
        layer: usize,
    },
}

impl CheckpointError {
    /// Returns what a person can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::NotCached { id, .. } | Self::PartlyCached { id, .. } => return Some(how_to_get(id)),
                Self::Ambiguous { .. } => "give the path of the one that is meant",
                #[cfg(feature = "hub")]
                Self::Download(error) => error.hint(),
                Self::NotAFolder(_) => {
                    "give the folder that holds config.json and the .safetensors files, a .gguf file, or ORG/NAME of the Hub"
                }
                Self::Io { path, .. } if path.ends_with("config.json") => {
                    "give the folder of a Hugging Face checkpoint, which holds config.json and the .safetensors files"
                }
                Self::NotACheckpoint { hint, .. } => return Some(hint.clone()),
                Self::LfsPointer(_) => {
                    "'git lfs pull' in its folder fetches it; 'hf download' never writes such files"
                }
                Self::Quantised(_) => {
                    "run the BF16 or FP8 release; 'info', 'simulate' and 'export' work on this one, too"
                }
                Self::GgufDsa(_) => "give the Hugging Face folder to run it; 'info', 'simulate' and 'worth' take this file",
                Self::OtherWeights { holds, .. } if holds.contains("-of-") => {
                    "download model.safetensors.index.json of the checkpoint, which says where each tensor is"
                }
                Self::NoWeights(_) | Self::OtherWeights { .. } => {
                    "only safetensors are read; convert other formats with transformers' save_pretrained"
                }
                Self::MissingShard { .. } | Self::Truncated { .. } | Self::Misplaced { .. } => {
                    "download the checkpoint again; a download was probably cut off"
                }
                Self::ModelType(_) => {
                    "DeepSeek-V3.2, DeepSeek-V4, GLM-5, Llama 3, SmolLM2, Qwen2.5 and Qwen3 are models of the supported types"
                }
                Self::Sidecar(error) => return Some(error.hint()),
                Self::Foreign { .. } => "give the file that 'indexscope train indexers' wrote for this model",
                Self::FullWithoutIndexer { .. } => {
                    "make the layer 'shared' in indexer_types (or 'S' in index_topk_pattern) of config.json"
                }
                Self::Roles(PatternError::FirstShared) => "make the first entry 'full' (or 'F')",
                Self::UnsupportedDtype { dtype, .. } if dtype.is_float8() => {
                    "of FP8, only F8_E4M3 matrices with one scale per block (weight_scale_inv) are read"
                }
                Self::UnsupportedDtype { .. } => "convert the checkpoint to BF16 first",
                Self::MissingScales { .. } => {
                    "FP8 is read as DeepSeek and GLM publish it; convert other forms to BF16 first"
                }
                Self::MissingTensor { .. } | Self::Shape { .. } => {
                    "check that config.json and the .safetensors files belong to the same checkpoint"
                }
                Self::Io { source, .. } => crate::input::hint(source),
                Self::Malformed { .. } | Self::NoTensor(_) => {
                    "download the checkpoint again; the file does not follow its format"
                }
                Self::Config(_) | Self::Value { .. } | Self::Roles(_) => {
                    "compare that key with the config.json that the model was published with"
                }
            }
            .to_owned(),
        )
    }

    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn malformed(file: &str, reason: impl Into<String>) -> Self {
        Self::Malformed { file: file.to_owned(), reason: reason.into() }
    }
}

/// Returns what brings a model of the Hub here.
fn how_to_get(HubId { repo, revision }: &HubId) -> String {
    let revision = if revision == MAIN { String::new() } else { format!(" --revision {revision}") };
    let itself = if cfg!(feature = "hub") {
        "it is downloaded where HF_HUB_OFFLINE is not set"
    } else {
        "a build with '--features hub' downloads it by itself"
    };
    format!(
        "'hf download {repo}{revision}' puts it there, or give a folder with config.json, tokenizer*.json and *.safetensors of https://huggingface.co/{repo}; {itself}"
    )
}
