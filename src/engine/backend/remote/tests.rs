//! The remote backend against workers of the tests: every message, every error, and the ways to die.

mod worker;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use self::worker::{Fault, Script};
use super::*;
use crate::domain::Diagnostic;
use crate::engine::{Evaluator, Generation};
use crate::search::{AffinityKind, Evaluate};

fn calibration() -> Calibration {
    let sequence = |n: u32| Sequence::of((0..n).collect());
    Calibration::new(vec![sequence(20), sequence(12)], "ids", 64).unwrap()
}

/// Returns a backend on workers.
fn on(scripts: &[&Script]) -> RemoteBackend {
    let links = scripts.iter().map(|script| script.link()).collect();
    RemoteBackend::over(links, "m", calibration(), &Cancel::never()).unwrap()
}

fn backend(fault: Fault) -> RemoteBackend {
    on(&[&Script::new(fault)])
}

fn subject(letters: &str) -> Subject {
    Subject::Pattern(letters.parse().unwrap())
}

fn evaluate(backend: &mut RemoteBackend, letters: &str) -> Result<Evaluation, BackendError> {
    backend.evaluate(subject(letters), &Cancel::never(), &mut |_| ())
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
    let mut backend = backend.with_unseen(Some(unseen));
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
    let trace = backend.record("FFF".parse().unwrap(), QuerySampling::All, &Cancel::never(), &mut |_| ()).unwrap();
    assert_eq!((trace.selections.len(), trace.queries.len()), (3, 32));
    assert_eq!(trace.selections[2].row(20 + 6), [3, 4, 5, 6]);
    assert_eq!(trace.selections[1].row(1), [0, 1]);
    let sampling = QuerySampling::Sampled { per_sequence: 2, seed: 0 };
    let some = backend.record("FSF".parse().unwrap(), sampling, &Cancel::never(), &mut |_| ()).unwrap();
    assert_eq!((some.queries.len(), some.selections[2].len(), some.meta.pattern.to_string()), (4, 4, "FSF".to_owned()));
    for (row, query) in some.queries.iter().enumerate() {
        let at = trace.queries.iter().position(|known| known == query).unwrap();
        assert_eq!(some.selections[2].row(row), trace.selections[2].row(at));
    }
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
        (Fault::Dies, "the worker is lost: it ended; it left no log"),
        (Fault::DiesInABody, "the worker is lost: a frame announces 76 bytes and has 3"),
        (Fault::DiesInALine, "the worker is lost: a frame's line ends after 6 bytes"),
        (Fault::NotFinite, "is not finite at position 7 of sequence 0"),
        (Fault::Short, "not the 19 losses of FFF on sequence 0"),
        (Fault::Other, "not the 19 losses of FFF on sequence 0"),
        (Fault::LeavesOut, "the worker left out FSF on sequence 1"),
        (Fault::Adds, "a reply that was not asked for"),
        (Fault::Prints, "the worker is lost: a line is no JSON object"),
        (Fault::List, "the worker is lost: a line is no JSON object but a list"),
        (Fault::Huge, "announces 9999999999 bytes"),
        (Fault::Silent, "the worker is lost: it has given no sign of life for 0.024 s"),
        (Fault::Refuses("failed"), "the worker says: it  went wrong"),
        (Fault::Refuses("unsupported"), "the worker says: it  went wrong"),
        (Fault::Refuses("bad_pattern"), "the worker says: it  went wrong"),
        (Fault::Refuses("out_of_memory"), "the worker says: it  went wrong (out of memory)"),
    ] {
        let mut backend = backend(fault);
        let error = evaluate(&mut backend, "FSF").unwrap_err();
        assert!(error.to_string().contains(want), "{fault:?}: {error}");
        if let (Fault::Refuses(_), BackendError::Failed(Diagnostic { hint, .. })) = (fault, &error) {
            assert_eq!(hint.as_deref(), Some("do better"));
        }
        let again = evaluate(&mut backend, "FSF").unwrap_err();
        // What is lost stays lost; what was refused can be asked again.
        assert_eq!(
            again.to_string().contains("the worker is lost"),
            want.contains("lost") || fault == Fault::Huge,
            "{again}"
        );
    }
    let error = backend(Fault::Beyond)
        .record("FFF".parse().unwrap(), QuerySampling::All, &Cancel::never(), &mut |_| ())
        .unwrap_err();
    assert!(error.to_string().contains("a set of query 0"), "{error}");
}

#[test]
fn replies_to_something_else_are_no_answers() {
    let quiet = evaluate(&mut backend(Fault::None), "FSF").unwrap();
    let chatty = evaluate(&mut backend(Fault::Chats), "FSF").unwrap();
    assert_eq!(Evaluation { seconds: 0.0, ..quiet }, Evaluation { seconds: 0.0, ..chatty });
}

