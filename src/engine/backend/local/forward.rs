//! Forwards of batches under a pattern, resumed at the first layer that differs from an earlier one.

use candle_core::{Device, Tensor};

use super::states::States;
use crate::domain::{Diagnostic, Pattern, Subject};
use crate::engine::Calibration;
use crate::engine::{BackendError, Cancel};
use crate::model::{
    At, Entry, Forward, Inputs, Model, ModelError, Ops, Order, Ran, Route, Stop, Visitor, Walk, Weights,
};

/// Tokens per batch on the CPU: enough for the matrix products, few enough that numbers come early.
const CPU_BATCH_TOKENS: usize = 1024;
/// Tokens per batch on an accelerator.
const GPU_BATCH_TOKENS: usize = 8192;

/// Consecutive sequences of one length.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Index of the first sequence.
    pub first: usize,
    /// Their ids.
    pub ids: Vec<Vec<u32>>,
    /// The same, and the tables of their positions.
    pub inputs: Inputs,
}

impl Batch {
    /// Cuts a calibration set into batches of sequences of one length; `inputs` makes what their layers are given.
    pub(super) fn cut(
        calibration: &Calibration,
        device: &Device,
        inputs: impl Fn(&[Vec<u32>]) -> Result<Inputs, ModelError>,
    ) -> Result<Vec<Self>, ModelError> {
        let tokens = if device.is_cpu() { CPU_BATCH_TOKENS } else { GPU_BATCH_TOKENS };
        let mut cut: Vec<(usize, Vec<Vec<u32>>)> = Vec::new();
        for (index, sequence) in calibration.sequences().iter().enumerate() {
            let len = sequence.ids.len();
            match cut.last_mut() {
                Some((_, ids)) if ids[0].len() == len && (ids.len() + 1) * len <= tokens => {
                    ids.push(sequence.ids.clone());
                }
                _ => cut.push((index, vec![sequence.ids.clone()])),
            }
        }
        let mut batches: Vec<Self> = Vec::with_capacity(cut.len());
        for (first, ids) in cut {
            // Batches of one length have the same tables.
            let inputs = match batches.last() {
                Some(last) if last.ids[0].len() == ids[0].len() => last.inputs.with(&ids),
                _ => inputs(&ids)?,
            };
            batches.push(Self { first, ids, inputs });
        }
        Ok(batches)
    }
}

/// The end of a forward.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The residual stream after the last layer, `[B, T, hidden]`.
    pub hidden: Tensor,
    /// The first layer that was run.
    pub resumed_from: usize,
}

/// How a forward is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Also run the indexers of Shared layers.
    pub shadow: bool,
    /// Resume at this layer at the latest, so that it and all later ones are visited.
    pub from: usize,
}

impl How {
    /// Runs as little as possible.
    pub(super) const RESUMED: Self = Self { shadow: false, from: usize::MAX };
    /// Runs and visits every layer.
    pub(super) const FRESH: Self = Self { shadow: false, from: 0 };
}

/// A model with its batches and the states kept between forwards.
#[derive(Debug)]
pub(super) struct Runner {
    pub model: Model,
    pub batches: Vec<Batch>,
    ops: Ops,
    states: States,
}

impl Runner {
    pub(super) fn new(
        model: Model,
        calibration: &Calibration,
        ops: Ops,
        cache_bytes: usize,
        reference: Pattern,
    ) -> Result<Self, BackendError> {
        let batches = Batch::cut(calibration, model.device(), |ids| model.inputs(ids, 0))?;
        let states = States::new(cache_bytes, model.config().sites(), reference);
        Ok(Self { model, batches, ops, states })
    }

    /// Runs one batch from the latest state that is kept for the subject; `visitor` sees the layers that run.
    pub(super) fn forward(
        &mut self,
        batch: usize,
        subject: Subject,
        how: How,
        cancel: &Cancel,
        visitor: &mut dyn Visitor<BackendError>,
    ) -> Result<Forwarded, BackendError> {
        let Batch { ids, inputs, .. } = &self.batches[batch];
        let pattern = if let Subject::Pattern(pattern) = subject { Some(pattern) } else { None };
        let start = match pattern.and_then(|pattern| self.states.longest(batch, pattern, how.from)) {
            Some(start) => start,
            None => (0, Entry::first(self.model.embed(ids)?)),
        };
        let resumed_from = start.0;
        let (subjects, stale) = ([subject], || cancel.is_stale());
        let walk = Walk { shadow: how.shadow, stop: Stop::when(&stale), ..Walk::new(&subjects, self.ops) };
        let mut forward = Forward::new(batch, inputs, 1, start);
        let layers = self.model.config().num_hidden_layers;
        let mut keep = Keep { states: &mut self.states, pattern, layers, visitor };
        walk.run(Weights::Resident(&self.model), Order::Sequences, std::slice::from_mut(&mut forward), &mut keep)?;
        Ok(Forwarded { hidden: forward.into_hidden()?, resumed_from })
    }
}

/// Keeps the states between layers for later forwards.
struct Keep<'a> {
    states: &'a mut States,
    /// Under what; nothing is kept of controls.
    pattern: Option<Pattern>,
    layers: usize,
    visitor: &'a mut dyn Visitor<BackendError>,
}

impl Visitor<BackendError> for Keep<'_> {
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, BackendError> {
        self.visitor.enter(at, route)
    }

    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), BackendError> {
        self.visitor.ran(at, ran)?;
        if let Some(pattern) = self.pattern
            && at.layer + 1 < self.layers
        {
            self.states.insert(at.batch, at.layer + 1, pattern, at.entry.after(&ran.output));
        }
        Ok(())
    }
}

impl From<ModelError> for BackendError {
    fn from(error: ModelError) -> Self {
        if matches!(error, ModelError::Stopped) {
            return Self::Cancelled;
        }
        let diagnostic = Diagnostic { message: error.to_string(), hint: error.hint() };
        if matches!(error, ModelError::OutOfMemory(_)) {
            Self::OutOfMemory(diagnostic)
        } else {
            Self::Failed(diagnostic)
        }
    }
}

impl From<candle_core::Error> for BackendError {
    fn from(error: candle_core::Error) -> Self {
        ModelError::from(error).into()
    }
}
