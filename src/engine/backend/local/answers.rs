//! What can be asked of the backend in this process: every question goes to the file that answers it.

use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;

use super::forward::How;
use super::{LocalBackend, Reference, ReferencePredictions};
use crate::domain::Diagnostic;
use crate::domain::{Evaluation, LeftTraining, Pattern, QuerySampling, Speed, Subject, Trace, TrainingSettings};
use crate::engine::backend::{tally, unseen::UnseenText};
use crate::engine::{
    Backend, BackendError, Calibration, Cancel, Capability, Coverage, LayerTime, ModelInfo, NoRoom, Recorded,
    Recording, Settings, Sink, StepSpeed, Steps, Training, Weights,
};
use crate::model::Unseen;
use crate::search::{Affinity, AffinityKind, Layout, Measured, Unit};

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

    fn record(
        &mut self,
        pattern: Pattern,
        queries: QuerySampling,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Trace, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        super::record::record(self, pattern, queries, cancel, progress)
    }

    fn record_into(
        &mut self,
        recording: &Recording,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        sink: &mut Sink,
    ) -> Result<Recorded, BackendError> {
        self.info.check(Subject::Pattern(recording.pattern))?;
        recording.run(self, cancel, progress, sink)
    }

    fn on(&self, calibration: Calibration) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(self.with(calibration, self.settings.clone())?))
    }

    fn unseen(&mut self) -> Result<Option<&mut dyn Backend>, BackendError> {
        if let Some(text) = self.unseen.as_ref().and_then(UnseenText::missing) {
            // Each pattern is validated once, so that there is nothing to keep states for.
            let own = self.sparing(text)?;
            if let Some(unseen) = &mut self.unseen {
                unseen.made(own);
            }
        }
        Ok(self.unseen.as_mut().and_then(UnseenText::backend).map(|own| own as &mut dyn Backend))
    }

    fn coverage(&mut self, pattern: Pattern, cancel: &Cancel) -> Result<Coverage, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        super::coverage::coverage(self, pattern, cancel)
    }

    fn measure(
        &mut self,
        pattern: Pattern,
        context: Option<usize>,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        done: &mut dyn FnMut(&Speed),
    ) -> Result<Vec<Speed>, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        let context = context.unwrap_or_else(|| self.speed_context());
        super::measure::measure(self, pattern, context, cancel, progress, done)
    }

    fn profile(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError> {
        let longest = self.speed_context();
        let k = self.info.index_topk.min(longest);
        // Up to k visible keys nothing is selected, which follows another law: all contexts lie between k and the longest.
        let contexts = [8, 4, 2].map(|part| k + (longest - k) / part);
        let mut speeds = Vec::new();
        for (i, context) in contexts.into_iter().enumerate() {
            let mut tell = |share: f64| progress((i as f64 + share) / contexts.len() as f64);
            speeds.extend(self.measure(pattern, Some(context), cancel, &mut tell, &mut |_| ())?);
        }
        Ok(speeds)
    }

    fn measure_steps(
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

    fn layer_times(
        &mut self,
        pattern: Pattern,
        context: usize,
        cancel: &Cancel,
    ) -> Result<Vec<LayerTime>, BackendError> {
        self.info.check(Subject::Pattern(pattern))?;
        super::measure::trace(self, pattern, context, cancel)
    }

    fn layout(&self) -> Layout {
        super::losses::layout(self)
    }

    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError> {
        super::losses::losses(self, units, cancel, done)
    }

    fn train(&mut self, settings: &TrainingSettings, left: Option<&Path>) -> Result<Box<dyn Training>, BackendError> {
        self.info.needs(Capability::Train)?;
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
        self.info.needs(Capability::Affinity)?;
        super::affinity::affinity(self, kind, cancel)
    }

    fn logits(&mut self, subject: Subject, cancel: &Cancel) -> Result<Vec<Tensor>, BackendError> {
        let mut sequences = Vec::with_capacity(self.info.sequences);
        for batch in 0..self.runner.batches.len() {
            let hidden = self.runner.forward(batch, subject, How::RESUMED, cancel, &mut Unseen)?.hidden;
            for sequence in 0..hidden.dim(0)? {
                sequences.push(self.runner.model.logits(&hidden.narrow(0, sequence, 1)?)?.squeeze(0)?);
            }
        }
        Ok(sequences)
    }

    fn predictions(
        &mut self,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, ReferencePredictions), BackendError> {
        let evaluation = self.evaluate(Subject::Pattern(self.info.reference), cancel, partial)?;
        let known = self.references.iter().flatten().map(|r| r.predictions.clone());
        Ok((evaluation, ReferencePredictions(known.collect())))
    }

    fn compare_with(
        &mut self,
        other: &mut dyn Backend,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Evaluation, BackendError> {
        let (ours, theirs) = (&self.info, other.describe());
        if (&ours.calibration, ours.index_topk) != (&theirs.calibration, theirs.index_topk) {
            return Err(BackendError::Failed(Diagnostic {
                message: format!(
                    "the reference was to choose {} keys on the set {}, not {} on {}",
                    ours.index_topk, ours.calibration, theirs.index_topk, theirs.calibration
                ),
                hint: Some("measure both on the same text, with the same --index-topk".to_owned()),
            }));
        }
        let (evaluation, ReferencePredictions(known)) = other.predictions(cancel, partial)?;
        let known = known.into_iter().map(|predictions| Some(Reference { predictions, selections: None }));
        self.references = known.collect();
        self.foreign = true;
        self.evaluations.clear();
        Ok(evaluation)
    }
}

impl LocalBackend {
    /// Returns the tokens in context where speed is measured unless others are asked for.
    fn speed_context(&self) -> usize {
        self.settings.speed_context.unwrap_or(self.info.context)
    }

    /// Returns the same model on another set without anything kept between evaluations but what the reference predicts.
    fn sparing(&self, calibration: Calibration) -> Result<Self, BackendError> {
        self.with(calibration, Settings { cache_bytes: 0, keep_selections: false, ..self.settings.clone() })
    }

    /// Returns the same model on another calibration set, which has measured nothing yet.
    fn with(&self, calibration: Calibration, settings: Settings) -> Result<Self, BackendError> {
        let mut info = self.info.clone();
        info.describe(&calibration);
        Self::assemble(info, self.runner.model.clone(), calibration, settings)
    }
}
