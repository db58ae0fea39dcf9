//! Safetensors files: headers and the index, never whole files.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use serde::Deserialize;

use super::gguf::{self, Metadata};
use super::{CheckpointError, Dtype, TensorInfo};

/// File name of a folder's config.
pub const CONFIG_FILE: &str = "config.json";
/// File name of a checkpoint in one piece.
pub const SINGLE_FILE: &str = "model.safetensors";
/// File name of the index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Bytes before the header: its length.
const PREFIX: usize = 8;

/// Tensors by name.
pub(super) type Tensors = BTreeMap<String, TensorInfo>;

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

/// `model.safetensors.index.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    /// Which shard holds which tensor.
    pub(super) weight_map: BTreeMap<String, String>,
}

impl Index {
    pub(super) fn parse(text: &str) -> Result<Self, CheckpointError> {
        serde_json::from_str(text).map_err(|e| CheckpointError::malformed(INDEX_FILE, e.to_string()))
    }
}

pub(super) fn map(path: &Path) -> Result<Bytes, CheckpointError> {
    let file = File::open(path).map_err(|e| CheckpointError::io(path, e))?;
    // SAFETY: the map is only read. Another process that truncates the file meanwhile could raise SIGBUS, which
    // every reader of memory-mapped checkpoints accepts; nothing in this program writes to an open checkpoint.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(|e| CheckpointError::io(path, e))?;
    Ok(Bytes::Mapped(map))
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// A file's header: its entries, and where the data begins.
type Header = (BTreeMap<String, serde_json::Value>, usize);

fn parse_header(file: &str, bytes: &[u8]) -> Result<Header, CheckpointError> {
    let truncated = |need: u64| CheckpointError::Truncated { shard: file.to_owned(), need, have: bytes.len() as u64 };
    let prefix = bytes.first_chunk::<PREFIX>().ok_or_else(|| truncated(PREFIX as u64))?;
    let length = u64::from_le_bytes(*prefix);
    let need = length.saturating_add(PREFIX as u64);
    let data = usize::try_from(need).unwrap_or(usize::MAX);
    if data > bytes.len() {
        return Err(truncated(need));
    }
    let header = serde_json::from_slice(&bytes[PREFIX..data])
        .map_err(|e| CheckpointError::malformed(file, format!("its header is not JSON ({e})")))?;
    Ok((header, data))
}

/// Reads the strings of a file's metadata; none where it has no metadata.
pub(super) fn read_metadata(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, String>, CheckpointError> {
    let (mut header, _) = parse_header(file, bytes)?;
    let metadata = header.remove("__metadata__").map(serde_json::from_value).transpose();
    let metadata = metadata.map_err(|e| CheckpointError::malformed(file, format!("its metadata: {e}")))?;
    Ok(metadata.unwrap_or_default())
}

/// Reads a file's header and checks every extent against the file's size.
pub(super) fn read_header(file: &str, bytes: &[u8], shard: usize) -> Result<Tensors, CheckpointError> {
    let (header, data) = parse_header(file, bytes)?;
    let (mut tensors, mut extent) = (Tensors::new(), data);
    for (name, value) in header {
        if name == "__metadata__" {
            continue;
        }
        let bad = |reason: &str| CheckpointError::malformed(file, format!("tensor '{name}' {reason}"));
        let entry: Entry = serde_json::from_value(value).map_err(|e| bad(&format!("has an unreadable entry ({e})")))?;
        let (from, to) = entry.data_offsets;
        let (Some(start), Some(end)) = (data.checked_add(from), data.checked_add(to)) else {
            return Err(bad("lies beyond any file"));
        };
        let dtype = Dtype::from_name(&entry.dtype);
        let elements = entry.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let want = dtype.size().and_then(|size| elements?.checked_mul(size));
        if elements.is_none() || start > end || want.is_some_and(|want| want != end - start) {
            let shape = &entry.shape;
            return Err(bad(&format!("has offsets {from} to {to}, which do not fit {dtype} of shape {shape:?}")));
        }
        extent = extent.max(end);
        tensors.insert(name, TensorInfo { dtype, shape: entry.shape, shard, start, end });
    }
    if extent > bytes.len() {
        let (need, have) = (extent as u64, bytes.len() as u64);
        return Err(CheckpointError::Truncated { shard: file.to_owned(), need, have });
    }
    Ok(tensors)
}
