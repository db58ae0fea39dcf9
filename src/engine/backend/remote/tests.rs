//! The remote backend against a worker of a test: every message, and the ways to die.

use std::io::{BufReader, PipeReader, PipeWriter, Write, pipe};
use std::thread;

use serde_json::{Value, json};

use super::frame::{Frame, ints};
use super::link::Link;
use super::*;
use crate::engine::{Evaluator, Generation, Sequence};
use crate::search::Evaluate;

/// k of the worker's model.
const K: usize = 4;

/// What a worker does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Ends in the middle of an answer.
    Dies,
    /// A loss that is no number.
    NotFinite,
    /// A loss too few.
    Short,
    /// A line of a library's log among the frames.
    Prints,
    /// More bytes announced than any answer can have.
    Huge,
    /// A key that the query does not see.
    Beyond,
    /// Answers nothing but a cancel.
    Waits,
}

/// −log p of token `p` + 1 of a sequence: 0.01 more per Shared layer where more than k keys are seen.
fn nll(pattern: &str, sequence: usize, p: usize) -> f32 {
    let shared = pattern.chars().filter(|c| *c == 'S').count();
    2.0 + sequence as f32 + if p >= K { 0.01 * shared as f32 } else { 0.0 }
}

/// The last k keys; a Shared layer's own indexer would have taken the one before its last.
fn set(position: usize, own: bool) -> Vec<i32> {
    let end = position as i32 + 1;
    let mut row: Vec<i32> = ((end - K as i32).max(0)..end).collect();
    if own && position > K {
        row[0] -= 1;
    }
    row.resize(K, -1);
    row
}

fn serve(from: PipeReader, mut to: PipeWriter, fault: Fault) {
    let mut from = BufReader::new(from);
    let hello = json!({"hello": "indexscope-worker", "protocol": [1, 1], "engine": "scripted 1", "layers": 3, "sites": [0, 1, 2],
        "unit": {"kind": "token"}, "groups": 1, "index_topk": K, "index_heads": 1, "native": "FFF", "locked_shared": [],
        "dtype": "f32", "devices": ["cpu"], "ranks": 1, "fingerprint": "x", "can": ["losses", "record", "shadow"]});
    let send = |to: &mut PipeWriter, head: Value, body: Vec<u8>| Frame { head, body }.write(to).is_ok();
    send(&mut to, hello, Vec::new());
    let mut lengths: Vec<usize> = Vec::new();
    while let Ok(Some(Frame { head, body })) = Frame::read(&mut from, 1 << 20) {
        let id = head["id"].clone();
        match head["do"].as_str().unwrap_or_default() {
            "calibrate" => {
                lengths = serde_json::from_value(head["lengths"].clone()).unwrap();
                assert_eq!(ints(&body).len(), lengths.iter().sum::<usize>());
            }
            "losses" if fault == Fault::Waits => {
                let Ok(Some(cancel)) = Frame::read(&mut from, 0) else { return };
                assert_eq!((&cancel.head["do"], &cancel.head["of"]), (&json!("cancel"), &id));
                send(&mut to, json!({"id": id, "error": {"code": "cancelled", "message": "cancelled"}}), Vec::new());
                continue;
            }
            "losses" => {
                for (n, unit) in head["units"].as_array().unwrap().iter().enumerate() {
                    let (pattern, sequence) = (unit[0].as_str().unwrap(), unit[1].as_u64().unwrap() as usize);
                    let mut values: Vec<f32> = (0..lengths[sequence] - 1).map(|p| nll(pattern, sequence, p)).collect();
                    match fault {
                        Fault::Dies if n == 1 => return,
                        Fault::NotFinite => values[7] = f32::NAN,
                        Fault::Short => drop(values.pop()),
                        Fault::Prints => to.write_all(b"100%|####| 3/3\n").unwrap(),
                        Fault::Huge => to.write_all(b"{\"id\":2,\"bytes\":9999999999}\n").unwrap(),
                        _ => {}
                    }
                    let head = json!({"id": id, "unit": unit, "layers": 3, "seconds": 0.5, "dtype": "f32"});
                    if !send(&mut to, head, values.into_iter().flat_map(f32::to_le_bytes).collect()) {
                        return;
                    }
                }
            }
            "record" => {
                let pattern = head["pattern"].as_str().unwrap().to_owned();
                for sequence in head["sequences"].as_array().unwrap() {
                    let queries = lengths[sequence.as_u64().unwrap() as usize];
                    for (layer, role) in pattern.chars().enumerate() {
                        let shown = |own: bool| -> Vec<u8> {
                            let mut rows: Vec<i32> = (0..queries).flat_map(|p| set(p, own)).collect();
                            if fault == Fault::Beyond {
                                rows[0] = 5;
                            }
                            rows.into_iter().flat_map(i32::to_le_bytes).collect()
                        };
                        let head = json!({"id": id, "sequence": sequence, "layer": layer, "shape": [queries, 1, K], "dtype": "i32"});
                        send(&mut to, head.clone(), shown(false));
                        if role == 'S' {
                            let mut head = head;
                            head["own"] = json!(true);
                            send(&mut to, head, shown(true));
                        }
                    }
                }
            }
            _ => return,
        }
        send(&mut to, json!({"id": id, "done": true}), Vec::new());
    }
}

