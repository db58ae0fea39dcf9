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
//! A section holds the rows of one layer for consecutive queries: u32 layer, u32 first query, u32 number of queries,
//! u32 flags, u64 length of what follows the section's head, u32 checksum of these 24 bytes and of what follows. If
//! bit 0 of the flags is set, the number of keys of every row follows as u32; else every row has min(k, visible) keys.
//! Then the rows one after another, each in the form that `rows` describes. Every layer is cut into sections at the same
//! queries, and each of its queries is in exactly one.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use super::store::write_atomic_with;
use super::trace_file::{SCHEMA, check_meta, check_queries, check_row};
use super::{FileError, rows};
use crate::domain::{Query, Selection, Trace, TraceMeta};

/// What a packed trace begins with.
pub(super) const MAGIC: &[u8; 8] = b"ixtrace\n";
const VERSION: u32 = 1;
/// Bytes of a section's head.
const HEAD: usize = 28;
/// Flag of a section that stores the number of keys of every row.
const LENGTHS: u32 = 1;
/// Most queries of one section: 160 MB of sets of 78 layers at k = 2,048, all read together.
const SECTION: usize = 256;

/// Writes a whole trace.
pub(super) fn write(file: &mut impl Write, trace: &Trace) -> io::Result<()> {
    let mut writer = PackedWriter::begin(file, trace)?;
    (0..trace.queries.len()).step_by(SECTION).try_for_each(|first| {
        let last = (first + SECTION).min(trace.queries.len());
        (trace.selections.iter().enumerate()).try_for_each(|(l, set)| writer.section(l, first..last, |q| set.row(q)))
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
    topk: usize,
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
        Ok(Self { file, topk: head.meta.index_topk, queries: &head.queries, section: Vec::new() })
    }

    /// Adds one layer's rows from query `first` on.
    ///
    /// # Errors
    /// Where the system refuses, or a row is not ascending or beyond its query.
    pub fn add(&mut self, layer: usize, first: usize, rows: &Selection) -> io::Result<()> {
        let end = (first + rows.len()).min(self.queries.len());
        (first..end)
            .step_by(SECTION)
            .try_for_each(|from| self.section(layer, from..(from + SECTION).min(end), |q| rows.row(q - first)))
    }

    /// Writes the rows of one layer for `queries`.
    fn section<'r>(&mut self, layer: usize, queries: Range<usize>, row: impl Fn(usize) -> &'r [u32]) -> io::Result<()> {
        let usual = |q: usize| self.queries[q].visible().min(self.topk);
        let flags = if queries.clone().all(|q| row(q).len() == usual(q)) { 0 } else { LENGTHS };
        let out = &mut self.section;
        out.clear();
        for n in [layer as u32, queries.start as u32, queries.len() as u32, flags] {
            out.extend(n.to_le_bytes());
        }
        out.resize(HEAD, 0);
        if flags & LENGTHS != 0 {
            queries.clone().for_each(|q| out.extend((row(q).len() as u32).to_le_bytes()));
        }
        for q in queries {
            check_row(row(q), self.queries[q], self.topk)
                .map_err(|what| io::Error::other(format!("row {q} of layer {layer} {what}")))?;
            rows::encode(row(q), self.queries[q].visible(), out);
        }
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
    map: Mmap,
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
    /// Maps a file, reads its header and checks that every section is there.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let io = |e| FileError::io("read", path, e);
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is only read. Another process that truncates the file meanwhile could raise SIGBUS; this
        // program replaces traces by renaming, which leaves a mapped file as it was.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let invalid = |reason: String| FileError::Invalid { kind: "trace", path: path.to_owned(), reason };
        let (header, rest) = split(&map).map_err(invalid)?;
        let mut header = Cursor(header);
        let meta = read_meta(&mut header).map_err(invalid)?;
        if meta.schema > SCHEMA {
            return Err(FileError::Schema { path: path.to_owned(), found: meta.schema, known: SCHEMA });
        }
        let (tokens, queries) = read_header(&mut header).map_err(invalid)?;
        check_meta(&meta, &tokens).map_err(invalid)?;
        check_queries(&queries, &tokens).map_err(invalid)?;
        let pieces = find_sections(&map, rest, meta.layers, queries.len()).map_err(invalid)?;
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
        let queries = &self.queries[queries];
        let lengths: Vec<usize> = if section.lengths {
            rest.numbers(queries.len())?.map(|n| n as usize).collect()
        } else {
            queries.iter().map(|q| q.visible().min(self.meta.index_topk)).collect()
        };
        if let Some(at) = (0..lengths.len()).find(|&at| lengths[at] > self.meta.index_topk.min(queries[at].visible())) {
            return Err(format!("has a row of {} keys", lengths[at]));
        }
        let mut selection = Selection::with_capacity(queries.len(), lengths.iter().copied().max().unwrap_or(0));
        let mut row = Vec::new();
        for (query, len) in queries.iter().zip(lengths) {
            let bytes = rest.take(rows::size(len, query.visible()))?;
            rows::decode(bytes, len, query.visible(), &mut row)
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
        let k = self.meta.index_topk.min(self.queries.iter().map(|q| q.visible()).max().unwrap_or(0));
        let mut selections = vec![Selection::with_capacity(self.queries.len(), k); self.meta.layers];
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

/// Walks the sections from `at` to the end of the file.
fn find_sections(file: &[u8], mut at: usize, layers: usize, queries: usize) -> Result<Vec<Piece>, String> {
    let mut found: Vec<Vec<(Range<usize>, Section)>> = vec![Vec::new(); layers];
    while at < file.len() {
        let mut head = Cursor(&file[at..]);
        let (layer, first, count, flags) =
            (head.u32()? as usize, head.u32()? as usize, head.u32()? as usize, head.u32()?);
        let length = head.u64()?;
        head.u32()?;
        head.take(length)?;
        let end = file.len() - head.0.len();
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
    Ok(cuts
        .into_iter()
        .enumerate()
        .map(|(n, queries)| (queries, found.iter().map(|sections| sections[n].1.clone()).collect()))
        .collect())
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
mod tests {
    use super::super::{read_trace, write_trace};
    use super::*;
    use crate::domain::{QuerySampling, Unit, hash_ids};
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    /// Sequences of these lengths, of which every query has one row per layer of `rows`, cut to what it sees.
    fn trace(lengths: &[usize], k: usize, rows: &[Vec<std::collections::BTreeSet<u32>>]) -> Trace {
        let tokens: Vec<Vec<u32>> = lengths.iter().map(|&n| (0..n as u32).map(|t| t * 7).collect()).collect();
        let positions = |(s, &n): (usize, &usize)| {
            (0..n as u32).map(move |position| Query { sequence: s as u32, position }).collect::<Vec<_>>()
        };
        let queries: Vec<Query> = lengths.iter().enumerate().flat_map(positions).collect();
        let selection = |rows: &Vec<std::collections::BTreeSet<u32>>| {
            let mut selection = Selection::default();
            for (query, row) in queries.iter().zip(rows.iter().cycle()) {
                selection.push(&row.range(..=query.position).take(k).copied().collect::<Vec<_>>());
            }
            selection
        };
        Trace {
            meta: TraceMeta {
                schema: 1,
                model: "m".into(),
                fingerprint: "f".into(),
                pattern: "F".repeat(rows.len()).parse().unwrap(),
                index_topk: k,
                layers: rows.len(),
                unit: Unit::Token,
                heads: 4,
                queries: QuerySampling::All,
                tokens_hash: hash_ids(tokens.iter().map(Vec::as_slice)),
                mass_recall: None,
            },
            selections: rows.iter().map(selection).collect(),
            queries,
            tokens,
        }
    }

    fn small() -> Trace {
        let rows = |step| vec![(0..300u32).step_by(step).collect(), (0..300u32).collect()];
        trace(&[300, 40], 16, &[rows(3), rows(7)])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn there_and_back_is_the_identity(
            lengths in vec(1usize..400, 1..4),
            k in 1usize..64,
            rows in vec(vec(btree_set(0u32..400, 0..80), 1..5), 1..4),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (tensors, packed) = (folder.path().join("t.safetensors"), folder.path().join("t.trace"));
            let trace = trace(&lengths, k, &rows);
            write_trace(&tensors, &trace).unwrap();
            write_trace(&packed, &read_trace(&tensors).unwrap()).unwrap();
            let back = read_trace(&packed).unwrap();
            prop_assert_eq!(&back, &trace);
            let bytes = std::fs::read(&tensors).unwrap();
            write_trace(&tensors, &back).unwrap();
            prop_assert_eq!(std::fs::read(&tensors).unwrap(), bytes);
        }
    }

    #[test]
    fn full_rows_take_less_than_a_quarter() {
        // Up to 2,048 keys among 8K: two bits and two more for each, of 32.
        let rows = [vec![(0..8192u32).step_by(4).collect()]];
        let mut trace = trace(&[8192], 2048, &rows);
        let last = |q: &Query| q.position >= 8192 - 256;
        let kept: Vec<usize> = (0..8192).filter(|&q| last(&trace.queries[q])).collect();
        trace.selections[0] = kept.iter().fold(Selection::default(), |mut s, &q| {
            s.push(trace.selections[0].row(q));
            s
        });
        trace.queries.retain(last);
        let mut bytes = Vec::new();
        write(&mut bytes, &trace).unwrap();
        let sets = bytes.len() - 4 * 8192 - 8 * 256;
        assert!(sets < 256 * 2048 * 4 / 7, "{sets}");
    }

    /// Writes the small trace with its bytes changed and returns why it is refused.
    fn refusal(spoil: impl Fn(&mut Vec<u8>)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.trace");
        let mut bytes = Vec::new();
        write(&mut bytes, &small()).unwrap();
        spoil(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        read_trace(&path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let version = refusal(|b| b[8] = 2);
        let header = refusal(|b| b[60] ^= 1);
        let row = refusal(|b| *b.last_mut().unwrap() ^= 1);
        for (want, got) in [
            ("version 2 of the packed form", version),
            ("header does not match its checksum", header),
            ("layer 1 from query 256 on does not match its checksum", row),
            ("longer", refusal(|b| b.push(0)).replace("it ends early", "longer")),
        ] {
            assert!(got.contains("is not a trace") && got.contains(want), "{got}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let mut whole = Vec::new();
        write(&mut whole, &small()).unwrap();
        for cut in (MAGIC.len()..whole.len()).step_by(41).chain([whole.len() - 1]) {
            let got = refusal(|bytes| bytes.truncate(cut));
            assert!(got.contains("it ends early"), "{cut}: {got}");
        }
    }

    #[test]
    fn what_no_reader_would_take_is_not_written() {
        let mut spoilt = small();
        spoilt.queries[0].position = 5;
        spoilt.queries[5].position = 0;
        let error = write(&mut Vec::new(), &spoilt).unwrap_err().to_string();
        assert!(error.contains("of layer 0 has key"), "{error}");
    }

    #[test]
    fn pieces_are_all_layers_of_some_queries_however_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.trace");
        let lengths = || {
            let packed = PackedTrace::open(&path).unwrap();
            packed.pieces().map(|piece| piece.unwrap()[1].len()).collect::<Vec<_>>()
        };
        write_trace(&path, &small()).unwrap();
        assert_eq!(lengths(), [256, 84]);
        // Sequence by sequence, as a model gives them.
        let part = |layer: usize, queries: Range<usize>| {
            let mut part = Selection::default();
            queries.for_each(|q| part.push(small().selections[layer].row(q)));
            part
        };
        let head = Trace { selections: Vec::new(), ..small() };
        let fill = |writer: &mut PackedWriter, ranges: &[Range<usize>]| {
            (ranges.iter().flat_map(|range| [(0, range), (1, range)]))
                .try_for_each(|(layer, range)| writer.add(layer, range.start, &part(layer, range.clone())))
        };
        write_packed(&path, &head, |writer| fill(writer, &[0..300, 300..340])).unwrap();
        assert_eq!(lengths(), [256, 44, 40]);
        assert_eq!(read_trace(&path).unwrap(), small());
        write_packed(&path, &head, |writer| fill(writer, &[0..256, 256..300])).unwrap();
        assert!(read_trace(&path).unwrap_err().to_string().contains("sections of layer 0 are missing"));
    }
}
