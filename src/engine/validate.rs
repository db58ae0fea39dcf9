//! Judging what a search found on text that it never saw.

use super::local::{Judge, LocalBackend};
use super::{Backend, BackendError, Calibration, Cancel};
use crate::domain::{Pattern, Subject, Validation};

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

impl Judge {
    fn measure(
        &mut self,
        backend: &LocalBackend,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Validation, BackendError> {
        let own = match &mut self.backend {
            Some(own) => own,
            // Each pattern is judged once, so that there is nothing to keep states for.
            none => none.insert(Box::new(backend.sparing(self.unseen.clone())?)),
        };
        let evaluation = own.evaluate(Subject::Pattern(pattern), cancel, &mut |partial| {
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
