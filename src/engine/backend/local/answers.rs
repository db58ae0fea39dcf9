//! What can be asked of the backend in this process: every question goes to the file that answers it.

use std::path::Path;
use std::time::Instant;

use super::LocalBackend;
use super::measure::{LayerTime, NoRoom, StepSpeed, Steps};
use crate::domain::{
    Confirmation, Evaluation, LeftTraining, Pattern, QuerySampling, Speed, Subject, Trace, TrainingSettings, Validation,
};
use crate::engine::backend::tally;
use crate::engine::{Backend, BackendError, Cancel, Coverage, ModelInfo, Training, Weights};
use crate::search::{Affinity, AffinityKind, Budget, Layout, Measured, Unit};

impl LocalBackend {
    /// Records the sets that every layer uses under `pattern`.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn record_pattern(
        &mut self,
        pattern: Pattern,
        queries: QuerySampling,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Trace, BackendError> {
        super::record::record(self, pattern, queries, cancel, progress)
    }

    /// Times pattern and reference in alternation at `context` tokens, those of the calibration set over and over; `done`
    /// hears of each phase as soon as it is timed.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn measure_at(
        &mut self,
        pattern: Pattern,
        context: usize,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        done: &mut dyn FnMut(&Speed),
    ) -> Result<Vec<Speed>, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        super::measure::measure(self, pattern, context, cancel, progress, done)
    }

    /// Times steps on a cached prefix, as servers run them, against the reference; `done` hears of each.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn measure_steps(
        &mut self,
        pattern: Pattern,
        context: usize,
        steps: &Steps,
        cancel: &Cancel,
        done: &mut dyn FnMut(Result<StepSpeed, NoRoom>),
    ) -> Result<(), BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        super::measure::steps(self, pattern, context, steps, cancel, done)
    }

    /// Runs one prefill of `context` tokens and returns where each layer spent its time.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn trace(&self, pattern: Pattern, context: usize, cancel: &Cancel) -> Result<Vec<LayerTime>, BackendError> {
        super::measure::trace(self, pattern, context, cancel)
    }
}

impl Backend for LocalBackend {
    fn describe(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self) -> Option<(u64, u64)> {
        crate::engine::devices::memory(&self.info.device)
    }

    fn evaluate(
        &mut self,
        subject: Subject,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Evaluation, BackendError> {
        if let Some(known) = self.evaluations.get(&subject) {
            return Ok(known.clone());
        }
        self.info.check(subject)?;
        let started = Instant::now();
        let mut tally = tally::begin(subject, &self.info, &self.calibration);
        for batch in 0..self.runner.batches.len() {
            self.score(batch, &mut tally, cancel)?;
            partial(&tally.evaluation(started.elapsed().as_secs_f64()));
        }
        let evaluation = tally.evaluation(started.elapsed().as_secs_f64());
        self.evaluations.insert(subject, evaluation.clone());
        Ok(evaluation)
    }

    fn record(&mut self, cancel: &Cancel, progress: &mut dyn FnMut(f64)) -> Result<Trace, BackendError> {
        self.record_pattern(self.info.reference, QuerySampling::All, cancel, progress)
    }

    fn coverage(&mut self, pattern: Pattern, cancel: &Cancel) -> Result<Coverage, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        super::coverage::coverage(self, pattern, cancel)
    }

    fn measure(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError> {
        let context = self.settings.speed_context.unwrap_or(self.info.context);
        self.measure_at(pattern, context, cancel, progress, &mut |_| ())
    }

    fn profile(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError> {
        let longest = self.settings.speed_context.unwrap_or(self.info.context);
        let k = self.info.index_topk.min(longest);
        // Up to k visible keys nothing is selected, which follows another law: all contexts lie between k and the longest.
        let contexts = [8, 4, 2].map(|part| k + (longest - k) / part);
        let mut speeds = Vec::new();
        for (i, context) in contexts.into_iter().enumerate() {
            let mut tell = |share: f64| progress((i as f64 + share) / contexts.len() as f64);
            speeds.extend(self.measure_at(pattern, context, cancel, &mut tell, &mut |_| ())?);
        }
        Ok(speeds)
    }

    fn validate(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Validation>, BackendError> {
        super::validate::validate(self, pattern, cancel, progress)
    }

    fn confirm(
        &mut self,
        chain: &[Pattern],
        budget: Budget,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Confirmation>, BackendError> {
        super::validate::confirm(self, chain, budget, cancel, progress)
    }

    fn layout(&self) -> Layout {
        super::losses::layout(self)
    }

    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError> {
        super::losses::losses(self, units, cancel, done)
    }

    fn train(&mut self, settings: &TrainingSettings, left: Option<&Path>) -> Result<Box<dyn Training>, BackendError> {
        self.info.check(Subject::Pattern(settings.pattern))?;
        super::trainer::train(self, settings, left)
    }

    fn left(&self, sidecar: &Path) -> Result<Option<LeftTraining>, BackendError> {
        super::trainer::left(sidecar)
    }

    fn evaluate_with(
        &mut self,
        weights: &Weights,
        pattern: Pattern,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, Coverage), BackendError> {
        super::trainer::evaluate_with(self, weights, pattern, cancel, partial)
    }

    fn affinity(&mut self, kind: AffinityKind, cancel: &Cancel) -> Result<Affinity, BackendError> {
        super::affinity::affinity(self, kind, cancel)
    }
}
