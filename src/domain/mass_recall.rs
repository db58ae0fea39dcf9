//! Mass recall: how much of a layer's attention a borrowed set keeps.

use serde::{Deserialize, Serialize};

use super::Estimate;

/// How much of each layer's attention the sets of earlier layers keep, relative to the layer's own set.
///
/// Attention is dense and averaged over heads: p_j(q). Entry (i, j), i ≤ j, is the mean over sampled queries of
/// Σ_{S_i(q)} p_j(q) / Σ_{S_j(q)} p_j(q), where S_i is the set that layer i used in the recording. It may exceed 1. There
/// is no entry for i > j: a layer cannot borrow from a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassRecall {
    /// Number of layers.
    pub layers: usize,
    /// Queries drawn per sequence, among those that see more than k keys.
    pub per_sequence: usize,
    /// The seed of the draw.
    pub seed: u64,
    /// Queries drawn in all.
    pub queries: usize,
    /// Means, row-major `[layers, layers]`; `None` where i > j, or no query was drawn.
    pub values: Vec<Option<f64>>,
    /// Their standard errors over blocks of 128 consecutive drawn queries of a sequence; `None` below eight blocks.
    pub se: Vec<Option<f64>>,
    /// Σ_{S_j(q)} p_j(q) per layer: the share of its dense attention that a layer's own set keeps.
    pub own: Vec<Option<Estimate>>,
    /// What sets drawn at random would reach, the mean over layers and queries of (k / visible keys) / own share.
    pub chance: Option<f64>,
}

impl MassRecall {
    /// Returns what layer `borrower` keeps with the set of `source`; `None` where that is not measured.
    pub fn get(&self, source: usize, borrower: usize) -> Option<Estimate> {
        if source >= self.layers || borrower >= self.layers {
            return None;
        }
        let at = source * self.layers + borrower;
        let value = *self.values.get(at)?;
        Some(Estimate { value: value?, se: *self.se.get(at)?, n: self.queries })
    }
}
