//! The worker thread that owns a model, and the messages by which the dashboard talks to it.

mod backend;
mod cancel;
mod protocol;

pub use backend::{Backend, BackendError, Coverage, LayerCoverage, ModelInfo};
pub use cancel::{Cancel, Generation};
pub use protocol::{Command, Failure, Job, Progress, Update};
