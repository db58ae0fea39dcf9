//! Every weight of the model as plain numbers, with the optimiser's moments beside it.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};

use super::{Stage, TrainError};
use crate::checkpoint::{Config, demands, indexer_tensors, is_indexer_tensor};
use crate::domain::Rng;

/// What a tensor is to the trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The embedding, also the head where they are tied; or the head.
    Embedding,
    /// A gain or bias.
    Norm,
    /// A hidden matrix.
    Matrix,
    /// The router's matrix.
    Router,
    /// Anything of an indexer.
    Indexer,
    /// The router's balancing bias: moved by load, not by a gradient.
    Balance,
    /// Any weight of a model that was trained before and goes on learning.
    Tuned,
}

impl Kind {
    fn of(name: &str) -> Self {
        if is_indexer_tensor(name) {
            Self::Indexer
        } else if name.ends_with("e_score_correction_bias") {
            Self::Balance
        } else if name.ends_with("norm.weight") || name.ends_with("proj.bias") || name.ends_with("mqa.bias") {
            Self::Norm
        } else if name.ends_with("mlp.gate.weight") {
            Self::Router
        } else if name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight") {
            Self::Embedding
        } else {
            Self::Matrix
        }
    }

    /// Returns whether a gradient changes tensors of this kind in `stage`.
    pub fn is_trained(self, stage: Stage) -> bool {
        match (self, stage) {
            (Self::Balance, _) => false,
            (Self::Indexer, _) => stage != Stage::Dense,
            _ => stage != Stage::Warmup,
        }
    }
}

/// One tensor of the model and the optimiser's memory of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: Kind,
    /// The weights, row by row.
    pub value: Vec<f32>,
    /// First moment.
    pub first: Vec<f32>,
    /// Second moment; empty for hidden matrices, which need none.
    pub second: Vec<f32>,
    /// Updates so far.
    pub updates: u64,
}

/// Every tensor of the model, in the order of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Params(pub Vec<Param>);

impl Params {
    /// Draws the initial weights of an architecture.
    ///
    /// Matrices are normal with variance 1 / inputs; those that write into the residual stream start at 0, so that
    /// the model begins as the identity.
    pub fn init(config: &Config, seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0);
        let mut all = demands(config);
        all.extend((0..config.num_hidden_layers).flat_map(|layer| indexer_tensors(config, layer)));
        Self(
            all.into_iter()
                .map(|demand| {
                    let kind = Kind::of(&demand.name);
                    let len = demand.shape.iter().product();
                    let scale = match kind {
                        Kind::Embedding => 0.05,
                        _ => (demand.shape.last().copied().unwrap_or(1) as f64).sqrt().recip(),
                    };
                    let value = if demand.name.ends_with("norm.weight") {
                        vec![1.0; len]
                    } else if demand.shape.len() < 2 || writes_residual(&demand.name) {
                        vec![0.0; len]
                    } else {
                        (0..len).map(|_| (rng.normal() * scale) as f32).collect()
                    };
                    Param::new(demand.name, demand.shape, kind, value)
                })
                .collect(),
        )
    }

    /// Returns the tensors of a step: leaves of a graph where `stage` trains them, constants otherwise.
    ///
    /// # Errors
    /// [`TrainError::Model`] where candle fails.
    pub fn leaves(&self, stage: Option<Stage>) -> Result<HashMap<String, Tensor>, TrainError> {
        self.0
            .iter()
            .map(|p| {
                let tensor = if stage.is_some_and(|s| p.kind.is_trained(s)) {
                    Var::from_slice(&p.value, p.shape.as_slice(), &Device::Cpu)?.into_inner()
                } else {
                    Tensor::from_slice(&p.value, p.shape.as_slice(), &Device::Cpu)?
                };
                Ok((p.name.clone(), tensor))
            })
            .collect()
    }

    /// Returns the number of weights.
    pub fn count(&self) -> usize {
        self.0.iter().map(|p| p.value.len()).sum()
    }

    /// Moves each router's balancing bias towards even use of its experts.
    ///
    /// `load[l]` is how often each expert of layer `l` was chosen, `None` for dense layers; the bias of an expert
    /// rises by `step` where it is used less than the mean and falls where more (arXiv 2408.15664).
    pub fn balance(&mut self, load: &[Option<Vec<u32>>], step: f64) {
        for (layer, load) in load.iter().enumerate() {
            let Some(load) = load else { continue };
            let name = format!("model.layers.{layer}.mlp.gate.e_score_correction_bias");
            let mean = load.iter().sum::<u32>() as f64 / load.len() as f64;
            for bias in self.0.iter_mut().filter(|p| p.name == name) {
                for (b, &n) in bias.value.iter_mut().zip(load) {
                    let short = mean - f64::from(n);
                    if short != 0.0 {
                        *b += (step * short.signum()) as f32;
                    }
                }
            }
        }
    }
}

impl Param {
    /// Creates a tensor that has not been updated yet.
    pub fn new(name: String, shape: Vec<usize>, kind: Kind, value: Vec<f32>) -> Self {
        let moment = |wanted: bool| vec![0.0; if wanted { value.len() } else { 0 }];
        let (first, second) = (moment(kind != Kind::Balance), moment(!matches!(kind, Kind::Balance | Kind::Matrix)));
        Self { name, shape, kind, value, first, second, updates: 0 }
    }
}

fn writes_residual(name: &str) -> bool {
    name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(name: &str, shape: &[usize]) -> Param {
        let len = shape.iter().product();
        Param::new(name.into(), shape.to_vec(), Kind::of(name), vec![0.0; len])
    }

    #[test]
    fn kinds_follow_from_names() {
        let kinds = [
            ("model.embed_tokens.weight", Kind::Embedding),
            ("model.norm.weight", Kind::Norm),
            ("model.layers.0.self_attn.q_a_layernorm.weight", Kind::Norm),
            ("model.layers.0.self_attn.o_proj.weight", Kind::Matrix),
            ("model.layers.0.self_attn.indexer.k_norm.bias", Kind::Indexer),
            ("model.layers.3.mlp.gate.weight", Kind::Router),
            ("model.layers.3.mlp.gate.e_score_correction_bias", Kind::Balance),
            ("model.layers.3.mlp.experts.0.gate_proj.weight", Kind::Matrix),
        ];
        for (name, kind) in kinds {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn each_stage_trains_its_own() {
        let trained = |kind: Kind| [Stage::Dense, Stage::Warmup, Stage::Sparse].map(|s| kind.is_trained(s));
        assert_eq!(trained(Kind::Matrix), [true, false, true]);
        assert_eq!(trained(Kind::Indexer), [false, true, true]);
        assert_eq!(trained(Kind::Balance), [false, false, false]);
    }

    #[test]
    fn the_bias_rises_for_idle_experts() {
        let name = "model.layers.1.mlp.gate.e_score_correction_bias";
        let mut params = Params(vec![param(name, &[3])]);
        params.balance(&[None, Some(vec![0, 3, 6])], 0.5);
        assert_eq!(params.0[0].value, [0.5, 0.0, -0.5]);
    }
}
