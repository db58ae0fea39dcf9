//! What one engine makes of a config: which layers run their indexer, why, and what goes wrong.

use serde::{Serialize, Serializer};

use super::rules::FORWARD;
use super::served::Served;

/// What an engine does for one layer's indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// The layer runs its own indexer.
    Full,
    /// The layer reuses earlier indices.
    Shared,
    /// The layer selects nothing.
    None,
}

impl Mark {
    /// Returns the letter that stands for it.
    pub fn letter(self) -> char {
        match self {
            Self::Full => 'F',
            Self::Shared => 'S',
            Self::None => '-',
        }
    }
}

/// An exception that ends an engine, or that its user must expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The exception's type.
    pub error: &'static str,
    /// When it comes.
    pub when: &'static str,
    /// What it is about.
    pub reason: String,
}

impl Failure {
    pub(super) fn new(error: &'static str, when: &'static str, reason: impl Into<String>) -> Self {
        Self { error, when, reason: reason.into() }
    }
}

/// Something to know before serving, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What is the matter.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Warning {
    pub(super) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into() }
    }
}

/// One engine's reading of a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Strip {
    /// The engine.
    pub engine: &'static str,
    /// The version, or the snapshot, that was read.
    pub version: &'static str,
    /// Whether the rule was read in the released source of that version.
    pub verified: bool,
    /// The file and function.
    pub source: &'static str,
    /// What every layer does; empty where the engine does not get so far, or where it is not known.
    #[serde(rename = "strip", serialize_with = "letters")]
    pub marks: Vec<Mark>,
    /// Which keys decided, and how.
    pub rule: String,
    /// What ends it before a model is built.
    pub failure: Option<Failure>,
    /// What ends the first forward of the model that was built.
    pub forward: Option<Failure>,
    /// What to know.
    pub warnings: Vec<Warning>,
}

impl Strip {
    /// Returns the layers as letters; empty where nothing runs.
    pub fn letters(&self) -> String {
        self.marks.iter().map(|mark| mark.letter()).collect()
    }

    /// Returns the number of layers that run their indexer.
    pub fn full(&self) -> usize {
        self.marks.iter().filter(|&&mark| mark == Mark::Full).count()
    }

    /// Returns what keeps it from running: while it starts, or in the first forward.
    pub fn end(&self) -> Option<&Failure> {
        self.failure.as_ref().or(self.forward.as_ref())
    }

    /// Returns the layers at which two strips differ; none where one of them is empty.
    pub fn differences(&self, other: &[Mark]) -> Vec<usize> {
        let pairs = self.marks.iter().zip(other).enumerate();
        pairs.filter(|(_, (a, b))| a != b).map(|(layer, _)| layer).collect()
    }
}

fn letters<S: Serializer>(marks: &[Mark], s: S) -> Result<S::Ok, S::Error> {
    if marks.is_empty() {
        s.serialize_none()
    } else {
        s.collect_str(&marks.iter().map(|m| m.letter()).collect::<String>())
    }
}

/// What a reader of `engines` returns.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub marks: Vec<Mark>,
    pub rule: String,
    pub failure: Option<Failure>,
    pub forward: Option<Failure>,
    pub warnings: Vec<Warning>,
}

impl Reading {
    /// Returns a reading in which the layers of `sites` are Shared where `shared` says so.
    pub fn of(served: &Served, sites: &[usize], rule: impl Into<String>, shared: impl Fn(usize) -> bool) -> Self {
        let mut marks = vec![Mark::None; served.layers];
        for &layer in sites {
            marks[layer] = if shared(layer) { Mark::Shared } else { Mark::Full };
        }
        Self { marks, rule: rule.into(), ..Self::default() }
    }

    /// Returns the same for a rule that may raise; layers are asked in order.
    pub fn raising(
        served: &Served,
        sites: &[usize],
        rule: impl Into<String>,
        shared: impl Fn(usize) -> Result<bool, Failure>,
    ) -> Self {
        let among: Result<Vec<bool>, Failure> = sites.iter().map(|&layer| shared(layer)).collect();
        match among {
            Ok(among) => Self::of(served, sites, rule, |layer| {
                sites.iter().zip(&among).any(|(&site, &is_shared)| site == layer && is_shared)
            }),
            Err(failure) => Self::fails(rule, failure),
        }
    }

    /// Returns a reading of attention without indexers.
    pub fn dense(served: &Served, rule: impl Into<String>) -> Self {
        Self::of(served, &[], rule, |_| false)
    }

    /// Returns a reading in which every layer that can runs its indexer.
    pub fn all_full(served: &Served, rule: impl Into<String>) -> Self {
        Self::of(served, &served.sites(), rule, |_| false)
    }

    /// Returns that the engine ends before any layer runs.
    pub fn fails(rule: impl Into<String>, failure: Failure) -> Self {
        Self { rule: rule.into(), failure: Some(failure), ..Self::default() }
    }

    /// Returns that nothing is known about this family or these keys.
    pub fn unknown(rule: impl Into<String>) -> Self {
        Self { rule: rule.into(), ..Self::default() }
    }

    /// Adds a failure that comes after the layers were chosen.
    pub fn but(mut self, failure: Option<Failure>) -> Self {
        self.failure = self.failure.or(failure);
        self
    }

    /// Adds a failure of the first forward.
    pub fn but_forward(mut self, reason: Option<String>) -> Self {
        self.forward = reason.map(|reason| Failure::new("ValueError", FORWARD, reason));
        self
    }

    /// Adds a warning.
    pub fn warn(mut self, what: impl Into<String>, advice: impl Into<String>) -> Self {
        self.warnings.push(Warning::new(what, advice));
        self
    }

    /// Adds a warning where `condition` holds.
    pub fn warn_if(self, condition: bool, what: impl Into<String>, advice: impl Into<String>) -> Self {
        if condition { self.warn(what, advice) } else { self }
    }

    /// Returns the layers of `among` that are Shared.
    pub fn shared(&self, among: &[usize]) -> Vec<usize> {
        among.iter().copied().filter(|&layer| self.marks.get(layer) == Some(&Mark::Shared)).collect()
    }

    /// Returns whether any layer is Shared.
    pub fn shares(&self) -> bool {
        self.marks.contains(&Mark::Shared)
    }
}
