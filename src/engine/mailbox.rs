//! Slots, not a queue: what the worker has still to do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{AffinityKind, Cancel, Command, Generation};
use crate::domain::{Pattern, SearchSettings, SearchState};

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
    /// Search, or go on with it.
    Search(SearchSettings),
}

/// What the mailbox answers.
#[derive(Debug)]
pub(super) enum Next {
    /// Work, with the token that tells when newer work has replaced it.
    Task(Task, Cancel),
    /// The search was paused or ended.
    Search(SearchState),
    /// Nothing but a search is left; told once, then the mailbox waits or hands out the search.
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
    search: Option<SearchSettings>,
    search_paused: bool,
    /// Whether the search is what the worker is at.
    searching: bool,
    /// A change of the search that the worker has not been told.
    search_news: Option<SearchState>,
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

    /// Takes a command; an evaluation, a stop and the end make running work stale.
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
            Command::Search(settings) => (slots.search, slots.search_paused) = (Some(settings), false),
            Command::PauseSearch if slots.search.is_some() && !slots.search_paused => {
                slots.search_paused = true;
                slots.search_news = Some(SearchState::Paused);
            }
            Command::ResumeSearch => slots.search_paused = false,
            Command::StopSearch if slots.search.take().is_some() => slots.search_news = Some(SearchState::Stopped),
            Command::PauseSearch | Command::StopSearch => {}
            Command::Stop => {
                slots.clear();
                self.generation.advance();
            }
            Command::Shutdown => {
                slots.shutdown = true;
                self.generation.advance();
            }
        }
        // Whatever was asked for, a search is interrupted for it; if it is to go on, it does so from what it measured.
        if std::mem::take(&mut slots.searching) {
            self.generation.advance();
        }
        self.wake.notify_all();
    }

    /// Queues coverage, and speed if wanted, after a finished evaluation that no newer work has replaced.
    pub(super) fn follow_up(&self, pattern: Pattern, cancel: &Cancel, speed: bool) {
        let mut slots = self.lock();
        if !cancel.is_stale() {
            slots.coverage = Some(pattern);
            slots.speed = speed.then_some(pattern);
        }
    }

    /// Forgets all work, the search too.
    pub(super) fn clear(&self) {
        let mut slots = self.lock();
        slots.clear();
        slots.search = None;
    }

    /// Takes away a search that has ended, unless another one has been asked for.
    pub(super) fn search_ended(&self, settings: &SearchSettings) {
        let mut slots = self.lock();
        if slots.search.as_ref() == Some(settings) {
            slots.search = None;
        }
    }

    /// Puts a recording back that an edit interrupted; a stop keeps it away.
    pub(super) fn resume_record(&self) {
        let mut slots = self.lock();
        if slots.evaluate.is_some() {
            slots.record = true;
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
        slots.searching = false;
        loop {
            if slots.shutdown {
                return Next::Shutdown;
            }
            if let Some(state) = slots.search_news.take() {
                return Next::Search(state);
            }
            if let Some(task) = slots.take() {
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
                if let Some(settings) = slots.search.clone().filter(|_| !slots.search_paused) {
                    slots.searching = true;
                    return Next::Task(Task::Search(settings), self.generation.advance());
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

    /// Forgets all work but the search.
    fn clear(&mut self) {
        self.validate.clear();
        (self.evaluate, self.record, self.coverage) = (None, false, None);
        (self.measure, self.speed, self.profile, self.affinity) = (None, None, None, None);
    }

    /// Takes the most urgent task that need not wait for quiet.
    fn take(&mut self) -> Option<Task> {
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
        let other = self.profile.take().map(Task::Profile).or_else(|| self.affinity.take().map(Task::Affinity));
        other.or_else(|| (!self.validate.is_empty()).then(|| Task::Validate(self.validate.remove(0))))
    }
}
