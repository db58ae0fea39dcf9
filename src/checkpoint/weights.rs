//! The files that hold a model's weights, and every tensor's place in them; never whole files in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::CheckpointError;
use super::dtype::Tensors;
use super::gguf::{self, Metadata};
use super::safetensors::{INDEX_FILE, Index, SINGLE_FILE, read_header};

/// The bytes of one file.
#[derive(Debug)]
pub(super) enum Bytes {
    /// A file mapped into memory.
    Mapped(Mmap),
    /// Bytes that are part of the program.
    Static(&'static [u8]),
}

impl Bytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }

    /// Has the system read a range of the file ahead; a mere advice, so that its failing changes nothing.
    pub(super) fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
    }

    /// Gives the memory of a range of the file back.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is shared and read-only, so that dropped pages are read from the file again, unchanged.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
    }
}

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
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if dir.join(SINGLE_FILE).is_file() {
            let mut weights = Self::default();
            weights.tensors = weights.add(SINGLE_FILE, map(&dir.join(SINGLE_FILE))?)?;
            return Ok(weights);
        }
        let path = dir.join(INDEX_FILE);
        if !path.is_file() {
            return Err(CheckpointError::NoWeights(dir.to_owned()));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| CheckpointError::io(&path, e))?;
        Self::open_indexed(dir, &Index::parse(&text)?)
    }

    /// Adds the tensors of another file; those of the same name are replaced.
    pub(super) fn overlay(&mut self, path: &Path) -> Result<Vec<String>, CheckpointError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let added = self.add(&name, map(path)?)?;
        let names = added.keys().cloned().collect();
        self.tensors.extend(added);
        Ok(names)
    }

    /// Opens a GGUF file.
    pub(super) fn open_gguf(path: &Path) -> Result<(Metadata, Self), CheckpointError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let bytes = map(path)?;
        let (metadata, tensors) = gguf::read_header(&name, bytes.as_slice())?;
        Ok((metadata, Self { shards: vec![Arc::new(bytes)], tensors }))
    }

    /// Opens bytes that are part of the program.
    pub(super) fn from_static(bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        weights.tensors = weights.add(SINGLE_FILE, Bytes::Static(bytes))?;
        Ok(weights)
    }

    fn open_indexed(dir: &Path, index: &Index) -> Result<Self, CheckpointError> {
        let mut weights = Self::default();
        let mut headers: BTreeMap<&str, Tensors> = BTreeMap::new();
        for (name, shard) in &index.weight_map {
            if !headers.contains_key(shard.as_str()) {
                let path = dir.join(shard);
                if !path.is_file() {
                    return Err(CheckpointError::MissingShard { shard: shard.clone() });
                }
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
        let tensors = read_header(name, bytes.as_slice(), self.shards.len())?;
        self.shards.push(Arc::new(bytes));
        Ok(tensors)
    }
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Bytes, CheckpointError> {
    let file = File::open(path).map_err(|e| CheckpointError::io(path, e))?;
    // SAFETY: the map is only read. Another process that truncates the file meanwhile could raise SIGBUS, which
    // every reader of memory-mapped checkpoints accepts; nothing in this program writes to an open checkpoint.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(|e| CheckpointError::io(path, e))?;
    Ok(Bytes::Mapped(map))
}
