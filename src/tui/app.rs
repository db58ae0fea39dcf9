//! The state of the dashboard: plain data, changed by `update` alone.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::history::History;
use super::input::Input;
use super::layout::{Layout, Wish, layout};
use super::theme::Theme;
use super::{Step, Work};
use crate::analysis::{Metric, OverlapMatrix, coverage};
use crate::domain::{Constraints, Estimate, Evaluation, LayerSet, Pattern, Role, Speed, Subject, Trace};
use crate::engine::{Coverage, Failure, Job, ModelInfo, Progress};

/// What is known of one pattern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Loss over the whole calibration set.
    pub evaluation: Option<Evaluation>,
    /// Coverage measured under this pattern.
    pub coverage: Option<Coverage>,
    /// Speed, prefill first.
    pub speed: Vec<Speed>,
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

/// What is drawn of two layers' sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// |A∩B| / k.
    #[default]
    Overlap,
    /// |A∩B| / |A∪B|.
    Jaccard,
    /// (overlap − chance) / (1 − chance).
    AboveChance,
}

impl Measure {
    /// Returns the matrix from which it is drawn.
    pub fn metric(self) -> Metric {
        if self == Self::Jaccard { Metric::Jaccard } else { Metric::Overlap }
    }

    /// Returns the name, with the formula where it is short.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Jaccard => "Jaccard",
            Self::AboveChance => "above chance",
        }
    }

    /// Returns the next measure.
    pub fn next(self) -> Self {
        match self {
            Self::Overlap => Self::Jaccard,
            Self::Jaccard => Self::AboveChance,
            Self::AboveChance => Self::Overlap,
        }
    }
}

/// How groups are marked on the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Everything outside the groups steps back.
    #[default]
    Spotlight,
    /// Only the margin shows them.
    Brackets,
    /// Not at all.
    Off,
}

/// How a message sounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Something was done.
    #[default]
    Info,
    /// Something deserves a look.
    Warn,
    /// Something went wrong.
    Bad,
}

/// The line that tells what happened last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What is said.
    pub text: String,
    /// How it sounds.
    pub tone: Tone,
}

/// What a prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// N of every N.
    EveryN,
    /// A pattern.
    Pattern,
    /// A layer or a pair.
    GoTo,
    /// Where to save.
    SaveAs,
}

/// What lies over the screen; only one thing can.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// A list of actions: all keys (`help`), or commands by name.
    Actions {
        /// Whether keys come first.
        help: bool,
        /// The filter.
        query: Input,
        /// The chosen row of what the filter leaves.
        chosen: usize,
    },
    /// The keys after `e`.
    Export,
    /// A question with one line to answer it.
    Prompt(Question, Input),
    /// Sessions to open.
    Sessions {
        /// A path, or a part of a name.
        query: Input,
        /// What was found.
        paths: Vec<PathBuf>,
        /// The chosen row of what the filter leaves.
        chosen: usize,
    },
    /// Something to read.
    Text {
        /// Its heading.
        title: String,
        /// Its lines.
        body: String,
        /// Lines scrolled away.
        scroll: usize,
    },
}

/// The pair of layers looked at: `row` needs indices, `column` would lend them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The layer on which Space acts.
    pub row: usize,
    /// The layer with which it is compared.
    pub column: usize,
}

/// The whole state.
#[derive(Clone, Debug)]
pub struct App {
    /// Time since the start.
    pub now: Duration,
    /// Size of the terminal.
    pub size: (u16, u16),
    /// The looks.
    pub theme: Theme,
    /// Name of what is looked at.
    pub title: String,
    /// Where the worker stands.
    pub engine: Engine,
    /// The model, once loaded.
    pub model: Option<ModelInfo>,
    /// The recording.
    pub trace: Option<Arc<Trace>>,
    /// Matrices of the recording, as they are computed.
    pub matrices: Vec<Arc<OverlapMatrix>>,
    /// The patterns tried; `None` before the number of layers is known.
    pub history: Option<History>,
    /// Whatever was measured, by pattern.
    pub results: HashMap<Pattern, Results>,
    /// The evaluation that is growing, of whatever pattern.
    pub partial: Option<Evaluation>,
    /// The last complete evaluation that was on the screen.
    pub last_loss: Option<Evaluation>,
    /// The last speed that was on the screen.
    pub last_speed: Vec<Speed>,
    /// What failed for the current pattern.
    pub failure: Option<Failure>,
    /// What is running.
    pub progress: Option<Progress>,
    /// When the current pattern is to be posted.
    pub due: Option<Duration>,
    /// The pair looked at.
    pub cursor: Cursor,
    /// What is drawn.
    pub measure: Measure,
    /// How groups are marked.
    pub marks: Marks,
    /// Which map is wanted, and how large.
    pub wish: Wish,
    /// What lies over the screen.
    pub overlay: Overlay,
    /// What happened last.
    pub message: Message,
    /// The pattern pinned as B.
    pub pinned: Option<Pattern>,
    /// The session's file, once saved or opened.
    pub file: Option<PathBuf>,
    /// Whether there are changes that no file has.
    pub unsaved: bool,
    /// When unsaved work is next put aside.
    pub autosave: Option<Duration>,
    /// Whether the next quit asks no more.
    pub quitting: bool,
}

