//! Slots, not a queue: what the worker has still to do.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{AffinityKind, Cancel, Command, Generation};
use crate::domain::{Pattern, SearchSettings, SearchState, TrainingSettings};

/// What the worker does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// Measure loss; coverage and speed follow.
    Evaluate(Pattern),
    /// Record index sets.
    Record,
    /// Run the indexers of Shared layers in shadow.
    Coverage(Pattern),
    /// Time.
    Measure(Pattern),
    /// Time at shorter contexts.
    Profile(Pattern),
    /// Measure how well layers could lend each other their indices.
    Affinity(AffinityKind),
    /// Judge on text that no search sees.
    Validate(Pattern),
    /// Measure a pattern with the trained indexers.
    EvaluateTrained(Pattern),
    /// Write the trained indexers.
    KeepTrained(PathBuf),
    /// Put trainings aside beside this sidecar; the one that goes on comes along or not.
    TrainingAt(PathBuf, bool),
    /// Put the training aside.
    PutAside,
    /// Search or train, or go on with it.
    Long(Long),
}

/// The one long job, which waits for everything else.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Long {
    /// Search for a pattern.
    Search(SearchSettings),
    /// Train indexers, or go on with the training that was put aside.
    Train(TrainingSettings, Begin),
}

/// How a training begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Anew,
    Left,
}

/// Which long job a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Search,
    Train,
}

impl Long {
    fn kind(&self) -> Kind {
        match self {
            Self::Search(_) => Kind::Search,
            Self::Train(..) => Kind::Train,
        }
    }
}

/// What the mailbox answers.
#[derive(Debug)]
pub(super) enum Next {
    /// Work, with the token that tells when newer work has replaced it.
    Task(Task, Cancel),
    /// The long job was paused or ended.
    Long(Kind, SearchState),
    /// Nothing but a long job is left; told once, then the mailbox waits or hands it out.
    Idle,
    /// The worker shall end.
    Shutdown,
}

#[derive(Debug, Default)]
struct Slots {
    shutdown: bool,
    evaluate: Option<Pattern>,
    record: bool,
    coverage: Option<Pattern>,
    measure: Option<Pattern>,
    profile: Option<Pattern>,
    affinity: Option<AffinityKind>,
    /// What is judged, one after another: a search's result and what is applied of it.
    validate: Vec<Pattern>,
    speed: Option<Pattern>,
    trained: Option<Pattern>,
    keep: Option<PathBuf>,
    training_at: Option<(PathBuf, bool)>,
    put_aside: bool,
    long: Option<Long>,
    long_paused: bool,
    /// Whether the long job is what the worker is at.
    at_long: bool,
    /// Whether the worker measures trained indexers, which gives way to another pattern.
    at_trained: bool,
    /// A change of the long job that the worker has not been told.
    long_news: Option<(Kind, SearchState)>,
    last_post: Option<Instant>,
    idle_told: bool,
}

/// One slot per kind of work; the newest command of a kind wins.
#[derive(Debug)]
pub(super) struct Mailbox {
    slots: Mutex<Slots>,
    wake: Condvar,
    generation: Generation,
    /// How long no command may come before speed is measured.
    quiet: Duration,
}

