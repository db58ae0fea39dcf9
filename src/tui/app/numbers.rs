//! Which numbers belong to the current pattern.

use std::sync::Arc;

use super::{App, Indexers};
use crate::analysis::{Metric, OverlapMatrix, coverage};
use crate::domain::{Estimate, Evaluation, Pattern, Role, Subject};
use crate::tui::screens::overlap::Measure;

impl App {
    /// Returns the growing evaluation, if it is of the current pattern.
    pub fn growing(&self) -> Option<&Evaluation> {
        let current = Subject::Pattern(self.pattern()?);
        self.known.partial.as_ref().filter(|e| e.subject == current && self.indexers == Indexers::Before)
    }

    /// Returns the matrix from which a metric is drawn, once computed.
    pub fn matrix(&self, metric: Metric) -> Option<&OverlapMatrix> {
        self.matrices.iter().find(|m| m.metric == metric).map(Arc::as_ref)
    }

    /// Returns what is drawn for a pair of layers; `None` where the recording has no own set of either.
    pub fn similarity(&self, row: usize, column: usize) -> Option<Estimate> {
        let matrix = self.matrix(self.screens.overlap.measure.metric())?;
        if row != column && !(matrix.is_own(row) && matrix.is_own(column)) {
            return None;
        }
        let estimate = matrix.estimate(row, column)?;
        if self.screens.overlap.measure != Measure::AboveChance {
            return Some(estimate);
        }
        let room = 1.0 - matrix.chance.filter(|&c| c < 1.0)?;
        let value = 1.0 - (1.0 - estimate.value) / room;
        Some(Estimate { value, se: estimate.se.map(|se| se / room), n: estimate.n })
    }

    /// Returns each layer's coverage under the current pattern, and whether it was measured under it.
    ///
    /// A Full layer covers itself; a Shared layer without an indexer, or not in the recording, has none.
    pub fn coverage(&self) -> (Vec<Option<Estimate>>, bool) {
        self.pattern().map_or_else(|| (Vec::new(), false), |pattern| self.coverage_of(pattern))
    }

    /// Returns each layer's coverage under any pattern, and whether it was measured under it.
    pub fn coverage_of(&self, pattern: Pattern) -> (Vec<Option<Estimate>>, bool) {
        if let Some(measured) = self.results_of(pattern).and_then(|r| r.coverage.as_ref()) {
            let own = Estimate { value: 1.0, se: None, n: 0 };
            let mut layers: Vec<Option<Estimate>> = pattern.roles().map(|r| (r == Role::Full).then_some(own)).collect();
            for layer in measured.layers.iter().filter(|l| l.layer < pattern.len()) {
                layers[layer.layer] = Some(layer.overlap);
            }
            return (layers, true);
        }
        // The recording is of the indexers before, and says nothing about others.
        let predicted = self
            .matrix(Metric::Overlap)
            .filter(|m| m.layers == pattern.len() && self.indexers == Indexers::Before)
            .map_or_else(|| vec![None; pattern.len()], |m| coverage::predicted(m, pattern));
        (predicted, false)
    }
}
