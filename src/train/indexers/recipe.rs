//! What decides the result of training indexers on a frozen model.

use serde::{Deserialize, Serialize};

use crate::domain::{Pattern, Targets};
use crate::train::{OptimizerRecipe, TrainError};

/// Share of a stage over which the rate rises.
const RISE: f64 = 0.05;
/// The rate at the end of the warm-up, and the peak of the sparse stage, as a multiple of the warm-up's peak.
const SPARSE: f64 = 0.1;
/// Largest norm of an indexer's gradient, and of that of the rest of the model.
const CLIP: f64 = 1.0;

/// How heads are averaged into the target of the sparse stage, over the keys that were selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseTarget {
    /// Each head's softmax is over the selected keys, then heads are averaged, as Megatron's reference does.
    #[default]
    PerHead,
    /// Heads are averaged over all keys, then the average is restricted and renormalised: a head with little attention on
    /// the selected keys weighs less.
    Averaged,
}

impl SparseTarget {
    /// Returns the target of recipes saved before there was a choice.
    fn before() -> Self {
        Self::Averaged
    }

    /// Returns the name as given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::PerHead => "per-head",
            Self::Averaged => "averaged",
        }
    }
}

/// Everything that decides the result, beside the model's weights and the tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexerRecipe {
    /// Decides initial weights, order of the data and sampled rows.
    pub seed: u64,
    /// Lineage of the frozen model.
    pub base: String,
    /// Hash of the training tokens.
    pub tokens: String,
    /// Which layers select for themselves, and which serve: the base runs under it in the sparse stage.
    pub pattern: Pattern,
    /// Full layers whose indexers are trained, ascending.
    pub layers: Vec<usize>,
    /// What they are trained towards.
    pub targets: Targets,
    /// Tokens per sequence; each step works on one.
    pub seq_len: usize,
    /// Sampled query rows per step.
    pub rows: usize,
    /// Steps of the warm-up: base with dense attention, KL over all visible keys.
    pub steps: u64,
    /// Steps of the sparse stage: base with the indexers' selections, KL over the selected keys.
    pub sparse_steps: u64,
    /// Peak of `AdamW`'s rate.
    pub lr: f64,
    /// k of the sparse stage.
    pub index_topk: usize,
    /// Peak of the rate at which the rest of the model learns from its own loss in the sparse stage; `None` freezes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lm_lr: Option<f64>,
    /// How heads are averaged in the sparse stage.
    #[serde(default = "SparseTarget::before")]
    pub sparse_target: SparseTarget,
}

