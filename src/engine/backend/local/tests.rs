//! The real backend on a small checkpoint with known losses.

use std::path::Path;

use safetensors::SafeTensors;

use super::LocalBackend;
use crate::checkpoint::Checkpoint;
use crate::domain::{Evaluation, Pattern, QuerySampling, Subject, Trace};
use crate::engine::{
    Backend, BackendError, Calibration, Cancel, DeviceChoice, Generation, Placement, Sequence, Settings,
};
use crate::model::Ops;
use crate::model::ops::FastParts;
use crate::search::AffinityKind;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/glm_dsa_tiny");

fn p(text: &str) -> Pattern {
    text.parse().unwrap()
}

#[test]
fn the_form_that_runs_is_named() {
    let name = |ops, indexer, attention, fp8| super::attention(ops, FastParts { indexer, attention }, fp8);
    for (indexer, attention, fp8, want) in [
        (true, true, false, Some("fast")),
        (true, true, true, Some("fast, indexer in fp8")),
        (true, false, false, Some("fast, attention in stock ops")),
        (true, false, true, Some("fast, indexer in fp8, attention in stock ops")),
        (false, true, false, Some("fast, indexer in stock ops")),
        (false, false, false, None),
    ] {
        assert_eq!(name(Ops::Fast, indexer, attention, fp8).as_deref(), want);
        assert_eq!(name(Ops::Reference, indexer, attention, fp8).as_deref(), Some("reference"));
    }
}

fn subject(text: &str) -> Subject {
    Subject::Pattern(p(text))
}

/// The 96 tokens for which transformers' numbers are stored.
fn tokens() -> Vec<u32> {
    let bytes = std::fs::read(Path::new(FOLDER).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("input_ids").unwrap();
    let width = view.data().len() / view.shape().iter().product::<usize>();
    view.data().chunks_exact(width).map(|c| u32::from(c[0]) | u32::from(c[1]) << 8).collect()
}

fn backend(sequences: &[Vec<u32>], cache_bytes: usize) -> LocalBackend {
    let checkpoint = Checkpoint::open(Path::new(FOLDER)).unwrap();
    let sequences = sequences.iter().cloned().map(Sequence::of).collect();
    let calibration = Calibration::new(sequences, "test", checkpoint.config().vocab_size).unwrap();
    let placement = Placement::open(DeviceChoice::Cpu, None).unwrap();
    let settings = Settings { cache_bytes, ..Settings::new(placement) };
    LocalBackend::load(&checkpoint, calibration, settings).unwrap()
}

fn evaluate(backend: &mut LocalBackend, text: &str) -> Evaluation {
    backend.evaluate(subject(text), &Cancel::never(), &mut |_| {}).unwrap()
}

/// What must not depend on how the numbers came about.
fn numbers(evaluation: Evaluation) -> Evaluation {
    Evaluation { seconds: 0.0, resumed_from: 0, layer_forwards: 0.0, ..evaluation }
}

#[test]
fn losses_are_those_of_transformers() {
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(FOLDER).join("expected.json")).unwrap()).unwrap();
    let mut backend = backend(&[tokens()], 1 << 20);
    for (pattern, want) in expected["patterns"].as_object().unwrap() {
        let evaluation = evaluate(&mut backend, pattern);
        let want = want["loss"].as_f64().unwrap();
        assert!((evaluation.loss - want).abs() < 1e-4, "{pattern}: {} against {want}", evaluation.loss);
        assert_eq!((evaluation.targets, evaluation.eligible, evaluation.blocks), (95, 79, 1));
    }
    let reference = evaluate(&mut backend, "FFFFFF");
    assert_eq!((reference.delta.unwrap().value, reference.delta_all), (0.0, 0.0));
    assert_eq!(reference.agreement.unwrap().same_top, 1.0);
}

#[test]
fn a_resumed_evaluation_equals_a_fresh_one_bit_for_bit() {
    let t = tokens();
    let sequences = [t.clone(), t[10..].to_vec(), t[..50].to_vec(), t.iter().rev().copied().collect()];
    let (mut kept, mut fresh) = (backend(&sequences, 1 << 24), backend(&sequences, 0));
    evaluate(&mut kept, "FFFFFF");
    for (pattern, resumed_from) in [("FFFFSF", 4), ("FFFFSS", 5), ("FSFFSS", 1), ("FSFFSF", 5), ("FFFFFS", 5)] {
        let (ours, theirs) = (evaluate(&mut kept, pattern), evaluate(&mut fresh, pattern));
        assert_eq!((ours.resumed_from, theirs.resumed_from), (resumed_from, 0), "{pattern}");
        assert_eq!(ours.layer_forwards, (6 - resumed_from) as f64);
        assert_eq!(numbers(ours), numbers(theirs));
        let logits = |b: &mut LocalBackend| -> Vec<Vec<Vec<f32>>> {
            b.logits(subject(pattern), &Cancel::never()).unwrap().iter().map(|l| l.to_vec2().unwrap()).collect()
        };
        assert!(logits(&mut kept) == logits(&mut fresh), "{pattern}");
    }
}

