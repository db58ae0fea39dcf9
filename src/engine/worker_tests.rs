//! The worker, driven step by step through a scripted backend.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::scripted::Fake;
use super::{BackendError, Command, Handle, Job, Update, spawn_with};
use crate::domain::Diagnostic;
use crate::domain::{Goal, Pattern, SearchProgress, SearchSettings, SearchState, Strategy, Subject};

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
            Update::Affinity(kind, _) => format!("affinity {kind:?}"),
            Update::Profiled(s) => format!("profiled {}", s[0].pattern),
            Update::Recorded(_) => "recorded".into(),
            Update::Validated(p, v) => format!("validated {p} on {}", v.map_or(0, |v| v.sequences)),
            Update::Crashed(message) => format!("crashed: {message}"),
            Update::Ready(_) => "ready".into(),
            Update::Search(p) => format!("search {:?} {}", p.record.state, p.record.pattern),
            Update::Training(p) => format!("training {:?}", p.state),
            Update::Trained { evaluation, .. } => format!("trained {}", evaluation.subject),
            Update::Kept(path) => format!("kept {}", path.display()),
            Update::Left(left) => format!("left after {} steps", left.map_or(0, |left| left.done)),
            Update::Failed(failure) => format!("failed: {}", failure.diagnostic.message),
            Update::Progress(_) | Update::Memory(..) => continue,
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
fn a_judgement_comes_after_everything_about_an_edit() {
    let (fake, gate) = Fake::new(2).gated();
    let (handle, updates) = start(fake);
    // Interrupted or not begun: either way the edit comes first, and both patterns are judged.
    handle.post(Command::Validate(p("FS")));
    handle.post(Command::Validate(p("FF")));
    handle.post(Command::Validate(p("FS")));
    handle.post(Command::Evaluate(p("FS")));
    drop(gate);
    let mut names = names(&updates);
    let at = |name: &str| names.iter().position(|n| n == name).unwrap();
    assert!(at("evaluated FS") < at("validated FS on 2") && at("evaluated FS") < at("validated FF on 2"), "{names:?}");
    names.retain(|n| n.starts_with("validated"));
    assert_eq!(names.len(), 2);
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
            return Err(BackendError::Failed(Diagnostic { message: "no such model".into(), hint: None }));
        }
        Ok(Box::new(Fake::new(2)))
    });
    assert_eq!(names(&updates), ["failed: no such model"]);
    handle.post(Command::Record);
    assert_eq!(names(&updates), ["ready", "recorded"]);
}

fn keep(full: usize) -> SearchSettings {
    SearchSettings::new(Strategy::Greedy, Goal::Keep(full))
}

/// Reads updates until the search is in another state than running.
fn search_end(updates: &Receiver<Update>) -> SearchProgress {
    loop {
        if let Update::Search(progress) = next(updates)
            && progress.record.state != SearchState::Running
        {
            return *progress;
        }
    }
}

#[test]
fn a_search_runs_to_its_end() {
    let (handle, updates) = start(Fake::new(4));
    handle.post(Command::Search(keep(2)));
    let end = search_end(&updates);
    assert_eq!((end.record.state, end.record.pattern), (SearchState::Done, p("FSSF")));
    assert_eq!(end.record.order.iter().map(|f| f.layer).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((end.record.calibration.as_str(), end.steps), ("fake", (2, 2)));
}

#[test]
fn an_edit_is_answered_before_the_search_goes_on() {
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Search(keep(2)));
    // The reference on three parts, and one candidate.
    (0..4).for_each(|_| release(&gate));
    while !matches!(next(&updates), Update::Search(_)) {}
    handle.post(Command::Evaluate(p("FSSS")));
    drop(gate);
    let mut seen = Vec::new();
    let end = loop {
        match next(&updates) {
            Update::Search(progress) if progress.record.state == SearchState::Done => break progress,
            Update::Search(_) => seen.push("search"),
            Update::Evaluated(_) => seen.push("evaluated"),
            Update::Measured(_) => seen.push("measured"),
            _ => {}
        }
    };
    assert!(seen.windows(2).any(|pair| pair == ["evaluated", "measured"]), "{seen:?}");
    assert_eq!(seen.last(), Some(&"search"));
    // What was measured before the edit was not measured again.
    assert_eq!((end.record.pattern, end.record.work.evaluations.round()), (p("FSSF"), 3.0 + 2.0));
}

#[test]
fn a_search_can_be_paused_resumed_and_stopped() {
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Search(keep(1)));
    (0..4).for_each(|_| release(&gate));
    while !matches!(next(&updates), Update::Search(_)) {}
    handle.post(Command::PauseSearch);
    drop(gate);
    assert_eq!(search_end(&updates).record.state, SearchState::Paused);
    handle.post(Command::ResumeSearch);
    assert_eq!(search_end(&updates).record.pattern, p("FSSS"));
    let (fake, gate) = Fake::new(4).gated();
    let (handle, updates) = start(fake);
    handle.post(Command::Search(keep(1)));
    (0..5).for_each(|_| release(&gate));
    while !matches!(next(&updates), Update::Search(_)) {}
    handle.post(Command::StopSearch);
    drop(gate);
    assert_eq!(search_end(&updates).record.state, SearchState::Stopped);
    assert_eq!(names(&updates), Vec::<String>::new());
}

#[test]
fn what_a_search_cannot_do_is_told() {
    let (handle, updates) = start(Fake::new(3));
    handle.post(Command::Search(SearchSettings { lock_full: [7].into_iter().collect(), ..keep(1) }));
    loop {
        if let Update::Failed(failure) = next(&updates) {
            assert!(failure.job == Job::Search && failure.diagnostic.message.contains("layer 7"), "{failure:?}");
            return;
        }
    }
}
