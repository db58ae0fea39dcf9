//! Checkpoints without candle, Hugging Face folders and GGUF files: config, tensors' headers, bytes by part.
//!
//! A [`Checkpoint`] knows everything that can be told without a forward: the architecture ([`Config`]), every tensor's
//! name, dtype, shape and bytes (memory-mapped, never read as a whole), and which layers have an indexer.

mod config;
mod copies;
mod dense;
mod diagnose;
#[cfg(feature = "hub")]
mod download;
mod dsa;
mod dtype;
mod error;
mod families;
mod fingerprint;
mod folder;
mod fp8;
mod gguf;
mod gguf_config;
mod gguf_dsa;
mod hub;
mod index;
mod layout;
mod lineage;
mod open;
mod parse;
mod parts;
mod roles;
mod rope;
mod safetensors;
mod sidecar;
mod weights;

pub use config::{Attention, Config, Family, MlpKind};
pub use dense::DENSE_TOPK;
pub use diagnose::is_lfs_pointer;
#[cfg(feature = "hub")]
pub use download::{DownloadError, Hub};
pub use dtype::{Dtype, Quantisation, TensorInfo};
pub use error::CheckpointError;
pub use families::deepseek_v4::{Compression, DeepseekV4, Scoring};
pub use families::minimax_m3::MiniMaxM3;
pub use folder::ModelFolder;
pub use fp8::{Blocks, E4M3, FP4, dequantise_fp4, e8m0, is_scale};
pub use gguf_config::Vocabulary;
pub use hub::{HubId, hub_cache};
pub use index::IndexerShape;
pub use layout::{Demand, demands, indexer_tensors, is_indexer_tensor, layer_of};
pub use open::Checkpoint;
pub use parts::{Part, PartSize};
pub use rope::{Rope, RopeScaling};
pub(crate) use safetensors::Index;
pub use safetensors::{CONFIG_FILE, INDEX_FILE, SINGLE_FILE};
pub use sidecar::{Sidecar, SidecarError, SidecarHeader, SidecarRope, Trained, sidecar_bytes};
