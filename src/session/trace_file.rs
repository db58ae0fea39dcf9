//! Traces as files, in two forms: safetensors, readable by any tool, and packed ([`PackedTrace`]), a quarter of its size.
//!
//! Which form is written follows from the name (`.trace` is packed), which is read from the content. As safetensors:
//! `tokens` i32 `[N, T]` padded with −1, `queries` i32 `[Q, 2]` (sequence, position), `layer.<l>.topk` i32 `[Q, k]`
//! ascending and padded with −1; string metadata `indexscope` is [`TraceMeta`] as JSON.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::checks::{SCHEMA, check_meta, check_queries, check_row};
use super::packed::{self, PackedTrace};
use super::store::write_atomic_with;
use super::{FileError, write_atomic};
use crate::domain::{Query, Selection, Trace, TraceMeta};
use crate::input;
use crate::mapped::Bytes;

/// Key of the metadata.
const META: &str = "indexscope";

/// Returns whether `path` begins like a safetensors file or a packed trace; an unreadable file is neither.
pub fn is_trace(path: &Path) -> bool {
    let mut head = [0; 9];
    // Safetensors: eight bytes of header length, then JSON.
    input::regular(path).and_then(|mut f| f.read_exact(&mut head)).is_ok()
        && (head.starts_with(packed::MAGIC) || (head[8] == b'{' && head[7] == 0))
}

/// Returns whether a trace of this name is written in the packed form.
pub fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "trace")
}

/// Writes a trace: packed where the name ends in `.trace`, else as safetensors.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_trace(path: &Path, trace: &Trace) -> Result<(), FileError> {
    if is_packed(path) {
        return write_atomic_with(path, |file| packed::write(file, trace));
    }
    let bytes = encode_trace(trace).map_err(|e| FileError::io("write", path, std::io::Error::other(e)))?;
    write_atomic(path, &bytes)
}

/// Returns a trace as the bytes of its safetensors file.
///
/// # Errors
/// A sentence, where safetensors refuses.
pub fn encode_trace(trace: &Trace) -> Result<Vec<u8>, String> {
    let k = trace.meta.index_topk;
    let longest = trace.tokens.iter().map(Vec::len).max().unwrap_or(0);
    let mut parts = vec![
        ("tokens".to_owned(), vec![trace.tokens.len(), longest], pad(trace.tokens.iter().map(Vec::as_slice), longest)),
        (
            "queries".to_owned(),
            vec![trace.queries.len(), 2],
            trace.queries.iter().flat_map(|q| [q.sequence, q.position]).flat_map(u32::to_le_bytes).collect(),
        ),
    ];
    for (layer, selection) in trace.meta.sites().iter().zip(&trace.selections) {
        let rows = trace.queries.len() * trace.meta.groups;
        parts.push((format!("layer.{layer}.topk"), vec![rows, k], pad(selection.rows(), k)));
    }
    let views = parts
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::I32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| e.to_string())?;
    let meta = serde_json::to_string(&trace.meta).map_err(|e| e.to_string())?;
    serialize(views, Some(HashMap::from([(META.to_owned(), meta)]))).map_err(|e| e.to_string())
}

/// Returns rows as little-endian i32, each padded with −1 to `width`.
fn pad<'a>(rows: impl Iterator<Item = &'a [u32]>, width: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        let ids = row.iter().map(|&id| id as i32).chain((row.len()..width).map(|_| -1));
        bytes.extend(ids.flat_map(i32::to_le_bytes));
    }
    bytes
}

/// A trace file that has been opened.
#[derive(Debug)]
pub enum TraceFile {
    /// Read whole, from safetensors.
    Whole(Trace),
    /// Its sets are on the disk still.
    Packed(PackedTrace),
}

