//! What the steps of a run found: every one of a short run, enough to draw of a long one.

use serde::{Deserialize, Serialize};

use super::event::IndexerStep;
use super::recipe::IndexerRecipe;

/// Steps that are kept of a run at even distances.
const EVEN: u64 = 256;
/// Steps that are kept at the beginning of each stage, and of the newest.
const ENDS: u64 = 20;

/// The steps of a run that are remembered, oldest first; their number is bounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<IndexerStep>);

impl History {
    /// Adds a step, and forgets one that is neither new, nor at the beginning of a stage, nor one of those at even
    /// distances.
    pub fn push(&mut self, step: IndexerStep, recipe: &IndexerRecipe) {
        let newest = step.step.0;
        self.0.push(step);
        let apart = recipe.all_steps().div_ceil(EVEN).max(1);
        self.0.retain(|step| {
            let done = step.step.0;
            let of_stage = if step.sparse { done.saturating_sub(recipe.steps) } else { done };
            done.is_multiple_of(apart) || of_stage <= ENDS || done + ENDS > newest
        });
    }

    /// Returns them.
    pub fn steps(&self) -> &[IndexerStep] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::recipe;
    use super::*;

    fn kept(steps: u64, sparse_steps: u64, done: u64) -> Vec<u64> {
        let recipe = IndexerRecipe { steps, sparse_steps, ..recipe("FS") };
        let mut history = History::default();
        for at in 0..done {
            let step = (at + 1, recipe.all_steps());
            let (sparse, layers) = (recipe.is_sparse(at), Vec::new());
            let step = IndexerStep { sparse, step, layers, lm: None, rate: 0.0, tokens: 0, tokens_per_second: 1.0 };
            history.push(step, &recipe);
        }
        history.steps().iter().map(|s| s.step.0).collect()
    }

    #[test]
    fn short_runs_are_kept_whole_and_long_ones_at_their_ends_and_evenly() {
        assert_eq!(kept(200, 50, 250), (1..=250).collect::<Vec<_>>());
        let long = kept(20_000, 5_000, 24_999);
        assert!(long.len() <= (EVEN + 3 * ENDS) as usize, "{}", long.len());
        for range in [1..=ENDS, 20_001..=20_000 + ENDS, 24_980..=24_999] {
            assert!(range.clone().all(|done| long.contains(&done)), "{range:?} of {long:?}");
        }
        assert!(long.windows(2).all(|w| w[0] < w[1] && w[1] - w[0] <= 98), "{long:?}");
    }
}