impl IndexerRecipe {
    /// Samples as many rows as fit into `allowed` bytes, but not more than before.
    ///
    /// `fixed` and `per_row` are what [`memory`](super::memory) says.
    ///
    /// # Errors
    /// [`TrainError::Memory`] where not even one fits.
    pub fn limit(&mut self, (fixed, per_row): (u64, u64), allowed: Option<u64>) -> Result<(), TrainError> {
        let Some(allowed) = allowed else { return Ok(()) };
        let fitting = allowed.saturating_sub(fixed) / per_row.max(1);
        if fitting == 0 {
            return Err(TrainError::Memory { seq_len: self.seq_len, needed: fixed + per_row, allowed });
        }
        self.rows = self.rows.min(usize::try_from(fitting).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Returns all steps.
    pub fn all_steps(&self) -> u64 {
        self.steps + self.sparse_steps
    }

    /// Returns the rate at `step` of the run: in each stage it rises for a twentieth of the steps and then follows a
    /// cosine, from `lr` to a tenth of it in the warm-up, and from there to 0 in the sparse stage.
    pub fn rate(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            None => curve(step, self.steps, self.lr, SPARSE * self.lr),
            Some(at) => curve(at, self.sparse_steps, SPARSE * self.lr, 0.0),
        }
    }

    /// Returns the rate of the rest of the model: in the sparse stage it rises as the other and falls to 0.
    pub fn lm_rate(&self, step: u64) -> Option<f64> {
        let (peak, at) = (self.lm_lr?, step.checked_sub(self.steps)?);
        Some(curve(at, self.sparse_steps, peak, 0.0))
    }

    /// Returns whether `step` belongs to the sparse stage.
    pub fn is_sparse(&self, step: u64) -> bool {
        step >= self.steps
    }

    /// Returns the layers whose attention the indexer of `layer` is trained towards.
    pub fn served(&self, layer: usize) -> std::ops::Range<usize> {
        let end = match self.targets {
            Targets::Own => layer + 1,
            Targets::Served => {
                (layer + 1..self.pattern.len()).find(|&l| self.pattern.is_full(l)).unwrap_or(self.pattern.len())
            }
        };
        layer..end
    }
}

/// Returns the rate at step `at` of a stage of `of` steps: it rises to `peak` and follows a cosine to `end`.
fn curve(at: u64, of: u64, peak: f64, end: f64) -> f64 {
    let rise = (of as f64 * RISE).ceil().max(1.0);
    let left = ((at as f64 - rise) / (of as f64 - rise).max(1.0)).clamp(0.0, 1.0);
    let fallen = end + (peak - end) * 0.5 * (1.0 + (std::f64::consts::PI * left).cos());
    fallen * ((at + 1) as f64 / rise).min(1.0)
}

/// Returns what the optimiser is told, which moves indexers and weights that learn on at the rate of the step.
pub(super) fn optimizer() -> OptimizerRecipe {
    OptimizerRecipe {
        batch: 1,
        micro_batch: 1,
        matrix_lr: 0.0,
        embedding_lr: 0.0,
        norm_lr: 0.0,
        indexer_lr: 1.0,
        weight_decay: 0.0,
        clip: CLIP,
        balance: 0.0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn recipe(pattern: &str) -> IndexerRecipe {
        let pattern: Pattern = pattern.parse().unwrap();
        IndexerRecipe {
            seed: 3,
            base: String::new(),
            tokens: String::new(),
            pattern,
            layers: (0..pattern.len()).filter(|&l| pattern.is_full(l)).collect(),
            targets: Targets::Served,
            seq_len: 24,
            rows: 8,
            steps: 40,
            sparse_steps: 20,
            lr: 0.01,
            index_topk: 6,
            lm_lr: None,
            sparse_target: SparseTarget::PerHead,
        }
    }

    #[test]
    fn the_rate_rises_and_falls_in_each_stage() {
        let recipe = recipe("FS");
        let rates: Vec<f64> = (0..60).map(|step| recipe.rate(step)).collect();
        assert!((rates[0] - 0.005).abs() < 1e-12 && (rates[1] - 0.01).abs() < 1e-4, "{rates:?}");
        assert!(rates[2..40].windows(2).all(|w| w[0] >= w[1]) && (rates[39] - 0.001).abs() < 1e-4, "{rates:?}");
        assert!((rates[40] - 0.001).abs() < 1e-12 && rates[59] < 1e-5, "{rates:?}");
        assert!((0..60).all(|step| recipe.is_sparse(step) == (step >= 40)));
        let rest = IndexerRecipe { lm_lr: Some(0.5), ..recipe.clone() };
        assert_eq!((rest.lm_rate(39), rest.lm_rate(40), recipe.lm_rate(40)), (None, Some(0.5), None));
        assert!(rest.lm_rate(59).is_some_and(|rate| rate < 0.01));
    }

    #[test]
    fn an_indexer_learns_from_the_layers_that_it_serves() {
        let mut recipe = recipe("FSSFFS");
        let served = |recipe: &IndexerRecipe| recipe.layers.iter().map(|&l| recipe.served(l)).collect::<Vec<_>>();
        assert_eq!(served(&recipe), [0..3, 3..4, 4..6]);
        recipe.targets = Targets::Own;
        assert_eq!(served(&recipe), [0..1, 3..4, 4..5]);
    }
}
