//! A search for a pattern: what was asked for, how far it has come, what it found.

use serde::{Deserialize, Serialize};

use super::{Confirmation, Delta, Goal, LayerSet, Method, Pattern, Role, Stages};

/// What is asked of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSettings {
    /// How.
    pub method: Method,
    /// What for.
    pub goal: Goal,
    /// Layers that stay Full.
    #[serde(default)]
    pub lock_full: LayerSet,
    /// Layers that are Shared from the start; those without an indexer need not be named.
    #[serde(default)]
    pub lock_shared: LayerSet,
    /// Pipeline stages, whose first layers stay Full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<Stages>,
    /// The paper's variant for pipelines: every stage commits its best flip in each step.
    #[serde(default)]
    pub block_search: bool,
    /// Seed of everything drawn at random: order of sequences, audits, bootstrap.
    #[serde(default)]
    pub seed: u64,
    /// Whether a budget is tested at planned looks, for patterns whose differences are skewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

impl SearchSettings {
    /// Returns settings without locks or stages, seed 0.
    pub fn new(method: impl Into<Method>, goal: Goal) -> Self {
        Self {
            method: method.into(),
            goal,
            lock_full: LayerSet::default(),
            lock_shared: LayerSet::default(),
            stages: None,
            block_search: false,
            seed: 0,
            strict: false,
        }
    }
}

/// What a search has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Evaluations of the whole calibration set; a partial one counts by its share of the eligible targets.
    pub evaluations: f64,
    /// Layers really run, in forwards of the whole calibration set through one layer.
    pub layer_forwards: f64,
    /// Time spent measuring, seconds.
    pub seconds: f64,
}

impl Work {
    /// Returns what the paper's accounting gives for the same evaluations: every one runs all layers.
    pub fn paper(&self, layers: usize) -> f64 {
        self.evaluations * layers as f64
    }
}

/// One accepted change of one layer's role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// The layer.
    pub layer: usize,
    /// Its new role.
    pub to: Role,
    /// Δ of the pattern after the flip against the reference, nats, over eligible targets.
    pub delta: Delta,
    /// Paired difference of the pattern after the flip to the pattern before it, nats.
    pub step: Delta,
    /// Share of bootstrap samples, of clusters, in which this flip was the best of the candidates that could be
    /// compared; `None` where there was no other.
    pub p_best: Option<f64>,
    /// Candidates that were compared for that, itself included; 0 in files before 0.2, which resampled blocks.
    #[serde(default)]
    pub compared: usize,
    /// Whether 0 lies within the 95 % interval of the flip's own difference, or there is none.
    pub within_noise: bool,
    /// What the search had cost when the flip was accepted.
    pub work: Work,
}

/// A change that refines what the flips led to: a pair of layers whose roles were exchanged, or, within a budget for Δ,
/// one more layer that became Shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    /// The layer that became Full; `None` where no other one had to for the layer that became Shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<usize>,
    /// The layer that became Shared.
    pub shared: usize,
    /// Δ of the pattern afterwards against the reference, nats.
    pub delta: Delta,
    /// Paired difference to the pattern before, nats.
    pub step: Delta,
}

/// How well skipping candidates went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Skipped candidates that were measured all the same, drawn at random.
    pub audited: usize,
    /// Those whose damage had fallen by more than was assumed.
    pub violations: usize,
}

/// How far a search or a training has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchState {
    /// It goes on.
    #[default]
    Running,
    /// It waits to be resumed.
    Paused,
    /// It was ended early; what it found until then stays.
    Stopped,
    /// It has reached its goal.
    Done,
}

/// What a search has found, complete or so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// How far it has come.
    pub state: SearchState,
    /// The best pattern so far.
    pub pattern: Pattern,
    /// The pattern from which the flips start.
    pub start: Pattern,
    /// Δ of the best pattern against the reference on the calibration set, nats.
    pub delta: Option<Delta>,
    /// What it has cost.
    pub work: Work,
    /// Hash of the calibration set.
    pub calibration: String,
    /// How skipping candidates went, for methods that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// The judgement on text that the search never saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// What unseen text says about the budget, for a search that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    /// The patterns that a method without flips proposed, each with fewer Full layers, for a search with a budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Pattern>,
    /// What was asked for.
    pub settings: SearchSettings,
    /// The accepted flips in order: the first n of them, applied to `start`, are the pattern of that retention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<Flip>,
    /// The changes made after the flips, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub swaps: Vec<Swap>,
}

