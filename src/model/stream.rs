//! A checkpoint of which only one layer at a time is in memory.

use std::ops::Range;
use std::thread::{Builder, JoinHandle};

use candle_core::{DType, Device};

use super::ends::{Embedding, Head};
use super::inputs::Inputs;
use super::layer::Layer;
use super::weights::{CheckpointSource, Scope};
use super::{ModelError, Result};
use crate::checkpoint::{Checkpoint, Config, layer_of};

/// Bytes of stack of the thread that reads ahead: it calls the system and nothing else.
const READER_STACK: usize = 128 << 10;

/// Loads the pieces of a model one by one; the caller drops each before it asks for the next.
#[derive(Clone, Debug)]
pub struct Stream {
    source: CheckpointSource,
    dtype: DType,
}

impl Stream {
    /// Opens a checkpoint for streaming; compute happens on `device` in `dtype`.
    pub fn new(checkpoint: Checkpoint, device: Device, dtype: DType) -> Self {
        Self { source: CheckpointSource { checkpoint, device, defer_experts: true }, dtype }
    }

    /// Returns the architecture.
    pub fn config(&self) -> &Config {
        self.source.checkpoint.config()
    }

    /// Loads the embedding.
    ///
    /// # Errors
    /// [`super::ModelError`] naming the tensor that is missing, misshapen or of an unsupported dtype.
    pub fn embedding(&self) -> Result<Embedding> {
        Embedding::load(&self.root(), self.config())
    }

    /// Loads one layer; its experts follow when tokens are first routed to them.
    ///
    /// # Errors
    /// As [`Stream::embedding`].
    pub fn layer(&self, layer: usize) -> Result<Layer> {
        Layer::load(&self.root(), self.config(), layer)
    }

    /// Calls `each` with one layer after the other; a layer is dropped before the next is loaded, but read ahead.
    ///
    /// # Errors
    /// As [`Stream::embedding`], and those of `each`.
    pub(super) fn each_layer<E: From<ModelError>>(
        &self,
        layers: Range<usize>,
        each: &mut dyn FnMut(usize, &Layer) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader: Option<JoinHandle<()>> = None;
        for layer in layers {
            let weights = self.layer(layer)?;
            // Reading ahead may wait for the disk; its thread ends by itself and reports nothing. Where it is slower
            // than the layers, more threads would not help, and each would hold memory.
            if reader.as_ref().is_none_or(JoinHandle::is_finished) {
                let ahead = self.clone();
                let spawned = Builder::new().stack_size(READER_STACK).spawn(move || ahead.prefetch(layer + 1));
                reader = spawned.ok();
            }
            each(layer, &weights)?;
            drop(weights);
            self.release(Some(layer));
        }
        Ok(())
    }

    /// Loads the final norm and the head.
    ///
    /// # Errors
    /// As [`Stream::embedding`].
    pub fn head(&self) -> Result<Head> {
        Head::load(&self.root(), self.config(), None)
    }

    /// Returns what layers are given of sequences of one length from position 0 on.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn inputs(&self, ids: &[Vec<u32>]) -> Result<Inputs> {
        Inputs::new(self.config(), ids, 0, &self.source.device)
    }

    /// Has the system read a layer ahead, its routed experts apart.
    pub fn prefetch(&self, layer: usize) {
        let checkpoint = &self.source.checkpoint;
        let wanted = |name: &str| layer_of(name) == Some(layer) && !name.contains(".mlp.experts.");
        checkpoint.tensors().filter(|(name, _)| wanted(name)).for_each(|(_, info)| checkpoint.prefetch(info));
    }

    /// Gives the pages of a layer's stored tensors back; those of embedding, norm and head for `None`.
    pub fn release(&self, layer: Option<usize>) {
        let checkpoint = &self.source.checkpoint;
        checkpoint.tensors().filter(|(name, _)| layer_of(name) == layer).for_each(|(_, info)| checkpoint.release(info));
    }

    fn root(&self) -> Scope<'_> {
        Scope::root(&self.source, self.dtype)
    }
}
