//! What every layer is given besides the residual stream.

use std::sync::Arc;

use candle_core::Device;

use super::ops::Rotary;
use super::{Result, rope};
use crate::checkpoint::Config;

/// The tokens of one forward and the tables of their positions.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Token ids, sequence after sequence; some families choose experts by them.
    pub ids: Arc<[u32]>,
    /// Cosines and sines of attention and indexer.
    pub rotary: Rotary,
}

impl Inputs {
    /// Returns the inputs of other sequences at the same positions.
    pub fn with(&self, ids: &[Vec<u32>]) -> Self {
        Self { ids: ids.concat().into(), ..self.clone() }
    }

    /// Returns the inputs of sequences of one length, whose first token is at position `start`.
    ///
    /// # Errors
    /// Where the device has no room.
    pub(super) fn new(config: &Config, ids: &[Vec<u32>], start: usize, device: &Device) -> Result<Self> {
        let positions = start..start + ids.first().map_or(0, Vec::len);
        Ok(Self {
            ids: ids.concat().into(),
            rotary: rope::tables(&config.rope, config.qk_rope_head_dim, positions, device)?,
        })
    }
}
