//! Multi-head latent attention with its index source.

use candle_core::{D, DType, Tensor};

use super::clock::Clock;
use super::indexer::{Indexer, Projected};
use super::ops::{
    Allowed, Indices, MlaShape, Pairing, Rotary, indexer_scores, mean_attention, mla_attention, prefers_latent,
    rms_norm, rope, select, sparse_expanded, sparse_latent, top_k_rows,
};
use super::pass::{Attend, Ops, Pass};
use super::weights::{Linear, Scope};
use super::{ModelError, Result, rope as rope_tables};
use crate::checkpoint::Config;

/// ε of the norms on the query and key-value latents: fixed in the reference, not `rms_norm_eps`.
const LATENT_EPS: f64 = 1e-6;

/// Attention weights of one layer.
#[derive(Clone, Debug)]
pub(super) struct Mla {
    layer: usize,
    q_a: Linear,
    q_a_norm: Tensor,
    q_b: Linear,
    kv_a: Linear,
    kv_a_norm: Tensor,
    kv_b: Linear,
    out: Linear,
    pub(super) indexer: Option<Indexer>,
    shape: MlaShape,
    latent: usize,
    scale: f64,
    topk: usize,
}

/// What attention gives besides its output.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) indices: Option<Indices>,
    pub(super) own: Option<Indices>,
    pub(super) scores: Option<Tensor>,
    pub(super) probs: Option<Tensor>,
}

impl Mla {
    pub(super) fn load(scope: &Scope, config: &Config, layer: usize) -> Result<Self> {
        let shape = MlaShape {
            heads: config.num_attention_heads,
            nope: config.qk_nope_head_dim,
            rope: config.qk_rope_head_dim,
            value: config.v_head_dim,
        };
        let (hidden, q_rank, latent) = (config.hidden_size, config.q_lora_rank, config.kv_lora_rank);
        let (heads, bias) = (shape.heads, config.attention_bias);
        Ok(Self {
            layer,
            q_a: Linear::load(scope, "q_a_proj", (q_rank, hidden), bias)?,
            q_a_norm: scope.get("q_a_layernorm.weight", &[q_rank])?,
            q_b: Linear::load(scope, "q_b_proj", (heads * (shape.nope + shape.rope), q_rank), false)?,
            kv_a: Linear::load(scope, "kv_a_proj_with_mqa", (latent + shape.rope, hidden), bias)?,
            kv_a_norm: scope.get("kv_a_layernorm.weight", &[latent])?,
            kv_b: Linear::load(scope, "kv_b_proj", (heads * (shape.nope + shape.value), latent), false)?,
            out: Linear::load(scope, "o_proj", (hidden, heads * shape.value), bias)?,
            indexer: Indexer::load(&scope.at("indexer"), config)?,
            shape,
            latent,
            scale: rope_tables::softmax_scale(config),
            topk: config.index_topk,
        })
    }

