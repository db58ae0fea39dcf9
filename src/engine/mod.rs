//! The worker thread that owns a model, and the messages by which the dashboard talks to it.

mod affinity;
mod backend;
mod cancel;
mod capability;
mod compare;
mod coverage;
mod data;
mod device;
mod devices;
#[cfg(test)]
pub(crate) mod fake;
mod forward;
mod geometry;
mod info;
mod local;
mod local_backend;
#[cfg(test)]
mod local_tests;
mod mailbox;
mod measure;
mod memory;
mod outbox;
mod protocol;
mod queries;
mod random;
mod record;
mod recorder;
#[cfg(test)]
mod recorder_tests;
mod remote;
mod search;
mod searching;
mod states;
mod stream;
mod tally;
mod targets;
mod timing;
mod trainer;
mod training;
#[cfg(test)]
mod training_tests;
mod validate;
mod worker;
#[cfg(test)]
mod worker_tests;

pub use crate::search::{Affinity, AffinityKind};
pub use backend::{Backend, BackendError, Coverage, LayerCoverage, ModelInfo, Training, Weights};
pub use cancel::{Cancel, Generation};
pub use capability::{Capabilities, Capability};
pub use data::{Calibration, Sequence};
pub use device::{DeviceChoice, DtypeChoice, Placement};
pub use devices::{DeviceInfo, check_kernels, devices};
pub use geometry::geometry;
pub use local::{LocalBackend, Settings};
pub use measure::{LayerTime, NoRoom, StepSpeed, Steps};
pub use protocol::{Command, Failure, Job, Progress, Update};
pub use random::{GEOMETRIES, RandomModel};
pub use recorder::{Recorded, Recording, Sink};
pub use remote::RemoteBackend;
pub use search::Evaluator;
pub use stream::{Streamed, stream};
pub use trainer::TrainingText;
pub use worker::{Handle, spawn, spawn_with};