#[test]
fn top_tokens_and_divergence_become_an_agreement() {
    let script = Script { can: vec!["losses", "top1", "kl"], ..Script::new(Fault::None) };
    let mut backend = on(&[&script]);
    let agreement = evaluate(&mut backend, "FSF").unwrap().agreement.unwrap();
    // Eligible are the positions from 4: 15 and 7 targets; every second token is another.
    assert_eq!((agreement.kl, agreement.kl_p99), (0.25, 0.25));
    let changed = |last: usize| (5..=last).filter(|p| p.is_multiple_of(2)).count() as f64;
    assert_eq!(agreement.same_top, 1.0 - (changed(19) + changed(11)) / 22.0);
    let all = evaluate(&mut backend, "FFF").unwrap().agreement.unwrap();
    assert_eq!((all.kl, all.same_top), (0.0, 1.0));
    // A worker that lists one of the two tells no agreement.
    let half = Script { can: vec!["losses", "top1"], ..Script::new(Fault::None) };
    assert!(evaluate(&mut on(&[&half]), "FSF").unwrap().agreement.is_none());
}

#[test]
fn the_noise_of_low_precision_is_measured_once() {
    let script = Script { dtype: "bfloat16", noise: 0.5, ..Script::new(Fault::None) };
    let mut backend = on(&[&script]);
    assert_eq!(backend.describe().noise, Some(Noise { delta: 0.5, targets: 15 }));
    evaluate(&mut backend, "FSF").unwrap();
    let unit = |pattern: &str, n: u64| (pattern.to_owned(), n);
    // The reference's first run is not thrown away.
    assert_eq!(script.units(), [unit("FFF", 0), unit("FFF", 0), unit("FSF", 0), unit("FFF", 1), unit("FSF", 1)]);
    assert_eq!(on(&[&Script::new(Fault::None)]).describe().noise, None);
}

#[test]
fn several_workers_answer_as_one() {
    let (one, two) = (Script::new(Fault::None), Script::new(Fault::None));
    let (mut single, mut pool) = (backend(Fault::None), on(&[&one, &two]));
    let cancel = Cancel::never();
    let units: Vec<Unit> =
        ["FSS", "FFF", "FSF"].iter().flat_map(|p| [1, 0].map(|part| (p.parse().unwrap(), part))).collect();
    let measured = |backend: &mut RemoteBackend| {
        let mut found = Vec::new();
        Evaluator::new(backend, &cancel).measure(&units, &mut |m| found.push(m)).unwrap();
        found
    };
    // In the same order, too: the journals of searches are the same.
    assert_eq!(measured(&mut single), measured(&mut pool));
    assert_eq!(evaluate(&mut single, "FSF").unwrap().delta, evaluate(&mut pool, "FSF").unwrap().delta);
    let (ours, theirs) = [&mut single, &mut pool]
        .map(|b| b.record("FFF".parse().unwrap(), QuerySampling::All, &cancel, &mut |_| ()).unwrap())
        .into();
    assert_eq!(ours, theirs);
    // A sequence stays with one worker.
    let sequences = |script: &Script| script.units().into_iter().map(|(_, n)| n).collect::<Vec<_>>();
    assert!(sequences(&one).iter().all(|n| *n == 0) && sequences(&two).iter().all(|n| *n == 1));
    assert!(!sequences(&one).is_empty() && !sequences(&two).is_empty());
}

#[test]
fn others_take_over_what_a_lost_worker_has_not_answered() {
    let whole = backend(Fault::None);
    for fault in [Fault::Dies, Fault::DiesInABody, Fault::Prints, Fault::Silent] {
        for first in [true, false] {
            let (good, bad) = (Script::new(Fault::None), Script::new(fault));
            let mut pool = on(if first { [&bad, &good] } else { [&good, &bad] }.as_slice());
            let told = Arc::new(Mutex::new(Vec::new()));
            let reports = Arc::clone(&told);
            pool.on_loss(Box::new(move |what: &str| reports.lock().unwrap().push(what.to_owned())));
            let found = evaluate(&mut pool, "FSS").unwrap();
            assert_eq!((found.targets, found.eligible), (30, 22));
            assert!((found.delta.unwrap().value - 0.02).abs() < 1e-6);
            let told = told.lock().unwrap();
            assert!(told.len() == 1 && told[0].contains("1 of 2 take over"), "{told:?}");
        }
    }
    let mut dying = on(&[&Script::new(Fault::Dies), &Script::new(Fault::None)]);
    let mut whole = whole;
    assert_eq!(
        dying.record("FFF".parse().unwrap(), QuerySampling::All, &Cancel::never(), &mut |_| ()).unwrap(),
        whole.record("FFF".parse().unwrap(), QuerySampling::All, &Cancel::never(), &mut |_| ()).unwrap()
    );
    let mut none = on(&[&Script::new(Fault::Dies), &Script::new(Fault::Prints)]);
    assert!(evaluate(&mut none, "FSS").unwrap_err().to_string().contains("the worker is lost"));
}