fn backend(fault: Fault) -> RemoteBackend {
    let ((requests, to_worker), (replies, to_us)) = (pipe().unwrap(), pipe().unwrap());
    thread::spawn(move || serve(requests, to_us, fault));
    let link = Link::over(Box::new(replies), Box::new(to_worker));
    let sequence = |n: u32| Sequence::of((0..n).collect());
    let set = Calibration::new(vec![sequence(20), sequence(12)], "ids", 64).unwrap();
    RemoteBackend::over(link, "m", set, &Cancel::never()).unwrap()
}

fn subject(letters: &str) -> Subject {
    Subject::Pattern(letters.parse().unwrap())
}

#[test]
fn losses_of_a_worker_become_an_evaluation() {
    let mut backend = backend(Fault::None);
    let mut seen = Vec::new();
    let found =
        backend.evaluate(subject("FSS"), &Cancel::never(), &mut |partial| seen.push(partial.sequences)).unwrap();
    // 19 + 11 targets, of which 15 + 7 see more than 4 keys.
    assert_eq!((found.targets, found.eligible, seen), (30, 22, vec![(1, 2), (2, 2)]));
    assert!((found.delta.unwrap().value - 0.02).abs() < 1e-6);
    assert!((found.reference_loss - (19.0 * 2.0 + 11.0 * 3.0) / 30.0).abs() < 1e-6);
    assert!(found.agreement.is_none(), "single losses tell no KL");
    let all = backend.evaluate(subject("FFF"), &Cancel::never(), &mut |_| ()).unwrap();
    assert_eq!((all.delta.unwrap().value, all.layer_forwards), (0.0, 0.0));
    let unseen = Calibration::new(vec![Sequence::of((0..30).collect())], "other ids", 64).unwrap();
    let mut backend = backend.with_unseen(unseen);
    let validation = backend.validate("FSF".parse().unwrap(), &Cancel::never(), &mut |_| ()).unwrap().unwrap();
    assert!((validation.delta.unwrap().value - 0.01).abs() < 1e-6);
}

#[test]
fn searches_get_parts_and_differences() {
    let mut backend = backend(Fault::None);
    let cancel = Cancel::never();
    let units: Vec<Unit> =
        ["FSS", "FFF", "FSF"].iter().flat_map(|p| [0, 1].map(|part| (p.parse().unwrap(), part))).collect();
    let mut found = Vec::new();
    let mut evaluator = Evaluator::new(&mut backend, &cancel);
    assert_eq!(evaluator.layout().parts.iter().map(|p| p.targets).collect::<Vec<_>>(), [19, 11]);
    evaluator.measure(&units, &mut |m| found.push(m)).unwrap();
    evaluator.measure(&units[2..3], &mut |m| found.push(m)).unwrap();
    assert_eq!(found.len(), 7);
    for m in found {
        let shared = m.pattern.shared_count() as f64;
        assert!(m.blocks.iter().all(|b| (b - 0.01 * shared).abs() < 1e-6), "{m:?}");
        assert_eq!((m.is_reference, m.blocks.len()), (shared == 0.0, 1));
        let n = [(19.0, 2.0, 15.0), (11.0, 3.0, 7.0)][m.part];
        assert!((m.nll - (n.0 * n.1 + n.2 * 0.01 * shared)).abs() < 1e-4, "{m:?}");
    }
}

