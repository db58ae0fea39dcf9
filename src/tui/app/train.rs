//! The training of indexers: what is asked for, where it stands, and what it changed.

use std::collections::HashMap;

use super::{After, App, Screen};
use crate::domain::{LeftTraining, Pattern, SearchState, Targets, TrainingProgress, TrainingSettings, TrainingStep};

/// Steps over which a floor is averaged: about as many as a sidecar's.
const NEWEST: usize = 20;

/// What is asked for, as it is typed: such as `200+50 2e-3 served`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPlan {
    /// Steps of the warm-up.
    pub steps: u64,
    /// Steps of the sparse stage.
    pub sparse_steps: u64,
    /// Peak of the learning rate.
    pub lr: f64,
    /// Whose attention the indexers learn.
    pub targets: Targets,
}

impl Default for TrainingPlan {
    fn default() -> Self {
        Self { steps: 200, sparse_steps: 50, lr: 2e-3, targets: Targets::Served }
    }
}

impl std::fmt::Display for TrainingPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{} {:e} {}", self.steps, self.sparse_steps, self.lr, self.targets.name())
    }
}

impl std::str::FromStr for TrainingPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let steps = words.next().unwrap_or_default();
        let (warm, sparse) = steps.split_once('+').ok_or("steps of both stages, such as 200+50")?;
        let number = |s: &str| s.parse::<u64>().map_err(|_| format!("'{s}' is no number of steps"));
        let (steps, sparse_steps) = (number(warm)?, number(sparse)?);
        if steps + sparse_steps == 0 {
            return Err("at least one step is needed".to_owned());
        }
        let lr = words.next().map_or(Ok(Self::default().lr), |s| {
            let rate = s.parse::<f64>().ok().filter(|r| r.is_finite() && *r > 0.0);
            rate.ok_or_else(|| format!("'{s}' is no learning rate, such as 2e-3"))
        })?;
        let targets = match words.next() {
            None | Some("served") => Targets::Served,
            Some("own") => Targets::Own,
            Some(other) => return Err(format!("'{other}' is neither served nor own")),
        };
        match words.next() {
            None => Ok(Self { steps, sparse_steps, lr, targets }),
            Some(more) => Err(format!("'{more}' is too much: steps, rate, and served or own")),
        }
    }
}

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

/// What the Train screen remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainView {
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
    /// Steps that were done before [`TrainView::steps`] begins.
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

impl TrainView {
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
        self.train.progress.as_ref().map(|p| p.state)
    }

    /// Returns the floor of a group: from the training that has just measured it, else from that of the indexers in use.
    pub fn floor(&self, source: usize, end: usize) -> Option<f64> {
        let trained = self.train.progress.as_ref().filter(|p| p.settings.targets == Targets::Served).and_then(|p| {
            let group = p.settings.pattern.groups().into_iter().position(|g| (g.source, g.end) == (source, end))?;
            let newest = self.train.steps.iter().rev().take(NEWEST).filter_map(|s| s.floor.get(group).copied());
            let values: Vec<f64> = newest.collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        });
        let known = || self.floors.iter().find(|f| (f.source, f.end) == (source, end)).map(|f| f.value);
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
        self.is_training() || self.is_training_paused() || self.train.waiting.is_some()
    }

    /// Returns the training that is put aside, where none goes on and it is not the one that has just been done.
    pub fn left_training(&self) -> Option<LeftTraining> {
        let done = self.training_state() == Some(SearchState::Done);
        self.train.left.filter(|_| !done && !self.has_training())
    }

    /// Returns whether stopping means the training: on its screen, or where nothing else runs.
    pub fn stops_training(&self) -> bool {
        self.has_training() && (self.screen == Screen::Train || !self.is_busy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_typed_as_they_are_shown() {
        let plan = TrainingPlan { steps: 30, sparse_steps: 0, lr: 5e-4, targets: Targets::Own };
        assert_eq!(plan.to_string(), "30+0 5e-4 own");
        assert_eq!(plan.to_string().parse(), Ok(plan));
        assert_eq!("200+50".parse(), Ok(TrainingPlan::default()));
        let wrong = |text: &str| text.parse::<TrainingPlan>().unwrap_err();
        assert!(wrong("200").contains("both stages") && wrong("0+0").contains("one step"));
        assert!(
            wrong("1+x").contains("'x'") && wrong("1+1 -3").contains("'-3'") && wrong("1+1 1e-3 all").contains("'all'")
        );
        assert!(wrong("1+1 1e-3 own more").contains("too much"));
    }
}