#[test]
fn what_one_worker_refuses_stops_the_others() {
    let mut pool = on(&[&Script::new(Fault::Refuses("failed")), &Script::new(Fault::Waits)]);
    let error = evaluate(&mut pool, "FSS").unwrap_err();
    assert!(error.to_string().contains("went wrong"), "{error}");
}

#[test]
fn workers_of_different_models_are_no_pool() {
    let (one, two) = (Script::new(Fault::None), Script { dtype: "bfloat16", ..Script::new(Fault::None) });
    let links = [&one, &two].map(Script::link).into();
    let error = RemoteBackend::over(links, "m", calibration(), &Cancel::never()).unwrap_err().to_string();
    assert!(error.contains("worker 2 serves m (scripted 1/bfloat16/1/x)"), "{error}");
}

#[test]
fn a_worker_that_ignores_a_cancel_is_ended() {
    let mut link = Script::new(Fault::Hangs).link();
    link.cancel_within = Duration::from_millis(20);
    link.hello(&|| false).unwrap();
    let began = Instant::now();
    let request = json!({"do": "losses", "set": "main", "units": []});
    let error = link.ask(request, Vec::new(), 0, &|| true, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("did not answer a cancel within 0.02 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20) && link.lost().is_some());
}

#[cfg(unix)]
#[test]
fn a_worker_at_a_unix_socket_is_a_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").to_str().unwrap().to_owned();
    let nobody = Link::open(&WorkerAddress::Socket(path.clone())).unwrap_err().to_string();
    assert!(nobody.contains(&format!("no worker listens at '{path}'")), "{nobody}");
    let door = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut link = Link::open(&WorkerAddress::Socket(path)).unwrap();
    let (mut stream, _) = door.accept().unwrap();
    Frame { head: json!({"hello": "indexscope-worker"}), body: Vec::new() }.write(&mut stream).unwrap();
    assert_eq!(link.hello(&|| false).unwrap()["hello"], "indexscope-worker");
    drop(stream);
    assert!(link.ask(json!({"do": "memory"}), Vec::new(), 0, &|| false, &mut |_| Ok(())).is_err());
}

#[test]
fn a_reply_may_be_as_large_as_what_was_asked_for() {
    // The first reply waits for its line under the limit of the request before.
    let long = Calibration::new(vec![Sequence::of((0..20_000).collect())], "ids", 20_000).unwrap();
    let links = vec![Script::new(Fault::None).link()];
    let mut backend = RemoteBackend::over(links, "m", long, &Cancel::never()).unwrap();
    assert_eq!(evaluate(&mut backend, "FFF").unwrap().targets, 19_999);
}

#[test]
fn a_cancel_reaches_the_worker_and_leaves_it_usable() {
    let mut backend = backend(Fault::Waits);
    for _ in 0..2 {
        let generation = Generation::default();
        let cancel = generation.advance();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            generation.advance();
        });
        let ended = backend.evaluate(subject("FSF"), &cancel, &mut |_| ());
        assert!(matches!(ended, Err(BackendError::Cancelled)), "{ended:?}");
    }
    assert!(backend.record("FFF".parse().unwrap(), QuerySampling::All, &Cancel::never(), &mut |_| ()).is_ok());
}

#[test]
fn what_the_worker_lacks_is_refused_by_name() {
    let mut backend = backend(Fault::None);
    let pattern = "FSF".parse().unwrap();
    let refusals = [
        backend.measure(pattern, None, &Cancel::never(), &mut |_| (), &mut |_| ()).unwrap_err(),
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
        RemoteBackend::start(&[WorkerAddress::Command(command)], "m", set, &Cancel::never()).unwrap_err().to_string()
    };
    assert!(start(&["/no/such/program"]).contains("'/no/such/program' cannot be started"));
    let died = start(&["sh", "-c", "echo 'No module named torch' >&2; exit 3"]);
    assert!(died.contains("exit status: 3") && died.contains("No module named torch"), "{died}");
    let other = start(&["sh", "-c", "echo '{\"hello\": \"world\"}'; sleep 5"]);
    assert!(other.contains("not with its hello"), "{other}");
}