#[test]
fn an_undone_pattern_is_not_run_again() {
    let mut backend = backend(&[tokens()], 0);
    let first = evaluate(&mut backend, "FFSSSS");
    let mut partials = 0;
    let again = backend.evaluate(subject("FFSSSS"), &Cancel::never(), &mut |_| partials += 1).unwrap();
    assert_eq!((first, 0), (again, partials));
}

#[test]
fn a_stale_evaluation_stops_and_leaves_nothing_behind() {
    let mut backend = backend(&[tokens(), tokens()[..40].to_vec()], 1 << 24);
    let generation = Generation::default();
    let cancel = generation.advance();
    let stopped = backend.evaluate(subject("FSFSFS"), &cancel, &mut |partial| {
        assert_eq!(partial.sequences, (1, 2));
        generation.advance();
    });
    assert!(matches!(stopped, Err(BackendError::Cancelled)));
    let whole = evaluate(&mut backend, "FSFSFS");
    assert_eq!((whole.sequences, whole.targets), ((2, 2), 95 + 39));
}

#[test]
fn up_to_k_keys_no_pattern_differs() {
    let mut backend = backend(&[tokens()[..16].to_vec()], 0);
    let evaluation = evaluate(&mut backend, "FSSSSS");
    assert_eq!((evaluation.delta, evaluation.delta_all, evaluation.eligible), (None, 0.0, 0));
    let dense = backend.evaluate(Subject::Dense, &Cancel::never(), &mut |_| {}).unwrap();
    assert!(dense.delta_all.abs() < 1e-6);
}

