//! What is known of patterns, and of the worker that finds it out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{Evaluation, Pattern, Speed, Validation};
use crate::engine::{Affinity, AffinityKind, Coverage, Failure};
use crate::tui::Floor;

/// Everything that was measured, of whatever pattern.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Whatever was measured with the indexers that the model was opened with, by pattern.
    pub results: HashMap<Pattern, Results>,
    /// The evaluation that is growing, of whatever pattern.
    pub partial: Option<Evaluation>,
    /// The last complete evaluation that was on the screen.
    pub last_loss: Option<Evaluation>,
    /// The last speed that was on the screen.
    pub last_speed: Vec<Speed>,
    /// Speed measured at other contexts, of any pattern.
    pub profile: Vec<Speed>,
    /// How well layers could lend each other their indices, as far as that was measured.
    pub affinities: Vec<(AffinityKind, Arc<Affinity>)>,
    /// Floors of groups, as training the indexers in use has measured them.
    pub floors: Vec<Floor>,
    /// What failed for the current pattern.
    pub failure: Option<Failure>,
}

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
