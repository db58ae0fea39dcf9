//! The lightning indexer of a Full layer: few heads, one key head, ReLU-gated dot products.

use candle_core::{DType, Tensor};

use super::Result;
use super::ops::{Pairing, Rotary, layer_norm, rope};
use super::weights::{Linear, Scope};
use crate::checkpoint::Config;

/// ε of the key's `LayerNorm`, fixed in the reference.
const EPS: f64 = 1e-6;

/// Queries, keys and head weights of one forward.
#[derive(Clone, Debug)]
pub(super) struct Projected {
    /// `[B, T, heads · dim]`.
    pub(super) q: Tensor,
    /// `[B, T, dim]`.
    pub(super) k: Tensor,
    /// `[B, T, heads]`, f32, scaled by heads^−½.
    pub(super) w: Tensor,
}

/// Weights of one layer's indexer.
#[derive(Clone, Debug)]
pub(super) struct Indexer {
    query: Linear,
    key: Linear,
    key_norm: (Tensor, Tensor),
    weights: Linear,
    heads: usize,
    dim: usize,
    pairing: Pairing,
    /// Every how many-th frequency of attention rotates the leading dimensions.
    every: usize,
}

impl Indexer {
    /// Loads the indexer under `self_attn.indexer`; `None` where the checkpoint has none.
    pub(super) fn load(scope: &Scope, config: &Config) -> Result<Option<Self>> {
        if !scope.contains("wq_b.weight") {
            return Ok(None);
        }
        let (heads, dim, hidden) = (config.index_n_heads, config.index_head_dim, config.hidden_size);
        let pairing = if config.index_rope_interleaved { Pairing::Interleaved } else { Pairing::Half };
        Ok(Some(Self {
            query: Linear::load(scope, "wq_b", (heads * dim, config.index_query_width()), false)?,
            key: Linear::load(scope, "wk", (dim, hidden), false)?,
            key_norm: (scope.get("k_norm.weight", &[dim])?, scope.get("k_norm.bias", &[dim])?),
            // The reference keeps this projection in f32 even in a bf16 model.
            weights: Linear::of(scope.get_f32("weights_proj.weight", &[heads, hidden])?),
            heads,
            dim,
            pairing,
            every: config.qk_rope_head_dim / config.index_rope_head_dim.max(1),
        }))
    }

    /// Projects the normed layer input `x` and the normed query latent `c_q`, under GQA `x` again; both are detached.
    ///
    /// The rotary part of indexer heads comes first, unlike that of the attention heads.
    pub(super) fn project(&self, x: &Tensor, c_q: &Tensor, rotary: &Rotary) -> Result<Projected> {
        let (x, c_q) = (x.detach(), c_q.detach());
        let rotary = &rotary.every(self.every)?;
        let q = rope(&self.query.forward(&c_q)?, rotary, self.dim, 0, self.pairing)?;
        let k = layer_norm(&self.key.forward(&x)?, &self.key_norm.0, &self.key_norm.1, EPS)?;
        let k = rope(&k, rotary, self.dim, 0, self.pairing)?;
        let w = (self.weights.forward(&x.to_dtype(DType::F32)?)? * (self.heads as f64).powf(-0.5))?;
        Ok(Projected { q, k, w })
    }

    /// Returns the factor on dot products, dim^−½.
    pub(super) fn scale(&self) -> f64 {
        (self.dim as f64).powf(-0.5)
    }
}
