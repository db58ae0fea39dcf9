//! The gated MLP of dense layers, of experts and of shared experts: down(silu(gate x) · up x).

use candle_core::{D, Tensor};

use super::Result;
use super::ops::swiglu;
use super::pass::Pass;
use super::weights::{Linear, Scope};

/// Tokens per chunk: from some hundred rows on, matrix products do not get faster.
const CHUNK: usize = 512;

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

    /// Returns the weights of gate, up and down.
    pub(super) fn weights(&self) -> [&Tensor; 3] {
        [self.gate.weight(), self.up.weight(), self.down.weight()]
    }

    /// Applies the MLP to the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&swiglu(&self.gate.forward(x)?, &self.up.forward(x)?)?)
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
