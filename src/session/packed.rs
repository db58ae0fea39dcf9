//! Traces in the packed form (`.trace`): a quarter of the int32 size or less, written and read piece by piece.
//!
//! All numbers are little-endian, all checksums CRC-32 (IEEE).
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `ixtrace\n` |
//! | 4 | version of the format, 1 |
//! | 4 | checksum of the header |
//! | 8 | length of the header |
//! | … | header: u32 length of the metadata; [`TraceMeta`] as JSON; u32 N; per sequence u32 length and that many u32 token ids; u32 Q; per query u32 sequence and u32 position |
//! | … | sections to the end of the file |
//!
//! A section holds the rows of one layer (its number among those that select) for consecutive queries, those of several
//! groups of heads one after the other: u32 layer, u32 first query, u32 number of queries,
//! u32 flags, u64 length of what follows the section's head, u32 checksum of these 24 bytes and of what follows. If
//! bit 0 of the flags is set, the number of keys of every row follows as u32; else every row has min(k, visible) keys.
//! Then the rows one after another, each in the form that `rows` describes. Every layer is cut into sections at the same
//! queries, and each of its queries is in exactly one. Where the layer is 2³² − 1 and the next three numbers are 0, what
//! follows the section's head is [`MassRecall`] as JSON, measured while the sets were written; it stands for that of the
//! metadata.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::checks::{SCHEMA, check_mass_recall, check_meta, check_queries, check_row};
use super::store::write_atomic_with;
use super::{FileError, rows};
use crate::domain::{MassRecall, Query, Selection, TopK, Trace, TraceMeta};
use crate::mapped::Bytes;

/// What a packed trace begins with.
pub(super) const MAGIC: &[u8; 8] = b"ixtrace\n";
const VERSION: u32 = 1;
/// Bytes of a section's head.
const HEAD: usize = 28;
/// Flag of a section that stores the number of keys of every row.
const LENGTHS: u32 = 1;
/// Layer of the section that holds the mass recall.
const MASS_RECALL: u32 = u32::MAX;
/// Most queries of one section: 160 MB of sets of 78 layers at k = 2,048, all read together.
const SECTION: usize = 256;

/// Writes a whole trace.
pub(super) fn write(file: &mut dyn Write, trace: &Trace) -> io::Result<()> {
    let mut writer = PackedWriter::begin(file, trace)?;
    (0..trace.queries.len()).step_by(SECTION).try_for_each(|first| {
        let last = (first + SECTION).min(trace.queries.len());
        (trace.selections.iter().enumerate())
            .try_for_each(|(l, set)| writer.section(l, first..last, |row| set.row(row)))
    })
}

/// Writes a packed trace whose sets come piece by piece, from `fill`.
///
/// Of `head` everything but the selections is used. Nothing is left at `path` unless `fill` is content.
///
/// # Errors
/// [`FileError::Io`], that of `fill` included.
pub fn write_packed(
    path: &Path,
    head: &Trace,
    fill: impl FnOnce(&mut PackedWriter) -> io::Result<()>,
) -> Result<(), FileError> {
    write_atomic_with(path, |file| fill(&mut PackedWriter::begin(file, head)?))
}

/// Takes the sets of a packed trace piece by piece; in the end every layer must have had all queries, cut alike.
pub struct PackedWriter<'a> {
    file: &'a mut dyn Write,
    topk: TopK,
    /// Rows of a query.
    groups: usize,
    queries: &'a [Query],
    section: Vec<u8>,
}

impl<'a> PackedWriter<'a> {
    fn begin(file: &'a mut dyn Write, head: &'a Trace) -> io::Result<Self> {
        let number = |n: usize| (n as u32).to_le_bytes();
        let json = serde_json::to_vec(&head.meta)?;
        let mut header = number(json.len()).to_vec();
        header.extend(json);
        header.extend(number(head.tokens.len()));
        for ids in &head.tokens {
            header.extend(number(ids.len()));
            header.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        header.extend(number(head.queries.len()));
        header.extend(head.queries.iter().flat_map(|q| [q.sequence, q.position]).flat_map(u32::to_le_bytes));
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&crc32fast::hash(&header).to_le_bytes())?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let (topk, groups) = (head.meta.topk(), head.meta.groups);
        Ok(Self { file, topk, groups, queries: &head.queries, section: Vec::new() })
    }

