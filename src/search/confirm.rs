//! A budget for Δ, tested on text that the search never saw.

use std::collections::BTreeMap;

use super::{Evaluate, SearchError};
use crate::domain::{
    Cluster, Confirmation, Delta, FIRST_LOOK, Pattern, Rng, Trial, Verdict, strict as strict_bounds, time_uniform,
};

/// How a budget is tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Most nats that Δ may be.
    pub most: f64,
    /// Whether looks are planned instead of free.
    pub strict: bool,
    /// Seed of the order in which clusters come in.
    pub seed: u64,
}

/// Tests the patterns of a chain one after another until one is not confirmed.
///
/// Clusters come in in random order, the same for every pattern, and a pattern's test ends as soon as a bound decides.
/// `told` is called with the number of clusters looked at, and of all.
///
/// # Errors
/// Those of the evaluator.
pub fn confirm(
    chain: &[Pattern],
    budget: Budget,
    evaluator: &mut dyn Evaluate,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Confirmation, SearchError> {
    let mut unseen = Unseen::new(evaluator, budget.seed);
    let all = unseen.order.len();
    let mut trials = Vec::new();
    for &pattern in chain {
        let trial = unseen.test(pattern, budget, &mut |n| told(n, all))?;
        let failed = trial.verdict != Verdict::Confirmed;
        trials.push(trial);
        if failed {
            break;
        }
    }
    let untested = chain[trials.len()..].to_vec();
    Ok(Confirmation { budget: budget.most, strict: budget.strict, clusters: all, trials, untested })
}

/// The clusters of unseen text in the order in which they come in, each with the parts that hold it.
struct Unseen<'a> {
    evaluator: &'a mut dyn Evaluate,
    order: Vec<(usize, Vec<usize>)>,
}

impl<'a> Unseen<'a> {
    fn new(evaluator: &'a mut dyn Evaluate, seed: u64) -> Self {
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (part, of) in evaluator.layout().parts.iter().enumerate() {
            for &cluster in &of.clusters {
                let parts = parts.entry(cluster).or_default();
                if parts.last() != Some(&part) {
                    parts.push(part);
                }
            }
        }
        let mut order: Vec<(usize, Vec<usize>)> = parts.into_iter().collect();
        Rng::new(seed, 0xc0f).shuffle(&mut order);
        Self { evaluator, order }
    }

    fn test(&mut self, pattern: Pattern, budget: Budget, told: &mut dyn FnMut(usize)) -> Result<Trial, SearchError> {
        let mut known: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut bounds = None;
        let mut verdict = Verdict::Undecided;
        for at in 0..self.order.len() {
            // Nothing is looked at before there are enough, so that those are measured together.
            let needed = if at == 0 { FIRST_LOOK.min(self.order.len()) } else { 1 };
            let mut parts: Vec<usize> =
                self.order[at..at + needed].iter().flat_map(|(_, parts)| parts.clone()).collect();
            parts.sort_unstable();
            parts.dedup();
            parts.retain(|part| !known.contains_key(part));
            let units: Vec<_> = parts.into_iter().map(|part| (pattern, part)).collect();
            if !units.is_empty() {
                self.evaluator.measure(&units, &mut |m| drop(known.insert(m.part, m.blocks)))?;
            }
            clusters.push(self.cluster(at, &known));
            told(clusters.len());
            let look = if budget.strict { strict_bounds(&clusters, self.order.len()) } else { time_uniform(&clusters) };
            bounds = look.or(bounds);
            verdict = match look {
                Some((_, upper)) if upper <= budget.most => Verdict::Confirmed,
                Some((lower, _)) if lower > budget.most => Verdict::OverBudget,
                _ => Verdict::Undecided,
            };
            if verdict != Verdict::Undecided {
                break;
            }
        }
        Ok(Trial { pattern, verdict, delta: Delta::of(&clusters, None), bounds })
    }

    /// Adds up the blocks of the cluster at a place of the order.
    fn cluster(&self, at: usize, known: &BTreeMap<usize, Vec<f64>>) -> Cluster {
        let (cluster, parts) = &self.order[at];
        let mut sum = Cluster::default();
        for part in parts {
            let of = &self.evaluator.layout().parts[*part];
            let blocks = known[part].iter().zip(&of.blocks).zip(&of.clusters).filter(|(_, of)| *of == cluster);
            for ((mean, &n), _) in blocks {
                sum.sum += mean * n as f64;
                sum.n += n;
            }
        }
        sum
    }
}
