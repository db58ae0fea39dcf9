//! Recording in both orders of work, and mass recall against its definition.

use std::path::Path;

use candle_core::Tensor;

use super::LocalBackend;
use crate::checkpoint::Checkpoint;
use crate::domain::{Estimate, QuerySampling, Selection, Subject};
use crate::engine::Backend;
use crate::engine::{
    BackendError, Calibration, Cancel, DeviceChoice, Generation, Placement, Recorded, Recording, Sequence, Settings,
};
use crate::model::{At, Attend, Entry, Forward, ModelError, Ops, Order, Pass, Ran, Walk, Weights};

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny")).unwrap()
}

/// Sequences of three lengths, of which the last has no query that sees more than 16 keys.
fn calibration() -> Calibration {
    let sequence = |n: usize, step: usize| Sequence::of((0..n).map(|i| (i * step % 128) as u32).collect());
    Calibration::new(vec![sequence(96, 7), sequence(96, 5), sequence(70, 11), sequence(12, 3)], "test", 128).unwrap()
}

fn settings() -> Settings {
    Settings::new(Placement::open(DeviceChoice::Cpu, None).unwrap())
}

fn recording(pattern: &str, per_sequence: usize) -> Recording {
    let queries = QuerySampling::Sampled { per_sequence: 40, seed: 3 };
    Recording { pattern: pattern.parse().unwrap(), queries, mass_recall: Some(per_sequence) }
}

fn run(recording: &Recording) -> (Vec<Selection>, Recorded) {
    let backend = LocalBackend::load(&checkpoint(), calibration(), settings()).unwrap();
    let mut sets = vec![Selection::default(); 6];
    let recorded = recording
        .run(&backend, &Cancel::never(), &mut |_| {}, &mut |layer, first, rows| {
            assert_eq!(sets[layer].len(), first);
            rows.rows().for_each(|row| sets[layer].push(row));
            Ok(())
        })
        .unwrap();
    (sets, recorded)
}

#[test]
fn layer_by_layer_gives_what_sequence_by_sequence_gives() {
    for pattern in ["FFFFFF", "FSSFSS"] {
        let recording = recording(pattern, 9);
        let (sets, recorded) = run(&recording);
        let mut streamed = vec![Selection::default(); 6];
        let again = recording
            .stream(&checkpoint(), &calibration(), &settings(), &Cancel::never(), &mut |_| {}, &mut |layer, _, rows| {
                rows.rows().for_each(|row| streamed[layer].push(row));
                Ok(())
            })
            .unwrap();
        assert_eq!(streamed, sets);
        assert_eq!(again.mass_recall, recorded.mass_recall);
        let mut backend = LocalBackend::load(&checkpoint(), calibration(), settings()).unwrap();
        let trace = backend.record(recording.pattern, recording.queries, &Cancel::never(), &mut |_| {});
        assert_eq!(trace.unwrap().selections, sets);
    }
}

#[test]
fn a_stale_recording_stops_in_either_order_of_work() {
    let recording = recording("FFFFFF", 9);
    let backend = LocalBackend::load(&checkpoint(), calibration(), settings()).unwrap();
    for streamed in [false, true] {
        let generation = Generation::default();
        let cancel = generation.advance();
        let mut calls = 0;
        let mut sink = |_: usize, _: usize, _: &Selection| {
            calls += 1;
            generation.advance();
            Ok(())
        };
        let recorded = if streamed {
            recording.stream(&checkpoint(), &calibration(), &settings(), &cancel, &mut |_| {}, &mut sink)
        } else {
            recording.run(&backend, &cancel, &mut |_| {}, &mut sink)
        };
        assert!(matches!(recorded, Err(BackendError::Cancelled)));
        assert_eq!(calls, 1);
    }
}

#[test]
fn what_the_sink_refuses_ends_the_recording() {
    let backend = LocalBackend::load(&checkpoint(), calibration(), settings()).unwrap();
    let mut full = |_: usize, _: usize, _: &Selection| Err(std::io::Error::other("the disk is full"));
    let error = recording("FFFFFF", 9).run(&backend, &Cancel::never(), &mut |_| {}, &mut full).unwrap_err();
    assert_eq!(error.to_string(), "the recording cannot be written: the disk is full");
}

