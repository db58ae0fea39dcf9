//! Packed traces: what is written comes back, and nothing else is taken.

use super::super::{read_trace, write_trace};
use super::*;
use crate::domain::{Estimate, LayerSet, QuerySampling, SelectionUnit, hash_ids};
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
            sites: LayerSet::default(),
            unit: SelectionUnit::Token,
            groups: 1,
            forced: 0,
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
fn entries_and_blocks_of_some_layers_come_back_from_either_form() {
    let folder = tempfile::tempdir().unwrap();
    for (unit, groups) in [(SelectionUnit::Entry(4), 1), (SelectionUnit::Block(8), 2)] {
        let mut trace = trace(&[60, 20], 3, &[vec![], vec![]]);
        trace.meta.layers = 9;
        trace.meta.sites = [2, 6].into_iter().collect();
        (trace.meta.unit, trace.meta.groups) = (unit, groups);
        for (site, selection) in trace.selections.iter_mut().enumerate() {
            *selection = Selection::default();
            for query in &trace.queries {
                for group in 0..groups {
                    let visible = query.visible(unit) as u32;
                    let from = (visible as usize).saturating_sub(3 + site * (1 - group)) as u32;
                    selection.push(&(from..visible).take(3).collect::<Vec<_>>());
                }
            }
        }
        let (tensors, packed) = (folder.path().join("t.safetensors"), folder.path().join("t.trace"));
        write_trace(&tensors, &trace).unwrap();
        write_trace(&packed, &trace).unwrap();
        assert_eq!(read_trace(&tensors).unwrap(), trace);
        assert_eq!(read_trace(&packed).unwrap(), trace);
        // A set that holds a unit which its query does not see is refused.
        let mut wrong = trace.clone();
        wrong.selections[0] = Selection::default();
        wrong.queries.iter().for_each(|_| (0..groups).for_each(|_| wrong.selections[0].push(&[40])));
        write_trace(&tensors, &wrong).unwrap();
        assert!(read_trace(&tensors).unwrap_err().to_string().contains("has key 40"), "{unit:?}");
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
        let packed = PackedTrace::of(&path, Bytes::open(&path).unwrap()).unwrap();
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
    let mut mass = MassRecall {
        layers: 2,
        per_sequence: 4,
        seed: 0,
        queries: 8,
        values: vec![Some(1.0), Some(0.123_456_789_012), None, Some(1.0)],
        se: vec![None; 4],
        own: vec![Some(Estimate { value: 0.875, se: Some(0.000_001), n: 8 }), None],
        chance: Some(0.25),
    };
    write_packed(&path, &head, |writer| {
        fill(writer, &[0..300, 300..340])?;
        writer.mass_recall(&mass)
    })
    .unwrap();
    let with_mass = read_trace(&path).unwrap();
    assert_eq!(with_mass.meta.mass_recall.as_ref(), Some(&mass));
    assert_eq!(lengths(), [256, 44, 40]);
    // The metadata carries it from there on, in either form.
    for name in ["t.safetensors", "u.trace"] {
        let other = folder.path().join(name);
        write_trace(&other, &with_mass).unwrap();
        assert_eq!(read_trace(&other).unwrap(), with_mass);
    }
    mass.own.clear();
    write_packed(&path, &head, |writer| {
        fill(writer, &[0..300, 300..340])?;
        writer.mass_recall(&mass)
    })
    .unwrap();
    assert!(read_trace(&path).unwrap_err().to_string().contains("mass recall is not that of 2 layers"));
    write_packed(&path, &head, |writer| fill(writer, &[0..256, 256..300])).unwrap();
    assert!(read_trace(&path).unwrap_err().to_string().contains("sections of layer 0 are missing"));
}
