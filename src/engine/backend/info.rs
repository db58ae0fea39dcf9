//! What is known of a model before anything is run.

use super::{BackendError, Capabilities, Capability, ModelInfo, Settings};
use crate::checkpoint::{Checkpoint, Config, Family};
use crate::domain::Diagnostic;
use crate::domain::{Constraints, Pattern, PatternError, Subject, TopK};
use crate::engine::{Calibration, RANDOM_TOKENS};

impl ModelInfo {
    /// Describes a checkpoint with its calibration set, as this process runs it.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the checkpoint's pattern is impossible, or the device cannot run it as asked for.
    pub fn of(checkpoint: &Checkpoint, calibration: &Calibration, settings: &Settings) -> Result<Self, BackendError> {
        let native = checkpoint
            .native()
            .map_err(|e| BackendError::Failed(Diagnostic { message: e.to_string(), hint: e.hint() }))?;
        let (config, constraints) = (checkpoint.config(), checkpoint.constraints());
        let info = Self::of_config(checkpoint.name(), config, (native, constraints), calibration, settings)?;
        Ok(Self { fingerprint: checkpoint.fingerprint().to_owned(), ..info })
    }

    /// Describes a model by its config, its native pattern and what others are possible; it has no fingerprint.
    pub(super) fn of_config(
        name: &str,
        config: &Config,
        (native, constraints): (Pattern, Constraints),
        calibration: &Calibration,
        settings: &Settings,
    ) -> Result<Self, BackendError> {
        let mut info = Self {
            name: name.to_owned(),
            fingerprint: String::new(),
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
            sequences: 0,
            targets: 0,
            eligible: 0,
            context: 0,
            calibration: String::new(),
            data: String::new(),
            training: Vec::new(),
            noise: None,
        };
        info.describe(calibration);
        Ok(info)
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

    /// Returns whether the calibration set is of random tokens, whose losses say nothing about text.
    pub fn is_random(&self) -> bool {
        self.data == RANDOM_TOKENS
    }

    /// Returns how many units a query may select.
    pub fn topk(&self) -> TopK {
        TopK { unit: self.unit, k: self.index_topk }
    }

    /// Refuses what the backend does not list.
    ///
    /// # Errors
    /// [`BackendError::Failed`] naming the capability.
    pub(super) fn needs(&self, capability: Capability) -> Result<(), BackendError> {
        if self.can.has(capability) { Ok(()) } else { Err(self.lacks(capability)) }
    }

    /// Returns the refusal of what the backend cannot do.
    pub(super) fn lacks(&self, capability: Capability) -> BackendError {
        BackendError::Failed(Diagnostic {
            message: format!("the backend ({}) cannot do this: it lacks '{}'", self.ops, capability.name()),
            hint: Some(
                "leave --worker out, so that the model runs in this process, or use a worker that lists it".to_owned(),
            ),
        })
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
    BackendError::Failed(Diagnostic { message: error.to_string(), hint: Some(error.hint().to_owned()) })
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
