//! What the worker needs from whatever runs the model.

mod capability;
mod info;
mod local;
mod open;
mod queries;
mod remote;
#[cfg(test)]
pub(crate) mod scripted;
mod search;
mod tally;
mod unseen;

pub use self::capability::{Capabilities, Capability};
pub use self::local::{
    GEOMETRIES, LayerTime, NoRoom, RandomModel, Recorded, Recording, ReferencePredictions, Settings, Sink, StepSpeed,
    Steps, Streamed, TrainingText, stream,
};
pub use self::open::{Runtime, Source, describe_workers, open_random};
pub use self::remote::WorkerAddress;
pub(crate) use self::remote::converse;
pub use self::search::Evaluator;

use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::domain::Diagnostic;
use crate::domain::{
    Confirmation, Constraints, Estimate, Evaluation, IndexSource, LeftTraining, Pattern, QuerySampling, SelectionUnit,
    Speed, Subject, Trace, TrainingSettings, TrainingStep, Validation,
};
use crate::engine::{Calibration, Cancel};
use crate::search::{Affinity, AffinityKind, Budget, Layout, Measured, Unit, confirm};

/// What is known of a loaded model and its calibration set.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name for people, such as the folder's.
    pub name: String,
    /// Fingerprint of the checkpoint.
    pub fingerprint: String,
    /// `model_type` of config.json.
    pub model_type: String,
    /// k.
    pub index_topk: usize,
    /// What k counts.
    pub unit: SelectionUnit,
    /// Sets per query and site.
    pub groups: usize,
    /// Units of every set that are selected whatever their scores.
    pub forced: usize,
    /// Indexer heads; 0 where the oracle selects.
    pub index_heads: usize,
    /// Where the indices of Full layers come from; times of the oracle are no saving.
    pub index: IndexSource,
    /// Which patterns are possible.
    pub constraints: Constraints,
    /// The checkpoint's own pattern.
    pub native: Pattern,
    /// What everything is compared with.
    pub reference: Pattern,
    /// Device, such as `cpu`.
    pub device: String,
    /// Compute dtype, such as `f32`.
    pub dtype: String,
    /// `reference` or `fast`; a worker's engine and its version.
    pub ops: String,
    /// What the backend can do besides evaluating and recording.
    pub can: Capabilities,
    /// Sequences of the calibration set.
    pub sequences: usize,
    /// Scored targets of the calibration set.
    pub targets: usize,
    /// Eligible targets of the calibration set.
    pub eligible: usize,
    /// Length of the longest sequence.
    pub context: usize,
    /// Hash of the calibration set.
    pub calibration: String,
    /// What the calibration set is made of, such as `demo text` or `random tokens`.
    pub data: String,
    /// Name and tokens of each text that indexers can be trained on.
    pub training: Vec<(String, usize)>,
    /// What low precision alone moves; `None` where that was not measured.
    pub noise: Option<Noise>,
}

/// How far the reference is from itself when it is run again: near-ties of low precision fall differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Mean difference of the loss, nats per eligible target.
    pub delta: f64,
    /// Eligible targets that it was measured on.
    pub targets: usize,
}

/// How much of its own selection a layer finds in the set that it uses, measured under one pattern.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerCoverage {
    /// The layer.
    pub layer: usize,
    /// |own ∩ used| / k, mean over sampled queries that see more than k keys.
    pub overlap: Estimate,
}

/// Coverage of the Shared layers, from their indexers run in shadow under `pattern`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The pattern in force.
    pub pattern: Pattern,
    /// One entry per Shared layer that has an indexer.
    pub layers: Vec<LayerCoverage>,
}

/// Why a backend did not answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Newer work replaced this; not an error to a person.
    #[error("the work was cancelled")]
    Cancelled,
    /// Something that a person should read.
    #[error("{}", .0.message)]
    Failed(Diagnostic),
    /// The device has no room for what was asked.
    #[error("{}", .0.message)]
    OutOfMemory(Diagnostic),
}

impl BackendError {
    /// Returns what a person is told; `None` where newer work replaced this.
    pub fn diagnostic(self) -> Option<Diagnostic> {
        match self {
            Self::Cancelled => None,
            Self::Failed(diagnostic) | Self::OutOfMemory(diagnostic) => Some(diagnostic),
        }
    }
}

/// Returns the refusal of a loss that is not a finite number.
fn not_finite(subject: Subject, sequence: usize, position: usize) -> BackendError {
    BackendError::Failed(Diagnostic {
        message: format!("the loss of {subject} is not finite at position {position} of sequence {sequence}"),
        hint: Some("try --dtype f32, and check the checkpoint's weights".to_owned()),
    })
}

/// Returns the error of a recording that its sink did not take.
fn unwritable(error: std::io::Error) -> BackendError {
    BackendError::Failed(Diagnostic {
        message: format!("the recording cannot be written: {error}"),
        hint: Some(crate::input::hint(&error).to_owned()),
    })
}

