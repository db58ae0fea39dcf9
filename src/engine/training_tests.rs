//! The worker's training, driven step by step through a scripted backend, and that of the real backend.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::scripted::Fake;
use super::{
    BackendError, Calibration, Cancel, Command, DeviceChoice, Handle, Job, Placement, Runtime, Sequence, Settings,
    Source, Training, TrainingText, Update, spawn_with,
};
use crate::checkpoint::{Checkpoint, Sidecar};
use crate::domain::Diagnostic;
use crate::domain::{
    Goal, LeftTraining, Pattern, SearchSettings, SearchState, Strategy, Subject, Targets, TrainingSettings,
};
use crate::train::indexers::state_path;

fn p(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn start(fake: Fake) -> (Handle, Receiver<Update>) {
    let mut fake = Some(fake);
    spawn_with(Duration::ZERO, move || Ok(Box::new(fake.take().unwrap())))
}

fn next(updates: &Receiver<Update>) -> Update {
    updates.recv_timeout(Duration::from_secs(20)).expect("the worker answers")
}

fn settings(steps: u64) -> TrainingSettings {
    TrainingSettings { pattern: p("FSSF"), targets: Targets::Served, steps, sparse_steps: 2, lr: 0.01 }
}

/// Waits until the training is in a state; returns the steps told so far.
fn until(updates: &Receiver<Update>, state: SearchState) -> Vec<u64> {
    let mut steps = Vec::new();
    loop {
        if let Update::Training(progress) = next(updates) {
            assert_eq!(progress.layers, [0, 3]);
            steps.extend(progress.news.iter().map(|s| s.done));
            if progress.state == state {
                return steps;
            }
        }
    }
}

#[test]
fn a_training_gives_way_to_an_edit_and_goes_on_where_it_was() {
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Train(settings(4)));
    (0..3).for_each(|_| gate.send(()).unwrap());
    while !matches!(next(&updates), Update::Training(_)) {}
    handle.post(Command::Evaluate(p("FSFS")));
    drop(gate);
    let (mut steps, mut evaluated) = (Vec::new(), false);
    loop {
        match next(&updates) {
            Update::Evaluated(_) => evaluated = true,
            Update::Training(progress) => {
                steps.extend(progress.news.iter().map(|s| s.done));
                if progress.state == SearchState::Done {
                    break;
                }
            }
            _ => {}
        }
    }
    assert!(evaluated);
    assert_eq!(steps, [1, 2, 3, 4, 5, 6], "no step is lost and none is done twice");
    // What was trained is measured against what was before, and written.
    handle.post(Command::EvaluateTrained(p("FSSF")));
    let measured = loop {
        if let Update::Trained { evaluation, steps, .. } = next(&updates) {
            break (evaluation.delta.unwrap().value, steps);
        }
    };
    assert_eq!(measured, (0.02 / 7.0, 6));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    handle.post(Command::KeepTrained(path.clone()));
    while !matches!(next(&updates), Update::Kept(_)) {}
    assert_eq!(std::fs::read_to_string(path).unwrap(), "6");
}

#[test]
fn a_training_is_paused_resumed_stopped_and_begun_anew() {
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Train(settings(4)));
    (0..2).for_each(|_| gate.send(()).unwrap());
    while !matches!(next(&updates), Update::Training(p) if !p.news.is_empty()) {}
    handle.post(Command::PauseTraining);
    gate.send(()).unwrap();
    until(&updates, SearchState::Paused);
    handle.post(Command::ResumeTraining);
    until(&updates, SearchState::Running);
    handle.post(Command::StopTraining);
    drop(gate);
    until(&updates, SearchState::Stopped);
    handle.post(Command::Train(settings(4)));
    assert_eq!(until(&updates, SearchState::Done), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn one_long_job_ends_the_other() {
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Train(settings(400)));
    gate.send(()).unwrap();
    while !matches!(next(&updates), Update::Training(_)) {}
    handle.post(Command::Search(SearchSettings::new(Strategy::Greedy, Goal::Keep(2))));
    drop(gate);
    until(&updates, SearchState::Stopped);
    while !matches!(next(&updates), Update::Search(p) if p.record.state == SearchState::Done) {}
}

