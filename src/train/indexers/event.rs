//! What a run tells as it goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::step::Divergence;

/// What a run tells as it goes.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexerEvent {
    /// A step is done.
    Step(IndexerStep),
    /// The state was saved.
    Saved(PathBuf),
    /// The sidecar was written.
    Written(PathBuf),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexerStep {
    /// Whether the base ran with the indexers' selections.
    pub sparse: bool,
    /// Steps done, and all of them, both stages together.
    pub step: (u64, u64),
    /// Each trained layer and what was found there.
    pub layers: Vec<(usize, Divergence)>,
    /// Mean loss of the language model, nats per token, where the rest of the model learns from it.
    pub lm: Option<f64>,
    /// The learning rate.
    pub rate: f64,
    /// Tokens of all steps so far.
    pub tokens: u64,
    /// Tokens of this step per second.
    pub tokens_per_second: f64,
}

impl IndexerStep {
    /// Returns the mean over layers.
    pub fn mean(&self) -> Divergence {
        let mean = |of: fn(&Divergence) -> f64| {
            self.layers.iter().map(|(_, d)| of(d)).sum::<f64>() / self.layers.len().max(1) as f64
        };
        Divergence { kl: mean(|d| d.kl), floor: mean(|d| d.floor) }
    }
}
