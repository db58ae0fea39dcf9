//! The state of the dashboard: plain data, changed by `update` alone.

mod doubts;
mod known;
mod message;
mod numbers;
mod overlay;
mod session;
mod work;

use std::sync::Arc;
use std::time::Duration;

use super::Work;
use super::history::History;
use super::layout::{Layout, Wish, layout};
use super::screens::tokens::Texts;
use super::screens::{Screen, States};
use super::theme::Theme;
use super::update::Click;
use crate::analysis::OverlapMatrix;
use crate::domain::{Constraints, Pattern, Site, Sites, Speed, Trace};
use crate::engine::{Capability, Job, ModelInfo, Progress};
use crate::interop::Target;

pub use known::{After, Engine, Indexers, Known, Results};
pub use message::{Message, Tone};
pub use overlay::{LongWork, Overlay, Question};
pub use session::SessionState;

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
    /// Memory of the device: free bytes, and bytes in all; `None` where it has none of its own.
    pub memory: Option<(u64, u64)>,
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
    /// What was measured.
    pub known: Known,
    /// Whose numbers the Overlap screen shows.
    pub indexers: Indexers,
    /// What is running.
    pub progress: Option<Progress>,
    /// When the current pattern is to be posted.
    pub due: Option<Duration>,
    /// Whether the worker was asked for a measurement since it was idle.
    pub awaited: bool,
    /// The pair looked at.
    pub cursor: Cursor,
    /// Which screen is shown.
    pub screen: Screen,
    /// What each screen remembers.
    pub screens: States,
    /// What lies over the screen.
    pub overlay: Overlay,
    /// What happened last.
    pub message: Message,
    /// Whether the message stays until a key is pressed, whatever else is reported.
    pub held: bool,
    /// What stays on the screen until Esc answers it, the newest last.
    pub notices: Vec<Message>,
    /// The texts of the recording's tokens; empty where no tokenizer is open.
    pub texts: Arc<Texts>,
    /// The model as engines see it; `None` where none is open.
    pub target: Option<Target>,
    /// What the mouse did last; `None` while it is left to the terminal.
    pub mouse: Option<Click>,
    /// Patterns with names, in the order in which they were named.
    pub named: Vec<(String, Pattern)>,
    /// The pattern pinned as B.
    pub pinned: Option<Pattern>,
    /// The session's files.
    pub session: SessionState,
    /// Whether the next quit asks no more.
    pub quitting: bool,
}

