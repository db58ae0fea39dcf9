//! The files that hold a model's weights, and every tensor's place in them; never whole files in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::diagnose;
use super::dtype::Tensors;
use super::gguf::{self, Metadata};
use super::safetensors::{INDEX_FILE, Index, SINGLE_FILE, read_header};
use super::{CheckpointError, ModelFolder};
use crate::mapped::Bytes;

/// Shards and the tensors in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights {
    /// The files.
    pub(super) shards: Vec<Arc<Bytes>>,
    /// Every tensor's place in them.
    pub(super) tensors: Tensors,
}

impl Weights {
    /// Opens `model.safetensors`, or else the shards that the index names.
    pub(super) fn open(folder: &ModelFolder, dir: &Path) -> Result<Self, CheckpointError> {
        let io = |name: &str, e| CheckpointError::io(&dir.join(name), e);
        if let Some(path) = folder.file(SINGLE_FILE).map_err(|e| io(SINGLE_FILE, e))? {
            let mut weights = Self::default();
            weights.tensors = weights.add(SINGLE_FILE, map(&path)?)?;
            return Ok(weights);
        }
        let text = folder.text(INDEX_FILE).map_err(|e| io(INDEX_FILE, e))?;
        let text = text.ok_or_else(|| match diagnose::other_weights(dir) {
            Some(holds) => CheckpointError::OtherWeights { folder: dir.to_owned(), holds },
            None => CheckpointError::NoWeights(dir.to_owned()),
        })?;
        if diagnose::is_lfs_pointer(text.as_bytes()) {
            return Err(CheckpointError::LfsPointer(dir.join(INDEX_FILE)));
        }
        Self::open_indexed(folder, dir, &Index::parse(&text)?)
    }

    /// Adds the tensors of another file; those of the same name are replaced.
    pub(super) fn overlay(&mut self, path: &Path) -> Result<Vec<String>, CheckpointError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let added = self.add(&name, map(path)?)?;
        let names = added.keys().cloned().collect();
        self.tensors.extend(added);
        Ok(names)
    }

    /// Opens the bytes of the GGUF file `path`.
    pub(super) fn from_gguf(path: &Path, bytes: Bytes) -> Result<(Metadata, Self), CheckpointError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let (metadata, tensors) = gguf::read_header(&name, &bytes)?;
        Ok((metadata, Self { shards: vec![Arc::new(bytes)], tensors }))
    }

    /// Opens the bytes of a checkpoint in one piece.
    pub(super) fn from_bytes(bytes: Bytes) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        weights.tensors = weights.add(SINGLE_FILE, bytes)?;
        Ok(weights)
    }

    fn open_indexed(folder: &ModelFolder, dir: &Path, index: &Index) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        let mut headers: BTreeMap<&str, Tensors> = BTreeMap::new();
        for (name, shard) in &index.weight_map {
            if !headers.contains_key(shard.as_str()) {
                let path = folder.file(shard).map_err(|e| CheckpointError::io(&dir.join(shard), e))?;
                let path = path.ok_or_else(|| CheckpointError::MissingShard { shard: shard.clone() })?;
                let header = weights.add(shard, map(&path)?)?;
                headers.insert(shard, header);
            }
            let info = headers.get_mut(shard.as_str()).and_then(|header| header.remove(name));
            let info = info.ok_or_else(|| CheckpointError::Misplaced { name: name.clone(), shard: shard.clone() })?;
            weights.tensors.insert(name.clone(), info);
        }
        Ok(weights)
    }

    /// Adds a file and returns the tensors of its header.
    fn add(&mut self, name: &str, bytes: Bytes) -> Result<Tensors, CheckpointError> {
        let tensors = read_header(name, &bytes, self.shards.len())?;
        self.shards.push(Arc::new(bytes));
        Ok(tensors)
    }
}

/// Reads or maps a file.
pub(super) fn map(path: &Path) -> Result<Bytes, CheckpointError> {
    let bytes = Bytes::open(path).map_err(|e| CheckpointError::io(path, e))?;
    if diagnose::is_lfs_pointer(&bytes) {
        return Err(CheckpointError::LfsPointer(path.to_owned()));
    }
    Ok(bytes)
}