impl TraceFile {
    /// Opens a trace of either form, as its content tells.
    ///
    /// # Errors
    /// [`FileError`] naming what is wrong, and where.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::of(path, Bytes::open(path).map_err(|e| FileError::io("read", path, e))?)
    }

    /// Opens the bytes of the file `path`.
    pub(crate) fn of(path: &Path, bytes: Bytes) -> Result<Self, FileError> {
        if bytes.starts_with(packed::MAGIC) {
            PackedTrace::of(path, bytes).map(Self::Packed)
        } else {
            read_tensors(path, &bytes).map(Self::Whole)
        }
    }

    /// Reads every set and checks it.
    ///
    /// # Errors
    /// [`FileError`] naming what is wrong, and where.
    pub fn read(self) -> Result<Trace, FileError> {
        match self {
            Self::Whole(trace) => Ok(trace),
            Self::Packed(packed) => packed.read_all(),
        }
    }
}

/// Reads a trace of either form and checks every entry.
///
/// # Errors
/// [`FileError`] naming what is wrong, and where.
pub fn read_trace(path: &Path) -> Result<Trace, FileError> {
    TraceFile::open(path)?.read()
}

fn read_tensors(path: &Path, bytes: &[u8]) -> Result<Trace, FileError> {
    let invalid = |reason: String| FileError::Invalid { kind: "trace", path: path.to_owned(), reason };
    let meta = read_meta(bytes).map_err(invalid)?;
    if meta.schema > SCHEMA {
        return Err(FileError::Schema { path: path.to_owned(), found: meta.schema, known: SCHEMA });
    }
    decode(bytes, meta).map_err(invalid)
}

fn read_meta(bytes: &[u8]) -> Result<TraceMeta, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format!("no valid safetensors header ({e})"))?;
    let text = header.metadata().as_ref().and_then(|m| m.get(META));
    let text = text.ok_or_else(|| format!("its metadata has no '{META}' entry"))?;
    serde_json::from_str(text).map_err(|e| format!("its '{META}' metadata cannot be understood ({e})"))
}

fn decode(bytes: &[u8], meta: TraceMeta) -> Result<Trace, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let (shape, ids) = ints(&file, "tokens")?;
    let tokens = rows(&ids, shape[1], "tokens")?;
    check_meta(&meta, &tokens)?;
    let (shape, pairs) = ints(&file, "queries")?;
    if shape[1] != 2 {
        return Err(format!("'queries' has shape {shape:?}, not [Q, 2]"));
    }
    let queries = read_queries(&pairs)?;
    check_queries(&queries, &tokens)?;
    let selections = meta
        .sites()
        .iter()
        .map(|l| {
            let name = format!("layer.{l}.topk");
            let (shape, keys) = ints(&file, &name)?;
            let rows = queries.len() * meta.groups;
            if shape != [rows, meta.index_topk] {
                return Err(format!("'{name}' has shape {shape:?}, not [{rows}, {}]", meta.index_topk));
            }
            read_selection(&keys, &queries, &meta, &name)
        })
        .collect::<Result<_, String>>()?;
    Ok(Trace { meta, tokens, queries, selections })
}

/// Returns a two-dimensional i32 tensor.
fn ints(file: &SafeTensors, name: &str) -> Result<([usize; 2], Vec<i32>), String> {
    let view = file.tensor(name).map_err(|_| format!("it has no tensor '{name}'"))?;
    let (Dtype::I32, &[a, b]) = (view.dtype(), view.shape()) else {
        return Err(format!("'{name}' is {:?} {:?}, not I32 of two dimensions", view.dtype(), view.shape()));
    };
    Ok(([a, b], view.data().chunks_exact(4).map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()))
}

/// Returns rows without their padding.
fn rows(values: &[i32], width: usize, name: &str) -> Result<Vec<Vec<u32>>, String> {
    values
        .chunks_exact(width.max(1))
        .enumerate()
        .map(|(r, row)| unpad(row).ok_or_else(|| format!("row {r} of '{name}' has a negative entry inside")))
        .collect()
}

/// Returns a row without the −1s at its end; `None` if another negative number is left.
fn unpad(row: &[i32]) -> Option<Vec<u32>> {
    let end = row.iter().rposition(|&v| v != -1).map_or(0, |i| i + 1);
    row[..end].iter().map(|&v| u32::try_from(v).ok()).collect()
}

