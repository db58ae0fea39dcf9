//! How a newer request makes an older one stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts requests; a request is stale as soon as a newer one exists.
#[derive(Clone, Debug, Default)]
pub struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Starts a new generation, which makes every earlier [`Cancel`] stale.
    pub fn advance(&self) -> Cancel {
        let mine = self.0.fetch_add(1, Ordering::AcqRel) + 1;
        Cancel { counter: self.0.clone(), mine }
    }
}

/// Tells one piece of work whether it is still wanted; asked between layers and between chunks.
#[derive(Clone, Debug)]
pub struct Cancel {
    counter: Arc<AtomicU64>,
    mine: u64,
}

impl Cancel {
    /// Returns a token that never becomes stale, for work without a dashboard.
    pub fn never() -> Self {
        Generation::default().advance()
    }

    /// Makes the work itself stale: it has found that it cannot go on.
    pub fn cancel(&self) {
        self.counter.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns whether newer work has replaced this.
    pub fn is_stale(&self) -> bool {
        self.counter.load(Ordering::Acquire) != self.mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_request_makes_the_older_stale() {
        let generation = Generation::default();
        let first = generation.advance();
        assert!(!first.is_stale());
        let second = generation.advance();
        assert!(first.is_stale() && !second.is_stale());
        assert!(!Cancel::never().is_stale());
        second.clone().cancel();
        assert!(second.is_stale());
    }
}