    /// Adds one layer's rows from query `first` on.
    ///
    /// # Errors
    /// Where the system refuses, or a row is not ascending or beyond its query.
    pub fn add(&mut self, layer: usize, first: usize, rows: &Selection) -> io::Result<()> {
        let end = (first + rows.len() / self.groups).min(self.queries.len());
        let before = first * self.groups;
        (first..end)
            .step_by(SECTION)
            .try_for_each(|from| self.section(layer, from..(from + SECTION).min(end), |row| rows.row(row - before)))
    }

    /// Writes the rows of one layer for `queries`; rows are counted over all groups.
    fn section<'r>(&mut self, layer: usize, queries: Range<usize>, row: impl Fn(usize) -> &'r [u32]) -> io::Result<()> {
        let (all, groups, TopK { unit, k }) = (self.queries, self.groups, self.topk);
        let query = |row: usize| all[row / groups];
        let rows_of = queries.start * groups..queries.end * groups;
        let usual = |row: usize| query(row).visible(unit).min(k);
        let flags = if rows_of.clone().all(|r| row(r).len() == usual(r)) { 0 } else { LENGTHS };
        self.begin_section([layer as u32, queries.start as u32, queries.len() as u32, flags]);
        let out = &mut self.section;
        if flags & LENGTHS != 0 {
            rows_of.clone().for_each(|r| out.extend((row(r).len() as u32).to_le_bytes()));
        }
        for r in rows_of {
            check_row(row(r), query(r), self.topk)
                .map_err(|what| io::Error::other(format!("row {r} of layer {layer} {what}")))?;
            rows::encode(row(r), query(r).visible(unit), out);
        }
        self.end_section()
    }

    /// Adds the mass recall that was measured meanwhile.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn mass_recall(&mut self, mass: &MassRecall) -> io::Result<()> {
        self.begin_section([MASS_RECALL, 0, 0, 0]);
        serde_json::to_writer(&mut self.section, mass)?;
        self.end_section()
    }

    fn begin_section(&mut self, head: [u32; 4]) {
        self.section.clear();
        self.section.extend(head.into_iter().flat_map(u32::to_le_bytes));
        self.section.resize(HEAD, 0);
    }

    fn end_section(&mut self) -> io::Result<()> {
        let out = &mut self.section;
        let length = (out.len() - HEAD) as u64;
        out[16..24].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(&out[..24], &out[HEAD..]);
        out[24..HEAD].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all(out)
    }
}

fn checksum(head: &[u8], rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(rest);
    crc.finalize()
}

/// A packed trace whose sets stay on the disk until they are asked for.
#[derive(Debug)]
pub struct PackedTrace {
    path: PathBuf,
    map: Bytes,
    meta: TraceMeta,
    tokens: Vec<Vec<u32>>,
    queries: Vec<Query>,
    pieces: Vec<Piece>,
}

/// Consecutive queries, and every layer's section of them.
type Piece = (Range<usize>, Vec<Section>);

/// Where a section's head begins and its rows end.
#[derive(Clone, Debug)]
struct Section {
    place: Range<usize>,
    lengths: bool,
}

impl PackedTrace {
    /// Reads the header of the file `path` and checks that every section is there.
    pub(super) fn of(path: &Path, map: Bytes) -> Result<Self, FileError> {
        let invalid = |reason: String| FileError::Invalid { kind: "trace", path: path.to_owned(), reason };
        let (header, rest) = split(&map).map_err(invalid)?;
        let mut header = Cursor(header);
        let mut meta = read_meta(&mut header).map_err(invalid)?;
        if meta.schema > SCHEMA {
            return Err(FileError::Schema { path: path.to_owned(), found: meta.schema, known: SCHEMA });
        }
        let (tokens, queries) = read_header(&mut header).map_err(invalid)?;
        check_meta(&meta, &tokens).map_err(invalid)?;
        check_queries(&queries, &tokens).map_err(invalid)?;
        let (pieces, mass) = find_sections(&map, rest, meta.sites().len(), queries.len()).map_err(invalid)?;
        if let Some(place) = mass {
            let mass = read_mass_recall(&map[place]).map_err(invalid)?;
            check_mass_recall(&mass, meta.sites().len()).map_err(invalid)?;
            meta.mass_recall = Some(mass);
        }
        Ok(Self { path: path.to_owned(), map, meta, tokens, queries, pieces })
    }

