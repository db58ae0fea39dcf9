//! Hyper-connections: several residual streams, mixed into one before a sublayer and written to after it.
//!
//! From all streams of a token come `pre`, the weights of their sum; `post`, how much of the sublayer's output each
//! stream gets; and `comb`, how the streams mix, made doubly stochastic by a few normalisations of columns and rows.
//! Everything here is f32.

use candle_core::{D, DType, Tensor};

use crate::checkpoint::{Config, DeepseekV4};
use crate::model::Result;
use crate::model::ops::{self, StreamMix};
use crate::model::pass::Ops;
use crate::model::weights::{Linear, Scope};

/// How one sublayer reads and writes the streams.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    project: Linear,
    base: Tensor,
    mix: StreamMix,
    norm_eps: f64,
}

/// What a sublayer is given, and what its output is spread with.
pub(super) struct Mixed {
    /// `[B, T, hidden]`.
    pub(super) input: Tensor,
    /// `[N, streams]`, f32, N = B·T.
    pub(super) post: Tensor,
    /// `[N, from, to]`, f32.
    pub(super) comb: Tensor,
}

impl Connection {
    pub(super) fn load(scope: &Scope, config: &Config, v4: &DeepseekV4) -> Result<Self> {
        let (streams, hidden) = (v4.hc_mult, config.hidden_size);
        let mixes = (2 + streams) * streams;
        let scale: Vec<f32> = scope.get_f32("scale", &[3])?.to_vec1()?;
        Ok(Self {
            project: Linear::of(scope.get_f32("fn", &[mixes, streams * hidden])?),
            base: scope.get_f32("base", &[mixes])?,
            mix: StreamMix {
                streams,
                scale: [scale[0], scale[1], scale[2]].map(f64::from),
                iterations: v4.hc_sinkhorn_iters,
                eps: v4.hc_eps,
            },
            norm_eps: config.rms_norm_eps,
        })
    }

    /// Mixes the streams `x` `[B, T, streams, hidden]` into what the sublayer works on.
    pub(super) fn enter(&self, x: &Tensor, ops: Ops) -> Result<Mixed> {
        let (b, t, streams, hidden) = x.dims4()?;
        let flat = x.to_dtype(DType::F32)?.reshape((b * t, streams * hidden))?;
        let m = projected(&flat, &self.project, self.norm_eps)?;
        let [pre, post, comb] = match ops {
            Ops::Fast => ops::stream_weights(&m, &self.base, self.mix)?,
            Ops::Reference => ops::stream_weights_plain(&m, &self.base, self.mix)?,
        };
        let input = weighted(&flat.reshape((b * t, streams, hidden))?, &pre, ops)?;
        Ok(Mixed { input: input.reshape((b, t, hidden))?.to_dtype(x.dtype())?, post, comb })
    }
}

impl Mixed {
    /// Returns the streams `x` after the sublayer gave `out` `[B, T, hidden]`.
    pub(super) fn leave(&self, x: &Tensor, out: &Tensor, ops: Ops) -> Result<Tensor> {
        let (b, t, streams, hidden) = x.dims4()?;
        let n = b * t;
        let wide = x.to_dtype(DType::F32)?.reshape((n, streams, hidden))?;
        let out = out.to_dtype(DType::F32)?.reshape((n, hidden))?;
        let next = match ops {
            Ops::Fast => ops::spread(&wide, &out, &self.post, &self.comb)?,
            Ops::Reference => ops::spread_plain(&wide, &out, &self.post, &self.comb)?,
        };
        Ok(next.reshape(x.shape())?.to_dtype(x.dtype())?)
    }
}

/// Projects streams after an RMS normalisation over all of them: `[N, streams · hidden]` to `[N, mixes]`.
fn projected(flat: &Tensor, project: &Linear, eps: f64) -> Result<Tensor> {
    let scale = (flat.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok(project.forward(flat)?.broadcast_div(&scale)?)
}

/// Sums the streams `[N, streams, hidden]` by weights `[N, streams]`.
fn weighted(x: &Tensor, weights: &Tensor, ops: Ops) -> Result<Tensor> {
    Ok(match ops {
        Ops::Fast => ops::weighted_streams(x, weights)?,
        Ops::Reference => x.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1)?,
    })
}

/// Mixes the streams into the one that the output head reads.
#[derive(Clone, Debug)]
pub(in crate::model) struct Collapse {
    project: Linear,
    base: Tensor,
    scale: f64,
    eps: f64,
    norm_eps: f64,
}

impl Collapse {
    /// Loads it where the model has several streams.
    pub(in crate::model) fn load(root: &Scope, config: &Config) -> Result<Option<Self>> {
        let Some(v4) = config.deepseek_v4.as_deref() else { return Ok(None) };
        let scope = root.at("model.hc_head");
        let scale: Vec<f32> = scope.get_f32("scale", &[1])?.to_vec1()?;
        Ok(Some(Self {
            project: Linear::of(scope.get_f32("fn", &[v4.hc_mult, v4.hc_mult * config.hidden_size])?),
            base: scope.get_f32("base", &[v4.hc_mult])?,
            scale: f64::from(scale[0]),
            eps: v4.hc_eps,
            norm_eps: config.rms_norm_eps,
        }))
    }

    /// Mixes `x` `[…, streams, hidden]` into `[…, hidden]`.
    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (streams, hidden) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
        let n = x.elem_count() / (streams * hidden).max(1);
        let flat = x.to_dtype(DType::F32)?.reshape((n, streams * hidden))?;
        let m = projected(&flat, &self.project, self.norm_eps)?;
        let pre = (candle_nn::ops::sigmoid(&(m * self.scale)?.broadcast_add(&self.base)?)? + self.eps)?;
        let out = weighted(&flat.reshape((n, streams, hidden))?, &pre, Ops::Fast)?;
        let mut shape = x.dims()[..x.rank() - 2].to_vec();
        shape.push(hidden);
        Ok(out.reshape(shape)?.to_dtype(x.dtype())?)
    }
}
