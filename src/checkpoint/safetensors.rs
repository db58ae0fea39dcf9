//! Safetensors files: their headers, and the index of several.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::dtype::Tensors;
use super::folder::is_plain;
use super::{CheckpointError, Dtype, TensorInfo};

/// File name of a folder's config.
pub const CONFIG_FILE: &str = "config.json";
/// File name of a checkpoint in one piece.
pub const SINGLE_FILE: &str = "model.safetensors";
/// File name of the index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Bytes before the header: its length.
const PREFIX: usize = 8;

/// `model.safetensors.index.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    /// Which shard holds which tensor.
    pub(super) weight_map: BTreeMap<String, String>,
}

impl Index {
    pub(crate) fn parse(text: &str) -> Result<Self, CheckpointError> {
        let index: Self =
            serde_json::from_str(text).map_err(|e| CheckpointError::malformed(INDEX_FILE, e.to_string()))?;
        match index.weight_map.iter().find(|(_, shard)| !is_plain(shard)) {
            None => Ok(index),
            Some((name, shard)) => Err(CheckpointError::malformed(
                INDEX_FILE,
                format!("it places tensor '{name}' in '{shard}', which is not the name of a file in the folder"),
            )),
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The entries of a header, of which none may come twice: readers differ in which one they take.
struct Entries(BTreeMap<String, serde_json::Value>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;

        impl<'de> Visitor<'de> for Unique {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object with an entry per tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    if entries.insert(name.clone(), value).is_some() {
                        return Err(serde::de::Error::custom(format!("'{name}' comes twice")));
                    }
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Unique)
    }
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
    let Entries(header) = serde_json::from_slice(&bytes[PREFIX..data])
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

/// Reads a file's header and checks, as the format's own parser does, that its tensors cover the data without gaps.
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
    let mut extents: Vec<(usize, usize, &str)> = tensors.iter().map(|(n, i)| (i.start, i.end, n.as_str())).collect();
    extents.sort_unstable();
    let mut at = data;
    for (start, end, name) in extents {
        if start != at {
            let reason = format!("tensor '{name}' begins at byte {start}, but what is before it ends at byte {at}");
            return Err(CheckpointError::malformed(file, reason));
        }
        at = end;
    }
    if at < bytes.len() {
        let reason = format!("its tensors end at byte {at}, but the file has {}", bytes.len());
        return Err(CheckpointError::malformed(file, reason));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    }

    #[test]
    fn tensors_cover_the_data_once() {
        let entry = |name: &str, from: usize, to: usize| {
            format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, to - from)
        };
        let read = |entries: &[String], data: usize| {
            read_header("f", &file(&format!("{{{}}}", entries.join(",")), data), 0).map_err(|e| e.to_string())
        };
        assert_eq!(read(&[entry("b", 4, 8), entry("a", 0, 4), entry("c", 8, 8)], 8).unwrap().len(), 3);
        for (needle, entries, data) in [
            ("comes twice", vec![entry("a", 0, 4), entry("a", 4, 8)], 8),
            ("begins at byte", vec![entry("a", 0, 4), entry("b", 2, 8)], 8),
            ("begins at byte", vec![entry("a", 0, 8), entry("b", 2, 4)], 8),
            ("begins at byte", vec![entry("a", 0, 4), entry("b", 5, 8)], 8),
            ("begins at byte", vec![entry("a", 1, 4)], 4),
            ("the file has", vec![entry("a", 0, 4)], 5),
            ("the file has", vec![], 1),
            ("truncated", vec![entry("a", 0, 4)], 3),
        ] {
            let error = read(&entries, data).unwrap_err();
            assert!(error.contains(needle), "{error}");
        }
        assert!(read_header("f", &file("[]", 0), 0).is_err());
    }
}
