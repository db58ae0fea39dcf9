//! The same search on disjoint parts of the calibration set: is the flip order a property of the model or of the text?

use super::keeper::Keeper;
use crate::analysis::kendall::kendall;
use crate::cli::CliError;
use crate::domain::{SearchRecord, SearchSettings};
use crate::engine::{Backend, Cancel, Evaluator};
use crate::search::{Evaluate, Ledger, Measured, SearchError, Space, Watch, search};

/// What repeating a search gave.
pub(super) struct Split {
    /// One per piece.
    pub records: Vec<SearchRecord>,
    /// Mean of Kendall's τ-b over all pairs of pieces; layers that stay Full come last together.
    pub tau: Option<f64>,
}

/// Searches on each of `pieces` disjoint sets of parts.
pub(super) fn run(
    settings: &SearchSettings,
    space: &Space,
    pieces: usize,
    backend: &mut dyn Backend,
    cancel: &Cancel,
    keeper: &mut Keeper,
) -> Result<Split, CliError> {
    let mut evaluator = Evaluator::new(backend, cancel);
    let parts = evaluator.layout().parts.len();
    if parts < pieces {
        return Err(CliError::usage(format!("the calibration set has {parts} parts, too few for --split {pieces}"))
            .hint("use more sequences"));
    }
    let mut records = Vec::new();
    for piece in 0..pieces {
        let own: Vec<usize> = (0..parts).filter(|part| part % pieces == piece).collect();
        let known = keeper.known.clone();
        let mut watch = Quiet { keeper };
        let mut ledger = Ledger::new(&mut evaluator, &own, settings, space.start, known, &mut watch);
        records.push(search(space, settings, &mut ledger).map_err(|e: SearchError| CliError::from(e))?);
    }
    let taus: Vec<f64> = (0..pieces)
        .flat_map(|i| (0..i).map(move |j| (i, j)))
        .filter_map(|(i, j)| kendall(&ranks(&records[i], space), &ranks(&records[j], space)))
        .collect();
    let tau = (!taus.is_empty()).then(|| taus.iter().sum::<f64>() / taus.len() as f64);
    Ok(Split { records, tau })
}

/// Returns when each free layer was flipped; those that were not come last together.
fn ranks(record: &SearchRecord, space: &Space) -> Vec<f64> {
    let at = |layer| record.order.iter().position(|flip| flip.layer == layer).unwrap_or(record.order.len());
    space.free().map(|layer| at(layer) as f64).collect()
}

/// Keeps measurements, but shows and saves no progress: the session is about the search on the whole set.
struct Quiet<'a> {
    keeper: &'a mut Keeper,
}

impl Watch for Quiet<'_> {
    fn measured(&mut self, measured: &Measured) {
        self.keeper.measured(measured);
    }

    fn progress(&mut self, progress: &crate::domain::SearchProgress) {
        self.keeper.show(progress);
    }
}
