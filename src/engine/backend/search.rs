//! A backend as searches see it, and what every backend needs to answer them.

use super::{Backend, BackendError};
use crate::domain::{block_ends, block_means};
use crate::engine::Cancel;
use crate::search::{Affinity, AffinityKind, Evaluate, Layout, Measured, Part, SearchError, Unit};

/// The losses of the reference, against which a search compares.
#[derive(Debug)]
pub(super) struct Baseline {
    /// Of the eligible targets, sequence by sequence.
    pub eligible: Vec<Vec<f64>>,
    /// Σ over all other targets: they are the same under every pattern.
    pub fixed: f64,
}

/// Returns a part of so many targets that cannot change, and of sequences with so many eligible ones of a cluster.
pub(super) fn part_of(fixed: usize, eligible: &[(usize, usize)]) -> Part {
    let (mut blocks, mut clusters) = (Vec::new(), Vec::new());
    for &(n, cluster) in eligible {
        let ends = block_ends(n);
        clusters.extend(ends.iter().map(|_| cluster));
        blocks.extend(ends.iter().scan(0, |begin, &end| Some(end - std::mem::replace(begin, end))));
    }
    let targets = fixed + eligible.iter().map(|(n, _)| n).sum::<usize>();
    Part { blocks, clusters, targets, sequences: eligible.len() }
}

/// Compares the losses of eligible targets, sequence by sequence, with those of the reference; `cost` is layers run and
/// seconds.
pub(super) fn measured(
    (pattern, part): Unit,
    losses: &[Vec<f64>],
    baseline: &Baseline,
    is_reference: bool,
    (layers, seconds): (usize, f64),
) -> Measured {
    let mut blocks = Vec::new();
    for (ours, theirs) in losses.iter().zip(&baseline.eligible) {
        let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
        blocks.extend(block_means(&differences));
    }
    let nll = baseline.fixed + losses.iter().flatten().sum::<f64>();
    Measured { pattern, part, blocks, nll, is_reference, layers, seconds }
}

/// A backend as searches see it.
pub struct Evaluator<'a> {
    backend: &'a mut dyn Backend,
    cancel: &'a Cancel,
    layout: Layout,
}

impl<'a> Evaluator<'a> {
    /// Lends a backend to a search, which ends as interrupted once `cancel` is stale.
    pub fn new(backend: &'a mut dyn Backend, cancel: &'a Cancel) -> Self {
        let layout = backend.layout();
        Self { backend, cancel, layout }
    }
}

impl Evaluate for Evaluator<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn measure(&mut self, units: &[Unit], done: &mut dyn FnMut(Measured)) -> Result<(), SearchError> {
        Ok(self.backend.losses(units, self.cancel, done)?)
    }

    fn affinity(&mut self, kind: AffinityKind) -> Result<Affinity, SearchError> {
        Ok(self.backend.affinity(kind, self.cancel)?)
    }
}

impl From<BackendError> for SearchError {
    fn from(error: BackendError) -> Self {
        error.diagnostic().map_or(Self::Interrupted, Self::Failed)
    }
}

impl From<SearchError> for BackendError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Interrupted => Self::Cancelled,
            SearchError::Failed(diagnostic) => Self::Failed(diagnostic),
        }
    }
}
