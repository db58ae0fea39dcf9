//! What the worker needs from whatever runs the model.

use serde::{Deserialize, Serialize};

use super::Cancel;
use crate::domain::{Constraints, Estimate, Evaluation, IndexSource, Pattern, Speed, Subject, Trace, Validation};
use crate::search::{Affinity, AffinityKind, Layout, Measured, Unit};

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
    /// `reference` or `fast`.
    pub ops: String,
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

/// A model with its calibration set: the real one, or a scripted one in tests.
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

    /// Returns the calibration set as searches see it: in parts that are measured together.
    fn layout(&self) -> Layout;

    /// Measures patterns on parts of the calibration set, in the order that is cheapest, one result after another.
    ///
    /// # Errors
    /// [`BackendError`]; what was handed over before stays valid.
    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError>;

    /// Measures under the reference how well layers could lend each other their indices.
    ///
    /// # Errors
    /// [`BackendError`].
    fn affinity(&mut self, kind: AffinityKind, cancel: &Cancel) -> Result<Affinity, BackendError>;
}
