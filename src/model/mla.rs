//! Multi-head latent attention: queries and keys through low-rank latents.

use candle_core::{D, Tensor};

use super::Result;
use super::heads::Heads;
use super::ops::{MlaShape, Pairing, Rotary, rms_norm, rope};
use super::weights::{Linear, Scope};
use crate::checkpoint::Config;

/// ε of the norms on the query and key-value latents: fixed in the reference, not `rms_norm_eps`.
const LATENT_EPS: f64 = 1e-6;

/// Query and key-value projections of one layer.
#[derive(Clone, Debug)]
pub(super) struct Mla {
    q_a: Linear,
    q_a_norm: Tensor,
    q_b: Linear,
    kv_a: Linear,
    kv_a_norm: Tensor,
    kv_b: Linear,
    shape: MlaShape,
    latent: usize,
}

impl Mla {
    pub(super) fn load(scope: &Scope, config: &Config, shape: MlaShape) -> Result<Self> {
        let (hidden, q_rank, latent) = (config.hidden_size, config.q_lora_rank, config.kv_lora_rank);
        let (heads, bias) = (shape.heads, config.attention_bias);
        Ok(Self {
            q_a: Linear::load(scope, "q_a_proj", (q_rank, hidden), bias)?,
            q_a_norm: scope.get("q_a_layernorm.weight", &[q_rank])?,
            q_b: Linear::load(scope, "q_b_proj", (heads * (shape.nope + shape.rope), q_rank), false)?,
            kv_a: Linear::load(scope, "kv_a_proj_with_mqa", (latent + shape.rope, hidden), bias)?,
            kv_a_norm: scope.get("kv_a_layernorm.weight", &[latent])?,
            kv_b: Linear::load(scope, "kv_b_proj", (heads * (shape.nope + shape.value), latent), false)?,
            shape,
            latent,
        })
    }
}

impl Heads for Mla {
    fn queries(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)> {
        let MlaShape { nope, rope: width, .. } = self.shape;
        let c_q = self.source(x)?;
        let q = rope(&self.q_b.forward(&c_q)?, rotary, nope + width, nope, Pairing::Interleaved)?;
        Ok((c_q, q))
    }

    fn source(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(&self.q_a.forward(x)?, &self.q_a_norm, LATENT_EPS)?)
    }

    fn keys(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)> {
        let width = self.shape.rope;
        let a = self.kv_a.forward(x)?; // [latent | rope]
        let c_kv = rms_norm(&a.narrow(D::Minus1, 0, self.latent)?, &self.kv_a_norm, LATENT_EPS)?;
        let k_rope = rope(&a.narrow(D::Minus1, self.latent, width)?, rotary, width, 0, Pairing::Interleaved)?;
        Ok((c_kv, k_rope))
    }

    fn expand(&self, c_kv: &Tensor) -> Result<Tensor> {
        self.kv_b.forward(c_kv) // heads · [k_nope | v]
    }

    /// Works in the latent: scores = q_nope W_k · c_kv + q_rope · k_rope, so that no key is expanded.
    fn scored(&self, q: &Tensor, c_kv: &Tensor, k_rope: &Tensor) -> Result<(Tensor, Tensor)> {
        let MlaShape { heads, nope, rope: width, value } = self.shape;
        let q = q.reshape((q.dim(0)?, heads, nope + width))?.transpose(0, 1)?; // N R d
        let w_k = self.kv_b.weight().reshape((heads, nope + value, self.latent))?.narrow(1, 0, nope)?;
        let q_latent = q.narrow(D::Minus1, 0, nope)?.contiguous()?.matmul(&w_k.contiguous()?)?;
        let q = Tensor::cat(&[q_latent, q.narrow(D::Minus1, nope, width)?], D::Minus1)?;
        let keys = Tensor::cat(&[c_kv, k_rope], D::Minus1)?.unsqueeze(0)?; // 1 T (latent + rope)
        Ok((q, keys))
    }

    fn latent(&self) -> Option<&Tensor> {
        Some(self.kv_b.weight())
    }
}
