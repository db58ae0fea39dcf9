//! What a search would cost, before anything is run.

use super::exhaustive;
use super::{Space, race};
use crate::domain::{Goal, Strategy};

/// Evaluations and layer-forwards of a search, from and to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Evaluations of the whole calibration set.
    pub evaluations: (f64, f64),
    /// Layer-forwards, with common prefixes run once; the reference's included.
    pub layer_forwards: (f64, f64),
}

/// Returns what a strategy costs; `blocks` are those of the calibration set. `None` where it cannot be run.
///
/// Greedy flips cost by how late in the model the candidates lie: the range is from flipping early layers first to
/// flipping late ones first. Lazy and racing range from measuring one candidate per step after the first to greedy.
/// With a budget of Δ the range begins at a single step.
pub fn costs(strategy: Strategy, space: &Space, goal: Goal, blocks: usize) -> Option<Cost> {
    let layers = space.layers();
    let tails: Vec<f64> = space.free().map(|l| (layers - l) as f64).collect();
    let most = space.most_flips(goal);
    let least = if matches!(goal, Goal::MaxDelta(_)) { 1.min(most) } else { most };
    let descent = |steps: usize, early: bool| {
        // After s steps the first (or last) s of the free layers are gone.
        let left = |s: usize| if early { &tails[s..] } else { &tails[..tails.len() - s] };
        let evaluations: usize = (0..steps).map(|s| left(s).len()).sum();
        (evaluations as f64, (0..steps).map(|s| left(s).iter().sum::<f64>()).sum::<f64>())
    };
    let (low, high) = (descent(least, true), descent(most, false));
    let reference = layers as f64;
    let cost = |low: (f64, f64), high: (f64, f64)| Cost {
        evaluations: (low.0, high.0),
        layer_forwards: (low.1 + reference, high.1 + reference),
    };
    let first = (tails.len() as f64, tails.iter().sum::<f64>());
    let further = least.saturating_sub(1) as f64;
    let once = (1.0, reference);
    Some(match strategy {
        _ if most == 0 => cost((0.0, 0.0), (0.0, 0.0)),
        Strategy::Greedy => cost(low, high),
        Strategy::Lazy => cost((first.0 + further, first.1 + further), high),
        Strategy::Racing => {
            let share = (race::FIRST_BLOCKS as f64 / blocks.max(1) as f64).min(1.0);
            cost((share * first.0 + further, share * first.1 + further), high)
        }
        Strategy::Dp | Strategy::Similarity => {
            // The affinity looks at every layer, the cosine also at every pair of layers.
            let pairs = if strategy == Strategy::Dp { 1.0 } else { 1.0 + (layers + 1) as f64 / 2.0 };
            cost(once, (1.0, once.1 + pairs * reference))
        }
        Strategy::Uniform => cost(once, once),
        Strategy::Exhaustive => {
            let counts = match goal {
                Goal::Keep(full) => full..=full,
                Goal::MaxDelta(_) => space.full.len()..=space.start.full_count(),
            };
            let mut all = Vec::new();
            for full in counts {
                all.extend(exhaustive::patterns(space, full).ok()?);
            }
            all.sort_by_cached_key(ToString::to_string);
            let tail = |at: usize| match at.checked_sub(1).and_then(|before| all[at].first_difference(all[before])) {
                Some(layer) => (layers - layer) as f64,
                None => reference,
            };
            let run = (all.len() as f64, (0..all.len()).map(tail).sum());
            cost(run, run)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Constraints, SearchSettings};

    #[test]
    fn greedy_costs_what_the_paper_says() {
        let space = |layers, keep| {
            let constraints = Constraints::every(layers);
            Space::new(&constraints, &SearchSettings::new(Strategy::Greedy, Goal::Keep(keep))).unwrap()
        };
        for (layers, keep, want) in [(47, 12, 1015.0), (78, 20, 2813.0), (12, 3, 63.0)] {
            let cost = costs(Strategy::Greedy, &space(layers, keep), Goal::Keep(keep), 96).unwrap();
            assert_eq!(cost.evaluations, (want, want), "{layers}");
        }
        let all = costs(Strategy::Greedy, &space(12, 1), Goal::Keep(1), 96).unwrap();
        assert_eq!(all.evaluations, (66.0, 66.0));
        let exhaustive = costs(Strategy::Exhaustive, &space(12, 3), Goal::Keep(3), 96).unwrap();
        assert_eq!(exhaustive.evaluations.0, 55.0);
        assert!(exhaustive.layer_forwards.0 < 55.0 * 12.0);
        assert_eq!(costs(Strategy::Exhaustive, &space(47, 12), Goal::Keep(12), 96), None);
    }
}