#[test]
fn what_becomes_nan_stops_and_is_told() {
    let (handle, updates) = start(Fake::new(4));
    handle.post(Command::EvaluateTrained(p("FSSF")));
    handle.post(Command::Train(TrainingSettings { lr: 2.0, ..settings(4) }));
    let mut failures = Vec::new();
    let mut stopped = false;
    while failures.len() < 2 {
        match next(&updates) {
            Update::Failed(failure) => failures.push((failure.job, failure.diagnostic.message)),
            Update::Training(p) => stopped = p.state == SearchState::Stopped,
            _ => {}
        }
    }
    assert_eq!(failures[0], (Job::Trained, "no indexers have been trained yet".to_owned()));
    assert_eq!(failures[1], (Job::Train, "the loss became NaN".to_owned()));
    assert!(stopped);
}

/// Waits until it is told what is put aside.
fn left(updates: &Receiver<Update>) -> Option<u64> {
    loop {
        if let Update::Left(left) = next(updates) {
            return left.map(|left| left.done);
        }
    }
}

fn at(folder: &Path) -> Command {
    Command::TrainingAt { sidecar: folder.join("s.indexers.safetensors"), along: false }
}

#[test]
fn a_training_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(at(folder.path()));
    assert_eq!(left(&updates), None);
    handle.post(Command::Train(settings(4)));
    (0..3).for_each(|_| gate.send(()).unwrap());
    while !matches!(next(&updates), Update::Training(p) if !p.news.is_empty()) {}
    // The program ends, by whatever way.
    drop(handle);
    drop(gate);
    while updates.recv_timeout(Duration::from_secs(20)).is_ok() {}

    let (handle, updates) = start(Fake::new(4));
    handle.post(at(folder.path()));
    let done = left(&updates).unwrap();
    assert!((1..=3).contains(&done), "{done}");
    handle.post(Command::TakeUpTraining(settings(4)));
    assert_eq!(until(&updates, SearchState::Done), [1, 2, 3, 4, 5, 6], "what was found before is told again");
    // A training that is done is still there, until its indexers are kept.
    handle.post(Command::PutAside);
    while left(&updates) != Some(6) {}
    handle.post(Command::KeepTrained(folder.path().join("kept")));
    while left(&updates).is_some() {}
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only what was kept");
    handle.post(Command::TakeUpTraining(settings(4)));
    let message = loop {
        if let Update::Failed(failure) = next(&updates) {
            break failure.diagnostic.message;
        }
    };
    assert_eq!(message, "no such training was put aside");
}

#[test]
fn a_training_goes_along_with_its_session_or_stays_there() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(format!("{name}.indexers.safetensors")));
    let (handle, updates) = start(Fake::new(4));
    handle.post(Command::TrainingAt { sidecar: a.clone(), along: false });
    assert_eq!(left(&updates), None);
    handle.post(Command::Train(settings(4)));
    until(&updates, SearchState::Done);
    handle.post(Command::TrainingAt { sidecar: b.clone(), along: true });
    assert_eq!(left(&updates), Some(6));
    let names = || std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(), ["b.indexers.safetensors.state"]);
    handle.post(Command::TrainingAt { sidecar: a, along: false });
    assert_eq!(left(&updates), None, "another session has none");
    handle.post(Command::TrainingAt { sidecar: b, along: false });
    assert_eq!(left(&updates), Some(6));
}

