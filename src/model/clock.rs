//! Where the time of a forward goes.

use std::time::{Duration, Instant};

use candle_core::Device;

use super::Result;

/// Time spent per phase of a forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    /// Projections and scores of the lightning indexer.
    pub indexer: Duration,
    /// Selection of the top k.
    pub topk: Duration,
    /// Attention with its projections.
    pub attention: Duration,
    /// Dense and expert MLPs.
    pub mlp: Duration,
    /// Norms, residuals, embedding, head.
    pub rest: Duration,
}

impl PhaseTimes {
    /// Returns the time of all phases.
    pub fn total(&self) -> Duration {
        self.indexer + self.topk + self.attention + self.mlp + self.rest
    }
}

impl std::ops::AddAssign for PhaseTimes {
    fn add_assign(&mut self, other: Self) {
        self.indexer += other.indexer;
        self.topk += other.topk;
        self.attention += other.attention;
        self.mlp += other.mlp;
        self.rest += other.rest;
    }
}

/// A stopwatch that costs nothing when nobody asked for times.
pub(super) struct Clock<'a> {
    times: Option<(&'a mut PhaseTimes, Instant)>,
    device: &'a Device,
}

impl<'a> Clock<'a> {
    pub(super) fn new(times: Option<&'a mut PhaseTimes>, device: &'a Device) -> Self {
        Self { times: times.map(|t| (t, Instant::now())), device }
    }

    /// Returns whether somebody asked for times.
    pub(super) fn runs(&self) -> bool {
        self.times.is_some()
    }

    /// Adds the time since the last lap to a phase.
    pub(super) fn lap(&mut self, phase: impl FnOnce(&mut PhaseTimes) -> &mut Duration) -> Result<()> {
        if let Some((times, since)) = &mut self.times {
            self.device.synchronize()?;
            let now = Instant::now();
            *phase(times) += now - *since;
            *since = now;
        }
        Ok(())
    }

    /// Books a lap that was measured from inside.
    pub(super) fn split(&mut self, indexer: Duration, topk: Duration) {
        if let Some((times, since)) = &mut self.times {
            times.indexer += indexer;
            times.topk += topk;
            *since = Instant::now();
        }
    }
}
