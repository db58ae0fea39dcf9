//! Messages between the dashboard and the worker.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Affinity, AffinityKind, Coverage, ModelInfo};
use crate::domain::{
    Diagnostic, Evaluation, LeftTraining, Pattern, SearchProgress, SearchSettings, Speed, Trace, TrainingProgress,
    TrainingSettings, Validation,
};

/// What the dashboard asks of the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Measure this pattern: loss in parts, then coverage in shadow, then (when quiet) speed. The newest wins.
    Evaluate(Pattern),
    /// Record every layer's own index sets (all layers that have an indexer run it).
    Record,
    /// Measure the speed of this pattern again.
    Measure(Pattern),
    /// Measure the speed of this pattern at shorter contexts too, so that other contexts can be predicted.
    Profile(Pattern),
    /// Measure how well layers could lend each other their indices, under the reference.
    Affinity(AffinityKind),
    /// Judge this pattern on text that no search sees, after all other measurements.
    Validate(Pattern),
    /// Search for a pattern, instead of any search that goes on; everything else comes first.
    Search(SearchSettings),
    /// Let the search wait; what it measured stays.
    PauseSearch,
    /// Let a paused search go on.
    ResumeSearch,
    /// End the search; what it found stays.
    StopSearch,
    /// Train the indexers that a pattern keeps, instead of any search or training that goes on; everything else comes first.
    Train(TrainingSettings),
    /// Go on with the training that was put aside, for which this was asked.
    TakeUpTraining(TrainingSettings),
    /// Let the training wait.
    PauseTraining,
    /// Let a paused training go on.
    ResumeTraining,
    /// End the training; the indexers stay as they are.
    StopTraining,
    /// Measure this pattern with the trained indexers as they are now.
    EvaluateTrained(Pattern),
    /// Write the trained indexers as they are now as a sidecar.
    KeepTrained(PathBuf),
    /// Put trainings aside beside this sidecar from now on, and tell what lies there.
    TrainingAt {
        /// The sidecar's file, which need not exist.
        sidecar: PathBuf,
        /// Whether the training that goes on comes along; else it stays where it was put aside, and is let go.
        along: bool,
    },
    /// Put the training aside at once.
    PutAside,
    /// Stop what is running; what was measured stays. A search or training goes on afterwards.
    Stop,
    /// End the worker.
    Shutdown,
}

/// A kind of work, as named in progress and failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Loading the checkpoint.
    Load,
    /// Measuring loss.
    Evaluate,
    /// Recording index sets.
    Record,
    /// Running the indexers of Shared layers in shadow.
    Coverage,
    /// Timing.
    Speed,
    /// Measuring how well layers could lend each other their indices.
    Affinity,
    /// Searching for a pattern.
    Search,
    /// Judging a pattern on text that no search sees.
    Validate,
    /// Training indexers.
    Train,
    /// Measuring trained indexers.
    Trained,
    /// Writing trained indexers.
    Keep,
    /// Putting a training aside.
    PutAside,
}

/// How far a job has come; at most 20 per second are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What is running.
    pub job: Job,
    /// Finished share, 0 to 1.
    pub share: f64,
    /// Seconds left, if that can be told.
    pub eta: Option<f64>,
}

/// An error for a person: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was running.
    pub job: Job,
    /// What is wrong, and what to do.
    pub diagnostic: Diagnostic,
}

/// What the worker tells the dashboard.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The model is loaded.
    Ready(Box<ModelInfo>),
    /// A job goes on.
    Progress(Progress),
    /// Some sequences of an evaluation are done ([`Evaluation::sequences`] says how many).
    Partial(Box<Evaluation>),
    /// An evaluation is complete.
    Evaluated(Box<Evaluation>),
    /// A recording is complete.
    Recorded(Arc<Trace>),
    /// Coverage measured in shadow under a pattern.
    Covered(Coverage),
    /// Speed measured for a pattern, prefill first.
    Measured(Vec<Speed>),
    /// Speed measured at shorter contexts, from the shortest; prefill before decode.
    Profiled(Vec<Speed>),
    /// How well layers could lend each other their indices.
    Affinity(AffinityKind, Arc<Affinity>),
    /// How a pattern does on text that no search sees; `None` where there is no such text.
    Validated(Pattern, Option<Validation>),
    /// Where the search stands; also told when it is paused, stopped or done.
    Search(Box<SearchProgress>),
    /// Where the training stands; also told when it is paused, stopped or done.
    Training(Box<TrainingProgress>),
    /// A pattern was measured with the trained indexers, against the reference before training.
    Trained {
        /// Its loss.
        evaluation: Box<Evaluation>,
        /// Its coverage.
        coverage: Coverage,
        /// The steps that the indexers had seen.
        steps: u64,
    },
    /// Trained indexers were written here.
    Kept(PathBuf),
    /// The training that is put aside now; `None` where there is none.
    Left(Option<LeftTraining>),
    /// A job failed; everything measured before stays.
    Failed(Failure),
    /// Memory of the device: free bytes, and bytes in all.
    Memory(u64, u64),
    /// Nothing is running.
    Idle,
    /// The worker ended after a panic; it restarts on the next command.
    Crashed(String),
}
