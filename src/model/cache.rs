//! What decode keeps of the tokens seen so far: per layer the latent and the rotary key, or keys and values of GQA, and
//! for Full layers with an indexer the index key.

use candle_core::{DType, Device, Tensor};

use super::{ModelError, Result};
use crate::checkpoint::{Attention, Config, MiniMaxM3};

/// One growing buffer `[B, capacity, width]`, of which the first `len` rows are in use; the width may be 0.
#[derive(Clone, Debug)]
struct Rows {
    buffer: Tensor,
    len: usize,
}

impl Rows {
    fn new(capacity: usize, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        // Nothing at all cannot be allocated on every device.
        let buffer = Tensor::zeros((1, capacity, width.max(1)), dtype, device)?.narrow(2, 0, width)?;
        Ok(Self { buffer, len: 0 })
    }

    /// Returns the rows in use `batch` times over, with another capacity; of one sequence only.
    fn repeated(&self, batch: usize, capacity: usize) -> Result<Self> {
        let used = self.buffer.narrow(1, 0, self.len)?;
        let width = used.dim(2)?;
        let buffer =
            Tensor::zeros((batch, capacity, width.max(1)), used.dtype(), used.device())?.narrow(2, 0, width)?;
        if used.elem_count() > 0 {
            buffer.slice_set(&used.broadcast_as((batch, self.len, width))?.contiguous()?, 1, 0)?;
        }
        Ok(Self { buffer, len: self.len })
    }

    /// Appends `rows` `[B, n, width]` and returns everything so far.
    fn append(&mut self, rows: &Tensor) -> Result<Tensor> {
        let n = rows.dim(1)?;
        let capacity = self.buffer.dim(1)?;
        if self.len + n > capacity {
            return Err(ModelError::CacheFull { capacity, wanted: self.len + n });
        }
        if rows.elem_count() > 0 {
            self.buffer.slice_set(&rows.contiguous()?, 1, self.len)?;
        }
        self.len += n;
        Ok(self.buffer.narrow(1, 0, self.len)?)
    }
}

/// What one layer keeps.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// The latent; under GQA the keys and values.
    latent: Rows,
    /// The rotated key that all heads have in common; nothing under GQA.
    rope: Rows,
    /// Only while the layer runs its own indexer: Shared layers need no index keys.
    index: Option<Rows>,
    dtype: DType,
    index_width: usize,
}

impl LayerCache {
    /// Returns the number of tokens kept.
    pub fn len(&self) -> usize {
        self.latent.len
    }

    /// Returns whether nothing has been kept yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes in use, split into attention's and the indexer's.
    pub fn bytes(&self) -> (usize, usize) {
        let bytes = |rows: &Rows| {
            let dims = rows.buffer.dims();
            dims[0] * rows.len * dims[2] * rows.buffer.dtype().size_in_bytes()
        };
        (bytes(&self.latent) + bytes(&self.rope), self.index.as_ref().map_or(0, bytes))
    }

    /// Appends the latent or keys and values `[B, n, kept]` and the rotary key `[B, n, rope]`; returns all of both.
    pub(super) fn append(&mut self, latent: &Tensor, rope: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.latent.append(latent)?, self.rope.append(rope)?))
    }

    /// Appends the index key `[B, n, dim]`, of the tokens last given to [`LayerCache::append`]; returns all of them.
    pub(super) fn append_index(&mut self, layer: usize, key: &Tensor) -> Result<Tensor> {
        let before = self.latent.len - key.dim(1)?;
        let capacity = self.latent.buffer.dim(1)?;
        let rows = match &mut self.index {
            Some(rows) => rows,
            None if key.dim(0)? > 1 => return Err(ModelError::IndexKeysMissing { layer, have: 0, want: before }),
            None => self.index.insert(Rows::new(capacity, self.index_width, self.dtype, self.latent.buffer.device())?),
        };
        if rows.len != before {
            return Err(ModelError::IndexKeysMissing { layer, have: rows.len, want: before });
        }
        rows.append(key)
    }
}

/// The caches of all layers, for one sequence or for several of one length.
#[derive(Clone, Debug)]
pub struct Cache {
    /// One per layer.
    pub layers: Vec<LayerCache>,
}

impl Cache {
    /// Returns an empty cache with room for `capacity` tokens.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn new(config: &Config, capacity: usize, dtype: DType, device: &Device) -> Result<Self> {
        let (kept, shared) = match config.attention {
            Attention::SharedRows => {
                return Err(ModelError::Unsupported {
                    family: config.family.model_type(),
                    what: "decoding with a cache",
                });
            }
            Attention::Mla => (config.kv_lora_rank, config.qk_rope_head_dim),
            Attention::Gqa { num_key_value_heads, head_dim, .. }
            | Attention::MiniMaxM3(MiniMaxM3 { num_key_value_heads, head_dim, .. }) => {
                (2 * num_key_value_heads * head_dim, 0)
            }
        };
        let layers = (0..config.num_hidden_layers)
            .map(|_| {
                Ok(LayerCache {
                    latent: Rows::new(capacity, kept, dtype, device)?,
                    rope: Rows::new(capacity, shared, dtype, device)?,
                    index: None,
                    dtype,
                    index_width: config.index_head_dim,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Returns the number of tokens kept.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Returns whether nothing has been kept yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cache of `batch` sequences that all begin as the one in this cache does, with room for `capacity`
    /// tokens each.
    ///
    /// Keys of several sequences are read without a copy only where the capacity is full.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn repeated(&self, batch: usize, capacity: usize) -> Result<Self> {
        let layer = |layer: &LayerCache| {
            Ok(LayerCache {
                latent: layer.latent.repeated(batch, capacity)?,
                rope: layer.rope.repeated(batch, capacity)?,
                index: layer.index.as_ref().map(|rows| rows.repeated(batch, capacity)).transpose()?,
                ..layer.clone()
            })
        };
        Ok(Self { layers: self.layers.iter().map(layer).collect::<Result<_>>()? })
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            let rows = [Some(&mut layer.latent), Some(&mut layer.rope), layer.index.as_mut()];
            rows.into_iter().flatten().for_each(|rows| rows.len = rows.len.min(len));
        }
    }

    /// Returns the bytes in use, split into attention's and the indexer's.
    pub fn bytes(&self) -> (usize, usize) {
        self.layers.iter().map(LayerCache::bytes).fold((0, 0), |sum, b| (sum.0 + b.0, sum.1 + b.1))
    }
}
