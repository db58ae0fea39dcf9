//! The worker's training, driven step by step through a scripted backend, and that of the real backend.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::fake::Fake;
use super::{
    Backend, Calibration, Cancel, Command, DeviceChoice, Handle, Job, LocalBackend, Placement, Sequence, Settings,
    TrainingText, Update, spawn_with,
};
use crate::checkpoint::{Checkpoint, Sidecar};
use crate::domain::{Goal, Pattern, SearchSettings, SearchState, Strategy, Subject, Targets, TrainingSettings};

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
        if let Update::Trained(evaluation, steps) = next(&updates) {
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
            Update::Failed(failure) => failures.push((failure.job, failure.message)),
            Update::Training(p) => stopped = p.state == SearchState::Stopped,
            _ => {}
        }
    }
    assert_eq!(failures[0], (Job::Trained, "no indexers have been trained yet".to_owned()));
    assert_eq!(failures[1], (Job::Train, "the loss became NaN".to_owned()));
    assert!(stopped);
}

#[test]
fn the_real_backend_trains_and_measures_before_and_after() {
    let checkpoint =
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/deepseek_v32_tiny")).unwrap();
    let vocab = checkpoint.config().vocab_size;
    let ids = |seed: usize, n: usize| -> Vec<u32> { (0..n).map(|i| ((i * i * 7 + seed * i) % vocab) as u32).collect() };
    let calibration = Calibration::new(vec![Sequence::of(ids(3, 64))], "test", vocab).unwrap();
    let placement = Placement::open(DeviceChoice::Cpu, None).unwrap();
    let load = || LocalBackend::load(&checkpoint, calibration.clone(), Settings::new(placement.clone())).unwrap();
    let layers = checkpoint.config().num_hidden_layers;
    let pattern = Pattern::uniform(layers, 2).unwrap();
    let settings = TrainingSettings { pattern, targets: Targets::Served, steps: 6, sparse_steps: 2, lr: 0.02 };
    let refused = load().train(&settings).err().unwrap().to_string();
    assert!(refused.contains("no text to train on"), "{refused}");

    let text = TrainingText { checkpoint: checkpoint.clone(), texts: vec![("t".into(), ids(5, 700))] };
    let mut backend = load().with_training(text);
    let mut training = backend.train(&settings).unwrap();
    let never = Cancel::never();
    let before = backend.evaluate(Subject::Pattern(pattern), &never, &mut |_| {}).unwrap();
    let untrained = backend.evaluate_with(&training.weights(), pattern, &never, &mut |_| {}).unwrap();
    assert_eq!((untrained.loss, untrained.delta), (before.loss, before.delta), "nothing has changed yet");
    let mut steps = 0;
    while let Some(step) = training.step(&never).unwrap() {
        steps += 1;
        assert!(step.done == steps && step.kl.iter().all(|kl| kl.is_finite()));
    }
    assert_eq!(steps, 8);
    let after = backend.evaluate_with(&training.weights(), pattern, &never, &mut |_| {}).unwrap();
    assert_eq!(after.reference_loss, before.reference_loss, "one reference for both");
    assert_ne!(after.loss, before.loss);

    // The sidecar that is kept has the same loss, but for its rounding to f16.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    training.write(&path).unwrap();
    let kept = checkpoint.with_sidecar(&Sidecar::open(&path).unwrap()).unwrap();
    let mut kept = LocalBackend::load(&kept, calibration.clone(), Settings::new(placement)).unwrap();
    let loss = kept.evaluate(Subject::Pattern(pattern), &never, &mut |_| {}).unwrap().loss;
    assert!((loss - after.loss).abs() < 1e-2, "{loss} is not {}", after.loss);
}
