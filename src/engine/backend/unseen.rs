//! The text that no search sees.

use crate::engine::Calibration;

/// The text, and the backend that measures on it once it is asked for.
#[derive(Debug)]
pub(super) struct UnseenText<B> {
    text: Calibration,
    backend: Option<Box<B>>,
}

impl<B> UnseenText<B> {
    /// Keeps a text for validation.
    pub(super) fn new(text: Calibration) -> Self {
        Self { text, backend: None }
    }

    /// Returns the text as long as no backend was made for it.
    pub(super) fn missing(&self) -> Option<Calibration> {
        self.backend.is_none().then(|| self.text.clone())
    }

    /// Keeps the backend that was made for it.
    pub(super) fn made(&mut self, backend: B) {
        self.backend = Some(Box::new(backend));
    }

    /// Returns the backend, once it was made.
    pub(super) fn backend(&mut self) -> Option<&mut B> {
        self.backend.as_deref_mut()
    }
}