/// Indexers under training, or trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Their layers, ascending.
    pub layers: Vec<usize>,
    /// Name in the checkpoint, shape and values of each tensor.
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// Steps that they have seen.
    pub steps: u64,
}

/// A training of indexers, step by step.
pub trait Training: Send {
    /// Does a step; `None` when all are done.
    ///
    /// # Errors
    /// [`BackendError`]; a step that was cancelled or failed has changed nothing.
    fn step(&mut self, cancel: &Cancel) -> Result<Option<TrainingStep>, BackendError>;

    /// Returns what the steps so far found, those of earlier programs included; of a long training not every step.
    fn history(&self) -> Vec<TrainingStep>;

    /// Returns the indexers as they are now.
    fn weights(&self) -> Weights;

    /// Writes them as a sidecar.
    ///
    /// # Errors
    /// [`BackendError::Failed`] naming the file.
    fn write(&self, path: &Path) -> Result<(), BackendError>;

    /// Saves beside `sidecar` what it takes to go on, whole or not at all.
    ///
    /// # Errors
    /// [`BackendError::Failed`] naming the file; what was saved before stays.
    fn save(&self, sidecar: &Path) -> Result<(), BackendError>;
}

/// A model with its calibration set: in this process, in a worker, or scripted in tests.
///
/// Every backend describes itself, evaluates and records. What only some can do refuses by the name of the capability
/// that is missing, unless a backend answers it.
pub trait Backend: Send {
    /// Returns what is known of the model.
    fn describe(&self) -> &ModelInfo;

