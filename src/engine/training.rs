//! The worker's training: interrupted for everything else, between layers of a step, put aside now and then, and gone
//! on with afterwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mailbox::Begin;
use super::outbox::{Outbox, PROGRESS_EVERY};
use super::{Backend, BackendError, Cancel, Failure, Job, Training, Update};
use crate::domain::Diagnostic;
use crate::domain::{Evaluation, LeftTraining, Pattern, SearchState, TrainingProgress, TrainingSettings, TrainingStep};
use crate::input;
use crate::train::indexers::state_path;

/// Weight of the newest step in the average that tells the time left.
const NEWEST: f64 = 0.2;
/// Longest time of training that a crash of the worker can cost.
const PUT_ASIDE_EVERY: Duration = Duration::from_secs(20);

/// The last training, complete or not: its indexers can be measured and kept as long as no other one begins.
#[derive(Default)]
pub(super) struct Trained {
    current: Option<Current>,
    /// The sidecar beside which it is put aside; `None` before there is a session.
    sidecar: Option<PathBuf>,
    /// What lies there.
    left: Option<LeftTraining>,
}

struct Current {
    training: Box<dyn Training>,
    progress: TrainingProgress,
    /// Steps done.
    done: u64,
    /// The steps that were done when it was last put aside or kept; nothing is lost up to there.
    safe: u64,
    /// Seconds that a step takes.
    pace: Option<f64>,
}

impl Trained {
    /// Trains until done or interrupted; one that was stopped or is done begins anew, unless what was put aside is meant.
    pub(super) fn run(
        &mut self,
        settings: &TrainingSettings,
        begin: Begin,
        backend: &mut dyn Backend,
        outbox: &Outbox,
        cancel: &Cancel,
    ) -> Result<(), BackendError> {
        let goes_on = |c: &Current| {
            c.progress.settings == *settings && matches!(c.progress.state, SearchState::Running | SearchState::Paused)
        };
        if !self.current.as_ref().is_some_and(goes_on) {
            self.current = Some(match begin {
                Begin::Anew => Current::begin(settings, 0, backend.train(settings, None)?),
                Begin::Left => self.take_up(settings, backend)?,
            });
        }
        // A panic drops it: its weights may be half changed. What was put aside is as it was.
        let Some(mut current) = self.current.take() else { return Ok(()) };
        current.progress.state = SearchState::Running;
        current.tell(outbox);
        let (mut told, mut put_aside) = (None::<Instant>, Instant::now());
        let result = loop {
            match current.step(cancel) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            if put_aside.elapsed() >= PUT_ASIDE_EVERY {
                self.left_or_told(&mut current, outbox);
                put_aside = Instant::now();
            }
            if told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY) {
                told = Some(Instant::now());
                current.tell(outbox);
            }
        };
        match &result {
            Ok(()) => current.progress.state = SearchState::Done,
            Err(BackendError::Cancelled) => {}
            // The weights are those before the step that failed, and can still be kept.
            Err(_) => current.progress.state = SearchState::Stopped,
        }
        if !matches!(result, Err(BackendError::Cancelled)) {
            self.left_or_told(&mut current, outbox);
        }
        current.tell(outbox);
        self.current = Some(current);
        result
    }

    /// Tells that the training was paused or ended; what it has done is put aside.
    pub(super) fn tell(&mut self, state: SearchState, outbox: &Outbox) {
        let Some(mut current) = self.current.take() else { return };
        if current.progress.state != SearchState::Done {
            current.progress.state = state;
            self.left_or_told(&mut current, outbox);
            current.tell(outbox);
        }
        self.current = Some(current);
    }

    /// Measures a pattern with the trained indexers as they are now.
    pub(super) fn evaluate(
        &self,
        pattern: Pattern,
        backend: &mut dyn Backend,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Update, BackendError> {
        let weights = self.current()?.training.weights();
        let (evaluation, coverage) = backend.evaluate_with(&weights, pattern, cancel, partial)?;
        Ok(Update::Trained { evaluation: Box::new(evaluation), coverage, steps: weights.steps })
    }

    /// Writes the indexers as they are now as a sidecar. Where the training is done, nothing else need be put aside.
    pub(super) fn keep(&mut self, path: &Path) -> Result<(), BackendError> {
        self.current()?.training.write(path)?;
        if let Some(current) = self.current.as_mut().filter(|c| c.progress.state == SearchState::Done) {
            let mine = self.left.is_some_and(|left| left.settings == current.progress.settings);
            current.safe = current.done;
            if let Some(sidecar) = self.sidecar.as_ref().filter(|_| mine) {
                remove(sidecar)?;
                self.left = None;
            }
        }
        Ok(())
    }

    /// Puts trainings aside beside `sidecar` from now on.
    ///
    /// The current one comes along, or is put aside where it was and let go.
    pub(super) fn at(&mut self, sidecar: &Path, along: bool, backend: &dyn Backend) -> Result<(), BackendError> {
        if !along {
            self.put_aside()?;
            self.current = None;
        }
        let before = self.sidecar.replace(sidecar.to_owned()).filter(|before| before != sidecar);
        match (&mut self.current, before) {
            (Some(current), Some(before)) => {
                current.training.save(sidecar)?;
                (current.safe, self.left) = (current.done, Some(current.left()));
                remove(&before)?;
            }
            (Some(_), None) => {}
            (None, _) => self.left = backend.left(sidecar)?,
        }
        Ok(())
    }

    /// Saves what has not been saved, beside the sidecar of the session.
    pub(super) fn put_aside(&mut self) -> Result<(), BackendError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let result = self.save(&mut current);
        self.current = Some(current);
        result
    }

    /// Tells what is put aside.
    pub(super) fn tell_left(&self, outbox: &Outbox) {
        outbox.send(Update::Left(self.left));
    }

    fn take_up(&self, settings: &TrainingSettings, backend: &mut dyn Backend) -> Result<Current, BackendError> {
        let left = self.left.filter(|left| left.settings == *settings).zip(self.sidecar.as_ref());
        let Some((left, sidecar)) = left else {
            return Err(BackendError::Failed(Diagnostic {
                message: "no such training was put aside".to_owned(),
                hint: Some("start one".to_owned()),
            }));
        };
        Ok(Current::begin(settings, left.done, backend.train(settings, Some(sidecar))?))
    }

    fn save(&mut self, current: &mut Current) -> Result<(), BackendError> {
        if let Some(sidecar) = self.sidecar.as_ref().filter(|_| current.done > current.safe) {
            current.training.save(sidecar)?;
            (current.safe, self.left) = (current.done, Some(current.left()));
        }
        Ok(())
    }

    /// Puts the training aside and tells what is put aside now; a failure is told, and the training goes on.
    fn left_or_told(&mut self, current: &mut Current, outbox: &Outbox) {
        match self.save(current) {
            Err(BackendError::Failed(diagnostic) | BackendError::OutOfMemory(diagnostic)) => {
                outbox.send(Update::Failed(Failure { job: Job::PutAside, diagnostic }));
            }
            _ => self.tell_left(outbox),
        }
    }

    fn current(&self) -> Result<&Current, BackendError> {
        self.current.as_ref().ok_or_else(|| {
            BackendError::Failed(Diagnostic {
                message: "no indexers have been trained yet".to_owned(),
                hint: Some("start a training first".to_owned()),
            })
        })
    }
}