fn read_queries(pairs: &[i32]) -> Result<Vec<Query>, String> {
    let query = |(q, pair): (usize, &[i32])| match (u32::try_from(pair[0]), u32::try_from(pair[1])) {
        (Ok(sequence), Ok(position)) => Ok(Query { sequence, position }),
        _ => Err(format!("query {q} is ({}, {}), which no sequence has", pair[0], pair[1])),
    };
    pairs.chunks_exact(2).enumerate().map(query).collect()
}

fn read_selection(keys: &[i32], queries: &[Query], meta: &TraceMeta, name: &str) -> Result<Selection, String> {
    let (topk, rows) = (meta.topk(), queries.len() * meta.groups);
    let mut selection = Selection::with_capacity(rows, topk.k);
    let queries = queries.iter().flat_map(|query| std::iter::repeat_n(*query, meta.groups));
    for ((q, query), row) in queries.enumerate().zip(keys.chunks_exact(topk.k.max(1))) {
        let row = unpad(row).ok_or_else(|| format!("row {q} of '{name}' has a negative entry inside"))?;
        check_row(&row, query, topk).map_err(|what| format!("row {q} of '{name}' {what}"))?;
        selection.push(&row);
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LayerSet, QuerySampling, SelectionUnit, hash_ids};

    fn selection(rows: &[&[u32]]) -> Selection {
        let mut selection = Selection::default();
        for row in rows {
            selection.push(row);
        }
        selection
    }

    fn trace() -> Trace {
        let tokens = vec![vec![5, 6, 7], vec![8, 9]];
        let selection = selection(&[&[0], &[0, 1], &[1, 2], &[0], &[0, 1]]);
        Trace {
            meta: TraceMeta {
                schema: 1,
                model: "m".into(),
                fingerprint: "f".into(),
                pattern: "FS".parse().unwrap(),
                index_topk: 2,
                layers: 2,
                sites: LayerSet::default(),
                unit: SelectionUnit::Token,
                groups: 1,
                forced: 0,
                heads: 4,
                queries: QuerySampling::All,
                tokens_hash: hash_ids(tokens.iter().map(Vec::as_slice)),
                mass_recall: None,
            },
            queries: [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
                .map(|(sequence, position)| Query { sequence, position })
                .to_vec(),
            tokens,
            selections: vec![selection.clone(), selection],
        }
    }

    /// Writes a trace that `spoil` has changed and returns why it is refused.
    fn refusal(spoil: impl Fn(&mut Trace)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let mut trace = trace();
        spoil(&mut trace);
        write_trace(&path, &trace).unwrap();
        read_trace(&path).unwrap_err().to_string()
    }

    #[test]
    fn a_trace_comes_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        write_trace(&path, &trace()).unwrap();
        assert!(is_trace(&path));
        assert_eq!(read_trace(&path).unwrap(), trace());
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(ints(&file, "tokens").unwrap(), ([2, 3], vec![5, 6, 7, 8, 9, -1]));
        assert_eq!(ints(&file, "layer.1.topk").unwrap().1[..4], [0, -1, 0, 1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (want, got) in [
            ("pattern has 3 letters", refusal(|t| t.meta.pattern = "FSS".parse().unwrap())),
            ("hash", refusal(|t| t.tokens[0][0] = 1)),
            ("query 1 is (0, 9)", refusal(|t| t.queries[1].position = 9)),
            ("query 2 is not after", refusal(|t| t.queries[2].position = 0)),
            ("schema 2", refusal(|t| t.meta.schema = 2)),
            ("no tensor 'layer.1.topk'", refusal(|t| drop(t.selections.pop()))),
            (
                "row 0 of 'layer.0.topk' has key 2, after its query at position 0",
                refusal(|t| t.selections[0] = selection(&[&[2], &[0], &[0], &[0], &[0]])),
            ),
        ] {
            assert!(got.contains(want), "{got}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        std::fs::write(&path, "schema = 1\nmodel = \"m\"\n").unwrap();
        assert!(!is_trace(&path));
        assert!(read_trace(&path).unwrap_err().to_string().contains("no valid safetensors header"));
        let whole = encode_trace(&trace()).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        assert!(read_trace(&path).unwrap_err().to_string().contains("is not a trace"));
        assert!(read_trace(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }
}