impl SearchRecord {
    /// Returns the record of a search that has not begun.
    pub fn new(settings: SearchSettings, start: Pattern) -> Self {
        Self {
            state: SearchState::Running,
            pattern: start,
            start,
            delta: None,
            work: Work::default(),
            calibration: String::new(),
            audit: None,
            validation: None,
            confirmation: None,
            path: Vec::new(),
            settings,
            order: Vec::new(),
            swaps: Vec::new(),
        }
    }

    /// Returns the pattern after the first `flips` flips; all of them where there are fewer.
    pub fn after(&self, flips: usize) -> Pattern {
        let roles = self.order.iter().take(flips);
        roles.fold(self.start, |pattern, flip| pattern.with(flip.layer, flip.to).unwrap_or(pattern))
    }

    /// Makes the last confirmed pattern the result, the start where none was.
    pub fn confirmed_by(&mut self, confirmation: Confirmation) {
        let found = confirmation.confirmed().unwrap_or(self.start);
        self.delta = self.delta_of(found);
        (self.pattern, self.confirmation) = (found, Some(confirmation));
    }

    /// Returns Δ of its pattern or of one along its flips and swaps; `None` for any other.
    pub fn delta_of(&self, pattern: Pattern) -> Option<Delta> {
        if pattern == self.pattern {
            return self.delta;
        }
        let mut swapped = self.after(self.order.len());
        for swap in &self.swaps {
            let full = swap.full.map_or(Ok(swapped), |layer| swapped.with(layer, Role::Full));
            swapped = full.and_then(|pattern| pattern.with(swap.shared, Role::Shared)).unwrap_or(swapped);
            if swapped == pattern {
                return Some(swap.delta);
            }
        }
        let flips = (1..=self.order.len()).find(|&flips| self.after(flips) == pattern)?;
        self.order.get(flips - 1).map(|flip| flip.delta)
    }

    /// Returns the patterns that the search proposed, the last one for every number of Full layers, from the most Full
    /// layers to the fewest; without the start.
    pub fn chain(&self) -> Vec<Pattern> {
        let flips = (1..=self.order.len()).map(|flips| self.after(flips));
        let mut all: Vec<Pattern> = flips.chain(self.path.iter().copied()).collect();
        for swap in &self.swaps {
            let before = all.last().copied().unwrap_or(self.start);
            let full = swap.full.map_or(Ok(before), |layer| before.with(layer, Role::Full));
            all.extend(full.and_then(|pattern| pattern.with(swap.shared, Role::Shared)));
        }
        let mut chain: Vec<Pattern> = Vec::new();
        for pattern in all.into_iter().filter(|pattern| *pattern != self.start) {
            match chain.last_mut() {
                Some(last) if last.full_count() == pattern.full_count() => *last = pattern,
                _ => chain.push(pattern),
            }
        }
        chain
    }

    /// Returns the first pattern along the flip order with at most `full` Full layers; `None` where it ends before.
    pub fn cut(&self, full: usize) -> Option<Pattern> {
        (0..=self.order.len()).map(|flips| self.after(flips)).find(|pattern| pattern.full_count() <= full)
    }
}

/// The loss of a found pattern on text that its search never saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean loss over all scored targets, nats.
    pub loss: f64,
    /// Δ against the reference over eligible targets; `None` where no target is eligible.
    pub delta: Option<Delta>,
    /// Sequences judged on.
    pub sequences: usize,
    /// What they are made of.
    pub data: String,
}

/// Where a running search stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchProgress {
    /// What it has found so far.
    pub record: SearchRecord,
    /// Steps taken and steps in all, if that is known (with [`Goal::MaxDelta`] it is the most there can be).
    pub steps: (usize, usize),
    /// The pattern under test.
    pub candidate: Option<Pattern>,
    /// Measurements done and asked for in this step; one is a pattern on one part of the calibration set.
    pub measured: (usize, usize),
    /// Seconds left, from and to, if that can be told.
    pub eta: Option<(f64, f64)>,
}
