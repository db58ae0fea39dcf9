//! Greedy whose candidates race: what is clearly worse on part of the calibration set is dropped.

use super::descend::{Pick, Step, Tried};
use super::lazy::Damages;
use super::race::race;
use super::{Ledger, SearchError};
use crate::domain::Pattern;

/// Candidates that race at once after the first step.
const HEAT: usize = 4;

/// Candidates race in heats, in the order of their last known damage; the next heat is run only while its first
/// candidate could be better than the best so far under the assumption of [`super::lazy`].
#[derive(Debug, Default)]
pub(super) struct Racing {
    damages: Damages,
}

impl Pick for Racing {
    fn pick(&mut self, step: &Step, ledger: &mut Ledger) -> Result<Vec<Tried>, SearchError> {
        let queue = self.damages.queue(step.candidates);
        let new = queue.iter().take_while(|&&layer| self.damages.bound(layer) == f64::NEG_INFINITY).count();
        let mut tried: Vec<Tried> = Vec::new();
        let mut champion: Option<(usize, f64)> = None;
        let mut rest = queue.as_slice();
        while let Some(&next) = rest.first()
            && champion.is_none_or(|(_, damage)| self.damages.bound(next) < damage)
        {
            let heat = rest.split_off(..HEAT.max(new).min(rest.len())).unwrap_or_default();
            let layers: Vec<usize> = heat.iter().copied().chain(champion.map(|(layer, _)| layer)).collect();
            let patterns: Vec<Pattern> = layers.iter().map(|&layer| step.with(layer)).collect();
            for (&layer, raced) in layers.iter().zip(race(&patterns, ledger)?) {
                // The pattern before the step is over all parts, in the same order.
                let damage = step.damage(&raced.sample);
                self.damages.set(layer, damage);
                if raced.whole && champion.is_none_or(|(_, least)| damage.value < least) {
                    champion = Some((layer, damage.value));
                }
                // A champion that races again was measured on the whole set before.
                if tried.iter().all(|t| t.layer != layer) {
                    tried.push(Tried { layer, sample: raced.sample, whole: raced.whole });
                }
            }
        }
        Ok(tried)
    }
}
