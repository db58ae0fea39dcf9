//! The way from the worker to the dashboard.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::{Job, Progress, Update};

/// Progress is told at most this often.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// Sends updates, progress not too often. A receiver that has gone is no error: the handle goes with it.
pub(super) struct Outbox {
    sender: Sender<Update>,
    last: Option<(Job, Instant)>,
}

impl Outbox {
    pub(super) fn new(sender: Sender<Update>) -> Self {
        Self { sender, last: None }
    }

    pub(super) fn send(&self, update: Update) {
        let _ = self.sender.send(update);
    }

    /// Tells how far a job has come, and what is left at the pace since `started`.
    pub(super) fn progress(&mut self, job: Job, share: f64, started: Instant) {
        let now = Instant::now();
        if self.last.is_some_and(|(last, at)| last == job && now - at < PROGRESS_EVERY) {
            return;
        }
        self.last = Some((job, now));
        let eta = (share > 0.0).then(|| started.elapsed().as_secs_f64() * (1.0 - share) / share);
        self.send(Update::Progress(Progress { job, share, eta }));
    }
}
