//! The decoder: embedding, layers, head. Each layer is told where its indices come from.

use candle_core::{DType, Device, Tensor};

use super::Result;
use super::cache::Cache;
use super::ends::{Embedding, Head};
use super::indexer::{Indexer, IndexerInput};
use super::inputs::Inputs;
use super::layer::Layer;
use super::ops::Rotary;
use super::pass::{LayerOutput, Pass};
use super::weights::{CheckpointSource, Scope, TensorSource};
use crate::checkpoint::{Checkpoint, Config};
use crate::domain::Selection;

/// A loaded model: every layer with every indexer that the checkpoint has.
///
/// Roles are not part of it: each call of [`Model::layer`] says where that layer's indices come from.
#[derive(Clone, Debug)]
pub struct Model {
    config: Config,
    device: Device,
    embedding: Embedding,
    layers: Vec<Layer>,
    head: Head,
}

impl Model {
    /// Loads a checkpoint onto a device; compute happens in `dtype`.
    ///
    /// # Errors
    /// [`super::ModelError`] naming the tensor that is missing, misshapen or of an unsupported dtype.
    pub fn load(checkpoint: &Checkpoint, device: &Device, dtype: DType) -> Result<Self> {
        let source = CheckpointSource { checkpoint: checkpoint.clone(), device: device.clone(), defer_experts: false };
        Self::new(checkpoint.config().clone(), &source, device, dtype)
    }

    /// Builds a model from any source of tensors.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn new(config: Config, source: &dyn TensorSource, device: &Device, dtype: DType) -> Result<Self> {
        let root = Scope::root(source, dtype);
        let embedding = Embedding::load(&root, &config)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for l in 0..config.num_hidden_layers {
            layers.push(Layer::load(&root, &config, l)?);
            source.loaded(Some(l));
        }
        let head = Head::load(&root, &config, Some(&embedding))?;
        source.loaded(None);
        Ok(Self { config, device: device.clone(), embedding, layers, head })
    }

    /// Returns the model with other indexers in some layers; it shares everything else with this one.
    ///
    /// # Errors
    /// As [`Model::load`]; [`super::ModelError::NoIndexer`] where the source has none of a layer.
    pub fn with_indexers(&self, source: &dyn TensorSource, layers: &[usize]) -> Result<Self> {
        let root = Scope::root(source, self.embedding.dtype());
        let mut model = self.clone();
        for &l in layers {
            let scope = root.at("model.layers").at(l).at("self_attn.indexer");
            let indexer = Indexer::load(&scope, &self.config)?.ok_or(super::ModelError::NoIndexer(l))?;
            model.layers[l].set_indexer(indexer)?;
        }
        Ok(model)
    }

    /// Returns the architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns where the model runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns whether the layer can be Full.
    pub fn has_indexer(&self, layer: usize) -> bool {
        self.layers.get(layer).is_some_and(Layer::has_indexer)
    }

    /// Embeds sequences of one length: `[B, T, hidden]`.
    ///
    /// # Errors
    /// [`super::ModelError::Batch`] for sequences of different lengths, [`super::ModelError::Token`] for an unknown id.
    pub fn embed(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        self.embedding.embed(ids)
    }

    /// Returns what layers are given of sequences of one length, whose first token is at position `start`.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn inputs(&self, ids: &[Vec<u32>], start: usize) -> Result<Inputs> {
        Inputs::new(&self.config, ids, start, &self.device)
    }

    /// Returns an empty cache for one sequence of up to `capacity` tokens.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn cache(&self, capacity: usize) -> Result<Cache> {
        Cache::new(&self.config, capacity, self.embedding.dtype(), &self.device)
    }

    /// Returns the layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Runs one layer on the residual stream `x` `[B, T, hidden]`.
    ///
    /// With a cache, `x` holds the tokens after the cached ones and `inputs` are theirs.
    ///
    /// # Errors
    /// [`super::ModelError::NoIndexer`] where the layer has no indexer to run.
    pub fn layer(&self, layer: usize, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<LayerOutput> {
        self.layers[layer].forward(x, inputs, pass)
    }

    /// Returns the output of one layer's attention, as [`Layer::attention`] does.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn attention(&self, layer: usize, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<Tensor> {
        self.layers[layer].attention(x, inputs, pass)
    }

    /// Returns the head-averaged dense attention of one layer's queries at `rows`, as [`Layer::mean_attention`] does.
    ///
    /// # Errors
    /// Where shapes disagree or a row is not below T.
    pub fn mean_attention(&self, layer: usize, x: &Tensor, rotary: &Rotary, rows: &[usize]) -> Result<Tensor> {
        self.layers[layer].mean_attention(x, rotary, rows)
    }

    /// Returns the same of one layer with each head's softmax over the keys of a support, one row per query.
    ///
    /// # Errors
    /// Where shapes disagree.
    pub fn mean_attention_within(
        &self,
        layer: usize,
        x: &Tensor,
        rotary: &Rotary,
        rows: &[usize],
        support: Option<&Selection>,
    ) -> Result<Tensor> {
        self.layers[layer].mean_attention_within(x, rotary, rows, support)
    }

    /// Returns what an indexer of one layer works on, as [`Layer::indexer_input`] does.
    ///
    /// # Errors
    /// Where shapes disagree.
    pub fn indexer_input(&self, layer: usize, x: &Tensor) -> Result<IndexerInput> {
        self.layers[layer].indexer_input(x)
    }

    /// Returns the final norm and the head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Applies the final norm and the head: logits `[B, T, vocab]`, f32.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.head.logits(x)
    }
}
