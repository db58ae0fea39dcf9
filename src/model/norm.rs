//! RMS normalisation with the gain that the family stores.

use candle_core::{DType, Device, Tensor};

use super::Result;
use super::ops::rms_norm;
use super::weights::Scope;
use crate::checkpoint::{Config, Family};

/// An RMS norm of the model.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    /// In the model's dtype, or in f32 where the family's norms compute in f32 to the end.
    gain: Tensor,
    eps: f64,
}

impl Norm {
    /// Returns a norm without weight, computed in f32.
    pub(super) fn plain(width: usize, eps: f64, device: &Device) -> Result<Self> {
        Ok(Self { gain: Tensor::ones(width, DType::F32, device)?, eps })
    }

    /// Loads the norm `name` of `width`: the gain is `w`, or for MiniMax-M3 `1 + w` in f32.
    pub(super) fn load(scope: &Scope, name: &str, width: usize, config: &Config) -> Result<Self> {
        let gain = match config.family {
            Family::MiniMaxM3 => (scope.get_f32(name, &[width])? + 1.0)?,
            Family::DeepseekV4 => scope.get_f32(name, &[width])?,
            _ => scope.get(name, &[width])?,
        };
        Ok(Self { gain, eps: config.rms_norm_eps })
    }

    /// Applies the norm to the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(&x.to_dtype(self.gain.dtype())?, &self.gain, self.eps)?.to_dtype(x.dtype())?)
    }
}