impl App {
    /// Returns the state before anything has happened.
    pub fn new(title: String, theme: Theme, engine: Engine, trace: Option<Arc<Trace>>, work: Option<&Work>) -> Self {
        let mut app = Self {
            now: Duration::ZERO,
            size: (80, 24),
            theme,
            title,
            engine,
            model: None,
            trace: None,
            matrices: Vec::new(),
            history: None,
            results: HashMap::new(),
            partial: None,
            last_loss: None,
            last_speed: Vec::new(),
            failure: None,
            progress: None,
            due: None,
            cursor: Cursor::default(),
            measure: Measure::default(),
            marks: Marks::default(),
            wish: Wish::default(),
            overlay: Overlay::None,
            message: Message::default(),
            pinned: None,
            file: None,
            unsaved: false,
            autosave: None,
            quitting: false,
        };
        if let Some(work) = work {
            app.take_work(work);
        }
        if let Some(trace) = &trace
            && app.history.is_none()
        {
            app.begin(History::new(trace.meta.pattern, "recorded"));
        }
        app.trace = trace;
        app
    }

    /// Starts a history and looks at its first Shared layer.
    pub fn begin(&mut self, history: History) {
        let pattern = history.pattern();
        self.history = Some(history);
        let row = (1..pattern.len()).find(|&l| !pattern.is_full(l)).unwrap_or(pattern.len().min(2) - 1);
        self.look_at(row);
    }

    /// Looks at a layer and the one that lends it indices, or the layer before where it is Full.
    pub fn look_at(&mut self, row: usize) {
        if let Some(pattern) = self.pattern() {
            let row = row.min(pattern.len() - 1);
            let column = if pattern.is_full(row) { row.saturating_sub(1) } else { pattern.source(row) };
            self.cursor = Cursor { row, column };
        }
    }

    /// Takes over a saved piece of work; returns whether it is sound.
    pub fn take_work(&mut self, work: &Work) -> bool {
        let Some(history) = History::from_work(work) else { return false };
        for step in &work.steps {
            let results = self.results.entry(step.pattern).or_default();
            if results.evaluation.is_none() {
                results.evaluation.clone_from(&step.evaluation);
            }
            if results.speed.is_empty() {
                results.speed.clone_from(&step.speed);
            }
        }
        self.begin(history);
        true
    }

    /// Returns what a session file is to keep.
    pub fn work(&self) -> Option<Work> {
        let history = self.history.as_ref()?;
        let step = |node: &super::history::Node| {
            let results = self.results.get(&node.pattern).cloned().unwrap_or_default();
            Step {
                pattern: node.pattern,
                parent: node.parent,
                change: node.change.clone(),
                evaluation: results.evaluation,
                speed: results.speed,
            }
        };
        Some(Work { steps: history.nodes().iter().map(step).collect(), current: history.current() })
    }

    /// Returns the current pattern; `None` before the number of layers is known.
    pub fn pattern(&self) -> Option<Pattern> {
        self.history.as_ref().map(History::pattern)
    }

    /// Returns what the model allows; without a model, everything.
    pub fn constraints(&self) -> Option<Constraints> {
        let layers = self.pattern()?.len();
        Some(self.model.as_ref().map_or(Constraints { layers, locked_shared: LayerSet::default() }, |m| m.constraints))
    }

    /// Returns what everything is compared with.
    pub fn reference(&self) -> Option<Pattern> {
        self.model.as_ref().map(|m| m.reference).or_else(|| self.constraints()?.reference().ok())
    }

