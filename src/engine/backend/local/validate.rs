//! Judging what a search found on text that it never saw.

use super::{Judge, LocalBackend};
use crate::domain::{Confirmation, Pattern, Subject, Validation};
use crate::engine::Evaluator;
use crate::engine::{Backend, BackendError, Calibration, Cancel};
use crate::search::{self, Budget};

impl LocalBackend {
    /// Returns the backend with text to judge patterns on; `None` leaves it without.
    #[must_use]
    pub fn judged_on(mut self, unseen: Option<Calibration>) -> Self {
        self.judge = unseen.map(|unseen| Judge { unseen, backend: None });
        self
    }
}

/// Measures a pattern on the text that no search sees; `None` where there is none.
pub(super) fn validate(
    backend: &mut LocalBackend,
    pattern: Pattern,
    cancel: &Cancel,
    progress: &mut dyn FnMut(f64),
) -> Result<Option<Validation>, BackendError> {
    let Some(mut judge) = backend.judge.take() else { return Ok(None) };
    let result = judge.measure(backend, pattern, cancel, progress);
    backend.judge = Some(judge);
    result.map(Some)
}

/// Tests the patterns of a search against its budget on the text that no search sees; `None` where there is none.
pub(super) fn confirm(
    backend: &mut LocalBackend,
    chain: &[Pattern],
    budget: Budget,
    cancel: &Cancel,
    progress: &mut dyn FnMut(f64),
) -> Result<Option<Confirmation>, BackendError> {
    let Some(mut judge) = backend.judge.take() else { return Ok(None) };
    let result = judge.own(backend).and_then(|own| {
        let mut evaluator = Evaluator::new(own, cancel);
        Ok(search::confirm(chain, budget, &mut evaluator, &mut |done, all| progress(done as f64 / all.max(1) as f64))?)
    });
    backend.judge = Some(judge);
    result.map(Some)
}

impl Judge {
    /// Returns the backend on the unseen text.
    fn own(&mut self, backend: &LocalBackend) -> Result<&mut LocalBackend, BackendError> {
        Ok(match &mut self.backend {
            Some(own) => own,
            // Each pattern is judged once, so that there is nothing to keep states for.
            none => none.insert(Box::new(backend.sparing(self.unseen.clone())?)),
        })
    }

    fn measure(
        &mut self,
        backend: &LocalBackend,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Validation, BackendError> {
        let evaluation = self.own(backend)?.evaluate(Subject::Pattern(pattern), cancel, &mut |partial| {
            let (done, all) = partial.sequences;
            progress(done as f64 / all.max(1) as f64);
        })?;
        Ok(Validation {
            loss: evaluation.loss,
            delta: evaluation.delta,
            sequences: self.unseen.sequences().len(),
            data: self.unseen.data().to_owned(),
        })
    }
}
