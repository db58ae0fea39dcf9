//! The paper's greedy search (IndexCache §3): every candidate is measured on the whole calibration set at every step.

use super::descend::{Pick, Step, Tried};
use super::{Ledger, SearchError};

/// Measures all candidates.
#[derive(Debug, Default)]
pub(super) struct Greedy;

impl Pick for Greedy {
    fn pick(&mut self, step: &Step, ledger: &mut Ledger) -> Result<Vec<Tried>, SearchError> {
        let patterns: Vec<_> = step.candidates.iter().map(|&layer| step.with(layer)).collect();
        let samples = ledger.measure(&patterns)?;
        Ok(step.candidates.iter().zip(samples).map(|(&layer, sample)| Tried { layer, sample, whole: true }).collect())
    }
}
