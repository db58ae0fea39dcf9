//! The scored queries of a batch, and how well final hidden states predict what follows them.

use candle_core::Tensor;

use super::compare::{Predictions, Target, compare, losses};
use super::forward::Batch;
use crate::analysis::tally::Scored;
use crate::domain::{Subject, TopK};
use crate::engine::Calibration;
use crate::engine::backend::not_finite;
use crate::engine::{BackendError, Cancel};
use crate::model::Head;

/// The scored queries of one batch.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    /// Index of the first sequence.
    first: usize,
    /// The cluster of every sequence.
    clusters: Vec<usize>,
    /// Sequence by sequence.
    sequences: Vec<Vec<Target>>,
}

impl Targets {
    /// Returns the targets of a batch of the calibration set.
    pub(super) fn of(calibration: &Calibration, batch: &Batch) -> Self {
        let sequences = &calibration.sequences()[batch.first..batch.first + batch.ids.len()];
        let clusters = sequences.iter().map(|s| s.cluster).collect();
        let sequences = sequences.iter().map(|s| s.queries().map(|p| (p, s.ids[p + 1])).collect()).collect();
        Self { first: batch.first, clusters, sequences }
    }

    /// Returns the number of sequences.
    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns the cluster of every sequence.
    pub(super) fn clusters(&self) -> impl Iterator<Item = usize> + '_ {
        self.clusters.iter().copied()
    }

    /// Splits them into those whose query sees at most k units, and the eligible ones.
    pub(super) fn split(&self, topk: TopK) -> (Self, Self) {
        let keep = |wanted: bool| Self {
            first: self.first,
            clusters: self.clusters.clone(),
            sequences: self
                .sequences
                .iter()
                .map(|targets| targets.iter().filter(|(p, _)| topk.counts(*p) == wanted).copied().collect())
                .collect(),
        };
        (keep(false), keep(true))
    }

    /// Returns the number of targets of every sequence.
    pub(super) fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        self.sequences.iter().map(Vec::len)
    }

    /// Returns −log p of every target from the residual stream after the last layer, sequence by sequence.
    pub(super) fn losses(
        &self,
        subject: Subject,
        head: &Head,
        hidden: &Tensor,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, BackendError> {
        let losses = losses(head, &self.rows(hidden)?, &self.sequences.concat(), cancel)?;
        self.refuse_non_finite(subject, losses.iter().copied())?;
        let mut rest = losses.into_iter();
        Ok(self.counts().map(|n| rest.by_ref().take(n).collect()).collect())
    }

    /// Refuses losses, one per target, of which one is not a finite number: the one place that does.
    fn refuse_non_finite(&self, subject: Subject, losses: impl Iterator<Item = f64>) -> Result<(), BackendError> {
        let of =
            |(n, targets): (usize, &Vec<Target>)| targets.iter().map(|&(p, _)| (self.first + n, p)).collect::<Vec<_>>();
        let places = self.sequences.iter().enumerate().flat_map(of);
        let Some((sequence, position)) = places.zip(losses).find(|(_, loss)| !loss.is_finite()).map(|(at, _)| at)
        else {
            return Ok(());
        };
        Err(not_finite(subject, sequence, position))
    }

    /// Picks the scored queries' rows of the residual stream `[B, T, …]`: `[R, …]`.
    pub(super) fn rows(&self, hidden: &Tensor) -> Result<Predictions, BackendError> {
        let t = hidden.dim(1)?;
        let rows = self.sequences.iter().enumerate();
        let rows = rows.flat_map(|(n, targets)| targets.iter().map(move |&(p, _)| (n * t + p) as u32));
        let rows = Tensor::from_iter(rows, hidden.device())?;
        Ok(Predictions::of(hidden.flatten(0, 1)?.index_select(&rows, 0)?))
    }

    /// Scores the picked rows of a forward against those of the reference; `None` scores the reference itself.
    pub(super) fn score(
        &self,
        subject: Subject,
        head: &Head,
        reference: &Predictions,
        ours: Option<&Predictions>,
        cancel: &Cancel,
    ) -> Result<Vec<Scored>, BackendError> {
        let scored = compare(head, reference, ours, &self.sequences.concat(), cancel)?;
        self.refuse_non_finite(subject, scored.iter().map(|row| row.nll + row.reference))?;
        let mut rest = scored.as_slice();
        let split = |(n, targets): (usize, &Vec<Target>)| {
            let (rows, after) = rest.split_at(targets.len());
            rest = after;
            Scored { index: self.first + n, rows: rows.to_vec() }
        };
        Ok(self.sequences.iter().enumerate().map(split).collect())
    }
}