impl Current {
    fn begin(settings: &TrainingSettings, done: u64, training: Box<dyn Training>) -> Self {
        let layers = (0..settings.pattern.len()).filter(|&l| settings.pattern.is_full(l)).collect();
        let state = SearchState::Running;
        let progress = TrainingProgress { settings: *settings, state, layers, news: training.history(), eta: None };
        Self { training, progress, done, safe: done, pace: None }
    }

    /// Does a step; returns whether there was one left to do.
    fn step(&mut self, cancel: &Cancel) -> Result<bool, BackendError> {
        let began = Instant::now();
        let Some(step) = self.training.step(cancel)? else { return Ok(false) };
        self.took(step, began.elapsed().as_secs_f64());
        Ok(true)
    }

    fn took(&mut self, step: TrainingStep, seconds: f64) {
        let pace = self.pace.map_or(seconds, |pace| pace + NEWEST * (seconds - pace));
        self.pace = Some(pace);
        self.done = step.done;
        self.progress.eta = Some(pace * self.progress.settings.all_steps().saturating_sub(step.done) as f64);
        self.progress.news.push(step);
    }

    fn left(&self) -> LeftTraining {
        LeftTraining { settings: self.progress.settings, done: self.done }
    }

    /// Tells where it stands, and forgets the news.
    fn tell(&mut self, outbox: &Outbox) {
        let news = std::mem::take(&mut self.progress.news);
        outbox.send(Update::Training(Box::new(TrainingProgress { news, ..self.progress.clone() })));
    }
}

/// Removes what was put aside beside a sidecar, if anything was.
fn remove(sidecar: &Path) -> Result<(), BackendError> {
    let state = state_path(sidecar);
    if !state.exists() {
        return Ok(());
    }
    std::fs::remove_file(&state).map_err(|e| {
        BackendError::Failed(Diagnostic {
            message: format!("{} cannot be removed: {e}", state.display()),
            hint: Some(input::hint(&e).to_owned()),
        })
    })
}