#[test]
fn sets_become_a_recording_and_a_coverage() {
    let mut backend = backend(Fault::None);
    let trace = backend.record(&Cancel::never(), &mut |_| ()).unwrap();
    assert_eq!((trace.selections.len(), trace.queries.len()), (3, 32));
    assert_eq!(trace.selections[2].row(20 + 6), [3, 4, 5, 6]);
    assert_eq!(trace.selections[1].row(1), [0, 1]);
    let coverage = backend.coverage("FSF".parse().unwrap(), &Cancel::never()).unwrap();
    assert_eq!(coverage.layers.iter().map(|l| l.layer).collect::<Vec<_>>(), [1]);
    // Three of four are common, but at the first query that counts, where there is nothing before.
    let queries = (16 + 8) as f64;
    let wanted = (0.75 * (queries - 2.0) + 2.0) / queries;
    assert!((coverage.layers[0].overlap.value - wanted).abs() < 1e-12);
}

#[test]
fn what_a_worker_does_wrong_is_said() {
    for (fault, want) in [
        (Fault::Dies, "the worker is lost: it ended"),
        (Fault::NotFinite, "is not finite at position 7 of sequence 0"),
        (Fault::Short, "not the 19 losses of FFF on sequence 0"),
        (Fault::Prints, "the worker is lost: a line is no JSON object"),
        (Fault::Huge, "announces 9999999999 bytes"),
    ] {
        let mut backend = backend(fault);
        let error = backend.evaluate(subject("FSF"), &Cancel::never(), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(want), "{fault:?}: {error}");
        if want.contains("lost") {
            let again = backend.evaluate(subject("FSF"), &Cancel::never(), &mut |_| ()).unwrap_err();
            assert!(again.to_string().contains("the worker is lost"), "{again}");
        }
    }
    let error = backend(Fault::Beyond).record(&Cancel::never(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("a set of query 0"), "{error}");
}

#[test]
fn a_cancel_reaches_the_worker_and_leaves_it_usable() {
    let mut backend = backend(Fault::Waits);
    for _ in 0..2 {
        let generation = Generation::default();
        let cancel = generation.advance();
        thread::spawn(move || {
            thread::sleep(std::time::Duration::from_millis(50));
            generation.advance();
        });
        let ended = backend.evaluate(subject("FSF"), &cancel, &mut |_| ());
        assert!(matches!(ended, Err(BackendError::Cancelled)), "{ended:?}");
    }
    assert!(backend.record(&Cancel::never(), &mut |_| ()).is_ok());
}

#[test]
fn what_the_worker_lacks_is_refused_by_name() {
    let mut backend = backend(Fault::None);
    let pattern = "FSF".parse().unwrap();
    let refusals = [
        backend.measure(pattern, &Cancel::never(), &mut |_| ()).unwrap_err(),
        backend.affinity(AffinityKind::MassRecall, &Cancel::never()).unwrap_err(),
        backend.evaluate(Subject::Dense, &Cancel::never(), &mut |_| ()).unwrap_err(),
    ];
    for (refusal, name) in refusals.iter().zip(["timed", "affinity", "dense"]) {
        assert!(refusal.to_string().contains(&format!("(scripted 1) cannot do this: it lacks '{name}'")), "{refusal}");
    }
}

#[test]
fn a_process_that_is_no_worker_is_named_with_its_log() {
    let start = |command: &[&str]| {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let set = Calibration::new(vec![Sequence::of(vec![1, 2, 3])], "ids", 64).unwrap();
        RemoteBackend::start(&command, "m", set, &Cancel::never()).unwrap_err().to_string()
    };
    assert!(start(&["/no/such/program"]).contains("'/no/such/program' cannot be started"));
    let died = start(&["sh", "-c", "echo 'No module named torch' >&2; exit 3"]);
    assert!(died.contains("exit status: 3") && died.contains("No module named torch"), "{died}");
    let other = start(&["sh", "-c", "echo '{\"hello\": \"world\"}'; sleep 5"]);
    assert!(other.contains("not with its hello"), "{other}");
}
