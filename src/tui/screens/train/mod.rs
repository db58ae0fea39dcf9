//! The Train screen: the training of indexers, what is asked for, where it stands, and what it changed.

pub mod keys;
mod kl;
mod plan;
pub mod update;
mod view;

use std::collections::HashMap;

use super::{Needs, Screen, ScreenSpec, nowhere};
use crate::domain::{LeftTraining, Pattern, SearchState, Targets, TrainingProgress, TrainingSettings, TrainingStep};
use crate::tui::app::{After, App};

pub use plan::TrainingPlan;

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "Train",
    key: "7",
    help: "Train indexers for the pattern",
    needs: Needs::Pattern,
    actions: keys::ACTIONS,
    wheel: None,
    draw: |app, _, body, buf| view::draw(app, body, buf),
    hit: nowhere,
};

/// Steps over which a floor is averaged: about as many as a sidecar's.
const NEWEST: usize = 20;

/// What stands between a training and the end of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// Nobody wants to leave.
    #[default]
    No,
    /// The training is being put aside.
    Asked,
    /// It could not be put aside; the next time it is given up.
    Failed,
}

/// What the screen remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What is asked for next.
    pub plan: TrainingPlan,
    /// Where the last training stands, without its steps; `None` before the first.
    pub progress: Option<TrainingProgress>,
    /// Its steps so far.
    pub steps: Vec<TrainingStep>,
    /// What was asked for while the worker is still at something else.
    pub waiting: Option<TrainingSettings>,
    /// The training that is put aside beside the session.
    pub left: Option<LeftTraining>,
    /// Steps that were done before [`State::steps`] begins.
    pub before: u64,
    /// Whether the next Enter replaces the training that is put aside.
    pub replacing: bool,
    /// Whether the worker is asked to put the training aside, so that the program can end.
    pub leaving: Leaving,
    /// Whether the work that trained is closed; what is still told of it is for nobody.
    pub closed: bool,
    /// What was measured with the trained indexers, by pattern.
    pub after: HashMap<Pattern, After>,
}

impl State {
    /// Returns what was measured last for a pattern with trained indexers.
    pub fn after(&self, pattern: Pattern) -> Option<&After> {
        self.after.get(&pattern)
    }

    /// Returns the steps done.
    pub fn done(&self) -> u64 {
        self.steps.last().map_or(self.before, |s| s.done)
    }

    /// Returns whether steps would be lost if the program ended now.
    pub fn is_unsaved(&self) -> bool {
        let left = self.left.map(|left| (left.settings, left.done));
        self.progress.as_ref().is_some_and(|p| self.done() > 0 && left != Some((p.settings, self.done())))
    }
}

impl App {
    fn training_state(&self) -> Option<SearchState> {
        self.screens.train.progress.as_ref().map(|p| p.state)
    }

    /// Returns the floor of a group: from the training that has just measured it, else from that of the indexers in use.
    pub fn floor(&self, source: usize, end: usize) -> Option<f64> {
        let trained =
            self.screens.train.progress.as_ref().filter(|p| p.settings.targets == Targets::Served).and_then(|p| {
                let group = p.settings.pattern.groups().into_iter().position(|g| (g.source, g.end) == (source, end))?;
                let newest =
                    self.screens.train.steps.iter().rev().take(NEWEST).filter_map(|s| s.floor.get(group).copied());
                let values: Vec<f64> = newest.collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            });
        let known = || self.known.floors.iter().find(|f| (f.source, f.end) == (source, end)).map(|f| f.value);
        trained.or_else(known)
    }

    /// Returns whether a training goes on.
    pub fn is_training(&self) -> bool {
        self.training_state() == Some(SearchState::Running)
    }

    /// Returns whether a training waits to go on.
    pub fn is_training_paused(&self) -> bool {
        self.training_state() == Some(SearchState::Paused)
    }

    /// Returns whether a training goes on, waits, or is asked for.
    pub fn has_training(&self) -> bool {
        self.is_training() || self.is_training_paused() || self.screens.train.waiting.is_some()
    }

    /// Returns the training that is put aside, where none goes on and it is not the one that has just been done.
    pub fn left_training(&self) -> Option<LeftTraining> {
        let done = self.training_state() == Some(SearchState::Done);
        self.screens.train.left.filter(|_| !done && !self.has_training())
    }

    /// Returns whether stopping means the training: on its screen, or where nothing else runs.
    pub fn stops_training(&self) -> bool {
        self.has_training() && (self.screen == Screen::Train || !self.is_busy())
    }
}
