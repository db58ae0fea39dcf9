//! What was measured, and what it cost.

use std::collections::{HashMap, HashSet};

use super::{Affinity, AffinityKind, Evaluate, Layout, Measured, Sample, SearchError, Unit};
use crate::domain::{Pattern, Rng, SearchProgress, SearchRecord, SearchSettings, Work};

/// Who is told as a search goes on.
pub trait Watch {
    /// A measurement is done; one that was known before the search began is not told.
    fn measured(&mut self, measured: &Measured);

    /// The search stands somewhere else.
    fn progress(&mut self, progress: &SearchProgress);
}

/// Keeps every measurement of a search, so that none is made twice, and counts what the search has used.
///
/// Measurements known from an earlier, interrupted run cost no forward, but are counted when the search comes to
/// them: the counts are those of the whole search.
pub struct Ledger<'a> {
    evaluator: &'a mut dyn Evaluate,
    watch: &'a mut dyn Watch,
    known: HashMap<Unit, Measured>,
    counted: HashSet<Unit>,
    parts: Vec<usize>,
    /// Where the search stands.
    pub(super) progress: SearchProgress,
    /// Layer-forwards that are still to come, from and to, as of the counts in `left_at`.
    left: Option<(f64, f64)>,
    left_at: f64,
}

impl<'a> Ledger<'a> {
    /// Returns the ledger of a search on some parts of the calibration set, which are put into the seed's order.
    pub fn new(
        evaluator: &'a mut dyn Evaluate,
        parts: &[usize],
        settings: &SearchSettings,
        start: Pattern,
        known: impl IntoIterator<Item = Measured>,
        watch: &'a mut dyn Watch,
    ) -> Self {
        let mut parts = parts.to_vec();
        Rng::new(settings.seed, 0).shuffle(&mut parts);
        let progress = SearchProgress {
            record: SearchRecord::new(settings.clone(), start),
            steps: (0, 0),
            candidate: None,
            measured: (0, 0),
            eta: None,
        };
        let known = known.into_iter().map(|m| ((m.pattern, m.part), m)).collect();
        Self { evaluator, watch, known, counted: HashSet::new(), parts, progress, left: None, left_at: 0.0 }
    }

    /// Returns the parts on which the search works, in its order.
    pub fn parts(&self) -> &[usize] {
        &self.parts
    }

    /// Returns what the calibration set is made of.
    pub fn layout(&self) -> &Layout {
        self.evaluator.layout()
    }

    /// Returns what the search has cost so far.
    pub fn work(&self) -> Work {
        self.progress.record.work
    }

    /// Returns the number of blocks of all parts of the search.
    pub(super) fn blocks(&self) -> usize {
        self.layout().blocks(&self.parts)
    }

    /// Measures patterns on the first `parts` parts; one sample per pattern.
    ///
    /// # Errors
    /// Those of the evaluator.
    pub fn measure_on(&mut self, patterns: &[Pattern], parts: usize) -> Result<Vec<Sample>, SearchError> {
        let parts = self.parts[..parts.min(self.parts.len())].to_vec();
        let units: Vec<Unit> = parts.iter().flat_map(|&part| patterns.iter().map(move |&p| (p, part))).collect();
        let missing: Vec<Unit> = units.iter().filter(|unit| !self.known.contains_key(unit)).copied().collect();
        self.progress.measured = (units.len() - missing.len(), units.len());
        if !missing.is_empty() {
            self.run(&missing)?;
        }
        units.iter().for_each(|unit| self.count(*unit));
        Ok(patterns.iter().map(|&pattern| self.sample(pattern, &parts)).collect())
    }

    /// Measures patterns on all parts of the search.
    ///
    /// # Errors
    /// Those of the evaluator.
    pub fn measure(&mut self, patterns: &[Pattern]) -> Result<Vec<Sample>, SearchError> {
        self.measure_on(patterns, self.parts.len())
    }

    /// Measures one pattern on all parts of the search.
    ///
    /// # Errors
    /// Those of the evaluator.
    pub fn measure_one(&mut self, pattern: Pattern) -> Result<Sample, SearchError> {
        Ok(self.measure(&[pattern])?.remove(0))
    }

    /// Measures how well layers could lend each other their indices.
    ///
    /// # Errors
    /// Those of the evaluator.
    pub fn affinity(&mut self, kind: AffinityKind) -> Result<Affinity, SearchError> {
        let affinity = self.evaluator.affinity(kind)?;
        self.progress.record.work.layer_forwards += affinity.layer_forwards;
        self.progress.record.work.seconds += affinity.seconds;
        Ok(affinity)
    }

    /// Says how many layer-forwards are still to come, from and to.
    pub(super) fn expect(&mut self, left: Option<(f64, f64)>) {
        self.left = left;
        self.left_at = self.progress.record.work.layer_forwards;
    }

    /// Tells where the search stands.
    pub(super) fn tell(&mut self) {
        self.progress.eta = self.eta();
        self.watch.progress(&self.progress);
    }

    fn run(&mut self, missing: &[Unit]) -> Result<(), SearchError> {
        let Self { evaluator, watch, known, counted, progress, left, left_at, .. } = self;
        let eligible = Self::eligible(evaluator.layout(), &self.parts);
        let shares: Vec<f64> = evaluator.layout().parts.iter().map(|p| p.eligible() as f64 / eligible).collect();
        evaluator.measure(missing, &mut |measured| {
            let unit = (measured.pattern, measured.part);
            if counted.insert(unit) {
                count(progress, &measured, shares[unit.1]);
            }
            progress.measured.0 += 1;
            progress.candidate = Some(measured.pattern);
            progress.eta = eta(progress, *left, *left_at);
            watch.measured(&measured);
            known.insert(unit, measured);
            watch.progress(progress);
        })
    }

    fn count(&mut self, unit: Unit) {
        if self.counted.insert(unit) {
            let eligible = Self::eligible(self.evaluator.layout(), &self.parts);
            let share = self.layout().parts[unit.1].eligible() as f64 / eligible;
            count(&mut self.progress, &self.known[&unit], share);
        }
    }

    fn sample(&self, pattern: Pattern, parts: &[usize]) -> Sample {
        let mut sample = Sample::default();
        for &part in parts {
            sample.means.extend(&self.known[&(pattern, part)].blocks);
            sample.targets.extend(&self.layout().parts[part].blocks);
            sample.clusters.extend(&self.layout().parts[part].clusters);
        }
        sample
    }

    fn eta(&self) -> Option<(f64, f64)> {
        eta(&self.progress, self.left, self.left_at)
    }

    fn eligible(layout: &Layout, parts: &[usize]) -> f64 {
        layout.eligible(parts).max(1) as f64
    }
}

/// Adds a measurement to the cost of a search; the reference, with which everything is compared, is no evaluation.
fn count(progress: &mut SearchProgress, measured: &Measured, share: f64) {
    let work = &mut progress.record.work;
    work.evaluations += share * f64::from(u8::from(!measured.is_reference));
    work.layer_forwards += share * measured.layers as f64;
    work.seconds += measured.seconds;
}

/// Returns seconds left from the layer-forwards left and the speed so far.
fn eta(progress: &SearchProgress, left: Option<(f64, f64)>, left_at: f64) -> Option<(f64, f64)> {
    let work = progress.record.work;
    let (low, high) = left.filter(|_| work.layer_forwards > 0.0)?;
    let (done, pace) = (work.layer_forwards - left_at, work.seconds / work.layer_forwards);
    Some(((low - done).max(0.0) * pace, (high - done).max(0.0) * pace))
}
