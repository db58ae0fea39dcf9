//! How a checkpoint's bytes divide among the parts of the model.

use std::fmt;

use serde::Serialize;

use super::fp8::weight_of;
use super::{Config, MlpKind, TensorInfo, is_indexer_tensor, is_scale, layer_of};

/// A part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Token embedding.
    Embedding,
    /// Attention projections.
    Attention,
    /// Lightning indexers.
    Indexer,
    /// Dense MLPs.
    DenseMlp,
    /// Routed experts.
    Experts,
    /// Shared experts.
    SharedExperts,
    /// Routers.
    Router,
    /// Norms.
    Norms,
    /// Hyper-connections, which mix residual streams.
    HyperConnections,
    /// Output head.
    Head,
    /// Layers for multi-token prediction, which are skipped.
    Mtp,
    /// Vision and its projectors, which are skipped.
    Vision,
    /// Tensors that the architecture does not know.
    Other,
}

impl Part {
    /// Every part in the order in which they are listed.
    pub const ALL: [Self; 13] = [
        Self::Embedding,
        Self::Attention,
        Self::Indexer,
        Self::DenseMlp,
        Self::Experts,
        Self::SharedExperts,
        Self::Router,
        Self::Norms,
        Self::HyperConnections,
        Self::Head,
        Self::Mtp,
        Self::Vision,
        Self::Other,
    ];

    /// Returns whether tensors of this part are never loaded.
    pub fn is_skipped(self) -> bool {
        matches!(self, Self::Mtp | Self::Vision)
    }

    /// Returns the part that a tensor belongs to; scales belong where their weights do.
    pub fn of(config: &Config, name: &str) -> Self {
        let name = weight_of(name);
        let Some(layer) = layer_of(name) else {
            return match name {
                "model.embed_tokens.weight" => Self::Embedding,
                "model.norm.weight" => Self::Norms,
                "lm_head.weight" => Self::Head,
                _ if name.starts_with("model.hc_head.") => Self::HyperConnections,
                _ if name.contains("mtp") => Self::Mtp,
                _ if ["vision", "multi_modal_projector", "patch_merge_mlp"].iter().any(|at| name.starts_with(at)) => {
                    Self::Vision
                }
                _ => Self::Other,
            };
        };
        let Some(&mlp) = config.mlp.get(layer) else { return Self::Mtp };
        let has = |piece: &str| name.contains(piece);
        if is_indexer_tensor(name) {
            Self::Indexer
        } else if has("attn_hc.") || has("ffn_hc.") {
            Self::HyperConnections
        } else if has("layernorm.")
            || has(".q_norm.")
            || has(".k_norm.")
            || has(".kv_norm.")
            || has(".compressor.norm.")
        {
            Self::Norms
        } else if has(".self_attn.") {
            Self::Attention
        } else if has(".mlp.experts.") {
            Self::Experts
        } else if has(".mlp.shared_experts.") {
            Self::SharedExperts
        } else if has(".mlp.gate.") {
            Self::Router
        } else if has(".mlp.") && mlp == MlpKind::Dense {
            Self::DenseMlp
        } else {
            Self::Other
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedding => "embedding",
            Self::Attention => "attention",
            Self::Indexer => "indexers",
            Self::DenseMlp => "dense MLPs",
            Self::Experts => "routed experts",
            Self::SharedExperts => "shared experts",
            Self::Router => "routers",
            Self::Norms => "norms",
            Self::HyperConnections => "hyper-connections",
            Self::Head => "output head",
            Self::Mtp => "MTP (skipped)",
            Self::Vision => "vision (skipped)",
            Self::Other => "other",
        })
    }
}

/// What one part weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartSize {
    /// The part.
    pub part: Part,
    /// Stored bytes.
    pub bytes: u64,
    /// Stored elements, scales of FP8 blocks apart.
    pub params: u64,
}

/// Sums tensors by part; parts without tensors are left out.
pub(super) fn sum<'a>(config: &Config, tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>) -> Vec<PartSize> {
    let mut sizes = Part::ALL.map(|part| PartSize { part, bytes: 0, params: 0 });
    for (name, info) in tensors {
        let size = &mut sizes[Part::of(config, name) as usize];
        size.bytes += info.byte_len() as u64;
        if !is_scale(name) {
            size.params += info.elements() as u64;
        }
    }
    sizes.into_iter().filter(|size| size.bytes > 0).collect()
}
