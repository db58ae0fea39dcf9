//! The backend that runs a checkpoint in this process.

use std::collections::HashMap;
use std::time::Instant;

use candle_core::Tensor;

use super::compare::{Target, compare};
use super::data::Calibration;
use super::device::Placement;
use super::forward::{How, Runner};
use super::tally::{Scored, Tally};
use super::{Backend, BackendError, Cancel, Coverage, ModelInfo};
use crate::checkpoint::Checkpoint;
use crate::domain::{Evaluation, Pattern, QuerySampling, Speed, Subject, Trace};
use crate::model::{Indices, Model, Ops};

/// Residual states kept between evaluations, bytes.
const CACHE_BYTES: usize = 1 << 30;

/// How a [`LocalBackend`] works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the model runs, and in which dtype.
    pub placement: Placement,
    /// Which form of attention runs.
    pub ops: Ops,
    /// Tokens of the forwards that are timed; `None` takes the longest calibration sequence.
    pub speed_context: Option<usize>,
    /// Bytes of residual states kept between evaluations.
    pub cache_bytes: usize,
    /// Whether a recording will be asked for: the reference forwards then keep their selections for it.
    pub keep_selections: bool,
}

impl Settings {
    /// Returns the usual settings.
    pub fn new(placement: Placement) -> Self {
        let ops = if placement.device.is_cpu() { Ops::Fast } else { Ops::Reference };
        Self { placement, ops, speed_context: None, cache_bytes: CACHE_BYTES, keep_selections: false }
    }
}

/// What is kept of the reference's forward of one batch.
#[derive(Debug)]
pub(super) struct Reference {
    /// Final hidden states of the scored queries, `[R, hidden]`.
    pub rows: Tensor,
    /// Every layer's selection, until a recording takes them.
    pub selections: Option<Vec<Indices>>,
}

/// A checkpoint loaded into this process, with its calibration set.
#[derive(Debug)]
pub struct LocalBackend {
    pub(super) info: ModelInfo,
    pub(super) runner: Runner,
    pub(super) calibration: Calibration,
    pub(super) settings: Settings,
    pub(super) references: Vec<Option<Reference>>,
    pub(super) coverages: HashMap<Pattern, Coverage>,
    evaluations: HashMap<Subject, Evaluation>,
}

impl LocalBackend {
    /// Loads a checkpoint.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the checkpoint or the device is at fault.
    pub fn load(checkpoint: &Checkpoint, calibration: Calibration, settings: Settings) -> Result<Self, BackendError> {
        let failed = |message: String| BackendError::Failed { message, hint: None };
        let config = checkpoint.config();
        let constraints = checkpoint.constraints();
        let Placement { device, dtype, .. } = &settings.placement;
        let model = Model::load(checkpoint, device, *dtype)?;
        let info = ModelInfo {
            name: checkpoint.name().to_owned(),
            fingerprint: checkpoint.fingerprint().to_owned(),
            model_type: config.family.model_type().to_owned(),
            index_topk: config.index_topk,
            index_heads: config.index_n_heads,
            constraints,
            native: checkpoint.native().map_err(|e| failed(e.to_string()))?,
            reference: constraints.reference().map_err(|e| failed(e.to_string()))?,
            device: settings.placement.device_name(),
            dtype: settings.placement.dtype_name().to_owned(),
            ops: settings.ops.to_string(),
            sequences: calibration.sequences().len(),
            targets: calibration.targets(),
            eligible: calibration.eligible(config.index_topk),
            context: calibration.longest(),
            calibration: calibration.hash(),
            data: calibration.data().to_owned(),
        };
        let runner = Runner::new(model, &calibration, settings.ops, settings.cache_bytes)?;
        let references = runner.batches.iter().map(|_| None).collect();
        Ok(Self {
            info,
            runner,
            calibration,
            settings,
            references,
            coverages: HashMap::new(),
            evaluations: HashMap::new(),
        })
    }

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

