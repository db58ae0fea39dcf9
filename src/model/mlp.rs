//! The gated MLP of dense layers, of experts and of shared experts: down(silu(gate x) · up x).

use candle_core::Tensor;

use super::Result;
use super::ops::swiglu;
use super::weights::{Linear, Scope};

/// Weights of one gated MLP.
#[derive(Clone, Debug)]
pub(super) struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    pub(super) fn load(scope: &Scope, hidden: usize, width: usize) -> Result<Self> {
        Ok(Self {
            gate: Linear::load(scope, "gate_proj", (width, hidden), false)?,
            up: Linear::load(scope, "up_proj", (width, hidden), false)?,
            down: Linear::load(scope, "down_proj", (hidden, width), false)?,
        })
    }

    /// Applies the MLP to the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&swiglu(&self.gate.forward(x)?, &self.up.forward(x)?)?)
    }
}
