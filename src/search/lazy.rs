//! Greedy that measures a candidate again only while its last known damage could still make it the best.

use std::collections::HashMap;

use super::descend::{Damage, Pick, Step, Tried};
use super::{Ledger, SearchError};
use crate::domain::{Audit, Rng};

/// The assumption: from one measurement of a flip's damage to the next, as more layers become Shared, it falls by at
/// most this share of its size, and by [`SLACK`] for what is noise.
pub const FALL: f64 = 0.5;

/// Standard errors of a damage by which the assumption is relaxed.
pub const SLACK: f64 = 2.0;

/// Every so many skipped candidates one is measured all the same, at most one per step.
const AUDIT_EVERY: usize = 8;

/// Returns the least damage that the assumption leaves possible.
pub(super) fn bound(damage: Damage) -> f64 {
    damage.value - FALL * damage.value.abs() - SLACK * damage.se
}

/// The last known damage of every layer's flip.
#[derive(Debug, Default)]
pub(super) struct Damages(HashMap<usize, Damage>);

impl Damages {
    /// Returns the candidates, those with the least damage first; those never measured before all others.
    pub(super) fn queue(&self, candidates: &[usize]) -> Vec<usize> {
        let mut queue = candidates.to_vec();
        queue.sort_by(|&a, &b| self.bound(a).total_cmp(&self.bound(b)).then(a.cmp(&b)));
        queue
    }

    /// Returns the least damage that a flip can have under the assumption.
    pub(super) fn bound(&self, layer: usize) -> f64 {
        self.0.get(&layer).map_or(f64::NEG_INFINITY, |&damage| bound(damage))
    }

    pub(super) fn set(&mut self, layer: usize, damage: Damage) {
        self.0.insert(layer, damage);
    }
}

/// Draws skipped candidates that are measured all the same.
#[derive(Debug)]
pub(super) struct Auditor {
    random: Rng,
    skipped: usize,
    audit: Audit,
}

impl Auditor {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Rng::new(seed, 0xa0d17), skipped: 0, audit: Audit::default() }
    }

    /// Takes note of skipped candidates and returns the one to audit, if it is time for one.
    pub(super) fn draw(&mut self, skipped: &[usize]) -> Option<usize> {
        self.skipped += skipped.len();
        if skipped.is_empty() || self.skipped < AUDIT_EVERY {
            return None;
        }
        self.skipped = 0;
        Some(skipped[self.random.below(skipped.len())])
    }

    /// Takes note of what an audited candidate's damage is, and of the least that it should have been.
    pub(super) fn judge(&mut self, damage: f64, bound: f64) {
        self.audit.audited += 1;
        self.audit.violations += usize::from(damage < bound);
    }

    pub(super) fn audit(&self) -> Audit {
        self.audit
    }
}

/// Candidates in the order of their last known damage, until the next cannot be better than the best one measured.
#[derive(Debug)]
pub(super) struct Lazy {
    damages: Damages,
    auditor: Auditor,
}

impl Lazy {
    pub(super) fn new(seed: u64) -> Self {
        Self { damages: Damages::default(), auditor: Auditor::new(seed) }
    }

    /// Measures some candidates; returns the least damage among them.
    fn measure(
        &mut self,
        layers: &[usize],
        step: &Step,
        ledger: &mut Ledger,
        tried: &mut Vec<Tried>,
    ) -> Result<f64, SearchError> {
        let patterns: Vec<_> = layers.iter().map(|&layer| step.with(layer)).collect();
        let mut least = f64::INFINITY;
        for (&layer, sample) in layers.iter().zip(ledger.measure(&patterns)?) {
            let damage = step.damage(&sample);
            self.damages.set(layer, damage);
            least = least.min(damage.value);
            tried.push(Tried { layer, sample, whole: true });
        }
        Ok(least)
    }
}

impl Pick for Lazy {
    fn pick(&mut self, step: &Step, ledger: &mut Ledger) -> Result<Vec<Tried>, SearchError> {
        let queue = self.damages.queue(step.candidates);
        // What was never measured is measured at once, so that prefixes are shared.
        let new = queue.iter().take_while(|&&layer| self.damages.bound(layer) == f64::NEG_INFINITY).count();
        let mut tried = Vec::new();
        let mut least = self.measure(&queue[..new], step, ledger, &mut tried)?;
        let mut rest = &queue[new..];
        while let Some((&next, after)) = rest.split_first()
            && self.damages.bound(next) < least
        {
            least = least.min(self.measure(&[next], step, ledger, &mut tried)?);
            rest = after;
        }
        if let Some(layer) = self.auditor.draw(rest) {
            let bound = self.damages.bound(layer);
            let damage = self.measure(&[layer], step, ledger, &mut tried)?;
            self.auditor.judge(damage, bound);
        }
        Ok(tried)
    }

    fn audit(&self) -> Option<Audit> {
        Some(self.auditor.audit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_lies_below_by_half_of_the_size_and_two_standard_errors() {
        let sure = |value| Damage { value, se: 0.0 };
        // A gain may grow by as much as a loss may shrink.
        assert_eq!([0.5, 0.0, -0.5].map(|value| bound(sure(value))), [0.25, 0.0, -0.75]);
        assert_eq!(bound(Damage { value: 0.5, se: 0.125 }), 0.0);
        let mut damages = Damages::default();
        damages.set(1, sure(0.5));
        damages.set(2, sure(-0.5));
        assert_eq!([1, 2, 3].map(|layer| damages.bound(layer)), [0.25, -0.75, f64::NEG_INFINITY]);
        assert_eq!(damages.queue(&[1, 2, 3, 4]), [3, 4, 2, 1]);
    }

    #[test]
    fn every_eighth_skipped_candidate_is_audited() {
        let mut auditor = Auditor::new(0);
        assert_eq!(auditor.draw(&[4; 7]), None);
        assert_eq!(auditor.draw(&[]), None);
        assert_eq!(auditor.draw(&[5]), Some(5));
        assert_eq!(auditor.draw(&[6; 7]), None, "counted anew after an audit");
    }

    #[test]
    fn only_damage_below_its_bound_is_a_violation() {
        let mut auditor = Auditor::new(0);
        [0.1, 0.2, 0.3].into_iter().for_each(|damage| auditor.judge(damage, 0.2));
        assert_eq!(auditor.audit(), Audit { audited: 3, violations: 1 });
    }
}
