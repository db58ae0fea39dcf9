//! The worker, driven step by step through a scripted backend.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::fake::Fake;
use super::{BackendError, Command, Handle, Job, Update, spawn_with};
use crate::domain::{Pattern, Subject};

fn p(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn start(fake: Fake) -> (Handle, Receiver<Update>) {
    let mut fake = Some(fake);
    let (handle, updates) = spawn_with(Duration::ZERO, move || match fake.take() {
        Some(fake) => Ok(Box::new(fake)),
        None => Ok(Box::new(Fake::new(3))),
    });
    assert!(matches!(next(&updates), Update::Ready(_)));
    assert_eq!(next(&updates), Update::Idle);
    (handle, updates)
}

/// Returns the next update that is not progress.
fn next(updates: &Receiver<Update>) -> Update {
    loop {
        match updates.recv_timeout(Duration::from_secs(20)).expect("the worker answers") {
            Update::Progress(_) => {}
            update => return update,
        }
    }
}

/// Reads updates up to [`Update::Idle`] and names them.
fn names(updates: &Receiver<Update>) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        names.push(match next(updates) {
            Update::Idle => return names,
            Update::Partial(e) => format!("partial {} {}", e.subject, e.sequences.0),
            Update::Evaluated(e) => format!("evaluated {}", e.subject),
            Update::Covered(c) => format!("covered {}", c.pattern),
            Update::Measured(s) => format!("measured {}", s[0].pattern),
            Update::Recorded(_) => "recorded".into(),
            Update::Crashed(message) => format!("crashed: {message}"),
            Update::Ready(_) => "ready".into(),
            Update::Failed(failure) => format!("failed: {}", failure.message),
            Update::Progress(_) => continue,
        });
    }
}

fn release(gate: &Sender<()>) {
    gate.send(()).expect("the worker waits at the gate");
}

#[test]
fn an_evaluation_is_followed_by_coverage_and_speed() {
    let (handle, updates) = start(Fake::new(3));
    handle.post(Command::Evaluate(p("FSS")));
    let want = ["partial FSS 1", "partial FSS 2", "partial FSS 3", "evaluated FSS", "covered FSS", "measured FSS"];
    assert_eq!(names(&updates), want);
}

#[test]
fn the_newest_edit_wins_and_the_older_is_never_reported() {
    let (fake, gate) = Fake::new(3).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Evaluate(p("FSS")));
    release(&gate);
    assert!(matches!(next(&updates), Update::Partial(e) if e.subject == Subject::Pattern(p("FSS"))));
    handle.post(Command::Evaluate(p("FFS")));
    handle.post(Command::Evaluate(p("FSF")));
    drop(gate);
    let names = names(&updates);
    assert!(names.iter().all(|n| n.ends_with("FSF") || n.starts_with("partial FSF")), "{names:?}");
    assert!(names.contains(&"evaluated FSF".to_owned()));
}

#[test]
fn a_recording_goes_on_after_an_edit() {
    let (fake, gate) = Fake::new(2).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Record);
    release(&gate);
    while !matches!(updates.recv().unwrap(), Update::Progress(p) if p.job == Job::Record) {}
    handle.post(Command::Evaluate(p("FS")));
    drop(gate);
    let names = names(&updates);
    let at = |name: &str| names.iter().position(|n| n == name);
    assert!(at("evaluated FS").is_some() && at("evaluated FS") < at("recorded"), "{names:?}");
}

#[test]
fn stop_leaves_nothing_to_do() {
    let (fake, gate) = Fake::new(2).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Evaluate(p("FS")));
    handle.post(Command::Record);
    release(&gate);
    next(&updates);
    handle.post(Command::Stop);
    drop(gate);
    assert_eq!(names(&updates), Vec::<String>::new());
}

#[test]
fn known_speed_is_told_at_once_after_undo() {
    let (handle, updates) = start(Fake::new(2));
    for pattern in ["FS", "FF", "FS"] {
        handle.post(Command::Evaluate(p(pattern)));
        let names = names(&updates);
        assert_eq!(names.iter().filter(|n| n.starts_with("measured")).count(), 1, "{names:?}");
    }
}

#[test]
fn a_panic_is_told_and_the_next_command_restarts() {
    let (handle, updates) = start(Fake::new(3).panicking(p("FSS")));
    handle.post(Command::Evaluate(p("FSS")));
    assert_eq!(names(&updates), ["crashed: scripted panic at FSS"]);
    handle.post(Command::Evaluate(p("FSS")));
    let names = names(&updates);
    assert_eq!((names[0].as_str(), names[4].as_str()), ("ready", "evaluated FSS"));
}

#[test]
fn a_model_that_cannot_load_is_a_failure_and_is_tried_again() {
    let mut tries = 0;
    let (handle, updates) = spawn_with(Duration::ZERO, move || {
        tries += 1;
        if tries == 1 {
            return Err(BackendError::Failed { message: "no such model".into(), hint: None });
        }
        Ok(Box::new(Fake::new(2)))
    });
    assert_eq!(names(&updates), ["failed: no such model"]);
    handle.post(Command::Record);
    assert_eq!(names(&updates), ["ready", "recorded"]);
}
