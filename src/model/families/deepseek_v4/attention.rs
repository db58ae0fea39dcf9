//! Attention over the last tokens and over compressed entries, with one row that is key and value of all heads.

use candle_core::{DType, Tensor};

use super::entries::Compressor;
use super::indexer::Indexer;
use super::unsupported;
use crate::checkpoint::{Compression, Config, DeepseekV4};
use crate::model::clock::Clock;
use crate::model::inputs::Inputs;
use crate::model::norm::Norm;
use crate::model::ops::{Entries, Indices, Pairing, Rotary, Windowed, rope, windowed, windowed_plain};
use crate::model::pass::{Attend, Ops, Pass};
use crate::model::weights::{Linear, Scope};
use crate::model::{ModelError, Result};

/// Attention weights of one layer.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    layer: usize,
    query_latent: Linear,
    query_norm: Norm,
    query: Linear,
    row: Linear,
    row_norm: Norm,
    /// Of each head's queries.
    head_norm: Norm,
    /// One logit per head that takes part in the softmax and has no value.
    sinks: Tensor,
    /// `[groups · rank, heads · dim / groups]`: one matrix per group of heads.
    out_groups: Tensor,
    out: Linear,
    kind: Compression,
    compressor: Option<Compressor>,
    indexer: Option<Indexer>,
    heads: usize,
    dim: usize,
    groups: usize,
    window: usize,
}

/// What attention gives.
pub(super) struct Attended {
    /// `[B, T, hidden]`.
    pub(super) out: Tensor,
    /// The entries that were used, of a site.
    pub(super) indices: Option<Indices>,
    /// The site's own entries where others were used.
    pub(super) own: Option<Indices>,
}

impl Attention {
    pub(super) fn load(scope: &Scope, config: &Config, v4: &DeepseekV4, layer: usize) -> Result<Self> {
        let (hidden, heads, dim) = (config.hidden_size, config.num_attention_heads, v4.head_dim);
        let (groups, rank, kind) = (v4.o_groups, v4.o_lora_rank, v4.layers[layer]);
        let (latent, sinks) = (config.q_lora_rank, scope.get_f32("attn_sink", &[heads])?);
        Ok(Self {
            layer,
            query_latent: Linear::load(scope, "wq_a", (latent, hidden), false)?,
            query_norm: Norm::load(scope, "q_norm.weight", latent, config)?,
            query: Linear::load(scope, "wq_b", (heads * dim, latent), false)?,
            row: Linear::load(scope, "wkv", (dim, hidden), false)?,
            row_norm: Norm::load(scope, "kv_norm.weight", dim, config)?,
            head_norm: Norm::plain(dim, config.rms_norm_eps, sinks.device())?,
            sinks,
            out_groups: scope.get("wo_a.weight", &[groups * rank, heads * dim / groups])?,
            out: Linear::load(scope, "wo_b", (hidden, groups * rank), false)?,
            kind,
            compressor: Compressor::load(&scope.at("compressor"), kind, dim, config)?,
            indexer: Indexer::load(&scope.at("indexer"), config, kind)?,
            heads,
            dim,
            groups,
            window: v4.sliding_window,
        })
    }

    pub(super) fn can_select(&self) -> bool {
        self.indexer.is_some()
    }

    /// Attends from the normed input `x` `[B, T, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass, clock: &mut Clock) -> Result<Attended> {
        let rotary = match (self.kind, &inputs.compressed) {
            (Compression::None, _) => &inputs.rotary,
            (_, Some(compressed)) => compressed,
            (_, None) => return Err(unsupported("a forward without the tables of compressed layers")),
        };
        let latent = self.query_norm.forward(&self.query_latent.forward(x)?)?;
        let q = self.queries(&latent, rotary)?;
        let rows = self.turned(&self.row_norm.forward(&self.row.forward(x)?)?, rotary)?;
        let entries = match &self.compressor {
            Some(compressor) => compressor.entries(x, rotary)?,
            None => None,
        };
        clock.lap(|t| &mut t.attention)?;

        let (indices, own) = self.choose(x, &latent, rotary, pass, clock)?;
        pass.check()?;
        let seen = match (&indices, self.kind.rate()) {
            (Some(indices), _) => Entries::Selected(indices),
            (None, Some(rate)) => Entries::Complete(rate),
            (None, None) => Entries::None,
        };
        let scale = (self.dim as f64).powf(-0.5);
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        let (q32, rows, entries) = (wide(&q)?, wide(&rows)?, entries.as_ref().map(wide).transpose()?);
        let operands = Windowed {
            q: &q32,
            rows: &rows,
            entries: entries.as_ref(),
            sinks: &self.sinks,
            window: self.window,
            scale,
        };
        let heads = if pass.ops == Ops::Fast && x.device().is_cpu() {
            windowed(operands, seen, pass.stop)?
        } else {
            windowed_plain(operands, seen)?
        };
        pass.check()?;
        let back = Rotary { cos: rotary.cos.clone(), sin: rotary.sin.neg()? };
        let heads = self.turned(&heads.to_dtype(x.dtype())?, &back)?;
        let out = self.project(&heads)?;
        clock.lap(|t| &mut t.attention)?;
        Ok(Attended { out, indices, own })
    }

    /// Returns the entries that the pass asks for, and the site's own where it wants them beside; nothing off sites.
    fn choose(
        &self,
        x: &Tensor,
        latent: &Tensor,
        rotary: &Rotary,
        pass: &mut Pass,
        clock: &mut Clock,
    ) -> Result<(Option<Indices>, Option<Indices>)> {
        if !matches!(self.kind, Compression::Selected(_)) {
            return Ok((None, None));
        }
        let mut own = |pass: &Pass| {
            let indexer = self.indexer.as_ref().ok_or(ModelError::NoIndexer(self.layer))?;
            indexer.select(x, latent, rotary, pass, clock)
        };
        Ok(match pass.attend {
            Attend::Own => (Some(own(pass)?), None),
            attend => {
                let beside = if pass.shadow && self.can_select() { Some(own(pass)?) } else { None };
                (if let Attend::Given(indices) = attend { Some(indices.clone()) } else { None }, beside)
            }
        })
    }

    /// Returns the normalised and rotated queries `[B, T, heads · dim]`.
    fn queries(&self, latent: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let q = self.query.forward(latent)?;
        let (b, t, width) = q.dims3()?;
        let normed = self.head_norm.forward(&q.reshape((b, t, self.heads, self.dim))?)?;
        self.turned(&normed.reshape((b, t, width))?, rotary)
    }

    /// Rotates the trailing dimensions of every head.
    fn turned(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let turned = 2 * rotary.cos.dim(1)?;
        Ok(rope(x, rotary, self.dim, self.dim - turned, Pairing::Interleaved)?)
    }

    /// Projects the heads' outputs `[B, T, heads · dim]`, group by group, then all groups together.
    fn project(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, t, width) = heads.dims3()?;
        let (each, rank) = (width / self.groups, self.out_groups.dim(0)? / self.groups);
        let flat = heads.reshape((b * t, width))?;
        let mut parts = Vec::with_capacity(self.groups);
        for group in 0..self.groups {
            let matrix = self.out_groups.narrow(0, group * rank, rank)?;
            parts.push(flat.narrow(1, group * each, each)?.contiguous()?.matmul(&matrix.t()?)?);
        }
        self.out.forward(&Tensor::cat(&parts, 1)?.reshape((b, t, self.groups * rank))?)
    }
}
