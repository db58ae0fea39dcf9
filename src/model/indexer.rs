//! The lightning indexer of a Full layer: few heads, one key head, ReLU-gated dot products.

use candle_core::{DType, Tensor};

use super::ops::{Indices, Pairing, Rotary, RowTargets, Stop, indexer_kl, layer_norm, rope, select};
use super::weights::{Linear, Scope, TensorSource};
use super::{ModelError, Result};
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

/// What an indexer works on: the layer's normed input, `[1, T, hidden]`, and what its queries are made from.
#[derive(Clone, Debug)]
pub struct IndexerInput {
    pub(super) x: Tensor,
    pub(super) source: Tensor,
}

/// Weights of one layer's indexer.
#[derive(Clone, Debug)]
pub struct Indexer {
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
    ///
    /// Its weights are looked at: a NaN would vanish in the ReLU and leave no trace but a poor selection.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`], beside those of any tensor.
    pub(super) fn load(scope: &Scope, config: &Config) -> Result<Option<Self>> {
        let indexer = Self::build(scope, config)?;
        for tensor in indexer.iter().flat_map(Self::tensors) {
            let sum: f32 = tensor.to_dtype(DType::F32)?.sum_all()?.to_scalar()?;
            if !sum.is_finite() {
                return Err(ModelError::NotFinite(scope.path().to_owned()));
            }
        }
        Ok(indexer)
    }

    fn tensors(&self) -> [&Tensor; 5] {
        [self.query.weight(), self.key.weight(), &self.key_norm.0, &self.key_norm.1, self.weights.weight()]
    }

    fn build(scope: &Scope, config: &Config) -> Result<Option<Self>> {
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
        let (q, w) = self.queries(&x, &c_q, rotary)?;
        Ok(Projected { q, k: self.keys(&x, rotary)?, w })
    }

    /// Returns queries and head weights.
    fn queries(&self, x: &Tensor, c_q: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)> {
        let q = rope(&self.query.forward(c_q)?, rotary, self.dim, 0, self.pairing)?;
        let w = (self.weights.forward(&x.to_dtype(DType::F32)?)? * (self.heads as f64).powf(-0.5))?;
        Ok((q, w))
    }

    fn keys(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let k = layer_norm(&self.key.forward(x)?, &self.key_norm.0, &self.key_norm.1, EPS)?;
        Ok(rope(&k, rotary, self.dim, 0, self.pairing)?)
    }

    /// Builds the indexer of `layer` from any source of tensors, sized as `config` says.
    ///
    /// # Errors
    /// [`ModelError::NoIndexer`] where the source has none.
    pub fn of(source: &dyn TensorSource, config: &Config, layer: usize) -> Result<Self> {
        let scope = Scope::root(source, DType::F32).at("model.layers").at(layer).at("self_attn.indexer");
        Self::build(&scope, config)?.ok_or(ModelError::NoIndexer(layer))
    }

    /// Computes the mean divergence (scalar, nats) from a target on sampled query rows, differentiable in the weights.
    ///
    /// # Errors
    /// Where shapes disagree, or off the CPU.
    pub fn divergence(&self, on: &IndexerInput, rotary: &Rotary, target: &RowTargets) -> Result<Tensor> {
        let (x, source, rotary) = (on.x.detach(), on.source.detach(), rotary.every(self.every)?);
        let at = Tensor::from_iter(target.rows.iter().map(|&r| r as u32), x.device())?;
        let (q, w) =
            self.queries(&x.index_select(&at, 1)?, &source.index_select(&at, 1)?, &rotary.select(&target.rows)?)?;
        let k = self.keys(&x, &rotary)?;
        Ok(indexer_kl(&q.squeeze(0)?, &k.squeeze(0)?, &w.squeeze(0)?, self.scale(), target)?)
    }

    /// Selects the `topk` best keys of every query; no gradient.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn select(&self, on: &IndexerInput, rotary: &Rotary, topk: usize) -> Result<Indices> {
        let p = self.project(&on.x, &on.source, rotary)?;
        Ok(select(&p.q.detach(), &p.k.detach(), &p.w.detach(), self.scale(), topk, Stop::NEVER, false)?.0)
    }

    /// Returns the factor on dot products, dim^−½.
    pub(super) fn scale(&self) -> f64 {
        (self.dim as f64).powf(-0.5)
    }
}