/// Compares every layer's set of every query of the first sequence with what transformers selected under `pattern`.
fn assert_selected(trace: &Trace, pattern: &str) {
    let bytes = std::fs::read(Path::new(FOLDER).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // [Full layers, queries, k] i32, ascending and padded with −1.
    let view = file.tensor(&format!("topk.{pattern}")).unwrap();
    let (queries, topk) = (view.shape()[1], view.shape()[2]);
    let keys: Vec<i32> = view.data().chunks_exact(4).map(|c| i32::from_le_bytes(c.try_into().unwrap())).collect();
    let mut compared = 0;
    for layer in 0..pattern.len() {
        let full = p(pattern).source(layer);
        let at = (0..full).filter(|&l| p(pattern).is_full(l)).count();
        for (q, query) in trace.queries.iter().enumerate().filter(|(_, query)| query.sequence == 0) {
            let row = &keys[(at * queries + query.position as usize) * topk..][..topk];
            let want: Vec<u32> = row.iter().filter(|&&key| key >= 0).map(|&key| key as u32).collect();
            assert_eq!(trace.selections[layer].row(q), want, "{pattern}, layer {layer}, query {}", query.position);
            compared += 1;
        }
    }
    assert_eq!(compared, pattern.len() * queries);
}

#[test]
fn recordings_hold_the_sets_that_transformers_selected() {
    let mut backend = backend(&[tokens(), tokens()[..20].to_vec()], 0);
    let mut shares = Vec::new();
    let trace =
        backend.record(p("FFFFFF"), QuerySampling::All, &Cancel::never(), &mut |share| shares.push(share)).unwrap();
    assert_eq!((trace.queries.len(), shares.as_slice()), (116, &[0.5, 1.0][..]));
    assert_selected(&trace, "FFFFFF");
    let whole = backend.record(p("FSSSFS"), QuerySampling::All, &Cancel::never(), &mut |_| {}).unwrap();
    assert_selected(&whole, "FSSSFS");
    let sampling = QuerySampling::Sampled { per_sequence: 4, seed: 7 };
    let shared = backend.record(p("FSSFSS"), sampling, &Cancel::never(), &mut |_| {}).unwrap();
    assert_eq!(shared.queries.len(), 8);
    assert_eq!(shared.selections[0], shared.selections[2]);
    assert_ne!(shared.selections[0], shared.selections[3]);
    for (q, query) in shared.queries.iter().enumerate() {
        let at = trace.queries.iter().position(|other| other == query).unwrap();
        assert_eq!(shared.selections[0].row(q), trace.selections[0].row(at), "layer 0 sees the same in both");
    }
}

#[test]
fn shadow_coverage_is_of_the_pattern_in_force() {
    let mut backend = backend(&[tokens()], 1 << 24);
    let coverage = backend.coverage(p("FSFFFS"), &Cancel::never()).unwrap();
    assert_eq!(coverage.layers.iter().map(|l| l.layer).collect::<Vec<_>>(), [1, 5]);
    assert!(coverage.layers.iter().all(|l| (0.0..1.0).contains(&l.overlap.value) && l.overlap.n == 80));
    assert!(backend.coverage(p("FFFFFF"), &Cancel::never()).unwrap().layers.is_empty());
}

#[test]
fn speed_is_of_both_patterns_and_all_time_is_booked() {
    let mut backend = backend(&[tokens()], 0);
    let speeds = backend.measure(p("FSSSSS"), None, &Cancel::never(), &mut |_| {}, &mut |_| {}).unwrap();
    assert_eq!(speeds.iter().map(|s| s.phase.as_str()).collect::<Vec<_>>(), ["prefill", "decode"]);
    for speed in speeds {
        assert!(speed.ratio.runs >= 5 && speed.seconds.median > 0.0);
        assert_eq!((speed.context, speed.ops.as_str()), (96, "fast"));
        let s = speed.share;
        assert!((s.indexer + s.topk + s.attention + s.mlp + s.rest - 1.0).abs() < 1e-9);
    }
    for speed in backend.measure(p("FFFFFF"), None, &Cancel::never(), &mut |_| {}, &mut |_| {}).unwrap() {
        assert_eq!((speed.ratio.median, speed.ratio.mad), (1.0, 0.0), "the reference is as fast as itself");
        assert!(speed.seconds.median > 0.0 && speed.ratio.runs >= 5);
    }
}

#[test]
fn a_searchs_losses_are_those_of_evaluations() {
    let t = tokens();
    let sequences = [t.clone(), t[10..].to_vec(), t[..50].to_vec()];
    let (mut searched, mut evaluated) = (backend(&sequences, 1 << 24), backend(&sequences, 0));
    let layout = searched.layout();
    assert_eq!(layout.parts.iter().map(crate::search::Part::eligible).sum::<usize>(), 79 + 69 + 33);
    let patterns = ["FFFFFF", "FFFFFS", "FFFFSF", "FSFFFF", "FSSFFS"].map(p);
    let parts = 0..layout.parts.len();
    let units: Vec<_> = patterns.iter().flat_map(|&pattern| parts.clone().map(move |part| (pattern, part))).collect();
    let mut measured = Vec::new();
    searched.losses(&units, &Cancel::never(), &mut |m| measured.push(m)).unwrap();
    assert_eq!(measured.len(), units.len());
    for pattern in patterns {
        let want = evaluated.evaluate(Subject::Pattern(pattern), &Cancel::never(), &mut |_| {}).unwrap();
        let of: Vec<_> = measured.iter().filter(|m| m.pattern == pattern).collect();
        let nll: f64 = of.iter().map(|m| m.nll).sum();
        assert!((nll / want.targets as f64 - want.loss).abs() < 1e-6, "{pattern}");
        let weighted = |m: &&crate::search::Measured| -> f64 {
            m.blocks.iter().zip(&layout.parts[m.part].blocks).map(|(mean, &n)| mean * n as f64).sum()
        };
        let delta = of.iter().map(weighted).sum::<f64>() / want.eligible as f64;
        assert!((delta - want.delta.unwrap().value).abs() < 1e-6, "{pattern}");
    }
    // The reference and its common prefix with every other pattern are run once: 6 + 1 + 2 + 5 + 4 layers, where
    // FSSFFS shares its first two layers with FSFFFF.
    assert_eq!(measured.iter().filter(|m| m.part == 0).map(|m| m.layers).sum::<usize>(), 6 + 1 + 2 + 5 + 4);
}

#[test]
fn affinities_are_those_of_transformers() {
    let expected = std::fs::read(Path::new(FOLDER).join("affinity.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let mut backend = backend(&[tokens()], 0);
    for (kind, name) in [(AffinityKind::MassRecall, "mass_recall"), (AffinityKind::OutputCosine, "output_cosine")] {
        let affinity = backend.affinity(kind, &Cancel::never()).unwrap();
        for layer in 0..6 {
            assert!((affinity.get(layer, layer) - 1.0).abs() < 1e-5, "{name} {layer}");
            for lender in 0..layer {
                let (got, want) = (affinity.get(layer, lender), expected[name][layer][lender].as_f64().unwrap());
                assert!((got - want).abs() < 1e-5, "{name}, layer {layer}, lender {lender}: {got} against {want}");
            }
        }
    }
}
