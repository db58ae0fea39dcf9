//! Local refinement: a Full and a Shared layer exchange their roles while that lowers the loss.

use super::race::race;
use super::{Ledger, SearchError, Space};
use crate::domain::{Pattern, Role, Swap};

/// Exchanges are tried until none is better.
///
/// All exchanges and the pattern itself race; where an exchange wins, the next round starts from it. With equal
/// numbers of Full layers throughout, a re-flip of a single layer is half of an exchange, so those are covered.
pub(super) fn refine(space: &Space, ledger: &mut Ledger) -> Result<(), SearchError> {
    let mut pattern = ledger.progress.record.pattern;
    let mut sample = ledger.measure_one(pattern)?;
    loop {
        let exchanges = exchanges(space, pattern);
        ledger.expect(None);
        let patterns: Vec<Pattern> = std::iter::once(pattern).chain(exchanges.iter().map(|e| e.pattern)).collect();
        let raced = race(&patterns, ledger)?;
        let lower = |i: &usize| raced[*i].whole && raced[*i].sample.mean() < sample.mean();
        let mean = |i: usize| raced[i].sample.mean();
        let Some(best) = (1..patterns.len()).filter(lower).min_by(|&a, &b| mean(a).total_cmp(&mean(b))) else {
            return Ok(());
        };
        let Exchange { full, shared, .. } = exchanges[best - 1];
        let after = raced[best].sample.clone();
        let swap = Swap { full, shared, delta: after.estimate(), step: after.minus(&sample).estimate() };
        (pattern, sample) = (patterns[best], after);
        let record = &mut ledger.progress.record;
        (record.pattern, record.delta) = (pattern, Some(swap.delta));
        record.swaps.push(swap);
        ledger.tell();
    }
}

struct Exchange {
    full: usize,
    shared: usize,
    pattern: Pattern,
}

/// Returns every exchange of one free Full and one free Shared layer.
fn exchanges(space: &Space, pattern: Pattern) -> Vec<Exchange> {
    let (now_full, now_shared): (Vec<usize>, Vec<usize>) = space.free().partition(|&l| pattern.is_full(l));
    let pairs = now_full.iter().flat_map(|&shared| now_shared.iter().map(move |&full| (full, shared)));
    pairs
        .filter_map(|(full, shared)| {
            let pattern = pattern.with(full, Role::Full).ok()?.with(shared, Role::Shared).ok()?;
            Some(Exchange { full, shared, pattern })
        })
        .collect()
}
