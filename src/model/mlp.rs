//! The gated MLP of dense layers, of experts and of shared experts: down(silu(gate x) · up x), or a clamped form of it.

use candle_core::{D, Tensor};

use super::Result;
use super::ops::{clamped_swiglu, swiglu};
use super::pass::Pass;
use super::weights::{Linear, Scope};
use crate::checkpoint::{Attention, Config};

/// Tokens per chunk: from some hundred rows on, matrix products do not get faster.
const CHUNK: usize = 512;

/// What stands between the projections of an MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    /// silu(gate) · up.
    SwiGlu,
    /// Bounded, with a factor inside the sigmoid and 1 added to `up`: [`clamped_swiglu`].
    Clamped { alpha: f64, limit: f64 },
    /// silu(min(gate, limit)) · clamp(up, −limit, limit).
    Bounded { limit: f64 },
}

impl Activation {
    /// Returns the activation of all MLPs of a model.
    pub(super) fn of(config: &Config) -> Self {
        match config.attention {
            Attention::MiniMaxM3(own) => Self::Clamped { alpha: own.swiglu_alpha, limit: own.swiglu_limit },
            _ => match config.deepseek_v4.as_ref().and_then(|v4| v4.swiglu_limit) {
                Some(limit) => Self::Bounded { limit },
                None => Self::SwiGlu,
            },
        }
    }
}

/// Weights of one gated MLP.
#[derive(Clone, Debug)]
pub(super) struct Mlp {
    activation: Activation,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    pub(super) fn load(scope: &Scope, (hidden, width): (usize, usize), activation: Activation) -> Result<Self> {
        Ok(Self {
            activation,
            gate: Linear::load(scope, "gate_proj", (width, hidden), false)?,
            up: Linear::load(scope, "up_proj", (width, hidden), false)?,
            down: Linear::load(scope, "down_proj", (hidden, width), false)?,
        })
    }

    /// Returns whether the activation is silu(gate) · up.
    pub(super) fn is_plain(&self) -> bool {
        self.activation == Activation::SwiGlu
    }

    /// Returns the weights of gate, up and down.
    pub(super) fn weights(&self) -> [&Tensor; 3] {
        [self.gate.weight(), self.up.weight(), self.down.weight()]
    }

    /// Applies the MLP to the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = (self.gate.forward(x)?, self.up.forward(x)?);
        self.down.forward(&match self.activation {
            Activation::SwiGlu => swiglu(&gate, &up)?,
            Activation::Clamped { alpha, limit } => clamped_swiglu(&gate, &up, alpha, limit)?,
            Activation::Bounded { limit } => swiglu(&gate.minimum(limit)?, &up.clamp(-limit, limit)?)?,
        })
    }

    /// Does the same some tokens at a time, so that little is held at once and a stop is heard soon.
    pub(super) fn in_chunks(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let hidden = x.dim(D::Minus1)?;
        let rows = x.elem_count() / hidden;
        if rows <= CHUNK {
            return self.forward(x);
        }
        let flat = x.reshape((rows, hidden))?;
        let mut parts = Vec::with_capacity(rows.div_ceil(CHUNK));
        for start in (0..rows).step_by(CHUNK) {
            pass.check()?;
            parts.push(self.forward(&flat.narrow(0, start, CHUNK.min(rows - start))?)?);
        }
        Ok(Tensor::cat(&parts, 0)?.reshape(x.shape())?)
    }
}