impl App {
    /// Returns the state before anything has happened.
    pub fn new(title: String, theme: Theme, engine: Engine, trace: Option<Arc<Trace>>, work: Option<&Work>) -> Self {
        let mut app = Self {
            now: Duration::ZERO,
            memory: None,
            size: (80, 24),
            theme,
            title,
            engine,
            model: None,
            trace: None,
            matrices: Vec::new(),
            history: None,
            known: Known::default(),
            indexers: Indexers::default(),
            progress: None,
            due: None,
            awaited: false,
            cursor: Cursor::default(),
            screen: Screen::default(),
            screens: States::default(),
            overlay: Overlay::None,
            message: Message::default(),
            held: false,
            notices: Vec::new(),
            texts: Arc::default(),
            target: None,
            mouse: None,
            named: Vec::new(),
            pinned: None,
            session: SessionState::default(),
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

    /// Returns the current pattern; `None` before the number of layers is known.
    pub fn pattern(&self) -> Option<Pattern> {
        self.history.as_ref().map(History::pattern)
    }

    /// Returns what the model allows; without a model, everything.
    pub fn constraints(&self) -> Option<Constraints> {
        let layers = self.pattern()?.len();
        Some(self.model.as_ref().map_or(Constraints::every(layers), |m| m.constraints))
    }

    /// Returns which layers select keys; everything else here goes by their numbers among themselves.
    pub fn sites(&self) -> Option<Sites> {
        let of_trace = self.trace.as_ref().map(|trace| trace.meta.sites());
        self.model.as_ref().map(|model| model.constraints.sites).or(of_trace)
    }

    /// Returns the layer of a site.
    pub fn layer(&self, site: usize) -> usize {
        self.sites().and_then(|sites| sites.layer(Site(site))).unwrap_or(site)
    }

    /// Names the layer of a site, such as `L12`.
    pub fn label(&self, site: usize) -> String {
        format!("L{}", self.layer(site))
    }

    /// Returns what everything is compared with.
    pub fn reference(&self) -> Option<Pattern> {
        self.model.as_ref().map(|m| m.reference).or_else(|| self.constraints()?.reference().ok())
    }

    /// Returns how much faster than the reference a pattern ran: exactly 1 for the reference itself, whatever noise says.
    pub fn faster(&self, speed: &Speed) -> f64 {
        if self.reference() == Some(speed.pattern) { 1.0 } else { speed.ratio.median }
    }

    /// Returns the name of the reference pattern.
    pub fn reference_name(&self) -> &'static str {
        match self.reference() {
            Some(p) if p.shared_count() > 0 => "reference",
            _ => "all-F",
        }
    }

    /// Returns the name of a pattern, if it has one.
    pub fn name_of(&self, pattern: Pattern) -> Option<&str> {
        self.named.iter().find(|(_, p)| *p == pattern).map(|(name, _)| name.as_str())
    }

    /// Returns what is known of the current pattern with the indexers that are shown.
    pub fn current(&self) -> Option<&Results> {
        self.results_of(self.pattern()?)
    }

    /// Returns what is known of a pattern with the indexers that are shown.
    pub fn results_of(&self, pattern: Pattern) -> Option<&Results> {
        match self.indexers {
            Indexers::Before => self.known.results.get(&pattern),
            Indexers::Trained => self.screens.train.after(pattern).map(|after| &after.results),
        }
    }

    /// Returns whether all that is measured of the current pattern is there: loss, coverage and speed, as far as the
    /// model's backend measures them, or what the trained indexers of now change.
    pub fn is_settled(&self) -> bool {
        let lacks = |capability| self.model.as_ref().is_some_and(|model| !model.can.has(capability));
        match self.indexers {
            Indexers::Before => self.current().is_some_and(|r| {
                r.evaluation.is_some()
                    && (r.coverage.is_some() || lacks(Capability::Shadow))
                    && (!r.speed.is_empty() || lacks(Capability::Timed))
            }),
            Indexers::Trained => {
                let after = self.pattern().and_then(|pattern| self.screens.train.after(pattern));
                after.is_some_and(|after| after.steps == self.screens.train.done())
            }
        }
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
        let (width, height) = self.size;
        match self.screen {
            Screen::Overlap => layout(width, height, self.pattern().map_or(0, Pattern::len), self.screens.overlap.wish),
            // The other screens divide what header, message and hints leave.
            _ => layout(width, height, 0, Wish::default()),
        }
    }

    /// Returns whether a job is running that the current pattern waits for, or any at all.
    pub fn is_busy(&self) -> bool {
        self.progress.is_some() || self.due.is_some()
    }

    /// Returns when something is to be done although nothing happens.
    pub fn deadline(&self) -> Option<Duration> {
        let spin = (self.progress.is_some() || self.awaited || self.is_searching() || self.engine == Engine::Loading)
            .then(|| self.now + Duration::from_millis(125));
        self.due.into_iter().chain(self.session.autosave).chain(spin).min()
    }

    /// Answers a key in the message line.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        self.message = self.note(tone, text);
        self.held = false;
    }

    /// Answers a key in the message line, where it stays until the next key.
    pub fn hold(&mut self, tone: Tone, text: impl Into<String>) {
        self.say(tone, text);
        self.held = true;
    }

    /// Reports something in the message line, unless an answer is held there.
    pub fn report(&mut self, tone: Tone, text: impl Into<String>) {
        let message = self.note(tone, text);
        if !self.held {
            self.message = message;
        }
    }

    /// Shows something of consequence until Esc answers it.
    pub fn notify(&mut self, tone: Tone, text: impl Into<String>) {
        let notice = self.note(tone, text);
        self.notices.retain(|known| known.text != notice.text);
        self.notices.push(notice);
    }

    /// Writes something into the log; returns it.
    pub fn note(&mut self, tone: Tone, text: impl Into<String>) -> Message {
        let message = Message { text: text.into(), tone, at: self.now };
        self.screens.log.push(message.clone());
        message
    }

    /// Returns the name of what runs.
    pub fn job_name(job: Job) -> &'static str {
        match job {
            Job::Load => "loading",
            Job::Evaluate => "loss",
            Job::Record => "recording",
            Job::Coverage => "coverage",
            Job::Speed => "speed",
            Job::Affinity => "affinity",
            Job::Search => "search",
            Job::Validate => "validation",
            Job::Train => "training",
            Job::Trained => "trained loss",
            Job::Keep => "keeping",
            Job::PutAside => "putting the training aside",
        }
    }
}
