//! Grouped-query attention: each head of keys and values serves several query heads.

use candle_core::{D, Tensor};

use super::Result;
use super::heads::Heads;
use super::norm::Norm;
use super::ops::{Pairing, Rotary, rope};
use super::weights::{Linear, Scope};
use crate::checkpoint::{Attention, Config};

/// Projections of one layer.
#[derive(Clone, Debug)]
pub(super) struct Gqa {
    query: Linear,
    key: Linear,
    value: Linear,
    /// Gains on each head of queries and of keys.
    norms: Option<(Norm, Norm)>,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    pairing: Pairing,
}

impl Gqa {
    pub(super) fn load(scope: &Scope, config: &Config, kv_heads: usize) -> Result<Self> {
        let (bias, normed, interleaved) = match config.attention {
            Attention::Gqa { qkv_bias, qk_norm, rope_interleaved, .. } => (qkv_bias, qk_norm, rope_interleaved),
            Attention::MiniMaxM3(_) => (false, true, false),
            Attention::Mla | Attention::SharedRows => (false, false, false),
        };
        let (heads, dim, hidden) = (config.num_attention_heads, config.v_head_dim, config.hidden_size);
        let linear = |name, heads| Linear::load(scope, name, (heads * dim, hidden), bias);
        let norm = |name: &str| Norm::load(scope, name, dim, config);
        Ok(Self {
            query: linear("q_proj", heads)?,
            key: linear("k_proj", kv_heads)?,
            value: linear("v_proj", kv_heads)?,
            norms: if normed { Some((norm("q_norm.weight")?, norm("k_norm.weight")?)) } else { None },
            heads,
            kv_heads,
            dim,
            pairing: if interleaved { Pairing::Interleaved } else { Pairing::Half },
        })
    }

    /// Normalises each head of `x` `[B, T, heads · dim]` where the model does, and rotates as many leading dimensions as the
    /// tables have.
    fn turn(&self, x: Tensor, norm: Option<&Norm>, rotary: &Rotary) -> Result<Tensor> {
        let (b, t, width) = x.dims3()?;
        let dim = self.dim;
        let x = match norm {
            Some(norm) => norm.forward(&x.reshape((b, t, width / dim, dim))?)?.reshape((b, t, width))?,
            None => x,
        };
        Ok(rope(&x, rotary, dim, 0, self.pairing)?)
    }
}

impl Heads for Gqa {
    fn queries(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)> {
        let q = self.turn(self.query.forward(x)?, self.norms.as_ref().map(|(q, _)| q), rotary)?;
        Ok((x.clone(), q))
    }

    fn source(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn keys(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)> {
        let Self { kv_heads, dim, .. } = *self;
        let (b, t, _) = x.dims3()?;
        let k = self.turn(self.key.forward(x)?, self.norms.as_ref().map(|(_, k)| k), rotary)?;
        let (k, v) = (k.reshape((b, t, kv_heads, dim))?, self.value.forward(x)?.reshape((b, t, kv_heads, dim))?);
        let kv = Tensor::cat(&[k, v], D::Minus1)?.reshape((b, t, kv_heads * 2 * dim))?; // heads · [k | v]
        let nothing = kv.narrow(D::Minus1, 0, 0)?;
        Ok((kv, nothing))
    }

    fn expand(&self, kv: &Tensor) -> Result<Tensor> {
        Ok(kv.clone())
    }

    fn scored(&self, q: &Tensor, kv: &Tensor, _shared: &Tensor) -> Result<(Tensor, Tensor)> {
        let Self { heads, kv_heads, dim, .. } = *self;
        let q = q.reshape((q.dim(0)?, heads, dim))?.transpose(0, 1)?; // N R d
        let k = kv.reshape((kv.dim(0)?, kv_heads, 2 * dim))?.narrow(D::Minus1, 0, dim)?.transpose(0, 1)?; // G T d
        Ok((q, k.contiguous()?))
    }
}
