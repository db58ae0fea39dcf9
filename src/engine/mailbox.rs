//! Slots, not a queue: what the worker has still to do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Cancel, Command, Generation};
use crate::domain::Pattern;

/// What the worker does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Task {
    /// Measure loss; coverage and speed follow.
    Evaluate(Pattern),
    /// Record index sets.
    Record,
    /// Run the indexers of Shared layers in shadow.
    Coverage(Pattern),
    /// Time.
    Measure(Pattern),
}

/// What the mailbox answers.
#[derive(Debug)]
pub(super) enum Next {
    /// Work, with the token that tells when newer work has replaced it.
    Task(Task, Cancel),
    /// Nothing is left; told once, then the mailbox waits.
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
    speed: Option<Pattern>,
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
            Command::Evaluate(pattern) => {
                *slots = Slots { evaluate: Some(pattern), measure: None, coverage: None, speed: None, ..*slots };
                self.generation.advance();
            }
            Command::Stop => {
                slots.clear();
                self.generation.advance();
            }
            Command::Shutdown => {
                slots.shutdown = true;
                self.generation.advance();
            }
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

    /// Forgets all work.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Puts a recording back that an edit interrupted; a stop keeps it away.
    pub(super) fn resume_record(&self) {
        let mut slots = self.lock();
        if slots.evaluate.is_some() {
            slots.record = true;
        }
    }

    /// Waits for the next piece of work.
    pub(super) fn next(&self) -> Next {
        let mut slots = self.lock();
        loop {
            if slots.shutdown {
                return Next::Shutdown;
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
    fn clear(&mut self) {
        *self = Self { shutdown: self.shutdown, last_post: self.last_post, ..Self::default() };
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
        self.measure.take().map(Task::Measure)
    }
}