    /// Measures the loss of `subject`, calling `partial` as sequences come in.
    ///
    /// # Errors
    /// [`BackendError`]; a cancelled evaluation leaves nothing behind.
    fn evaluate(
        &mut self,
        subject: Subject,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Evaluation, BackendError>;

    /// Returns the calibration set as searches see it: in parts that are measured together.
    fn layout(&self) -> Layout;

    /// Measures patterns on parts of the calibration set, in the order that is cheapest, one result after another.
    ///
    /// # Errors
    /// [`BackendError`]; what was handed over before stays valid.
    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError>;

    /// Records the sets that every layer uses under `pattern`, those of the queries drawn.
    ///
    /// # Errors
    /// [`BackendError`].
    fn record(
        &mut self,
        pattern: Pattern,
        queries: QuerySampling,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Trace, BackendError>;

    /// Returns a backend on another calibration set of the same model, which has measured nothing yet.
    ///
    /// # Errors
    /// [`BackendError`].
    fn on(&self, calibration: Calibration) -> Result<Box<dyn Backend>, BackendError>;

    /// Returns the backend on the text that no search sees; `None` where there is none.
    ///
    /// # Errors
    /// [`BackendError`].
    fn unseen(&mut self) -> Result<Option<&mut dyn Backend>, BackendError> {
        Ok(None)
    }

    /// Measures a pattern on the text that no search sees; `None` where there is none.
    ///
    /// # Errors
    /// [`BackendError`].
    fn validate(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Validation>, BackendError> {
        let Some(own) = self.unseen()? else { return Ok(None) };
        let evaluation = own.evaluate(Subject::Pattern(pattern), cancel, &mut |partial| {
            let (done, all) = partial.sequences;
            progress(done as f64 / all.max(1) as f64);
        })?;
        let ModelInfo { sequences, data, .. } = own.describe();
        let (sequences, data) = (*sequences, data.clone());
        Ok(Some(Validation { loss: evaluation.loss, delta: evaluation.delta, sequences, data }))
    }

    /// Tests the patterns of a search against its budget, on the text that no search sees; `None` where there is none.
    ///
    /// # Errors
    /// [`BackendError`].
    fn confirm(
        &mut self,
        chain: &[Pattern],
        budget: Budget,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Confirmation>, BackendError> {
        let Some(own) = self.unseen()? else { return Ok(None) };
        let mut share = |done: usize, all: usize| progress(done as f64 / all.max(1) as f64);
        Ok(Some(confirm(chain, budget, &mut Evaluator::new(own, cancel), &mut share)?))
    }

    /// Runs `report` for each worker that is lost while others take over its work; nothing where there are none.
    fn on_loss(&mut self, _report: Box<dyn Fn(&str) + Send>) {}

    /// `memory`: returns free bytes and bytes in all of the device's own memory; `None` where it has none.
    fn memory(&self) -> Option<(u64, u64)> {
        None
    }

    /// `shadow`: runs the indexers of Shared layers beside the forward.
    ///
    /// # Errors
    /// [`BackendError`].
    fn coverage(&mut self, _: Pattern, _: &Cancel) -> Result<Coverage, BackendError> {
        Err(self.describe().lacks(Capability::Shadow))
    }

    /// `affinity`: measures under the reference how well layers could reuse each other's indices.
    ///
    /// # Errors
    /// [`BackendError`].
    fn affinity(&mut self, _: AffinityKind, _: &Cancel) -> Result<Affinity, BackendError> {
        Err(self.describe().lacks(Capability::Affinity))
    }

    /// Records as [`Backend::record`] does, but gives sets to `sink` as they are known, and measures mass recall
    /// (`affinity`) where that is asked for.
    ///
    /// # Errors
    /// [`BackendError`], those of `sink` included.
    fn record_into(
        &mut self,
        recording: &Recording,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        sink: &mut Sink,
    ) -> Result<Recorded, BackendError> {
        if recording.mass_recall.is_some() {
            return Err(self.describe().lacks(Capability::Affinity));
        }
        let trace = self.record(recording.pattern, recording.queries, cancel, progress)?;
        for (site, selection) in trace.selections.iter().enumerate() {
            sink(site, 0, selection).map_err(unwritable)?;
        }
        Ok(Recorded { mass_recall: None, peak_anonymous_bytes: None })
    }

    /// `timed`: times pattern and reference in alternation at `context` tokens, or at the context that speed is measured
    /// at; `done` hears of each phase as soon as it is timed.
    ///
    /// # Errors
    /// [`BackendError`].
    fn measure(
        &mut self,
        _pattern: Pattern,
        _context: Option<usize>,
        _cancel: &Cancel,
        _progress: &mut dyn FnMut(f64),
        _done: &mut dyn FnMut(&Speed),
    ) -> Result<Vec<Speed>, BackendError> {
        Err(self.describe().lacks(Capability::Timed))
    }

    /// `timed`: times the same at shorter contexts, from the shortest.
    ///
    /// # Errors
    /// [`BackendError`].
    fn profile(&mut self, _: Pattern, _: &Cancel, _: &mut dyn FnMut(f64)) -> Result<Vec<Speed>, BackendError> {
        Err(self.describe().lacks(Capability::Timed))
    }

    /// `timed`: times steps on a cached prefix, as servers run them, against the reference; `done` hears of each.
    ///
    /// # Errors
    /// [`BackendError`].
    fn measure_steps(
        &mut self,
        _pattern: Pattern,
        _context: usize,
        _steps: &Steps,
        _cancel: &Cancel,
        _done: &mut dyn FnMut(Result<StepSpeed, NoRoom>),
    ) -> Result<(), BackendError> {
        Err(self.describe().lacks(Capability::Timed))
    }

    /// `timed`: runs one prefill of `context` tokens and returns where each layer spent its time.
    ///
    /// # Errors
    /// [`BackendError`].
    fn layer_times(&mut self, _: Pattern, _: usize, _: &Cancel) -> Result<Vec<LayerTime>, BackendError> {
        Err(self.describe().lacks(Capability::Timed))
    }

    /// `train`: prepares a training of the indexers that a pattern keeps; the model itself stays as it is.
    ///
    /// It begins anew, or goes on where the one was that was saved beside the sidecar `left`.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where there is nothing to train, no text to train on, or what was saved is of another
    /// model, pattern or text.
    fn train(&mut self, _: &TrainingSettings, _left: Option<&Path>) -> Result<Box<dyn Training>, BackendError> {
        Err(self.describe().lacks(Capability::Train))
    }

    /// `train`: returns what was saved beside a sidecar; `None` where nothing was.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where it cannot be read.
    fn left(&self, _sidecar: &Path) -> Result<Option<LeftTraining>, BackendError> {
        Ok(None)
    }

    /// `train`: measures a pattern with other indexers, and its coverage; Δ is against the reference with those of now.
    ///
    /// # Errors
    /// [`BackendError`].
    fn evaluate_with(
        &mut self,
        _weights: &Weights,
        _pattern: Pattern,
        _cancel: &Cancel,
        _partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, Coverage), BackendError> {
        Err(self.describe().lacks(Capability::Train))
    }

    /// `logits`: returns the logits of every position, `[T, vocab]` per sequence.
    ///
    /// # Errors
    /// [`BackendError`].
    fn logits(&mut self, _: Subject, _: &Cancel) -> Result<Vec<Tensor>, BackendError> {
        Err(self.describe().lacks(Capability::Logits))
    }

    /// `logits`: evaluates the reference pattern, and returns what it predicts.
    ///
    /// # Errors
    /// [`BackendError`].
    fn predictions(
        &mut self,
        _cancel: &Cancel,
        _partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, ReferencePredictions), BackendError> {
        Err(self.describe().lacks(Capability::Logits))
    }

    /// `logits`: makes evaluations compare with what `other` predicts under its own reference pattern, on the same set.
    ///
    /// So what other indexers cost or gain is measured against one reference. Returns that reference's evaluation.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where calibration set or k differ.
    fn compare_with(
        &mut self,
        _other: &mut dyn Backend,
        _cancel: &Cancel,
        _partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Evaluation, BackendError> {
        Err(self.describe().lacks(Capability::Logits))
    }
}
