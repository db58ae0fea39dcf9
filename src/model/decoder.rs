//! The decoder: embedding, layers, head. Each layer is told where its indices come from.

use candle_core::{DType, Device, Tensor};

use super::cache::Cache;
use super::clock::Clock;
use super::mla::Mla;
use super::mlp::Mlp;
use super::moe::Moe;
use super::ops::{Rotary, rms_norm};
use super::pass::{LayerOutput, Pass};
use super::weights::{CheckpointSource, Linear, Scope, TensorSource};
use super::{ModelError, Result, rope};
use crate::checkpoint::{Checkpoint, Config, MlpKind};

#[derive(Clone, Debug)]
enum Feed {
    Dense(Mlp),
    Sparse(Moe),
}

#[derive(Clone, Debug)]
struct Layer {
    attention_norm: Tensor,
    attention: Mla,
    feed_norm: Tensor,
    feed: Feed,
}

/// A loaded model: every layer with every indexer that the checkpoint has.
///
/// Roles are not part of it: each call of [`Model::layer`] says where that layer's indices come from.
#[derive(Clone, Debug)]
pub struct Model {
    config: Config,
    device: Device,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Linear,
}

impl Model {
    /// Loads a checkpoint onto a device; compute happens in `dtype`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, misshapen or of an unsupported dtype.
    pub fn load(checkpoint: &Checkpoint, device: &Device, dtype: DType) -> Result<Self> {
        let source = CheckpointSource { checkpoint, device: device.clone() };
        Self::new(checkpoint.config().clone(), &source, device, dtype)
    }

    /// Builds a model from any source of tensors.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn new(config: Config, source: &dyn TensorSource, device: &Device, dtype: DType) -> Result<Self> {
        let root = Scope::root(source, dtype);
        let scope = root.at("model");
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let embedding = scope.get("embed_tokens.weight", &[vocab, hidden])?;
        let layers = (0..config.num_hidden_layers)
            .map(|l| {
                let scope = scope.at("layers").at(l);
                Ok(Layer {
                    attention_norm: scope.get("input_layernorm.weight", &[hidden])?,
                    attention: Mla::load(&scope.at("self_attn"), &config, l)?,
                    feed_norm: scope.get("post_attention_layernorm.weight", &[hidden])?,
                    feed: match config.mlp[l] {
                        MlpKind::Dense => Feed::Dense(Mlp::load(&scope.at("mlp"), hidden, config.intermediate_size)?),
                        MlpKind::Sparse => Feed::Sparse(Moe::load(&scope.at("mlp"), &config)?),
                    },
                })
            })
            .collect::<Result<_>>()?;
        let head = if config.tie_word_embeddings {
            Linear::of(embedding.clone())
        } else {
            Linear::load(&root, "lm_head", (vocab, hidden), false)?
        };
        let norm = scope.get("norm.weight", &[hidden])?;
        Ok(Self { config, device: device.clone(), embedding, layers, norm, head })
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
        self.layers.get(layer).is_some_and(|l| l.attention.indexer.is_some())
    }

    /// Embeds sequences of one length: `[B, T, hidden]`.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for sequences of different lengths, [`ModelError::Token`] for an unknown id.
    pub fn embed(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        let t = ids.first().map_or(0, Vec::len);
        if t == 0 || ids.iter().any(|s| s.len() != t) {
            return Err(ModelError::Batch(ids.iter().map(Vec::len).collect()));
        }
        let vocab = self.config.vocab_size;
        if let Some(&id) = ids.iter().flatten().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::Token { id, vocab });
        }
        let flat = Tensor::new(ids.concat(), &self.device)?;
        Ok(self.embedding.index_select(&flat, 0)?.reshape((ids.len(), t, self.config.hidden_size))?)
    }

    /// Computes the rotary tables of positions 0 to `t` − 1.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn rope(&self, t: usize) -> Result<Rotary> {
        self.rope_at(0, t)
    }

    /// Computes the rotary tables of `t` positions from `start`.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn rope_at(&self, start: usize, t: usize) -> Result<Rotary> {
        rope::tables(&self.config, start..start + t, &self.device)
    }

    /// Returns an empty cache for one sequence of up to `capacity` tokens.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn cache(&self, capacity: usize) -> Result<Cache> {
        Cache::new(&self.config, capacity, self.embedding.dtype(), &self.device)
    }

    /// Runs one layer on the residual stream `x` `[B, T, hidden]`.
    ///
    /// With a cache, `x` holds the tokens after the cached ones and `rotary` their positions.
    ///
    /// # Errors
    /// [`ModelError::NoIndexer`] where the layer has no indexer to run.
    pub fn layer(&self, layer: usize, x: &Tensor, rotary: &Rotary, pass: &mut Pass) -> Result<LayerOutput> {
        let times = pass.times.take();
        let mut clock = Clock::new(times, &self.device);
        let weights = &self.layers[layer];
        let eps = self.config.rms_norm_eps;
        let normed = rms_norm(x, &weights.attention_norm, eps)?;
        clock.lap(|t| &mut t.rest)?;
        let (attended, extras) = weights.attention.forward(&normed, rotary, pass, &mut clock)?;
        let x = (x + attended)?;
        let normed = rms_norm(&x, &weights.feed_norm, eps)?;
        clock.lap(|t| &mut t.rest)?;
        let (fed, expert_load) = match &weights.feed {
            Feed::Dense(mlp) => (mlp.forward(&normed)?, None),
            Feed::Sparse(moe) => moe.forward(&normed).map(|(y, load)| (y, Some(load)))?,
        };
        clock.lap(|t| &mut t.mlp)?;
        let hidden = (x + fed)?;
        clock.lap(|t| &mut t.rest)?;
        Ok(LayerOutput {
            hidden,
            indices: extras.indices,
            own: extras.own,
            scores: extras.scores,
            probs: extras.probs,
            expert_load,
        })
    }

    /// Applies the final norm and the head: logits `[B, T, vocab]`, f32.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let x = rms_norm(x, &self.norm, self.config.rms_norm_eps)?;
        Ok(self.head.forward(&x)?.to_dtype(DType::F32)?)
    }
}
