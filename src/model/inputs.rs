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
    /// Those of layers that compress their keys, where the family rotates them otherwise.
    pub compressed: Option<Rotary>,
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
        let compressed = config.deepseek_v4.as_ref();
        Ok(Self {
            ids: ids.concat().into(),
            rotary: rope::tables(&config.rope, config.qk_rope_head_dim, positions.clone(), device)?,
            compressed: compressed
                .map(|v4| rope::tables(&v4.compress_rope, config.qk_rope_head_dim, positions, device))
                .transpose()?,
        })
    }
}
