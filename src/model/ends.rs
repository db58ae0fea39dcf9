//! The two ends of the model: embedding and head.

use candle_core::{DType, Tensor};

use super::families::Collapse;
use super::norm::Norm;
use super::weights::{Linear, Scope};
use super::{ModelError, Result};
use crate::checkpoint::Config;

/// The vectors of the tokens.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[vocab, hidden]`.
    weight: Tensor,
    /// Residual streams that begin as copies of the vectors; `None` where there is one alone.
    streams: Option<usize>,
}

impl Embedding {
    pub(super) fn load(root: &Scope, config: &Config) -> Result<Self> {
        let weight = root.get("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
        Ok(Self { weight, streams: config.deepseek_v4.as_ref().map(|v4| v4.hc_mult) })
    }

    /// Returns the dtype of the vectors.
    pub(super) fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// Embeds sequences of one length: `[B, T, hidden]`, or `[B, T, streams, hidden]` of a family with several streams.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for sequences of different lengths, [`ModelError::Token`] for an unknown id.
    pub fn embed(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        let t = ids.first().map_or(0, Vec::len);
        if t == 0 || ids.iter().any(|s| s.len() != t) {
            return Err(ModelError::Batch(ids.iter().map(Vec::len).collect()));
        }
        let (vocab, hidden) = self.weight.dims2()?;
        if let Some(&id) = ids.iter().flatten().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::Token { id, vocab });
        }
        let flat = Tensor::new(ids.concat(), self.weight.device())?;
        let x = self.weight.index_select(&flat, 0)?.reshape((ids.len(), t, hidden))?;
        Ok(match self.streams {
            Some(streams) => x.unsqueeze(2)?.broadcast_as((ids.len(), t, streams, hidden))?.contiguous()?,
            None => x,
        })
    }
}

/// The final norm and the output head.
#[derive(Clone, Debug)]
pub struct Head {
    norm: Norm,
    linear: Linear,
    collapse: Option<Collapse>,
}

impl Head {
    /// Loads the head; where it is tied to the embedding, that one is used.
    pub(super) fn load(root: &Scope, config: &Config, embedding: Option<&Embedding>) -> Result<Self> {
        let linear = match embedding {
            _ if !config.tie_word_embeddings => {
                Linear::load(root, "lm_head", (config.vocab_size, config.hidden_size), false)?
            }
            Some(embedding) => Linear::of(embedding.weight.clone()),
            None => Linear::of(Embedding::load(root, config)?.weight),
        };
        let norm = Norm::load(root, "model.norm.weight", config.hidden_size, config)?;
        Ok(Self { norm, linear, collapse: Collapse::load(root, config)? })
    }

    /// Returns the number of token ids.
    ///
    /// # Errors
    /// Never for a loaded head.
    pub fn vocab_size(&self) -> Result<usize> {
        Ok(self.linear.weight().dim(0)?)
    }

    /// Applies the final norm and the head: logits `[B, T, vocab]`, f32.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let collapsed = self.collapse.as_ref().map(|collapse| collapse.forward(x)).transpose()?;
        let x = self.norm.forward(collapsed.as_ref().unwrap_or(x))?;
        Ok(self.linear.forward(&x)?.to_dtype(DType::F32)?)
    }
}
