//! How a forward that nobody waits for any more ends early.

use std::fmt;

/// Asks whether work is still wanted; ops ask it between blocks of rows, layers between ops.
///
/// Once it says so it must keep saying so: an op that was told to stop leaves the rest of its output unfinished, and
/// its caller asks again before using any of it.
#[derive(Clone, Copy, Default)]
pub struct Stop<'a>(Option<&'a (dyn Fn() -> bool + Sync)>);

impl<'a> Stop<'a> {
    /// Never stops.
    pub const NEVER: Self = Self(None);

    /// Stops as soon as `asked` returns true.
    pub fn when(asked: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self(Some(asked))
    }

    /// Returns whether there is anybody who might stop the work.
    pub fn listens(self) -> bool {
        self.0.is_some()
    }

    /// Returns whether the work is to stop.
    pub fn asked(self) -> bool {
        self.0.is_some_and(|asked| asked())
    }
}

impl fmt::Debug for Stop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Stop::when(…)" } else { "Stop::NEVER" })
    }
}
