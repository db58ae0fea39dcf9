//! Block means of one pattern over some parts, and what can be told from them.

use crate::domain::{Estimate, Rng};

/// Standard errors above Δ at which its upper confidence bound lies: 95 %, one-sided.
const UPPER: f64 = 1.645;

/// Resamplings behind a bootstrap probability.
const RESAMPLINGS: usize = 1000;

/// Differences to the reference, block by block, of one pattern over some parts in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Mean difference of each block, nats.
    pub means: Vec<f64>,
    /// Eligible targets of each block.
    pub targets: Vec<usize>,
}

impl Sample {
    /// Returns the mean over all targets with its standard error over blocks (`None` below eight).
    pub fn estimate(&self) -> Estimate {
        let n: usize = self.targets.iter().sum();
        let sum = self.means.iter().zip(&self.targets).map(|(mean, &n)| mean * n as f64).sum();
        Estimate::of_blocks(sum, n.max(1), &self.means)
    }

    /// Returns the mean over all targets; 0 where there are none.
    pub fn mean(&self) -> f64 {
        self.estimate().value
    }

    /// Returns the paired differences to another pattern on the same parts.
    pub fn minus(&self, other: &Self) -> Self {
        let means = self.means.iter().zip(&other.means).map(|(a, b)| a - b).collect();
        Self { means, targets: self.targets.clone() }
    }

    /// Returns the mean and its standard error from however few blocks; infinite below two.
    pub(super) fn mean_and_spread(&self) -> (f64, f64) {
        let se = crate::domain::mean_se(&self.means).and_then(|e| e.se).unwrap_or(f64::INFINITY);
        (self.mean(), se)
    }
}

/// Returns in which share of resamplings of the blocks `best` has the lowest mean of all samples.
///
/// All samples must be over the same blocks. `None` where there is no rival or there are fewer than two blocks.
pub(super) fn probability_of_best(samples: &[&Sample], best: usize, seed: u64) -> Option<f64> {
    let blocks = samples.get(best)?.targets.len();
    if samples.len() < 2 || blocks < 2 {
        return None;
    }
    let targets = &samples[best].targets;
    let sums: Vec<Vec<f64>> =
        samples.iter().map(|s| s.means.iter().zip(targets).map(|(mean, &n)| mean * n as f64).collect()).collect();
    let mut random = Rng::new(seed, 0xb007);
    let mut wins = 0;
    let mut drawn = vec![0; blocks];
    for _ in 0..RESAMPLINGS {
        drawn.iter_mut().for_each(|at| *at = random.below(blocks));
        // The number of targets drawn is the same for all, so that sums compare as means do.
        let of = |s: &[f64]| drawn.iter().map(|&b| s[b]).sum::<f64>();
        let ours = of(&sums[best]);
        wins += usize::from(sums.iter().enumerate().all(|(i, s)| i == best || ours <= of(s)));
    }
    Some(wins as f64 / RESAMPLINGS as f64)
}

/// Returns the upper confidence bound of a Δ.
pub(super) fn upper(delta: Estimate) -> f64 {
    delta.value + UPPER * delta.se.unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(means: &[f64]) -> Sample {
        Sample { means: means.to_vec(), targets: vec![128; means.len()] }
    }

    #[test]
    fn differences_are_paired() {
        let a = sample(&[1.0, 5.0, 9.0, 1.0, 5.0, 9.0, 1.0, 5.0]);
        let b = sample(&[0.5, 4.5, 8.5, 0.5, 4.5, 8.5, 0.5, 4.5]);
        let difference = a.minus(&b).estimate();
        assert_eq!((difference.value, difference.se, difference.n), (0.5, Some(0.0), 1024));
        assert_eq!(sample(&[1.0; 7]).estimate().se, None);
        assert_eq!(Sample::default().mean(), 0.0);
    }

    #[test]
    fn the_upper_bound_lies_above() {
        let bound = |se| upper(Estimate { value: 0.1, se, n: 1 });
        // One-sided 95 % of a normal distribution: 1.645 standard errors.
        assert!((bound(Some(0.02)) - 0.1329).abs() < 1e-12);
        assert_eq!((bound(Some(0.0)), bound(None)), (0.1, f64::INFINITY));
    }

    #[test]
    fn the_bootstrap_knows_a_clear_winner_from_a_toss() {
        let (clear, worse) = (sample(&[0.0, 0.1, 0.0, 0.1]), sample(&[1.0, 1.1, 1.2, 1.0]));
        assert_eq!(probability_of_best(&[&worse, &clear], 1, 7), Some(1.0));
        let (left, right) = (sample(&[0.0, 1.0].repeat(8)), sample(&[1.0, 0.0].repeat(8)));
        let toss = probability_of_best(&[&left, &right], 0, 7).unwrap();
        assert!((0.4..0.75).contains(&toss), "{toss}");
        assert_eq!(probability_of_best(&[&left], 0, 7), None);
    }
}
