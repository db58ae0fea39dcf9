//! Local refinement: a Full and a Shared layer exchange their roles while that lowers the loss.

use super::race::race;
use super::{Ledger, Sample, SearchError, Space};
use crate::domain::{Goal, Pattern, Role, Swap};

/// Exchanges are tried until none is better; with a budget for Δ, layers then become Shared while it allows, and so
/// on in turns until neither gains.
///
/// With equal numbers of Full layers throughout, a re-flip of a single layer is half of an exchange, so those are
/// covered. It ends: every change has fewer Full layers than the one before, or as many and a lower loss.
pub(super) fn refine(space: &Space, goal: Goal, ledger: &mut Ledger) -> Result<(), SearchError> {
    let pattern = ledger.progress.record.pattern;
    let mut at = At { pattern, sample: ledger.measure_one(pattern)? };
    loop {
        while at.change(exchanges(space, at.pattern), goal, ledger)? {}
        let Goal::MaxDelta(_) = goal else { return Ok(()) };
        let mut further = false;
        while at.change(flips(space, at.pattern), goal, ledger)? {
            further = true;
        }
        if !further {
            return Ok(());
        }
    }
}

/// Where the refinement stands.
struct At {
    pattern: Pattern,
    sample: Sample,
}

impl At {
    /// Races the changes against each other; returns whether the best one was worth it and is made.
    ///
    /// A change at an equal number of Full layers must lower the loss, so the present pattern races too. A budget is
    /// kept to by either kind.
    fn change(&mut self, changes: Vec<Change>, goal: Goal, ledger: &mut Ledger) -> Result<bool, SearchError> {
        let exchanged = changes.first().is_some_and(|change| change.full.is_some());
        let own = usize::from(exchanged);
        ledger.expect(None);
        let present = exchanged.then_some(self.pattern);
        let patterns: Vec<Pattern> = present.into_iter().chain(changes.iter().map(|c| c.pattern)).collect();
        let raced = race(&patterns, ledger)?;
        let worth = |i: &usize| {
            let sample = &raced[*i].sample;
            let lower = !exchanged || sample.mean() < self.sample.mean();
            raced[*i].whole && lower && within(goal, sample)
        };
        let mean = |i: usize| raced[i].sample.mean();
        let best = (own..patterns.len()).filter(worth).min_by(|&a, &b| mean(a).total_cmp(&mean(b)));
        let Some(best) = best else { return Ok(false) };
        let Change { full, shared, pattern } = changes[best - own];
        let after = raced[best].sample.clone();
        let swap = Swap { full, shared, delta: after.delta(), step: after.minus(&self.sample).delta() };
        (self.pattern, self.sample) = (pattern, after);
        let record = &mut ledger.progress.record;
        (record.pattern, record.delta) = (pattern, Some(swap.delta));
        record.swaps.push(swap);
        ledger.tell();
        Ok(true)
    }
}

fn within(goal: Goal, sample: &Sample) -> bool {
    match goal {
        Goal::Keep(_) => true,
        Goal::MaxDelta(most) => sample.mean() <= most,
    }
}

/// A change of one or two roles, and the pattern that it gives.
struct Change {
    full: Option<usize>,
    shared: usize,
    pattern: Pattern,
}

/// Returns every exchange of one free Full and one free Shared layer.
fn exchanges(space: &Space, pattern: Pattern) -> Vec<Change> {
    let (now_full, now_shared): (Vec<usize>, Vec<usize>) = space.free().partition(|&l| pattern.is_full(l));
    let pairs = now_full.iter().flat_map(|&shared| now_shared.iter().map(move |&full| (full, shared)));
    pairs
        .filter_map(|(full, shared)| {
            let pattern = pattern.with(full, Role::Full).ok()?.with(shared, Role::Shared).ok()?;
            Some(Change { full: Some(full), shared, pattern })
        })
        .collect()
}

/// Returns every flip of one free Full layer.
fn flips(space: &Space, pattern: Pattern) -> Vec<Change> {
    let flip = |shared| Some(Change { full: None, shared, pattern: pattern.with(shared, Role::Shared).ok()? });
    space.free().filter(|&l| pattern.is_full(l)).filter_map(flip).collect()
}