    /// Returns what was recorded.
    pub fn meta(&self) -> &TraceMeta {
        &self.meta
    }

    /// Returns the recorded queries.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// Reads every layer's sets, some consecutive queries at a time.
    ///
    /// Each item is a [`FileError`] where a checksum or a row is wrong.
    pub fn pieces(&self) -> impl Iterator<Item = Result<Vec<Selection>, FileError>> {
        self.pieces.iter().map(|(queries, sections)| {
            let read = |(layer, section): (usize, &Section)| {
                self.read(queries.clone(), section).map_err(|what| FileError::Invalid {
                    kind: "trace",
                    path: self.path.clone(),
                    reason: format!("the section of layer {layer} from query {} on {what}", queries.start),
                })
            };
            sections.par_iter().enumerate().map(read).collect()
        })
    }

    fn read(&self, queries: Range<usize>, section: &Section) -> Result<Selection, String> {
        let (head, rest) = self.map[section.place.clone()].split_at(HEAD);
        if Cursor(&head[24..]).u32() != Ok(checksum(&head[..24], rest)) {
            return Err("does not match its checksum".to_owned());
        }
        let mut rest = Cursor(rest);
        let TopK { unit, k } = self.meta.topk();
        let repeat = |query: &Query| std::iter::repeat_n(*query, self.meta.groups);
        let queries: Vec<Query> = self.queries[queries].iter().flat_map(repeat).collect();
        let most = |q: &Query| q.visible(unit).min(k);
        let lengths: Vec<usize> = if section.lengths {
            rest.numbers(queries.len())?.map(|n| n as usize).collect()
        } else {
            queries.iter().map(most).collect()
        };
        if let Some(at) = (0..lengths.len()).find(|&at| lengths[at] > most(&queries[at])) {
            return Err(format!("has a row of {} keys", lengths[at]));
        }
        let mut selection = Selection::with_capacity(queries.len(), lengths.iter().copied().max().unwrap_or(0));
        let mut row = Vec::new();
        for (query, len) in queries.iter().zip(lengths) {
            let bytes = rest.take(rows::size(len, query.visible(unit)))?;
            rows::decode(bytes, len, query.visible(unit), &mut row)
                .ok_or_else(|| format!("has no valid row for position {}", query.position))?;
            selection.push(&row);
        }
        if rest.0.is_empty() { Ok(selection) } else { Err("is longer than its rows".to_owned()) }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`FileError`] where a checksum or a row is wrong.
    pub(super) fn read_all(self) -> Result<Trace, FileError> {
        let TopK { unit, k } = self.meta.topk();
        let k = k.min(self.queries.iter().map(|q| q.visible(unit)).max().unwrap_or(0));
        let rows = self.queries.len() * self.meta.groups;
        let mut selections = vec![Selection::with_capacity(rows, k); self.meta.sites().len()];
        for piece in self.pieces() {
            for (selection, part) in selections.iter_mut().zip(piece?) {
                part.rows().for_each(|row| selection.push(row));
            }
        }
        Ok(Trace { meta: self.meta, tokens: self.tokens, queries: self.queries, selections })
    }
}

/// Returns the header, and where the sections begin.
fn split(file: &[u8]) -> Result<(&[u8], usize), String> {
    let mut rest = Cursor(file);
    rest.take(MAGIC.len())?;
    let version = rest.u32()?;
    if version != VERSION {
        return Err(format!("it has version {version} of the packed form, and this version reads {VERSION}"));
    }
    let crc = rest.u32()?;
    let length = rest.u64()?;
    let header = rest.take(length)?;
    if crc32fast::hash(header) != crc {
        return Err("its header does not match its checksum".to_owned());
    }
    Ok((header, file.len() - rest.0.len()))
}

