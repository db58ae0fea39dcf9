//! One decoder layer: attention and a dense or sparse MLP, each behind a norm and added to the residual stream.

use candle_core::Tensor;

use super::Result;
use super::clock::Clock;
use super::mla::Mla;
use super::mlp::Mlp;
use super::moe::Moe;
use super::ops::{Rotary, rms_norm};
use super::pass::{LayerOutput, Pass};
use super::weights::Scope;
use crate::checkpoint::{Config, MlpKind};

#[derive(Clone, Debug)]
enum Feed {
    Dense(Mlp),
    Sparse(Moe),
}

/// The weights of one layer, with its indexer if the checkpoint has one.
#[derive(Clone, Debug)]
pub struct Layer {
    attention_norm: Tensor,
    attention: Mla,
    feed_norm: Tensor,
    feed: Feed,
    eps: f64,
}

impl Layer {
    /// Loads layer `l` of the model at `root`.
    pub(super) fn load(root: &Scope, config: &Config, l: usize) -> Result<Self> {
        let scope = root.at("model.layers").at(l);
        let hidden = config.hidden_size;
        Ok(Self {
            attention_norm: scope.get("input_layernorm.weight", &[hidden])?,
            attention: Mla::load(&scope.at("self_attn"), config, l)?,
            feed_norm: scope.get("post_attention_layernorm.weight", &[hidden])?,
            feed: match config.mlp[l] {
                MlpKind::Dense => Feed::Dense(Mlp::load(&scope.at("mlp"), hidden, config.intermediate_size)?),
                MlpKind::Sparse => Feed::Sparse(Moe::load(&scope.at("mlp"), config)?),
            },
            eps: config.rms_norm_eps,
        })
    }

    /// Returns whether the layer can be Full.
    pub fn has_indexer(&self) -> bool {
        self.attention.indexer.is_some()
    }

    /// Runs the layer on the residual stream `x` `[B, T, hidden]`.
    ///
    /// With a cache, `x` holds the tokens after the cached ones and `rotary` their positions.
    ///
    /// # Errors
    /// [`super::ModelError::NoIndexer`] where the layer has no indexer to run.
    pub fn forward(&self, x: &Tensor, rotary: &Rotary, pass: &mut Pass) -> Result<LayerOutput> {
        if x.device().is_cpu() {
            // From outside the thread pool every parallel loop would be handed over and waited for on its own.
            return rayon::scope(|_| self.run(x, rotary, pass));
        }
        self.run(x, rotary, pass)
    }

    fn run(&self, x: &Tensor, rotary: &Rotary, pass: &mut Pass) -> Result<LayerOutput> {
        let times = pass.times.take();
        let mut clock = Clock::new(times, x.device());
        let normed = rms_norm(x, &self.attention_norm, self.eps)?;
        clock.lap(|t| &mut t.rest)?;
        let (attended, extras) = self.attention.forward(&normed, rotary, pass, &mut clock)?;
        let x = (x + attended)?;
        let normed = rms_norm(&x, &self.feed_norm, self.eps)?;
        clock.lap(|t| &mut t.rest)?;
        let (fed, expert_load) = match &self.feed {
            Feed::Dense(mlp) => (mlp.forward(&normed)?, None),
            Feed::Sparse(moe) => moe.forward(&normed).map(|(y, load)| (y, Some(load)))?,
        };
        clock.lap(|t| &mut t.mlp)?;
        let hidden = (x + fed)?;
        clock.lap(|t| &mut t.rest)?;
        Ok(LayerOutput {
            hidden,
            indices: extras.indices,
            own: extras.own,
            scores: extras.scores,
            probs: extras.probs,
            expert_load,
        })
    }
}
