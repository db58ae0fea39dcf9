//! What is known of a model before anything is run.

use super::{BackendError, Capabilities, Capability, ModelInfo, Settings};
use crate::checkpoint::{Checkpoint, Config, Family};
use crate::domain::{PatternError, Subject, TopK};
use crate::engine::Calibration;

impl ModelInfo {
    /// Describes a checkpoint with its calibration set.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the checkpoint's pattern is impossible.
    pub(super) fn of(
        checkpoint: &Checkpoint,
        calibration: &Calibration,
        settings: &Settings,
    ) -> Result<Self, BackendError> {
        let config = checkpoint.config();
        let constraints = checkpoint.constraints();
        let native =
            checkpoint.native().map_err(|e| BackendError::Failed { message: e.to_string(), hint: e.hint() })?;
        Ok(Self {
            name: checkpoint.name().to_owned(),
            fingerprint: checkpoint.fingerprint().to_owned(),
            model_type: config.family.model_type().to_owned(),
            index_topk: config.index_topk,
            unit: config.unit(),
            groups: config.index_groups(),
            forced: config.index_forced(),
            index_heads: config.index_n_heads,
            index: config.index.clone(),
            constraints,
            native,
            reference: constraints.reference().map_err(failed)?,
            device: settings.placement.device_name(),
            dtype: settings.placement.dtype_name().to_owned(),
            ops: settings.attention(config)?,
            can: capabilities(config),
            sequences: calibration.sequences().len(),
            targets: calibration.targets(),
            eligible: calibration.eligible(config.topk()),
            context: calibration.longest(),
            calibration: calibration.hash(),
            data: calibration.data().to_owned(),
            training: Vec::new(),
            noise: None,
        })
    }

    /// Takes in what a calibration set is.
    pub(super) fn describe(&mut self, calibration: &Calibration) {
        self.sequences = calibration.sequences().len();
        self.targets = calibration.targets();
        self.eligible = calibration.eligible(self.topk());
        self.context = calibration.longest();
        self.calibration = calibration.hash();
        calibration.data().clone_into(&mut self.data);
    }

    /// Returns how many units a query may select.
    pub fn topk(&self) -> TopK {
        TopK { unit: self.unit, k: self.index_topk }
    }

    /// Refuses a pattern that the model cannot have.
    ///
    /// # Errors
    /// [`BackendError::Failed`].
    pub(super) fn check(&self, subject: Subject) -> Result<(), BackendError> {
        match subject {
            Subject::Pattern(pattern) => self.constraints.check(pattern).map_err(failed),
            Subject::Dense => Ok(()),
        }
    }
}

fn failed(error: PatternError) -> BackendError {
    BackendError::Failed { message: error.to_string(), hint: Some(error.hint().to_owned()) }
}

/// Returns what this process can do with models of the family.
fn capabilities(config: &Config) -> Capabilities {
    match config.family {
        Family::DeepseekV4 => Capabilities::all().without(&[
            Capability::Affinity,
            Capability::Window,
            Capability::Decode,
            Capability::Train,
        ]),
        _ => Capabilities::all(),
    }
}
