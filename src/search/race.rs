//! Many patterns on few parts, few patterns on all parts: the clearly worse ones drop out on the way.

use super::{Ledger, Sample, SearchError};
use crate::domain::Pattern;

/// Blocks before anything is dropped.
pub(super) const FIRST_BLOCKS: usize = 4;

/// Clusters before anything is dropped, where each has more than [`LONG`] blocks: blocks of one long sequence say little
/// about others.
const FIRST_CLUSTERS: usize = 4;
const LONG: usize = 8;

/// What became of one pattern.
#[derive(Clone, Debug)]
pub(super) struct Raced {
    /// What was measured of it.
    pub sample: Sample,
    /// Whether that is the whole calibration set.
    pub whole: bool,
}

/// Returns the factor of the standard error beyond which a difference of means of `n` blocks is taken for real: the
/// 99 % quantile of Student's t, one-sided, within 2 %.
fn quantile(n: usize) -> f64 {
    match n {
        0..=2 => f64::INFINITY,
        3 => 6.96,
        4 => 4.54,
        5 => 3.75,
        6 => 3.36,
        _ => 2.326 + 4.9 / (n as f64 - 2.2),
    }
}

/// Races patterns against each other; at least the winner is measured on the whole calibration set.
///
/// After 4 blocks (4 sequences where they are long), and whenever the parts have doubled, a pattern is dropped whose paired difference to the leader is
/// beyond its confidence bound. The race ends early where even the whole set could not tell the rest apart: the leader
/// then is the winner. Its rivals in the result are over the parts that they saw.
///
/// # Errors
/// Those of the evaluator.
pub(super) fn race(patterns: &[Pattern], ledger: &mut Ledger) -> Result<Vec<Raced>, SearchError> {
    let all = ledger.parts().len();
    let sizes: Vec<usize> = (1..=all).map(|parts| ledger.layout().blocks(&ledger.parts()[..parts])).collect();
    let mut raced = vec![Raced { sample: Sample::default(), whole: false }; patterns.len()];
    let mut running: Vec<usize> = (0..patterns.len()).collect();
    let enough = |parts: usize| {
        let (blocks, clusters) = (sizes[parts - 1], ledger.layout().clusters(&ledger.parts()[..parts]));
        blocks >= FIRST_BLOCKS && (clusters >= FIRST_CLUSTERS || blocks <= clusters * LONG)
    };
    let mut parts = (1..=all).find(|&parts| enough(parts)).unwrap_or(all);
    while parts < all && running.len() > 1 {
        measure(patterns, &running, parts, false, ledger, &mut raced)?;
        let leader = leader(&running, &raced);
        let lead = raced[leader].sample.clone();
        running.retain(|&i| {
            let (gap, se) = raced[i].sample.minus(&lead).mean_and_spread();
            i == leader || gap <= quantile(lead.means.len()) * se
        });
        let shrink = (lead.means.len() as f64 / sizes[all - 1] as f64).sqrt();
        let alike = running.iter().all(|&i| {
            let (gap, se) = raced[i].sample.minus(&lead).mean_and_spread();
            gap <= se * shrink
        });
        if alike {
            running = vec![leader];
        }
        parts *= 2;
    }
    measure(patterns, &running, all, true, ledger, &mut raced)?;
    Ok(raced)
}

fn measure(
    patterns: &[Pattern],
    running: &[usize],
    parts: usize,
    whole: bool,
    ledger: &mut Ledger,
    raced: &mut [Raced],
) -> Result<(), SearchError> {
    let these: Vec<Pattern> = running.iter().map(|&i| patterns[i]).collect();
    for (&i, sample) in running.iter().zip(ledger.measure_on(&these, parts)?) {
        raced[i] = Raced { sample, whole };
    }
    Ok(())
}

fn leader(running: &[usize], raced: &[Raced]) -> usize {
    let mean = |i: usize| raced[i].sample.mean();
    running.iter().copied().min_by(|&a, &b| mean(a).total_cmp(&mean(b)).then(a.cmp(&b))).unwrap_or(0)
}
