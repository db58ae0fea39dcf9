//! Opening a model where it is asked to run: the one place that knows which backends there are.

use super::local::LocalBackend;
use super::remote::RemoteBackend;
use super::{Backend, BackendError, ModelInfo, RandomModel, Settings, TrainingText, WorkerAddress};
use crate::checkpoint::Checkpoint;
use crate::engine::{Calibration, Cancel};

/// What runs a model.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// This process.
    Process(Settings),
    /// Workers that share the work.
    Workers(Vec<WorkerAddress>),
}

/// A model with its texts, and what runs it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The checkpoint, with the indexers asked for.
    pub checkpoint: Checkpoint,
    /// What patterns are measured on.
    pub calibration: Calibration,
    /// Text that no search sees, for validation.
    pub unseen: Option<Calibration>,
    /// What indexers can be trained on, in this process only.
    pub training: Option<TrainingText>,
    /// What runs it.
    pub runtime: Runtime,
}

impl Source {
    /// Returns a model with nothing but its calibration set.
    pub fn new(checkpoint: Checkpoint, calibration: Calibration, runtime: Runtime) -> Self {
        Self { checkpoint, calibration, unseen: None, training: None, runtime }
    }

    /// Loads the model, or starts its workers.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the checkpoint, the device or the worker is at fault.
    pub fn open(&self, cancel: &Cancel) -> Result<Box<dyn Backend>, BackendError> {
        let (calibration, unseen) = (self.calibration.clone(), self.unseen.clone());
        Ok(match &self.runtime {
            Runtime::Workers(workers) => {
                let backend = RemoteBackend::start(workers, self.checkpoint.name(), calibration, cancel)?;
                Box::new(backend.with_unseen(unseen))
            }
            Runtime::Process(settings) => {
                let backend = LocalBackend::load(&self.checkpoint, calibration, settings.clone())?;
                Box::new(backend.with_unseen(unseen).with_training(self.training.clone()))
            }
        })
    }
}

/// Makes a model with random weights in this process.
///
/// # Errors
/// [`BackendError::Failed`] where the device has no room.
pub fn open_random(
    model: &RandomModel,
    calibration: Calibration,
    settings: Settings,
) -> Result<Box<dyn Backend>, BackendError> {
    Ok(Box::new(LocalBackend::random(model, calibration, settings)?))
}

/// Returns what workers say of themselves and their model, without text to measure on.
///
/// # Errors
/// [`BackendError::Failed`] where a worker cannot be started, or does not speak the protocol.
pub fn describe_workers(workers: &[WorkerAddress], name: &str, cancel: &Cancel) -> Result<ModelInfo, BackendError> {
    RemoteBackend::ask_about(workers, name, cancel)
}
