//! The worker thread that owns a model, and the messages by which the dashboard talks to it.

mod backend;
mod cancel;
#[cfg(test)]
pub(crate) mod fake;
mod mailbox;
mod protocol;
mod worker;
#[cfg(test)]
mod worker_tests;

pub use backend::{Backend, BackendError, Coverage, LayerCoverage, ModelInfo};
pub use cancel::{Cancel, Generation};
pub use protocol::{Command, Failure, Job, Progress, Update};
pub use worker::{Handle, spawn, spawn_with};
