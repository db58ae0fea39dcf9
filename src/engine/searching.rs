//! The worker's search: interrupted for everything else, and each time run again over what it has measured.

use std::time::Instant;

use super::Evaluator;
use super::outbox::{Outbox, PROGRESS_EVERY};
use super::{Backend, BackendError, Cancel, Job, Update};
use crate::domain::{Goal, SearchProgress, SearchSettings, SearchState};
use crate::search::{Budget, Ledger, Measured, Space, Watch, search};

/// What was measured for searches so far, and where the last one stands.
#[derive(Debug, Default)]
pub(super) struct Searching {
    measured: Vec<Measured>,
    progress: Option<SearchProgress>,
}

impl Searching {
    /// Searches until done or interrupted.
    pub(super) fn run(
        &mut self,
        settings: &SearchSettings,
        backend: &mut dyn Backend,
        outbox: &mut Outbox,
        cancel: &Cancel,
    ) -> Result<(), BackendError> {
        let space = Space::new(&backend.describe().constraints, settings)?;
        let calibration = backend.describe().calibration.clone();
        let parts: Vec<usize> = (0..backend.layout().parts.len()).collect();
        let mut evaluator = Evaluator::new(backend, cancel);
        let known = self.measured.clone();
        let mut teller = Teller { searching: self, calibration: &calibration, outbox: &*outbox, last: None };
        let mut ledger = Ledger::new(&mut evaluator, &parts, settings, space.start, known, &mut teller);
        let mut record = search(&space, settings, &mut ledger)?;
        let Goal::MaxDelta(most) = settings.goal else { return Ok(()) };
        let budget = Budget { most, strict: settings.strict, seed: settings.seed };
        let started = Instant::now();
        let mut share = |share| outbox.progress(Job::Validate, share, started);
        if let Some(confirmation) = backend.confirm(&record.chain(), budget, cancel, &mut share)? {
            record.confirmed_by(confirmation);
        }
        if let Some(progress) = &mut self.progress {
            record.calibration.clone_from(&progress.record.calibration);
            progress.record = record;
            outbox.send(Update::Search(Box::new(progress.clone())));
        }
        Ok(())
    }

    /// Tells that the search was paused or ended.
    pub(super) fn tell(&mut self, state: SearchState, outbox: &Outbox) {
        if let Some(progress) = &mut self.progress
            && progress.record.state != SearchState::Done
        {
            progress.record.state = state;
            outbox.send(Update::Search(Box::new(progress.clone())));
        }
    }
}

/// Keeps what is measured and sends where the search stands, not too often.
struct Teller<'a> {
    searching: &'a mut Searching,
    calibration: &'a str,
    outbox: &'a Outbox,
    last: Option<Instant>,
}

impl Watch for Teller<'_> {
    fn measured(&mut self, measured: &Measured) {
        self.searching.measured.push(measured.clone());
    }

    fn progress(&mut self, progress: &SearchProgress) {
        let now = Instant::now();
        let before = self.searching.progress.as_ref().filter(|b| b.record.settings == progress.record.settings);
        // What an interrupted search comes past again has been told.
        if before.is_some_and(|b| b.record.work.evaluations > progress.record.work.evaluations) {
            return;
        }
        let mut progress = progress.clone();
        self.calibration.clone_into(&mut progress.record.calibration);
        // With a budget it is done once that was tested.
        if matches!(progress.record.settings.goal, Goal::MaxDelta(_)) && progress.record.state == SearchState::Done {
            progress.record.state = SearchState::Running;
        }
        let news = before.is_none_or(|b| b.steps != progress.steps || b.record.state != progress.record.state);
        self.searching.progress = Some(progress.clone());
        if news || self.last.is_none_or(|last| now - last >= PROGRESS_EVERY) {
            self.last = Some(now);
            self.outbox.send(Update::Search(Box::new(progress)));
        }
    }
}
