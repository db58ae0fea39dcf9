//! Block means of one pattern over some parts, and what can be told from them.

use crate::domain::{Cluster, Delta, Estimate, Rng, mean_se, merged};

/// Resamplings behind a bootstrap probability.
const RESAMPLINGS: usize = 1000;

/// Differences to the reference, block by block, of one pattern over some parts in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Mean difference of each block, nats.
    pub means: Vec<f64>,
    /// Eligible targets of each block.
    pub targets: Vec<usize>,
    /// Cluster of each block.
    pub clusters: Vec<usize>,
}

impl Sample {
    /// Returns the mean over all targets with its errors; 0 of nothing where there are none.
    pub fn delta(&self) -> Delta {
        let n: usize = self.targets.iter().sum();
        let blocks = Estimate::of_blocks(self.sum(), n.max(1), &self.means).se;
        let none = Delta { value: 0.0, se: None, n: 0, se_blocks: None, clusters: 0, interval: None };
        Delta::of(&self.by_cluster(), blocks).unwrap_or(none)
    }

    /// Returns the mean over all targets; 0 where there are none.
    pub fn mean(&self) -> f64 {
        self.sum() / self.targets.iter().sum::<usize>().max(1) as f64
    }

    fn sum(&self) -> f64 {
        self.means.iter().zip(&self.targets).map(|(mean, &n)| mean * n as f64).sum()
    }

    /// Returns the sums of its clusters, in the order of its parts.
    pub fn by_cluster(&self) -> Vec<Cluster> {
        let blocks = self.means.iter().zip(&self.targets).map(|(mean, &n)| Cluster { sum: mean * n as f64, n });
        merged(self.clusters.iter().copied().zip(blocks))
    }

    /// Returns the paired differences to another pattern on the same parts; of the parts that both have, where one was
    /// measured on fewer.
    pub fn minus(&self, other: &Self) -> Self {
        let means: Vec<f64> = self.means.iter().zip(&other.means).map(|(a, b)| a - b).collect();
        let common = means.len();
        Self { means, targets: self.targets[..common].to_vec(), clusters: self.clusters[..common].to_vec() }
    }

    /// Returns the mean and its standard error from however few blocks; infinite below two.
    pub(super) fn mean_and_spread(&self) -> (f64, f64) {
        let se = mean_se(&self.means).and_then(|e| e.se).unwrap_or(f64::INFINITY);
        (self.mean(), se)
    }
}

/// Returns in which share of resamplings of clusters `best` has the lowest mean of all samples, and how many samples
/// were compared.
///
/// A rival that was measured on fewer parts is compared on those, and left out where they hold fewer than two clusters.
/// `None` where nothing is left to compare with.
pub(super) fn probability_of_best(best: &Sample, rivals: &[&Sample], seed: u64) -> (Option<f64>, usize) {
    let gaps: Vec<Vec<f64>> = rivals
        .iter()
        .map(|rival| best.minus(rival).by_cluster().iter().map(|c| c.sum).collect::<Vec<f64>>())
        .filter(|gaps| gaps.len() > 1)
        .collect();
    if gaps.is_empty() {
        return (None, 1);
    }
    let clusters = best.by_cluster().len();
    let mut random = Rng::new(seed, 0xb007);
    let mut wins = 0;
    let mut times = vec![0.0; clusters];
    for _ in 0..RESAMPLINGS {
        times.fill(0.0);
        (0..clusters).for_each(|_| times[random.below(clusters)] += 1.0);
        // Parts come in one order, so that the clusters of a rival are the first ones.
        let gap = |gaps: &Vec<f64>| gaps.iter().zip(&times).map(|(gap, times)| gap * times).sum::<f64>();
        wins += usize::from(gaps.iter().all(|gaps| gap(gaps) <= 0.0));
    }
    (Some(wins as f64 / RESAMPLINGS as f64), gaps.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(means: &[f64]) -> Sample {
        Sample { means: means.to_vec(), targets: vec![128; means.len()], clusters: (0..means.len()).collect() }
    }

    #[test]
    fn differences_are_paired() {
        let a = sample(&[1.0, 5.0, 9.0, 1.0, 5.0, 9.0, 1.0, 5.0]);
        let b = sample(&[0.5, 4.5, 8.5, 0.5, 4.5, 8.5, 0.5, 4.5]);
        let difference = a.minus(&b).delta();
        assert_eq!((difference.value, difference.se, difference.n, difference.clusters), (0.5, Some(0.0), 1024, 8));
        assert_eq!(sample(&[1.0; 7]).delta().se, None);
        assert_eq!(Sample::default().mean(), 0.0);
    }

    #[test]
    fn the_bootstrap_knows_a_clear_winner_from_a_toss() {
        let (clear, worse) = (sample(&[0.0, 0.1, 0.0, 0.1]), sample(&[1.0, 1.1, 1.2, 1.0]));
        assert_eq!(probability_of_best(&clear, &[&worse], 7), (Some(1.0), 2));
        let (left, right) = (sample(&[0.0, 1.0].repeat(8)), sample(&[1.0, 0.0].repeat(8)));
        let toss = probability_of_best(&left, &[&right], 7).0.unwrap();
        assert!((0.4..0.75).contains(&toss), "{toss}");
        assert_eq!(probability_of_best(&left, &[], 7), (None, 1));
    }

    #[test]
    fn a_rival_that_was_dropped_is_compared_where_both_were_measured() {
        // Alike on the first four clusters, after which the rival was measured no more.
        let best = sample(&[0.0, 1.0, 0.0, 1.0, -5.0, -5.0, -5.0, -5.0]);
        let (p, compared) = probability_of_best(&best, &[&sample(&[1.0, 0.0, 1.0, 0.0]), &sample(&[0.0])], 7);
        assert!((0.4..0.75).contains(&p.unwrap()) && compared == 2, "{p:?}: one cluster in common says nothing");
    }

    #[test]
    fn clusters_are_resampled_and_not_their_blocks() {
        // Two documents of eight blocks each, of which one prefers each: half of the draws are of one of them alone.
        let clusters = [vec![0; 8], vec![1; 8]].concat();
        let of = |means: [f64; 2]| Sample {
            means: means.iter().flat_map(|&m| vec![m; 8]).collect(),
            targets: vec![128; 16],
            clusters: clusters.clone(),
        };
        let p = probability_of_best(&of([0.0, 1.0]), &[&of([2.0, 0.0])], 3).0.unwrap();
        assert!((0.7..0.8).contains(&p), "{p}");
    }
}