    /// Returns the logits of every position, `[T, vocab]` per sequence.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn logits(&mut self, subject: Subject, cancel: &Cancel) -> Result<Vec<Tensor>, BackendError> {
        let mut sequences = Vec::with_capacity(self.info.sequences);
        for batch in 0..self.runner.batches.len() {
            let hidden = self.runner.forward(batch, subject, How::RESUMED, cancel, &mut |_, _| {})?.hidden;
            for sequence in 0..hidden.dim(0)? {
                sequences.push(self.runner.model.logits(&hidden.narrow(0, sequence, 1)?)?.squeeze(0)?);
            }
        }
        Ok(sequences)
    }

    /// Returns the scored queries of a batch, sequence by sequence.
    fn targets(&self, batch: usize) -> Vec<Vec<Target>> {
        let batch = &self.runner.batches[batch];
        let sequences = &self.calibration.sequences()[batch.first..batch.first + batch.ids.len()];
        sequences.iter().map(|s| s.queries().map(|p| (p, s.ids[p + 1])).collect()).collect()
    }

    /// Picks the scored queries' rows of `[B, T, hidden]`.
    fn scored_rows(&self, batch: usize, hidden: &Tensor) -> Result<Tensor, BackendError> {
        let (b, t, width) = hidden.dims3()?;
        let targets = self.targets(batch);
        let rows =
            targets.iter().enumerate().flat_map(|(n, targets)| targets.iter().map(move |&(p, _)| (n * t + p) as u32));
        let rows = Tensor::from_iter(rows, hidden.device())?;
        Ok(hidden.reshape((b * t, width))?.index_select(&rows, 0)?)
    }

    /// Runs the reference on a batch unless that has been done; returns how many layers were run.
    pub(super) fn run_reference(
        &mut self,
        batch: usize,
        selections: bool,
        cancel: &Cancel,
    ) -> Result<usize, BackendError> {
        let known = self.references[batch].as_ref();
        if known.is_some_and(|r| !selections || r.selections.is_some()) {
            return Ok(0);
        }
        let mut kept = Vec::new();
        // Every layer must run for its selection to be seen.
        let how = if selections { How::FRESH } else { How::RESUMED };
        let subject = Subject::Pattern(self.info.reference);
        let run = self.runner.forward(batch, subject, how, cancel, &mut |_, output| {
            if selections {
                kept.extend(output.indices.clone());
            }
        })?;
        let rows = self.scored_rows(batch, &run.hidden)?;
        self.references[batch] = Some(Reference { rows, selections: selections.then_some(kept) });
        Ok(self.info.constraints.layers - run.resumed_from)
    }

    /// Scores one batch and adds it to the tally.
    fn score(&mut self, batch: usize, tally: &mut Tally, cancel: &Cancel) -> Result<(), BackendError> {
        let layers = self.info.constraints.layers;
        let mut run =
            self.run_reference(batch, self.settings.keep_selections && self.needs_selections(batch), cancel)?;
        let mut resumed_from = layers - run;
        let hidden = if tally.subject == Subject::Pattern(self.info.reference) {
            None
        } else {
            let forwarded = self.runner.forward(batch, tally.subject, How::RESUMED, cancel, &mut |_, _| {})?;
            resumed_from = forwarded.resumed_from;
            run = layers - resumed_from;
            Some(self.scored_rows(batch, &forwarded.hidden)?)
        };
        let targets = self.targets(batch);
        if let Some(Reference { rows, .. }) = &self.references[batch] {
            let flat: Vec<Target> = targets.concat();
            let scored = compare(&self.runner.model, rows, hidden.as_ref().unwrap_or(rows), &flat, cancel)?;
            let mut rest = scored.as_slice();
            for (n, targets) in targets.iter().enumerate() {
                let (rows, after) = rest.split_at(targets.len());
                tally.scored.push(Scored { index: self.runner.batches[batch].first + n, rows: rows.to_vec() });
                rest = after;
            }
        }
        tally.resumed_from = tally.resumed_from.min(resumed_from);
        tally.layer_forwards += (run * targets.len()) as f64 / self.info.sequences as f64;
        Ok(())
    }

    fn needs_selections(&self, batch: usize) -> bool {
        self.references[batch].is_none()
    }

    fn check(&self, subject: Subject) -> Result<(), BackendError> {
        let Subject::Pattern(pattern) = subject else { return Ok(()) };
        self.info.constraints.check(pattern).map_err(|e| BackendError::Failed { message: e.to_string(), hint: None })
    }
}

impl Backend for LocalBackend {
    fn describe(&self) -> &ModelInfo {
        &self.info
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
        self.check(subject)?;
        let started = Instant::now();
        let bytes: Option<Vec<usize>> = self.calibration.sequences().iter().map(|s| s.bytes).collect();
        let mut tally = Tally {
            subject,
            topk: self.info.index_topk,
            total: self.info.sequences,
            bytes,
            scored: Vec::new(),
            resumed_from: self.info.constraints.layers,
            layer_forwards: 0.0,
        };
        for batch in 0..self.runner.batches.len() {
            self.score(batch, &mut tally, cancel)?;
            if let Some((sequence, position)) = tally.non_finite() {
                return Err(BackendError::Failed {
                    message: format!(
                        "the loss of {subject} is not finite at position {position} of sequence {sequence}"
                    ),
                    hint: Some("try --dtype f32, and check the checkpoint's weights".to_owned()),
                });
            }
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
        self.check(Subject::Pattern(pattern))?;
        super::coverage::coverage(self, pattern, cancel)
    }

    fn measure(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError> {
        self.check(Subject::Pattern(pattern))?;
        super::measure::measure(self, pattern, cancel, progress)
    }
}
