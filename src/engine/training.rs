//! The worker's training: interrupted for everything else, between layers of a step, and gone on with afterwards.

use std::path::Path;
use std::time::Instant;

use super::outbox::{Outbox, PROGRESS_EVERY};
use super::{Backend, BackendError, Cancel, Training, Update};
use crate::domain::{Evaluation, Pattern, SearchState, TrainingProgress, TrainingSettings, TrainingStep};

/// Weight of the newest step in the average that tells the time left.
const NEWEST: f64 = 0.2;

/// The last training, complete or not: its indexers can be measured and kept as long as no other one begins.
#[derive(Default)]
pub(super) struct Trained(Option<Current>);

struct Current {
    training: Box<dyn Training>,
    progress: TrainingProgress,
    /// Seconds that a step takes.
    pace: Option<f64>,
}

impl Trained {
    /// Trains until done or interrupted; one that was stopped or is done begins anew.
    pub(super) fn run(
        &mut self,
        settings: &TrainingSettings,
        backend: &mut dyn Backend,
        outbox: &Outbox,
        cancel: &Cancel,
    ) -> Result<(), BackendError> {
        let goes_on = |c: &Current| {
            c.progress.settings == *settings && matches!(c.progress.state, SearchState::Running | SearchState::Paused)
        };
        if !self.0.as_ref().is_some_and(goes_on) {
            self.0 = Some(Current::begin(settings, backend)?);
        }
        // A panic drops it: its weights may be half changed.
        let Some(mut current) = self.0.take() else { return Ok(()) };
        let result = current.run(outbox, cancel);
        self.0 = Some(current);
        result
    }

    /// Tells that the training was paused or ended.
    pub(super) fn tell(&mut self, state: SearchState, outbox: &Outbox) {
        if let Some(current) = self.0.as_mut().filter(|c| c.progress.state != SearchState::Done) {
            current.progress.state = state;
            current.tell(outbox);
        }
    }

    /// Measures a pattern with the trained indexers as they are now; returns the steps that they have seen, too.
    pub(super) fn evaluate(
        &self,
        pattern: Pattern,
        backend: &mut dyn Backend,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, u64), BackendError> {
        let current = self.current()?;
        let weights = current.training.weights();
        Ok((backend.evaluate_with(&weights, pattern, cancel, partial)?, weights.steps))
    }

    /// Writes the indexers as they are now as a sidecar.
    pub(super) fn keep(&self, path: &Path) -> Result<(), BackendError> {
        self.current()?.training.write(path)
    }

    fn current(&self) -> Result<&Current, BackendError> {
        self.0.as_ref().ok_or_else(|| BackendError::Failed {
            message: "no indexers have been trained yet".to_owned(),
            hint: Some("start a training first".to_owned()),
        })
    }
}

impl Current {
    fn begin(settings: &TrainingSettings, backend: &mut dyn Backend) -> Result<Self, BackendError> {
        let training = backend.train(settings)?;
        let layers = (0..settings.pattern.len()).filter(|&l| settings.pattern.is_full(l)).collect();
        let state = SearchState::Running;
        let progress = TrainingProgress { settings: *settings, state, layers, news: Vec::new(), eta: None };
        Ok(Self { training, progress, pace: None })
    }

    fn run(&mut self, outbox: &Outbox, cancel: &Cancel) -> Result<(), BackendError> {
        self.progress.state = SearchState::Running;
        self.tell(outbox);
        let mut last: Option<Instant> = None;
        loop {
            let began = Instant::now();
            match self.training.step(cancel) {
                Ok(Some(step)) => self.took(step, began.elapsed().as_secs_f64()),
                Ok(None) => {
                    self.progress.state = SearchState::Done;
                    self.tell(outbox);
                    return Ok(());
                }
                Err(error) => {
                    if !matches!(error, BackendError::Cancelled) {
                        // The weights are those before the step that failed, and can still be kept.
                        self.progress.state = SearchState::Stopped;
                    }
                    self.tell(outbox);
                    return Err(error);
                }
            }
            if last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
                last = Some(Instant::now());
                self.tell(outbox);
            }
        }
    }

    fn took(&mut self, step: TrainingStep, seconds: f64) {
        let pace = self.pace.map_or(seconds, |pace| pace + NEWEST * (seconds - pace));
        self.pace = Some(pace);
        self.progress.eta = Some(pace * self.progress.settings.all_steps().saturating_sub(step.done) as f64);
        self.progress.news.push(step);
    }

    /// Tells where it stands, and forgets the news.
    fn tell(&mut self, outbox: &Outbox) {
        let news = std::mem::take(&mut self.progress.news);
        outbox.send(Update::Training(Box::new(TrainingProgress { news, ..self.progress.clone() })));
    }
}
