//! What the worker needs from whatever runs the model.

mod capability;
mod info;
mod local;
mod queries;
mod remote;
#[cfg(test)]
pub(crate) mod scripted;
mod search;
mod tally;

pub use self::capability::{Capabilities, Capability};
pub use self::local::{
    GEOMETRIES, LayerTime, LocalBackend, NoRoom, RandomModel, Recorded, Recording, Settings, Sink, StepSpeed, Steps,
    Streamed, TrainingText, stream,
};
pub(crate) use self::remote::converse;
pub use self::remote::{RemoteBackend, WorkerAddress};
pub use self::search::Evaluator;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::{
    Confirmation, Constraints, Estimate, Evaluation, IndexSource, LeftTraining, Pattern, SelectionUnit, Speed, Subject,
    Trace, TrainingSettings, TrainingStep, Validation,
};
use crate::engine::Cancel;
use crate::search::{Affinity, AffinityKind, Budget, Layout, Measured, Unit};

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
    #[error("{message}")]
    Failed {
        /// One sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl BackendError {
    /// Returns whether a device said that it has no room.
    fn is_out_of_memory(&self) -> bool {
        let Self::Failed { message, .. } = self else { return false };
        ["out of memory", "out_of_memory"].iter().any(|said| message.to_lowercase().contains(said))
    }
}

/// Returns the refusal of a loss that is not a finite number.
fn not_finite(subject: Subject, sequence: usize, position: usize) -> BackendError {
    BackendError::Failed {
        message: format!("the loss of {subject} is not finite at position {position} of sequence {sequence}"),
        hint: Some("try --dtype f32, and check the checkpoint's weights".to_owned()),
    }
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

/// A model with its calibration set: the real one, or a scripted one in tests.
pub trait Backend: Send {
    /// Returns what is known of the model.
    fn describe(&self) -> &ModelInfo;

    /// Returns free bytes and bytes in all of the device's own memory; `None` where it has none.
    fn memory(&self) -> Option<(u64, u64)> {
        None
    }

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

    /// Records the index sets of all layers under the reference pattern.
    ///
    /// # Errors
    /// [`BackendError`].
    fn record(&mut self, cancel: &Cancel, progress: &mut dyn FnMut(f64)) -> Result<Trace, BackendError>;

    /// Runs the indexers of Shared layers beside the forward.
    ///
    /// # Errors
    /// [`BackendError`].
    fn coverage(&mut self, pattern: Pattern, cancel: &Cancel) -> Result<Coverage, BackendError>;

    /// Times pattern and reference in alternation.
    ///
    /// # Errors
    /// [`BackendError`].
    fn measure(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError>;

    /// Times the same at shorter contexts, from the shortest.
    ///
    /// # Errors
    /// [`BackendError`].
    fn profile(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError>;

    /// Measures a pattern on text that no search sees; `None` where there is none.
    ///
    /// # Errors
    /// [`BackendError`].
    fn validate(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Validation>, BackendError>;

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
    ) -> Result<Option<Confirmation>, BackendError>;

    /// Returns the calibration set as searches see it: in parts that are measured together.
    fn layout(&self) -> Layout;

    /// Measures patterns on parts of the calibration set, in the order that is cheapest, one result after another.
    ///
    /// # Errors
    /// [`BackendError`]; what was handed over before stays valid.
    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError>;

    /// Prepares a training of the indexers that a pattern keeps; the model itself stays as it is.
    ///
    /// It begins anew, or goes on where the one was that was saved beside the sidecar `left`.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where there is nothing to train, no text to train on, or what was saved is of another
    /// model, pattern or text.
    fn train(&mut self, settings: &TrainingSettings, left: Option<&Path>) -> Result<Box<dyn Training>, BackendError>;

    /// Returns what was saved beside a sidecar; `None` where nothing was.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where it cannot be read.
    fn left(&self, sidecar: &Path) -> Result<Option<LeftTraining>, BackendError>;

    /// Measures a pattern with other indexers, and its coverage; Δ is against the reference with those of now.
    ///
    /// # Errors
    /// [`BackendError`].
    fn evaluate_with(
        &mut self,
        weights: &Weights,
        pattern: Pattern,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, Coverage), BackendError>;

    /// Measures under the reference how well layers could lend each other their indices.
    ///
    /// # Errors
    /// [`BackendError`].
    fn affinity(&mut self, kind: AffinityKind, cancel: &Cancel) -> Result<Affinity, BackendError>;
}
