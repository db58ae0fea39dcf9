//! What a layer is asked to do, and what it gives.

use candle_core::Tensor;

use super::cache::LayerCache;
use super::clock::PhaseTimes;
use super::ops::{Indices, Stop};
use super::{ModelError, Result};

/// Where a layer's indices come from.
#[derive(Clone, Copy, Debug)]
pub enum Attend<'a> {
    /// No selection: every visible key takes part.
    Dense,
    /// The layer runs its own indexer (Full).
    Own,
    /// The layer uses these indices (Shared).
    Given(&'a Indices),
}

impl<'a> Attend<'a> {
    /// Attends to these keys; to every visible one for `None`.
    pub fn to(indices: Option<&'a Indices>) -> Self {
        indices.map_or(Self::Dense, Self::Given)
    }
}

/// Which form of attention over a selection runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ops {
    /// Every visible key is scored and the others masked; differentiable, and the oracle for the other form.
    #[default]
    Reference,
    /// Only the selected keys are read; no gradient. What a device has no kernel for runs in
    /// the reference form ([`super::ops::fast_parts`]).
    Fast,
}

impl std::fmt::Display for Ops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Fast => "fast",
        })
    }
}

/// What one layer is asked to do.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Where the indices come from.
    pub attend: Attend<'a>,
    /// Which form of attention runs.
    pub ops: Ops,
    /// Also return the indexer's scores `[B, T, T]`, differentiable.
    pub want_scores: bool,
    /// Also return the head-averaged attention `[B, T, T]`, detached.
    pub want_probs: bool,
    /// Also run the layer's own indexer where its indices are given.
    pub shadow: bool,
    /// Keys of earlier tokens, to which those of this call are added; of as many sequences as the call has.
    pub cache: Option<&'a mut LayerCache>,
    /// Where to add the time spent.
    pub times: Option<&'a mut PhaseTimes>,
    /// When to give up.
    pub stop: Stop<'a>,
}

impl<'a> Pass<'a> {
    /// Returns a pass that asks for nothing but the layer's output.
    pub fn new(attend: Attend<'a>) -> Self {
        Self {
            attend,
            ops: Ops::Reference,
            want_scores: false,
            want_probs: false,
            shadow: false,
            cache: None,
            times: None,
            stop: Stop::NEVER,
        }
    }

    /// Ends the forward if nobody waits for it any more.
    pub(super) fn check(&self) -> Result<()> {
        if self.stop.asked() { Err(ModelError::Stopped) } else { Ok(()) }
    }
}

/// What one layer gives.
#[derive(Clone, Debug)]
pub struct LayerOutput {
    /// The residual stream after the layer, `[B, T, hidden]`.
    pub hidden: Tensor,
    /// The indices used; `None` for dense attention.
    pub indices: Option<Indices>,
    /// The layer's own indices where others were used ([`Pass::shadow`]).
    pub own: Option<Indices>,
    /// The indexer's scores ([`Pass::want_scores`]).
    pub scores: Option<Tensor>,
    /// Head-averaged attention ([`Pass::want_probs`]).
    pub probs: Option<Tensor>,
    /// Tokens per expert of a sparse layer; `None` also where experts were chosen on a device and nobody looked.
    pub expert_load: Option<Vec<u32>>,
}
