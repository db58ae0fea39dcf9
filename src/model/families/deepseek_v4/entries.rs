//! Compressed entries: some tokens' keys pooled into one, per channel by a softmax over gates.

use candle_core::{D, DType, Tensor};

use crate::checkpoint::{Compression, Config};
use crate::model::Result;
use crate::model::norm::Norm;
use crate::model::ops::{Pairing, Rotary, rope};
use crate::model::weights::{Linear, Scope};

/// Weights that make entries of one width.
#[derive(Clone, Debug)]
pub(super) struct Compressor {
    value: Linear,
    gate: Linear,
    /// Added to the gates by the place in the window, `[rate, channels]`.
    places: Tensor,
    norm: Norm,
    rate: usize,
    dim: usize,
    /// Whether an entry also pools the window before its own, through channels of its own.
    overlaps: bool,
}

impl Compressor {
    /// Loads the compressor at `scope` of entries of width `dim`; `None` where the layer does not compress.
    pub(super) fn load(scope: &Scope, kind: Compression, dim: usize, config: &Config) -> Result<Option<Self>> {
        let Some(rate) = kind.rate() else { return Ok(None) };
        let overlaps = matches!(kind, Compression::Selected(_));
        let (hidden, channels) = (config.hidden_size, if overlaps { 2 * dim } else { dim });
        Ok(Some(Self {
            value: Linear::load(scope, "wkv", (channels, hidden), false)?,
            gate: Linear::load(scope, "wgate", (channels, hidden), false)?,
            places: scope.get_f32("ape", &[rate, channels])?,
            norm: Norm::load(scope, "norm.weight", dim, config)?,
            rate,
            dim,
            overlaps,
        }))
    }

    /// Makes the entries of the normed input `x` `[B, T, hidden]`: `[B, ⌊T/rate⌋, dim]`, rotated at each window's first
    /// token; `None` where no window is complete.
    pub(super) fn entries(&self, x: &Tensor, rotary: &Rotary) -> Result<Option<Tensor>> {
        let (b, t, _) = x.dims3()?;
        let (n, m) = (t / self.rate, self.rate);
        if n == 0 {
            return Ok(None);
        }
        let x = x.narrow(1, 0, n * m)?;
        let windows = |linear: &Linear| -> Result<Tensor> {
            let y = linear.forward(&x)?.to_dtype(DType::F32)?;
            Ok(y.reshape((b, n, m, y.dim(2)?))?)
        };
        let value = windows(&self.value)?;
        let gate = windows(&self.gate)?.broadcast_add(&self.places)?;
        let (value, gate) = if self.overlaps {
            // The first window has none before it: gates of −∞ leave its slots out of the softmax.
            (self.overlapping(&value, 0.0)?, self.overlapping(&gate, f64::NEG_INFINITY)?)
        } else {
            (value, gate)
        };
        let share = candle_nn::ops::softmax(&gate.transpose(2, 3)?.contiguous()?, D::Minus1)?;
        let pooled = (share * value.transpose(2, 3)?.contiguous()?)?.sum(3)?; // B n dim
        let pooled = self.norm.forward(&pooled)?.to_dtype(x.dtype())?;
        let starts: Vec<usize> = (0..n).map(|w| w * m).collect();
        let turned = 2 * rotary.cos.dim(1)?;
        Ok(Some(rope(&pooled, &rotary.select(&starts)?, self.dim, self.dim - turned, Pairing::Interleaved)?))
    }

    /// Puts the first channels of the window before beside the last channels of each window, `[B, n, 2m, dim]`.
    fn overlapping(&self, x: &Tensor, first: f64) -> Result<Tensor> {
        let (b, n, m, _) = x.dims4()?;
        let nothing = (Tensor::ones((b, 1, m, self.dim), x.dtype(), x.device())? * first)?;
        let before = Tensor::cat(&[&nothing, &x.narrow(1, 0, n - 1)?.narrow(3, 0, self.dim)?.contiguous()?], 1)?;
        Ok(Tensor::cat(&[&before, &x.narrow(3, self.dim, self.dim)?.contiguous()?], 2)?)
    }
}
