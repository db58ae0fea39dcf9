//! What is known of patterns, and of the worker that finds it out.

use crate::domain::{Evaluation, Speed, Validation};
use crate::engine::Coverage;

/// What is known of one pattern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Loss over the whole calibration set.
    pub evaluation: Option<Evaluation>,
    /// Coverage measured under this pattern.
    pub coverage: Option<Coverage>,
    /// Speed, prefill first.
    pub speed: Vec<Speed>,
    /// Loss on text that no search saw.
    pub validation: Option<Validation>,
}

/// Whose numbers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Indexers {
    /// Those of the indexers that the model was opened with.
    #[default]
    Before,
    /// Those of the trained ones.
    Trained,
}

/// What is known of one pattern with trained indexers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct After {
    /// The steps that they had seen.
    pub steps: u64,
    /// Loss and coverage; speed and validation are not measured again.
    pub results: Results,
}

/// Where the worker stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Engine {
    /// There is none: a trace or a session is looked at.
    Absent,
    /// The model is being loaded.
    Loading,
    /// The model can be asked.
    Ready,
    /// The model cannot be loaded, or the worker ended.
    Failed(String),
}