#[test]
fn a_panic_costs_no_more_than_what_was_not_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, gate) = Fake::new(4).panicking(p("FSSF")).gated();
    let (mut fake, mut other) = (Some(fake), Some(Fake::new(4)));
    let (handle, updates) =
        spawn_with(Duration::ZERO, move || Ok(Box::new(fake.take().or_else(|| other.take()).unwrap()) as _));
    handle.post(at(folder.path()));
    handle.post(Command::Train(settings(4)));
    (0..2).for_each(|_| gate.send(()).unwrap());
    while !matches!(next(&updates), Update::Training(p) if !p.news.is_empty()) {}
    handle.post(Command::PauseTraining);
    gate.send(()).unwrap();
    until(&updates, SearchState::Paused);
    handle.post(Command::PutAside);
    let safe = left(&updates).unwrap();
    assert!((1..=3).contains(&safe), "{safe}");
    handle.post(Command::ResumeTraining);
    drop(gate);
    let mut crashed = false;
    while !crashed {
        crashed = matches!(next(&updates), Update::Crashed(why) if why == "scripted panic in a step");
    }
    assert_eq!(left(&updates), Some(safe));
    // It does not begin again by itself.
    handle.post(Command::TakeUpTraining(settings(4)));
    assert_eq!(until(&updates, SearchState::Done), [1, 2, 3, 4, 5, 6]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_the_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("s.indexers.safetensors.state");
    let (handle, updates) = start(Fake::new(4));
    handle.post(at(folder.path()));
    assert_eq!(left(&updates), None);
    std::os::unix::fs::symlink("/dev/full", &state).unwrap();
    handle.post(Command::Train(settings(4)));
    let failed = loop {
        match next(&updates) {
            Update::Failed(failure) => break failure,
            Update::Training(p) => assert_ne!(p.state, SearchState::Done, "it is told before the end"),
            _ => {}
        }
    };
    assert!(failed.job == Job::PutAside && failed.diagnostic.message.contains("No space left"), "{failed:?}");
    until(&updates, SearchState::Done);
    std::fs::remove_file(&state).unwrap();
    handle.post(Command::PutAside);
    assert_eq!(left(&updates), Some(6), "with room again nothing is lost");
}

/// A tiny checkpoint, what it is judged on, and tokens to train on.
fn tiny() -> (Checkpoint, Calibration, impl Fn(usize, usize) -> Vec<u32>) {
    let checkpoint =
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/deepseek_v32_tiny")).unwrap();
    let vocab = checkpoint.config().vocab_size;
    let ids = move |seed: usize, n: usize| (0..n).map(|i| ((i * i * 7 + seed * i) % vocab) as u32).collect();
    let calibration = Calibration::new(vec![Sequence::of(ids(3, 64))], "test", vocab).unwrap();
    (checkpoint, calibration, ids)
}

#[test]
fn what_was_put_aside_ends_with_the_same_bits_and_belongs_to_one_model_pattern_and_text() {
    let (checkpoint, calibration, ids) = tiny();
    let load = |seed| {
        let settings = Settings::new(Placement::open(DeviceChoice::Cpu, None).unwrap());
        let text = TrainingText { checkpoint: checkpoint.clone(), texts: vec![("t".into(), ids(seed, 700))] };
        let source = Source::new(checkpoint.clone(), calibration.clone(), Runtime::Process(settings));
        Source { training: Some(text), ..source }.open(&Cancel::never()).unwrap()
    };
    let pattern = Pattern::uniform(checkpoint.config().num_hidden_layers, 2).unwrap();
    let settings = TrainingSettings { pattern, targets: Targets::Served, steps: 6, sparse_steps: 3, lr: 0.02 };
    let never = Cancel::never();
    let mut whole = load(5).train(&settings, None).unwrap();
    while whole.step(&never).unwrap().is_some() {}

    let folder = tempfile::tempdir().unwrap();
    let sidecar = folder.path().join("s.indexers.safetensors");
    assert_eq!(load(5).left(&sidecar).unwrap(), None);
    // Put aside in the warm-up and in the sparse stage, each time in another program.
    let mut done = 0;
    for until in [4, 8, 9] {
        let mut part = load(5).train(&settings, (done > 0).then_some(&sidecar)).unwrap();
        while done < until {
            done = part.step(&never).unwrap().unwrap().done;
        }
        part.save(&sidecar).unwrap();
        assert_eq!(load(5).left(&sidecar).unwrap(), Some(LeftTraining { settings, done }));
    }
    let end = load(5).train(&settings, Some(&sidecar)).unwrap();
    assert_eq!(end.weights(), whole.weights());
    let found = |t: &dyn Training| t.history().into_iter().map(|s| (s.done, s.kl, s.floor)).collect::<Vec<_>>();
    assert_eq!(found(&*end), found(&*whole), "every step of all three programs");
    assert_eq!(end.weights().steps, 9);

    let refused = |seed, settings| load(seed).train(&settings, Some(&sidecar)).err().unwrap().to_string();
    assert!(refused(6, settings).contains("begun on other tokens"), "{}", refused(6, settings));
    let other = TrainingSettings { pattern: Pattern::uniform(pattern.len(), 3).unwrap(), ..settings };
    let want = format!("begun for the pattern {pattern}, not {}", other.pattern);
    assert!(refused(5, other).contains(&want), "{}", refused(5, other));
    let faster = TrainingSettings { lr: 0.03, ..settings };
    assert!(refused(5, faster).contains("begun with other options"));

    // Another model of as many layers is no more welcome; what there is stays as it is.
    let mut bytes = std::fs::read(state_path(&sidecar)).unwrap();
    let base = r#"\"base\":\""#;
    let at = String::from_utf8_lossy(&bytes).find(base).unwrap() + base.len();
    bytes[at] += 1;
    let crc = br#""crc32":""#;
    let sum = bytes.windows(crc.len()).position(|w| w == crc).unwrap() + crc.len();
    bytes[sum..sum + crate::seal::BLANK.len()].copy_from_slice(crate::seal::BLANK.as_bytes());
    crate::seal::seal(&mut bytes);
    std::fs::write(state_path(&sidecar), &bytes).unwrap();
    let BackendError::Failed(Diagnostic { message, hint }) = load(5).train(&settings, Some(&sidecar)).err().unwrap()
    else {
        panic!("it was not cancelled")
    };
    assert!(message.ends_with("cannot be resumed: it was begun for another model"), "{message}");
    assert_eq!(hint.as_deref(), Some("begin a new one, or open the session that it belongs to"));
    assert_eq!(std::fs::read(state_path(&sidecar)).unwrap(), bytes);
}

