//! The worker thread that owns a model, and the messages by which the dashboard talks to it.

mod backend;
mod cancel;
mod data;
mod device;
mod devices;
mod geometry;
mod mailbox;
mod outbox;
mod protocol;
mod searching;
mod training;
#[cfg(test)]
mod training_tests;
mod worker;
#[cfg(test)]
mod worker_tests;

pub(crate) use self::backend::converse;
#[cfg(test)]
pub(crate) use self::backend::scripted;
pub use crate::search::{Affinity, AffinityKind};
pub use backend::{
    Backend, BackendError, Capabilities, Capability, Coverage, Evaluator, GEOMETRIES, LayerCoverage, LayerTime,
    ModelInfo, NoRoom, Noise, RandomModel, Recorded, Recording, ReferencePredictions, Runtime, Settings, Sink, Source,
    StepSpeed, Steps, Streamed, Training, TrainingText, Weights, WorkerAddress, describe_workers, open_random, stream,
};
pub use cancel::{Cancel, Generation};
pub use data::{Calibration, RANDOM_TOKENS, Sequence};
pub use device::{DeviceChoice, DtypeChoice, Placement};
pub use devices::{DeviceInfo, check_kernels, devices};
pub use geometry::geometry;
pub use protocol::{Command, Failure, Job, Progress, Update};
pub use worker::{Handle, spawn, spawn_with};