#[test]
fn scores_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny.join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let entries: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    // The layer before has a weight that is NaN, so that the next one selects by NaN.
    let offset = entries["model.layers.2.self_attn.o_proj.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[header + offset..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let recording = recording("FFFFFS", 9);
    let (cancel, sink) = (Cancel::never(), &mut |_: usize, _: usize, _: &Selection| Ok(()));
    let mut backend = LocalBackend::load(&checkpoint, calibration(), settings()).unwrap();
    let told = [
        recording.run(&backend, &cancel, &mut |_| {}, sink).unwrap_err(),
        recording.stream(&checkpoint, &calibration(), &settings(), &cancel, &mut |_| {}, sink).unwrap_err(),
        backend.record(recording.pattern, recording.queries, &cancel, &mut |_| {}).unwrap_err(),
    ];
    for error in told {
        assert_eq!(error.to_string(), "the scores of layer 3 are not finite: its input has NaN or infinity");
    }
}

#[test]
fn mass_recall_is_that_of_dense_attention() {
    // As many queries as there are: every one that sees more than k keys is drawn.
    let mass = run(&recording("FFSFFF", 1000)).1.mass_recall.unwrap();
    assert_eq!((mass.queries, mass.layers), (80 + 80 + 54, 6));
    let model = crate::model::Model::load(&checkpoint(), &candle_core::Device::Cpu, candle_core::DType::F32).unwrap();
    let (mut ratios, mut own) = (vec![Vec::new(); 36], vec![Vec::new(); 6]);
    for sequence in &calibration().sequences()[..3] {
        let inputs = model.inputs(std::slice::from_ref(&sequence.ids), 0).unwrap();
        let (mut entered, mut sets): (Vec<Tensor>, Vec<Selection>) = (Vec::new(), Vec::new());
        let mut keep = |at: &At, ran: &Ran| -> Result<(), ModelError> {
            entered.push(at.entry.hidden.clone());
            sets.push(ran.output.indices.as_ref().unwrap().sets()?[0].clone());
            Ok(())
        };
        let entry = Entry::first(model.embed(std::slice::from_ref(&sequence.ids)).unwrap());
        let mut forward = [Forward::new(0, &inputs, 1, (0, entry))];
        let subjects = [Subject::Pattern("FFSFFF".parse().unwrap())];
        let walk = Walk::new(&subjects, Ops::Reference);
        walk.run(Weights::Resident(&model), Order::Sequences, &mut forward, &mut keep).unwrap();
        for layer in 0..6 {
            let mut dense = Pass { want_probs: true, ..Pass::new(Attend::Dense) };
            let probs = model.layer(layer, &entered[layer], &inputs, &mut dense).unwrap().probs.unwrap();
            let probs: Vec<Vec<f32>> = probs.squeeze(0).unwrap().to_vec2().unwrap();
            let kept = |set: &Selection, q: usize| -> f64 {
                set.row(q).iter().map(|&key| f64::from(probs[q][key as usize])).sum()
            };
            for q in 16..sequence.ids.len() {
                own[layer].push(kept(&sets[layer], q));
                for source in 0..=layer {
                    ratios[source * 6 + layer].push(kept(&sets[source], q) / kept(&sets[layer], q));
                }
            }
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let close = |got: Option<Estimate>, want: &[f64]| {
        let got = got.unwrap();
        assert!((got.value - mean(want)).abs() < 1e-4 && got.n == want.len(), "{got:?} against {}", mean(want));
    };
    for (source, borrower) in (0..6).flat_map(|i| (0..6).map(move |j| (i, j))) {
        if source <= borrower {
            close(mass.get(source, borrower), &ratios[source * 6 + borrower]);
        } else {
            assert_eq!(mass.get(source, borrower), None);
        }
    }
    (0..6).for_each(|layer| close(mass.own[layer], &own[layer]));
    assert_eq!(mass.get(1, 2).unwrap().value, 1.0, "a Shared layer keeps what its source's set keeps");
}