#[test]
fn the_real_backend_trains_and_measures_before_and_after() {
    let (checkpoint, calibration, ids) = tiny();
    let placement = Placement::open(DeviceChoice::Cpu, None).unwrap();
    let load = |checkpoint: &Checkpoint, training: Option<TrainingText>| {
        let runtime = Runtime::Process(Settings::new(placement.clone()));
        let source = Source::new(checkpoint.clone(), calibration.clone(), runtime);
        Source { training, ..source }.open(&Cancel::never()).unwrap()
    };
    let layers = checkpoint.config().num_hidden_layers;
    let pattern = Pattern::uniform(layers, 2).unwrap();
    let settings = TrainingSettings { pattern, targets: Targets::Served, steps: 6, sparse_steps: 2, lr: 0.02 };
    let refused = load(&checkpoint, None).train(&settings, None).err().unwrap().to_string();
    assert!(refused.contains("no text to train on"), "{refused}");

    let text = TrainingText { checkpoint: checkpoint.clone(), texts: vec![("t".into(), ids(5, 700))] };
    let mut backend = load(&checkpoint, Some(text));
    let mut training = backend.train(&settings, None).unwrap();
    let never = Cancel::never();
    let before = backend.evaluate(Subject::Pattern(pattern), &never, &mut |_| {}).unwrap();
    let (untrained, covered) = backend.evaluate_with(&training.weights(), pattern, &never, &mut |_| {}).unwrap();
    assert_eq!((untrained.loss, untrained.delta), (before.loss, before.delta), "nothing has changed yet");
    assert_eq!(covered, backend.coverage(pattern, &never).unwrap());
    let mut steps = 0;
    while let Some(step) = training.step(&never).unwrap() {
        steps += 1;
        assert!(step.done == steps && step.kl.iter().all(|kl| kl.is_finite()));
    }
    assert_eq!(steps, 8);
    let (after, _) = backend.evaluate_with(&training.weights(), pattern, &never, &mut |_| {}).unwrap();
    assert_eq!(after.reference_loss, before.reference_loss, "one reference for both");
    assert_ne!(after.loss, before.loss);

    // The sidecar that is kept has the same loss, but for its rounding to f16.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    training.write(&path).unwrap();
    training.write(&path).unwrap();
    let weights = folder.path().join("model.safetensors");
    std::fs::write(&weights, "precious").unwrap();
    let refused = training.write(&weights).unwrap_err().to_string();
    assert!(refused.contains("model.safetensors' is there already, and no sidecar"), "{refused}");
    let kept = checkpoint.with_sidecar(&Sidecar::open(&path).unwrap()).unwrap();
    let mut kept = load(&kept, None);
    let loss = kept.evaluate(Subject::Pattern(pattern), &never, &mut |_| {}).unwrap().loss;
    assert!((loss - after.loss).abs() < 1e-2, "{loss} is not {}", after.loss);
}
