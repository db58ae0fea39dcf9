//! Bounds of a mean difference that hold while clusters come in one by one.

use statrs::distribution::{ContinuousCDF, Normal};

use super::{Cluster, student};

/// Fewest clusters at which a bound is looked at.
pub const FIRST_LOOK: usize = 16;

/// One-sided error of a test against a budget.
const ALPHA: f64 = 0.05;

/// Number of clusters for which the time-uniform bound is narrowest.
const TUNED_FOR: f64 = 48.0;

/// Looks of the strict test, at even distances; its boundary's constant for them (Jennison and Turnbull, table 2.3,
/// two-sided 0.1).
const LOOKS: usize = 5;
const BOUNDARY: f64 = 1.751;

/// The mean of clusters with the spread of one cluster around it.
struct Look {
    n: usize,
    mean: f64,
    sd: f64,
}

impl Look {
    /// Returns the ratio of sums, and the deviation of a cluster's sum from it in units of the mean length.
    fn of(clusters: &[Cluster]) -> Option<Self> {
        let (n, targets) = (clusters.len(), clusters.iter().map(|c| c.n).sum::<usize>());
        if n < 2 || targets == 0 {
            return None;
        }
        let mean = clusters.iter().map(|c| c.sum).sum::<f64>() / targets as f64;
        let length = targets as f64 / n as f64;
        let square: f64 = clusters.iter().map(|c| ((c.sum - mean * c.n as f64) / length).powi(2)).sum();
        Some(Self { n, mean, sd: (square / (n - 1) as f64).sqrt() })
    }
}

/// Returns the time-uniform bounds of Δ, each at 95 %, after clusters that came in random order.
///
/// The upper bound lies below the true Δ at any look from the 16th cluster on in about 5 % of repetitions, however many
/// looks are taken: a normal-mixture boundary (Waudby-Smith et al., arXiv 2103.06476), widened for the spread that is
/// estimated. `None` before the first look.
pub fn time_uniform(clusters: &[Cluster]) -> Option<(f64, f64)> {
    let look = Look::of(clusters).filter(|look| look.n >= FIRST_LOOK)?;
    let log = -2.0 * (2.0 * ALPHA).ln();
    let (n, rho) = (look.n as f64, (log + log.ln_1p()) / TUNED_FOR);
    let wide = student(0.99, look.n - 1) / 2.326;
    let inner = n * rho + 1.0;
    let half = wide * look.sd * (2.0 * inner / (n * n * rho) * (inner.sqrt() / (2.0 * ALPHA)).ln()).sqrt();
    Some((look.mean - half, look.mean + half))
}

/// Returns the bounds of Δ at the looks of the strict test over `planned` clusters, of which these have come in.
///
/// Five looks at even distances with O'Brien and Fleming's boundary on Student's scale: 95 % in all. `None` between
/// looks, and where a look would have fewer than 16 clusters.
pub fn strict(clusters: &[Cluster], planned: usize) -> Option<(f64, f64)> {
    let at = |look: usize| (planned * look).div_ceil(LOOKS);
    let number = (1..=LOOKS).find(|&look| at(look) == clusters.len())?;
    let look = Look::of(clusters).filter(|look| look.n >= FIRST_LOOK.min(planned))?;
    let level = Normal::standard().cdf(BOUNDARY * (LOOKS as f64 / number as f64).sqrt());
    let half = student(level, look.n - 1) * look.sd / (look.n as f64).sqrt();
    Some((look.mean - half, look.mean + half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rng;

    type Bounds = dyn Fn(&[Cluster]) -> Option<(f64, f64)>;

    fn draw(random: &mut Rng, mean: f64, n: usize) -> Vec<Cluster> {
        (0..n).map(|_| Cluster { sum: 480.0 * (mean + 0.015 * random.normal()), n: 480 }).collect()
    }

    /// Returns the clusters after which the upper bound is at most 0, if it ever is.
    fn accepted(clusters: &[Cluster], bounds: impl Fn(&[Cluster]) -> Option<(f64, f64)>) -> Option<usize> {
        (2..=clusters.len()).find(|&n| bounds(&clusters[..n]).is_some_and(|(_, upper)| upper <= 0.0))
    }

    #[test]
    fn the_bound_by_hand() {
        // Eight at 0 and eight at 1: mean 1/2, sd √(4/15).
        let clusters: Vec<Cluster> = (0..16).map(|i| Cluster { sum: f64::from(i % 2) * 10.0, n: 10 }).collect();
        assert_eq!(time_uniform(&clusters[..15]), None);
        let (low, high) = time_uniform(&clusters).unwrap();
        // ρ² = (4.60517 + ln 5.60517)/48 = 0.131848; t of 15 at 99 % is 2.60248.
        let inner = 16.0f64 * 0.131_848 + 1.0;
        let half = 2.602_48 / 2.326
            * (4.0f64 / 15.0).sqrt()
            * (2.0 * inner / (256.0 * 0.131_848) * (inner.sqrt() * 10.0).ln()).sqrt();
        assert!((high - 0.5 - half).abs() < 1e-5 && (low + high - 1.0).abs() < 1e-12, "{low} {high} {half}");
    }

    #[test]
    fn false_acceptance_at_the_boundary_is_rare_at_all_looks_together() {
        // Δ is exactly the budget: every acceptance is false.
        let runs = 600;
        let rate = |bounds: &Bounds| {
            let wrong = |seed: &u64| accepted(&draw(&mut Rng::new(*seed, 3), 0.0, 160), bounds).is_some();
            (0..runs).filter(wrong).count() as f64 / runs as f64
        };
        let (free, fixed) = (rate(&time_uniform), rate(&|c| strict(c, 160)));
        assert!(free <= 0.08 && fixed <= 0.08, "{free} {fixed}");
    }

    #[test]
    fn what_is_within_the_budget_is_accepted_the_sooner_the_farther() {
        // Headroom of one and of a half standard deviation of a sequence.
        let mean = |headroom: f64| {
            let one = |seed: u64| accepted(&draw(&mut Rng::new(seed, 9), -headroom * 0.015, 400), time_uniform);
            let found: Vec<usize> = (0..60).filter_map(one).collect();
            assert!(found.len() >= 58, "{headroom}: {} of 60", found.len());
            found.iter().sum::<usize>() as f64 / found.len() as f64
        };
        let (far, near) = (mean(1.0), mean(0.5));
        assert!(far < 20.0 && (20.0..50.0).contains(&near), "{far} {near}");
        assert!(accepted(&draw(&mut Rng::new(1, 1), 0.015, 200), time_uniform).is_none());
    }
}
