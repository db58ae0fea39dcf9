//! The indexer of a site: it scores entries of its own width, made by a compressor of its own.

use candle_core::{DType, Tensor};

use super::entries::Compressor;
use crate::checkpoint::{Compression, Config};
use crate::model::Result;
use crate::model::clock::Clock;
use crate::model::ops::{Indices, Pairing, Rotary, Seen, rope, select_seen};
use crate::model::pass::Pass;
use crate::model::weights::{Linear, Scope};

/// Weights of one indexer.
#[derive(Clone, Debug)]
pub(super) struct Indexer {
    query: Linear,
    weights: Linear,
    compressor: Compressor,
    heads: usize,
    dim: usize,
    rate: usize,
    topk: usize,
}

impl Indexer {
    /// Loads the indexer at `scope`; `None` where the checkpoint has none, or the layer is no site.
    pub(super) fn load(scope: &Scope, config: &Config, kind: Compression) -> Result<Option<Self>> {
        let Compression::Selected(rate) = kind else { return Ok(None) };
        if !scope.contains("wq_b.weight") {
            return Ok(None);
        }
        let (heads, dim, hidden) = (config.index_n_heads, config.index_head_dim, config.hidden_size);
        let compressor = Compressor::load(&scope.at("compressor"), kind, dim, config)?;
        let Some(compressor) = compressor else { return Ok(None) };
        Ok(Some(Self {
            query: Linear::load(scope, "wq_b", (heads * dim, config.q_lora_rank), false)?,
            weights: Linear::of(scope.get_f32("weights_proj.weight", &[heads, hidden])?),
            compressor,
            heads,
            dim,
            rate,
            topk: config.index_topk,
        }))
    }

    /// Selects entries from the normed input `x` and the normed query latent; none where there is no entry yet.
    pub(super) fn select(
        &self,
        x: &Tensor,
        latent: &Tensor,
        rotary: &Rotary,
        pass: &Pass,
        clock: &mut Clock,
    ) -> Result<Indices> {
        let (b, t, _) = x.dims3()?;
        let Some(k) = self.compressor.entries(x, rotary)? else {
            return Ok(Seen::none(b, t));
        };
        let turned = 2 * rotary.cos.dim(1)?;
        let q = rope(&self.query.forward(latent)?, rotary, self.dim, self.dim - turned, Pairing::Interleaved)?;
        let w = (self.weights.forward(&x.to_dtype(DType::F32)?)? * (self.heads as f64).powf(-0.5))?;
        clock.lap(|t| &mut t.indexer)?;
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        let seen = Seen { before: 0, unit: self.rate };
        let scale = (self.dim as f64).powf(-0.5);
        let (indices, scoring, selecting) = select_seen(&wide(&q)?, &wide(&k)?, &w, scale, self.topk, seen, pass.stop)?;
        clock.split(scoring, selecting);
        Ok(indices)
    }
}
