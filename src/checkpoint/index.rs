//! Other index sources than the checkpoint's own indexers.

use std::path::Path;

use super::{Attention, Checkpoint, CheckpointError, Config, is_indexer_tensor, layer_of};
use crate::domain::{IndexSource, Role};

/// Sizes of lightning indexers that do not come with the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexerShape {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Its leading dimensions that are rotated, with every n-th frequency of attention.
    pub rope_dims: usize,
}

impl IndexerShape {
    /// Returns `config` with indexers of these sizes.
    pub fn of(self, config: &Config) -> Config {
        Config {
            index_n_heads: self.heads,
            index_head_dim: self.dim,
            index_rope_head_dim: self.rope_dims,
            ..config.clone()
        }
    }
}

impl Checkpoint {
    /// Returns the checkpoint with each layer's own attention as its index source; every layer can then be Full.
    #[must_use]
    pub fn with_oracle(&self) -> Self {
        let config = Config { index: IndexSource::Oracle, ..self.config().clone() };
        self.with(config, self.weights().clone())
    }

    /// Returns the checkpoint with another k.
    ///
    /// # Errors
    /// [`CheckpointError::Value`] where it is 0.
    pub fn with_topk(&self, index_topk: usize) -> Result<Self, CheckpointError> {
        let config = Config { index_topk, ..self.config().clone() };
        if index_topk == 0 {
            return super::config::wrong("index_topk", 0, "it must be at least 1");
        }
        if index_topk < config.index_forced() {
            let reason = format!("{} {} are always selected", config.index_forced(), config.unit().plural());
            return super::config::wrong("index_topk", index_topk, &reason);
        }
        Ok(self.with(config, self.weights().clone()))
    }

    /// Returns the checkpoint with the indexers of a safetensors file, which replace its own where both have a layer.
    ///
    /// A layer of a dense model is Full where the file has its indexer; the roles of a DSA model stay.
    ///
    /// # Errors
    /// [`CheckpointError`] about the file; [`CheckpointError::Foreign`] for tensors that are no indexer's of a main
    /// layer; sizes that do not fit the model.
    pub fn with_indexers(&self, file: &Path, shape: IndexerShape) -> Result<Self, CheckpointError> {
        let mut weights = self.weights().clone();
        let names = weights.overlay(file)?;
        let mut config = shape.of(self.config());
        let is_main = |name: &String| layer_of(name).is_some_and(|layer| layer < config.num_hidden_layers);
        if let Some(name) = names.iter().find(|name| !is_indexer_tensor(name) || !is_main(name)) {
            return Err(CheckpointError::Foreign { file: file.to_owned(), name: name.clone() });
        }
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        config.index = IndexSource::Sidecar(name);
        config.validate_indexer()?;
        let dense = config.attention != Attention::Mla;
        let checkpoint = self.with(config, weights);
        if !dense {
            return Ok(checkpoint);
        }
        let mut config = checkpoint.config().clone();
        let role = |layer| if checkpoint.has_indexer(layer) { Role::Full } else { Role::Shared };
        config.roles = (0..config.num_hidden_layers).map(role).collect();
        Ok(checkpoint.with(config, checkpoint.weights().clone()))
    }
}
