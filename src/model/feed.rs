//! The MLP half of a layer: one dense MLP, or routed and shared experts.

use candle_core::Tensor;

use super::Result;
use super::mlp::{Activation, Mlp};
use super::moe::Moe;
use super::pass::{Ops, Pass};
use super::weights::Scope;
use crate::checkpoint::{Config, MlpKind};

/// The MLP of one layer.
#[derive(Clone, Debug)]
pub(super) enum Feed {
    Dense(Mlp),
    Sparse(Box<Moe>),
}

impl Feed {
    /// Loads the MLP of layer `l` under `mlp` of the layer's scope.
    pub(super) fn load(scope: &Scope, config: &Config, l: usize) -> Result<Self> {
        let scope = scope.at("mlp");
        Ok(match config.mlp[l] {
            MlpKind::Dense => {
                Self::Dense(Mlp::load(&scope, (config.hidden_size, config.intermediate_size), Activation::of(config))?)
            }
            MlpKind::Sparse => Self::Sparse(Box::new(Moe::load(&scope, config)?)),
        })
    }

    /// Applies it to `x` `[B, T, hidden]`; also returns how many tokens each expert got, where the host knows.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<(Tensor, Option<Vec<u32>>)> {
        Ok(match self {
            Self::Dense(mlp) if pass.ops == Ops::Fast => (mlp.in_chunks(x, pass)?, None),
            Self::Dense(mlp) => (mlp.forward(x)?, None),
            Self::Sparse(moe) => moe.forward(x, &[], pass)?,
        })
    }
}