fn read_meta(header: &mut Cursor) -> Result<TraceMeta, String> {
    let length = header.u32()? as usize;
    serde_json::from_slice(header.take(length)?).map_err(|e| format!("its metadata cannot be understood ({e})"))
}

/// Returns the tokens and queries that follow the metadata.
fn read_header(header: &mut Cursor) -> Result<(Vec<Vec<u32>>, Vec<Query>), String> {
    let tokens = (0..header.u32()?)
        .map(|_| {
            let length = header.u32()? as usize;
            Ok(header.numbers(length)?.collect())
        })
        .collect::<Result<_, String>>()?;
    let count = header.u32()? as usize;
    let pairs: Vec<u32> = header.numbers(count.saturating_mul(2))?.collect();
    let queries = pairs.chunks_exact(2).map(|pair| Query { sequence: pair[0], position: pair[1] }).collect();
    Ok((tokens, queries))
}

/// Reads the section that holds the mass recall.
fn read_mass_recall(section: &[u8]) -> Result<MassRecall, String> {
    let (head, rest) = section.split_at(HEAD);
    if Cursor(&head[24..]).u32() != Ok(checksum(&head[..24], rest)) {
        return Err("its mass recall does not match its checksum".to_owned());
    }
    serde_json::from_slice(rest).map_err(|e| format!("its mass recall cannot be understood ({e})"))
}

/// Walks the sections from `at` to the end of the file; returns those of sets, and where that of mass recall is.
fn find_sections(
    file: &[u8],
    mut at: usize,
    layers: usize,
    queries: usize,
) -> Result<(Vec<Piece>, Option<Range<usize>>), String> {
    let mut mass = None;
    let mut found: Vec<Vec<(Range<usize>, Section)>> = vec![Vec::new(); layers];
    while at < file.len() {
        let mut head = Cursor(&file[at..]);
        let (layer, first, count, flags) =
            (head.u32()? as usize, head.u32()? as usize, head.u32()? as usize, head.u32()?);
        let length = head.u64()?;
        head.u32()?;
        head.take(length)?;
        let end = file.len() - head.0.len();
        if layer as u32 == MASS_RECALL && (first, count, flags) == (0, 0, 0) {
            mass = Some(at..end);
            at = end;
            continue;
        }
        let sections = found.get_mut(layer).ok_or_else(|| format!("it has a section of layer {layer}"))?;
        if count == 0 || count > queries || first > queries - count || flags & !LENGTHS != 0 {
            return Err(format!("the section at byte {at} has {count} queries from {first} on and flags {flags}"));
        }
        sections.push((first..first + count, Section { place: at..end, lengths: flags & LENGTHS != 0 }));
        at = end;
    }
    found.iter_mut().for_each(|sections| sections.sort_by_key(|(queries, _)| queries.start));
    let cuts: Vec<Range<usize>> = found.first().into_iter().flatten().map(|(queries, _)| queries.clone()).collect();
    for (layer, sections) in found.iter().enumerate() {
        let ends = std::iter::once(0).chain(sections.iter().map(|(queries, _)| queries.end));
        let tile = sections.iter().zip(ends).all(|((queries, _), end)| queries.start == end);
        if !tile || sections.last().map_or(0, |(queries, _)| queries.end) != queries {
            return Err(format!("it ends early: sections of layer {layer} are missing"));
        }
        if !sections.iter().map(|(queries, _)| queries).eq(&cuts) {
            return Err(format!("sections of layer {layer} are cut at other queries than those of layer 0"));
        }
    }
    let pieces = cuts.into_iter().enumerate();
    let pieces = pieces.map(|(n, queries)| (queries, found.iter().map(|sections| sections[n].1.clone()).collect()));
    Ok((pieces.collect(), mass))
}

/// Bytes that are read from the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| "it ends early".to_owned())?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<usize, String> {
        let n = u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"));
        usize::try_from(n).map_err(|_| format!("{n} bytes are more than this machine can address"))
    }

    fn numbers(&mut self, n: usize) -> Result<impl Iterator<Item = u32> + use<'a>, String> {
        let bytes = self.take(n.saturating_mul(4))?;
        Ok(bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])))
    }
}

#[cfg(test)]
mod tests;
