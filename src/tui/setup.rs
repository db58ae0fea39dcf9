//! What the command line hands to the dashboard.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::screens::tokens::Texts;
use crate::domain::Diagnostic;
use crate::domain::{
    Evaluation, OverlapMatrix, Pattern, PatternSource, SearchRecord, Sites, Speed, Stages, Trace, Validation,
};
use crate::engine::{Command, Update};
use crate::interop::Target;

/// The way to the worker: posting never waits.
pub trait EngineHandle: Send {
    /// Hands `command` to the worker.
    fn post(&self, command: Command);
}

/// One pattern of a piece of work: how it came about, and what was measured for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The pattern.
    pub pattern: Pattern,
    /// The step from which it was made; `None` for the first.
    pub parent: Option<usize>,
    /// What was done, such as `L45 Full → Shared`.
    pub change: String,
    /// Its loss, if the whole calibration set was measured.
    pub evaluation: Option<Evaluation>,
    /// Its speed, prefill first; empty if not measured.
    pub speed: Vec<Speed>,
    /// Its loss on text that no search saw, if it was judged.
    pub validation: Option<Validation>,
}

/// What a session file keeps of the dashboard: the history tree, the place in it, and names.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The history, parents before children; never empty.
    pub steps: Vec<Step>,
    /// Index of the current step.
    pub current: usize,
    /// Patterns with names, each name once.
    pub named: Vec<(String, Pattern)>,
    /// What the last search has found, complete or not.
    pub search: Option<Box<SearchRecord>>,
    /// How much the layers' index sets have in common, if that was recorded.
    pub overlap: Option<Arc<OverlapMatrix>>,
}

/// A session that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// What it holds.
    pub work: Work,
    /// The file that it is saved to: its own, unless that is an autosave, open in another program, or about another text.
    pub file: PathBuf,
    /// Whether it was measured on another calibration set, so that its losses are left out.
    pub other_text: bool,
}

/// Sessions and exports; called from a thread beside the screen, so that it may wait for the disk.
pub trait Files: Send {
    /// Writes `work` to `path`, or to the session's own file; returns where it was written.
    ///
    /// # Errors
    /// A [`Diagnostic`] naming the path.
    fn save(&mut self, path: Option<&Path>, work: &Work) -> Result<PathBuf, Diagnostic>;

    /// Writes `work` beside the session's own file, until it is saved by hand.
    ///
    /// # Errors
    /// A [`Diagnostic`] naming the path.
    fn autosave(&mut self, work: &Work) -> Result<(), Diagnostic>;

    /// Reads a session, which becomes the one that [`Files::save`] writes without a path.
    ///
    /// # Errors
    /// A [`Diagnostic`] naming the path, or the model if the session belongs to another.
    fn open(&mut self, path: &Path) -> Result<Opened, Diagnostic>;

    /// Returns the session files that can be opened, newest first.
    fn sessions(&mut self) -> Vec<PathBuf>;

    /// Returns the pattern that `source` names in a file, for a model with this native one over these sites.
    ///
    /// # Errors
    /// A [`Diagnostic`] naming the path, or what is wrong with the pattern.
    fn pattern(&mut self, source: &PatternSource, native: Pattern, sites: Sites) -> Result<Pattern, Diagnostic>;

    /// Writes `work` as an HTML page beside the session's file, with what engines would make of its pattern under
    /// `stages`; returns where.
    ///
    /// # Errors
    /// A [`Diagnostic`] naming the path.
    fn report(&mut self, work: &Work, stages: &Stages) -> Result<PathBuf, Diagnostic>;
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// As the terminal and `NO_COLOR` say.
    #[default]
    Auto,
    /// As many as the terminal has, whatever `NO_COLOR` says.
    Always,
    /// None.
    Never,
}

/// Which background the colours are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThemeChoice {
    /// Light text on a dark background.
    #[default]
    Dark,
    /// Dark text on a light background.
    Light,
}

/// How the dashboard looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// When colours are used.
    pub color: ColorChoice,
    /// Whether only ASCII is drawn.
    pub ascii: bool,
    /// Which background the colours are for.
    pub theme: ThemeChoice,
}

/// The part of a group's KL that no single indexer could lower, because the layers that it serves differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// The Full layer.
    pub source: usize,
    /// One past the last layer that it serves.
    pub end: usize,
    /// Nats per query row.
    pub value: f64,
}

/// Everything that the dashboard starts with.
pub struct Setup {
    /// What is shown before the model has a name: the model's, trace's or session's.
    pub title: String,
    /// The worker; `None` where a trace or session is opened without a model.
    pub engine: Option<Box<dyn EngineHandle>>,
    /// What the worker tells; `Update::Ready` comes first. Never sent to without a worker.
    pub updates: Receiver<Update>,
    /// A recording that is already there.
    pub trace: Option<Arc<Trace>>,
    /// The texts of the calibration set's tokens; empty where there is no tokenizer.
    pub texts: Arc<Texts>,
    /// A session that is already read.
    pub work: Option<Work>,
    /// Sessions and exports.
    pub files: Box<dyn Files>,
    /// The session's file where none is named: a training is put aside beside it. `None` without a worker.
    pub usual: Option<PathBuf>,
    /// Something that must not be missed; `None` where all is as usual.
    pub notice: Option<String>,
    /// The model as serving engines see it; `None` where none is open.
    pub target: Option<Target>,
    /// Floors of groups, as training the indexers in use has measured them.
    pub floors: Vec<Floor>,
    /// How it looks.
    pub options: Options,
}