impl Mailbox {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { slots: Mutex::default(), wake: Condvar::new(), generation: Generation::default(), quiet }
    }

    /// Takes a command; an evaluation, a stop, putting aside and the end make running work stale.
    pub(super) fn post(&self, command: Command) {
        let mut slots = self.lock();
        slots.last_post = Some(Instant::now());
        slots.idle_told = false;
        match command {
            Command::Record => slots.record = true,
            Command::Measure(pattern) => slots.measure = Some(pattern),
            Command::Profile(pattern) => slots.profile = Some(pattern),
            Command::Affinity(kind) => slots.affinity = Some(kind),
            Command::Validate(pattern) => slots.judge(pattern),
            Command::Evaluate(pattern) => {
                (slots.evaluate, slots.measure, slots.coverage, slots.speed) = (Some(pattern), None, None, None);
                slots.profile = None;
                self.generation.advance();
            }
            Command::EvaluateTrained(pattern) => {
                slots.trained = Some(pattern);
                if std::mem::take(&mut slots.at_trained) {
                    self.generation.advance();
                }
            }
            Command::KeepTrained(path) => slots.keep = Some(path),
            Command::Search(settings) => slots.start(Long::Search(settings)),
            Command::Train(settings) => slots.start(Long::Train(settings, Begin::Anew)),
            Command::TakeUpTraining(settings) => slots.start(Long::Train(settings, Begin::Left)),
            Command::TrainingAt { sidecar, along } => slots.training_at = Some((sidecar, along)),
            Command::PutAside => {
                slots.put_aside = true;
                self.generation.advance();
            }
            Command::PauseSearch => slots.pause(Kind::Search),
            Command::PauseTraining => slots.pause(Kind::Train),
            Command::ResumeSearch => slots.resume(Kind::Search),
            Command::ResumeTraining => slots.resume(Kind::Train),
            Command::StopSearch => slots.end(Kind::Search),
            Command::StopTraining => slots.end(Kind::Train),
            Command::Stop => {
                slots.clear();
                self.generation.advance();
            }
            Command::Shutdown => {
                slots.shutdown = true;
                self.generation.advance();
            }
        }
        // Whatever was asked for, the long job is interrupted for it; if it is to go on, it does so from where it was.
        if std::mem::take(&mut slots.at_long) {
            self.generation.advance();
        }
        self.wake.notify_all();
    }

    /// Queues coverage and speed, each if wanted, after a finished evaluation that no newer work has replaced.
    pub(super) fn follow_up(&self, pattern: Pattern, cancel: &Cancel, coverage: bool, speed: bool) {
        let mut slots = self.lock();
        if !cancel.is_stale() {
            slots.coverage = coverage.then_some(pattern);
            slots.speed = speed.then_some(pattern);
        }
    }

    /// Forgets all work, the long job too.
    pub(super) fn clear(&self) {
        let mut slots = self.lock();
        slots.clear();
        slots.long = None;
    }

    /// Takes away a long job that has ended, unless another one has been asked for.
    pub(super) fn long_ended(&self, long: &Long) {
        let mut slots = self.lock();
        if slots.long.as_ref() == Some(long) {
            slots.long = None;
        }
    }

    /// Takes away the long job in which the worker has panicked.
    pub(super) fn long_crashed(&self) {
        self.lock().long = None;
    }

    /// Puts a recording back that an edit interrupted; a stop keeps it away.
    pub(super) fn resume_record(&self) {
        let mut slots = self.lock();
        if slots.evaluate.is_some() {
            slots.record = true;
        }
    }

    /// Puts a measurement of trained indexers back that an edit interrupted; a newer one or a stop keeps it away.
    pub(super) fn resume_trained(&self, pattern: Pattern) {
        let mut slots = self.lock();
        if slots.evaluate.is_some() {
            slots.trained.get_or_insert(pattern);
        }
    }

    /// Puts a judgement back that an edit interrupted; a stop keeps it away.
    pub(super) fn resume_validation(&self, pattern: Pattern) {
        let mut slots = self.lock();
        if slots.evaluate.is_some() {
            slots.judge(pattern);
        }
    }

    /// Waits for the next piece of work.
    pub(super) fn next(&self) -> Next {
        let mut slots = self.lock();
        (slots.at_long, slots.at_trained) = (false, false);
        loop {
            if slots.shutdown {
                return Next::Shutdown;
            }
            if let Some((kind, state)) = slots.long_news.take() {
                return Next::Long(kind, state);
            }
            if let Some(task) = slots.take() {
                slots.at_trained = matches!(task, Task::EvaluateTrained(_));
                return Next::Task(task, self.generation.advance());
            }
            if let Some(pattern) = slots.speed {
                let left = slots.last_post.map_or(Duration::ZERO, |at| self.quiet.saturating_sub(at.elapsed()));
                if left.is_zero() {
                    slots.speed = None;
                    return Next::Task(Task::Measure(pattern), self.generation.advance());
                }
                slots = self.wake.wait_timeout(slots, left).map_or_else(|e| e.into_inner().0, |(slots, _)| slots);
            } else if slots.idle_told {
                if let Some(long) = slots.long.clone().filter(|_| !slots.long_paused) {
                    slots.at_long = true;
                    return Next::Task(Task::Long(long), self.generation.advance());
                }
                slots = self.wake.wait(slots).unwrap_or_else(PoisonError::into_inner);
            } else {
                slots.idle_told = true;
                return Next::Idle;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Slots are valid after every statement, so that a panic elsewhere spoils nothing.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Queues a judgement, each pattern once.
    fn judge(&mut self, pattern: Pattern) {
        if !self.validate.contains(&pattern) {
            self.validate.push(pattern);
        }
    }

    /// Puts a long job in the place of any other.
    fn start(&mut self, long: Long) {
        if let Some(before) = self.long.take().filter(|before| before.kind() != long.kind()) {
            self.long_news = Some((before.kind(), SearchState::Stopped));
        }
        (self.long, self.long_paused) = (Some(long), false);
    }

    fn is_at(&self, kind: Kind) -> bool {
        self.long.as_ref().is_some_and(|long| long.kind() == kind)
    }

    fn pause(&mut self, kind: Kind) {
        if self.is_at(kind) && !self.long_paused {
            self.long_paused = true;
            self.long_news = Some((kind, SearchState::Paused));
        }
    }

    fn resume(&mut self, kind: Kind) {
        if self.is_at(kind) {
            self.long_paused = false;
        }
    }

    fn end(&mut self, kind: Kind) {
        if self.is_at(kind) {
            self.long = None;
            self.long_news = Some((kind, SearchState::Stopped));
        }
    }

    /// Forgets all work but the long job.
    fn clear(&mut self) {
        (self.trained, self.keep) = (None, None);
        self.validate.clear();
        (self.evaluate, self.record, self.coverage) = (None, false, None);
        (self.measure, self.speed, self.profile, self.affinity) = (None, None, None, None);
    }

    /// Takes the most urgent task that need not wait for quiet.
    fn take(&mut self) -> Option<Task> {
        if std::mem::take(&mut self.put_aside) {
            return Some(Task::PutAside);
        }
        if let Some((sidecar, along)) = self.training_at.take() {
            return Some(Task::TrainingAt(sidecar, along));
        }
        if let Some(pattern) = self.evaluate.take() {
            return Some(Task::Evaluate(pattern));
        }
        if std::mem::take(&mut self.record) {
            return Some(Task::Record);
        }
        if let Some(pattern) = self.coverage.take() {
            return Some(Task::Coverage(pattern));
        }
        if let Some(pattern) = self.measure.take() {
            return Some(Task::Measure(pattern));
        }
        if let Some(path) = self.keep.take() {
            return Some(Task::KeepTrained(path));
        }
        if let Some(pattern) = self.trained.take() {
            return Some(Task::EvaluateTrained(pattern));
        }
        let other = self.profile.take().map(Task::Profile).or_else(|| self.affinity.take().map(Task::Affinity));
        other.or_else(|| (!self.validate.is_empty()).then(|| Task::Validate(self.validate.remove(0))))
    }
}
