//! A training of indexers: what is asked for, and where it stands.

use serde::{Deserialize, Serialize};

use super::{Pattern, SearchState};

/// Whose attention an indexer is trained towards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Targets {
    /// Its own layer's.
    Own,
    /// That of every layer that it serves under the pattern: `L_multi`, the mean of their divergences.
    #[default]
    Served,
}

impl Targets {
    /// Returns the name that options and files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Served => "served",
        }
    }
}

/// What a training is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingSettings {
    /// Its Full layers' indexers are trained, for the layers that they serve.
    pub pattern: Pattern,
    /// Whose attention they learn.
    pub targets: Targets,
    /// Steps of the warm-up: dense attention, KL over all visible keys.
    pub steps: u64,
    /// Steps of the sparse stage: attention to the selected keys, KL over them.
    pub sparse_steps: u64,
    /// Peak of the learning rate.
    pub lr: f64,
}

/// What one step found.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingStep {
    /// Whether it belongs to the sparse stage.
    pub sparse: bool,
    /// Steps done with it.
    pub done: u64,
    /// KL of every trained layer, nats per query row.
    pub kl: Vec<f64>,
    /// The part of it that no single indexer could lower, nats per query row.
    pub floor: Vec<f64>,
    /// The learning rate.
    pub rate: f64,
    /// Tokens of all steps so far.
    pub tokens: u64,
    /// Tokens of this step per second.
    pub tokens_per_second: f64,
}

/// Where a training stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingProgress {
    /// What was asked for.
    pub settings: TrainingSettings,
    /// How far it has come.
    pub state: SearchState,
    /// The layers that are trained, ascending.
    pub layers: Vec<usize>,
    /// The steps since this was last told.
    pub news: Vec<TrainingStep>,
    /// Seconds left, if that can be told.
    pub eta: Option<f64>,
}

/// A training that was put aside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeftTraining {
    /// What was asked for.
    pub settings: TrainingSettings,
    /// Steps done.
    pub done: u64,
}

impl TrainingSettings {
    /// Returns the steps of both stages.
    pub fn all_steps(&self) -> u64 {
        self.steps + self.sparse_steps
    }
}
