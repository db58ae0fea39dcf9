//! Copies a safetensors file without some of its tensors, and with others replaced.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ExportError;
use super::retrained::Replaced;
use crate::atomic::{Disk, sync};
use crate::input;

/// Bytes written at a time.
const BUFFER: usize = 1 << 20;
/// Bytes before the header: its length.
const PREFIX: u64 = 8;

/// A safetensors file whose header was read.
pub(super) struct Shard {
    file: File,
    header: Map<String, Value>,
    /// First byte after the header.
    data: u64,
}

/// Where the bytes of a tensor come from.
enum Piece<'a> {
    /// First byte and length within the data of the original.
    Stored(u64, u64),
    /// Other bytes.
    Replaced(&'a [u8]),
}

/// What a filtered copy holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// Tensors left out.
    pub(super) dropped: usize,
    /// Their bytes.
    pub(super) dropped_bytes: u64,
    /// Their elements.
    pub(super) dropped_elements: u64,
    /// Tensors kept.
    pub(super) kept: usize,
    /// Those of them whose numbers are others.
    pub(super) replaced: usize,
}

impl Shard {
    pub(super) fn open(path: &Path) -> Result<Self, ExportError> {
        let io = |e| ExportError::io(path, e);
        let mut file = input::regular(path).map_err(io)?;
        let mut prefix = [0u8; PREFIX as usize];
        file.read_exact(&mut prefix).map_err(io)?;
        let length = u64::from_le_bytes(prefix);
        let mut text = Vec::new();
        Read::by_ref(&mut file).take(length).read_to_end(&mut text).map_err(io)?;
        let header = serde_json::from_slice(&text).map_err(|e| ExportError::malformed(path, e))?;
        Ok(Self { file, header, data: PREFIX + length })
    }

    /// Returns whether any tensor's name is wanted out.
    pub(super) fn has_any(&self, drop: impl Fn(&str) -> bool) -> bool {
        self.header.keys().any(|name| drop(name))
    }

    /// Writes a copy without the tensors that `drop` names to a new file; a copy without tensors is not written.
    ///
    /// Tensors of `replaced` have as many bytes as those whose places they take.
    pub(super) fn copy(
        mut self,
        to: &Path,
        drop: impl Fn(&str) -> bool,
        replaced: &Replaced,
    ) -> Result<Copied, ExportError> {
        let mut copied = Copied::default();
        let mut kept: Vec<(u64, u64, String, Value)> = Vec::new();
        let mut header = Map::new();
        for (name, entry) in std::mem::take(&mut self.header) {
            if name == "__metadata__" {
                header.insert(name, entry);
                continue;
            }
            let (from, end) = extent(&entry).ok_or_else(|| {
                ExportError::malformed(to, format!("tensor '{name}' has no extent in the file that is copied"))
            })?;
            if drop(&name) {
                copied.dropped += 1;
                copied.dropped_bytes += end - from;
                copied.dropped_elements += elements(&entry);
            } else {
                kept.push((from, end, name, entry));
            }
        }
        copied.kept = kept.len();
        if kept.is_empty() {
            return Ok(copied);
        }
        kept.sort_by_key(|&(from, ..)| from);
        let (mut at, mut pieces) = (0, Vec::with_capacity(kept.len()));
        for (from, end, name, mut entry) in kept {
            entry["data_offsets"] = json!([at, at + (end - from)]);
            pieces.push(match replaced.get(&name) {
                None => Piece::Stored(from, end - from),
                Some(bytes) if bytes.len() as u64 == end - from => {
                    copied.replaced += 1;
                    Piece::Replaced(bytes)
                }
                Some(bytes) => {
                    let reason = format!("'{name}' has {} bytes, and {} take its place", end - from, bytes.len());
                    return Err(ExportError::malformed(to, reason));
                }
            });
            header.insert(name, entry);
            at += end - from;
        }
        self.write(to, &header, &pieces).map_err(|e| ExportError::io(to, e))?;
        Ok(copied)
    }

    fn write(&mut self, to: &Path, header: &Map<String, Value>, pieces: &[Piece]) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(header)?;
        // Readers expect the data to begin at a multiple of eight.
        text.resize(text.len().next_multiple_of(8), b' ');
        let file = File::create_new(to)?;
        let mut out = BufWriter::with_capacity(BUFFER, Disk(&file));
        out.write_all(&(text.len() as u64).to_le_bytes())?;
        out.write_all(&text)?;
        for piece in pieces {
            let (from, length) = match *piece {
                Piece::Stored(from, length) => (from, length),
                Piece::Replaced(bytes) => {
                    out.write_all(bytes)?;
                    continue;
                }
            };
            self.file.seek(SeekFrom::Start(self.data + from))?;
            let written = std::io::copy(&mut Read::by_ref(&mut self.file).take(length), &mut out)?;
            if written != length {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        out.flush()?;
        drop(out);
        sync(&file)
    }
}

fn extent(entry: &Value) -> Option<(u64, u64)> {
    let offsets = entry.get("data_offsets")?;
    let (from, end) = (offsets.get(0)?.as_u64()?, offsets.get(1)?.as_u64()?);
    (from <= end).then_some((from, end))
}

fn elements(entry: &Value) -> u64 {
    let shape = entry.get("shape").and_then(Value::as_array);
    shape.map_or(0, |dims| dims.iter().filter_map(Value::as_u64).product())
}