    /// Attends from the normed input `x` `[B, T, hidden]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        pass: &mut Pass,
        clock: &mut Clock,
    ) -> Result<(Tensor, Extras)> {
        let MlaShape { nope, rope: width, .. } = self.shape;
        let c_q = rms_norm(&self.q_a.forward(x)?, &self.q_a_norm, LATENT_EPS)?;
        let q = rope(&self.q_b.forward(&c_q)?, rotary, nope + width, nope, Pairing::Interleaved)?;
        let a = self.kv_a.forward(x)?; // [latent | rope]
        let c_kv = rms_norm(&a.narrow(D::Minus1, 0, self.latent)?, &self.kv_a_norm, LATENT_EPS)?;
        let k_rope = a.narrow(D::Minus1, self.latent, width)?;
        let k_rope = rope(&k_rope, rotary, width, 0, Pairing::Interleaved)?;
        let (c_kv, k_rope) = match &mut pass.cache {
            Some(cache) => cache.append(&c_kv, &k_rope)?,
            None => (c_kv, k_rope),
        };
        clock.lap(|t| &mut t.attention)?;

        let mut extras = Extras::default();
        let allowed = match pass.attend {
            Attend::Dense => Allowed::Causal,
            Attend::Given(indices) => Allowed::Selected(indices.clone()),
            Attend::Own => Allowed::Selected(self.run_indexer(x, &c_q, rotary, pass, clock, &mut extras)?),
        };
        if let Allowed::Selected(indices) = &allowed {
            extras.indices = Some(indices.clone());
        }
        if !matches!(pass.attend, Attend::Own) {
            if pass.shadow && self.indexer.is_some() {
                extras.own = Some(self.run_indexer(x, &c_q, rotary, pass, clock, &mut extras)?);
            } else if pass.want_scores && self.indexer.is_some() {
                extras.scores = Some(self.scores(x, &c_q, rotary, pass)?);
                clock.lap(|t| &mut t.indexer)?;
            }
        }
        let heads = match &allowed {
            Allowed::Selected(indices) if pass.ops == Ops::Fast && !pass.want_probs && x.device().is_cpu() => {
                self.sparse(&q, &c_kv, &k_rope, indices)?
            }
            _ => {
                let kv = self.kv_b.forward(&c_kv)?; // heads · [k_nope | v]
                let (heads, probs) =
                    mla_attention(&q, &kv, &k_rope, self.shape, self.scale, &allowed, pass.want_probs)?;
                extras.probs = probs;
                heads
            }
        };
        let out = self.out.forward(&heads)?;
        clock.lap(|t| &mut t.attention)?;
        Ok((out, extras))
    }

    /// Returns the head-averaged dense attention `[R, T]` of the queries at `rows`, from the normed input `x` `[1, T, hidden]`.
    ///
    /// It works in the latent: scores = q_nope W_k · c_kv + q_rope · k_rope, so that no key is expanded.
    pub(super) fn mean_attention(&self, x: &Tensor, rotary: &Rotary, rows: &[usize]) -> Result<Tensor> {
        let MlaShape { heads, nope, rope: width, value } = self.shape;
        let (x, rotary) = (x.detach(), Rotary { cos: rotary.cos.detach(), sin: rotary.sin.detach() });
        let at = Tensor::from_iter(rows.iter().map(|&r| r as u32), x.device())?;
        let c_q = rms_norm(&self.q_a.forward(&x.index_select(&at, 1)?)?, &self.q_a_norm, LATENT_EPS)?;
        let q = rope(&self.q_b.forward(&c_q)?, &rotary.select(rows)?, nope + width, nope, Pairing::Interleaved)?;
        let q = q.reshape((rows.len(), heads, nope + width))?.transpose(0, 1)?; // N R d
        let a = self.kv_a.forward(&x)?; // [latent | rope]
        let c_kv = rms_norm(&a.narrow(D::Minus1, 0, self.latent)?, &self.kv_a_norm, LATENT_EPS)?;
        let k_rope = rope(&a.narrow(D::Minus1, self.latent, width)?, &rotary, width, 0, Pairing::Interleaved)?;
        let keys = Tensor::cat(&[c_kv, k_rope], D::Minus1)?; // 1 T (latent + rope)
        let w_k = self.kv_b.weight().reshape((heads, nope + value, self.latent))?.narrow(1, 0, nope)?;
        let q_latent = q.narrow(D::Minus1, 0, nope)?.contiguous()?.matmul(&w_k.contiguous()?)?;
        let q = Tensor::cat(&[q_latent, q.narrow(D::Minus1, nope, width)?], D::Minus1)?;
        Ok(mean_attention(&q, &keys, rows, self.scale)?)
    }

    /// Attends to the selected keys only, in the cheaper of the two forms.
    fn sparse(&self, q: &Tensor, c_kv: &Tensor, k_rope: &Tensor, indices: &Indices) -> Result<Tensor> {
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        let (q32, k_rope) = (wide(q)?, wide(k_rope)?);
        let out = if prefers_latent(self.shape, self.latent) {
            let weight = wide(self.kv_b.weight())?;
            sparse_latent(&q32, &wide(c_kv)?, &k_rope, &weight, self.shape, self.scale, indices)?
        } else {
            sparse_expanded(&q32, &wide(&self.kv_b.forward(c_kv)?)?, &k_rope, self.shape, self.scale, indices)?
        };
        Ok(out.to_dtype(q.dtype())?)
    }

    /// Runs the indexer's projections; with a cache, the keys of earlier tokens come before those of this call.
    fn project(&self, x: &Tensor, c_q: &Tensor, rotary: &Rotary, pass: &mut Pass) -> Result<(&Indexer, Projected)> {
        let indexer = self.indexer.as_ref().ok_or(ModelError::NoIndexer(self.layer))?;
        let mut projected = indexer.project(x, c_q, rotary)?;
        if let Some(cache) = &mut pass.cache {
            projected.k = cache.append_index(self.layer, &projected.k)?;
        }
        Ok((indexer, projected))
    }

    fn scores(&self, x: &Tensor, c_q: &Tensor, rotary: &Rotary, pass: &mut Pass) -> Result<Tensor> {
        let (indexer, p) = self.project(x, c_q, rotary, pass)?;
        Ok(indexer_scores(&p.q, &p.k, &p.w, indexer.scale())?)
    }

    fn run_indexer(
        &self,
        x: &Tensor,
        c_q: &Tensor,
        rotary: &Rotary,
        pass: &mut Pass,
        clock: &mut Clock,
        extras: &mut Extras,
    ) -> Result<Indices> {
        if pass.want_scores {
            let scores = self.scores(x, c_q, rotary, pass)?;
            clock.lap(|t| &mut t.indexer)?;
            let indices = top_k_rows(&scores.detach(), self.topk)?;
            clock.lap(|t| &mut t.topk)?;
            extras.scores = Some(scores);
            return Ok(indices);
        }
        let (indexer, p) = self.project(x, c_q, rotary, pass)?;
        clock.lap(|t| &mut t.indexer)?;
        let (indices, scoring, selecting) = select(&p.q, &p.k, &p.w, indexer.scale(), self.topk)?;
        clock.split(scoring, selecting);
        Ok(indices)
    }
}