    /// Returns the name of the reference pattern.
    pub fn reference_name(&self) -> &'static str {
        match self.reference() {
            Some(p) if p.shared_count() > 0 => "reference",
            _ => "all-F",
        }
    }

    /// Returns what is known of the current pattern.
    pub fn current(&self) -> Option<&Results> {
        self.results.get(&self.pattern()?)
    }

    /// Returns whether loss, coverage and speed of the current pattern are all there.
    pub fn is_settled(&self) -> bool {
        self.current().is_some_and(|r| r.evaluation.is_some() && r.coverage.is_some() && !r.speed.is_empty())
    }

    /// Returns the growing evaluation, if it is of the current pattern.
    pub fn growing(&self) -> Option<&Evaluation> {
        let current = Subject::Pattern(self.pattern()?);
        self.partial.as_ref().filter(|e| e.subject == current)
    }

    /// Returns the matrix from which a metric is drawn, once computed.
    pub fn matrix(&self, metric: Metric) -> Option<&OverlapMatrix> {
        self.matrices.iter().find(|m| m.metric == metric).map(Arc::as_ref)
    }

    /// Returns what is drawn for a pair of layers; `None` where the recording has no own set of either.
    pub fn similarity(&self, row: usize, column: usize) -> Option<Estimate> {
        let matrix = self.matrix(self.measure.metric())?;
        if row != column && !(matrix.is_own(row) && matrix.is_own(column)) {
            return None;
        }
        let estimate = matrix.estimate(row, column)?;
        if self.measure != Measure::AboveChance {
            return Some(estimate);
        }
        let room = 1.0 - matrix.chance.filter(|&c| c < 1.0)?;
        let value = 1.0 - (1.0 - estimate.value) / room;
        Some(Estimate { value, se: estimate.se.map(|se| se / room), n: estimate.n })
    }

    /// Returns each layer's coverage under the current pattern, and whether it was measured under it.
    ///
    /// A Full layer covers itself; a Shared layer without an indexer, or not in the recording, has none.
    pub fn coverage(&self) -> (Vec<Option<Estimate>>, bool) {
        let Some(pattern) = self.pattern() else { return (Vec::new(), false) };
        if let Some(measured) = self.current().and_then(|r| r.coverage.as_ref()) {
            let own = Estimate { value: 1.0, se: None, n: 0 };
            let mut layers: Vec<Option<Estimate>> = pattern.roles().map(|r| (r == Role::Full).then_some(own)).collect();
            for layer in measured.layers.iter().filter(|l| l.layer < pattern.len()) {
                layers[layer.layer] = Some(layer.overlap);
            }
            return (layers, true);
        }
        let predicted = self
            .matrix(Metric::Overlap)
            .filter(|m| m.layers == pattern.len())
            .map_or_else(|| vec![None; pattern.len()], |m| coverage::predicted(m, pattern));
        (predicted, false)
    }

    /// Returns whether no token sees more than k keys, so that all patterns are equal.
    pub fn is_short(&self) -> bool {
        match (&self.model, &self.trace) {
            (Some(model), _) => model.eligible == 0,
            (None, Some(trace)) => trace.counted().next().is_none(),
            (None, None) => false,
        }
    }

    /// Returns k, if known.
    pub fn topk(&self) -> Option<usize> {
        self.model.as_ref().map(|m| m.index_topk).or_else(|| self.trace.as_ref().map(|t| t.meta.index_topk))
    }

    /// Returns where everything is drawn.
    pub fn layout(&self) -> Layout {
        layout(self.size.0, self.size.1, self.pattern().map_or(0, Pattern::len), self.wish)
    }

    /// Returns whether a job is running that the current pattern waits for, or any at all.
    pub fn is_busy(&self) -> bool {
        self.progress.is_some() || self.due.is_some()
    }

    /// Returns when something is to be done although nothing happens.
    pub fn deadline(&self) -> Option<Duration> {
        let spin =
            (self.progress.is_some() || self.engine == Engine::Loading).then(|| self.now + Duration::from_millis(125));
        self.due.into_iter().chain(self.autosave).chain(spin).min()
    }

    /// Says something in the message line.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        self.message = Message { text: text.into(), tone };
    }

    /// Returns the name of what runs.
    pub fn job_name(job: Job) -> &'static str {
        match job {
            Job::Load => "loading",
            Job::Evaluate => "loss",
            Job::Record => "recording",
            Job::Coverage => "coverage",
            Job::Speed => "speed",
        }
    }
}
