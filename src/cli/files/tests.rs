//! Sessions on the disk, saved, put aside and opened again.

use super::*;
use crate::domain::{Evaluation, Goal, Origin, SearchSettings, Strategy, Subject};
use crate::session::autosave_path;

fn step(pattern: &str, parent: Option<usize>) -> Step {
    Step {
        pattern: pattern.parse().unwrap(),
        parent,
        change: "a change".into(),
        evaluation: None,
        speed: Vec::new(),
        validation: None,
    }
}

fn files(folder: &Path) -> SessionFiles {
    let model = SessionModel { name: "a/b".into(), fingerprint: "f".into(), ..SessionModel::default() };
    SessionFiles::without_model(model, folder.to_owned())
}

#[test]
fn work_comes_back_and_goes_on_under_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let named = vec![("safe".to_owned(), "FS".parse().unwrap())];
    let settings = SearchSettings::new(Strategy::Greedy, Goal::Keep(1));
    let record = Box::new(SearchRecord::new(settings, "FF".parse().unwrap()));
    let steps = vec![step("FF", None), step("FS", Some(0))];
    let work = Work { steps, current: 1, named, search: Some(record), overlap: None };
    let mut first = files(folder.path());
    let path = first.save(None, &work).unwrap();
    assert_eq!(path, folder.path().join("a-b.toml"));
    assert_eq!(first.sessions(), std::slice::from_ref(&path));
    let mut second = files(folder.path());
    // It is open in the first one: here it goes on under a name of its own.
    let own = folder.path().join("a-b-2.toml");
    assert_eq!(second.open(&path).unwrap(), Opened { work: work.clone(), file: own.clone(), other_text: false });
    let refused = second.save(Some(&path), &work).unwrap_err();
    assert!(refused.message.contains("open in another"), "{refused}");
    second.autosave(&work).unwrap();
    assert!(autosave_path(&own).is_file() && !autosave_path(&path).exists());
    assert_eq!(second.save(None, &work).unwrap(), own);
    drop(first);
    let page = second.report(&work, &Stages::one(2)).unwrap();
    assert_eq!(page, folder.path().join("a-b-2.html"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("<b>F</b>S"));
    let undone = Work { current: 0, ..work };
    let refused = second.save(Some(&path), &undone).unwrap_err();
    assert!(refused.to_string().ends_with("is another session · saving there once more replaces it"), "{refused}");
    assert_eq!(second.save(Some(&path), &undone).unwrap(), path);
    let other = folder.path().join("Cargo.toml");
    std::fs::write(&other, "[package]").unwrap();
    for _ in 0..2 {
        let refused = second.save(Some(&other), &undone).unwrap_err();
        assert!(refused.message.ends_with("Cargo.toml' is there already, and no session"), "{refused}");
    }
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "[package]");
    let session = Session::read(&path).unwrap();
    assert_eq!((session.pattern.to_string().as_str(), session.searches.len()), ("FF", 1));
}

#[test]
fn an_autosave_ends_with_the_save_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let work = Work {
        steps: vec![step("FF", None), step("FS", Some(0))],
        current: 1,
        named: vec![],
        search: None,
        overlap: None,
    };
    let [usual, other] = ["a-b.toml", "other.toml"].map(|name| folder.path().join(name));
    let mut first = files(folder.path());
    first.save(None, &work).unwrap();
    first.autosave(&work).unwrap();
    assert!(autosave_path(&usual).is_file());
    first.save(Some(&other), &work).unwrap();
    assert!(!autosave_path(&usual).exists(), "what was put aside is saved now");
    // What an earlier run put aside and nobody looked at is still there after a save under another name.
    std::fs::copy(&other, autosave_path(&usual)).unwrap();
    let third = folder.path().join("third.toml");
    files(folder.path()).save(Some(&third), &work).unwrap();
    assert!(autosave_path(&usual).is_file());
    // Opened and saved under another name it is no longer needed.
    let mut second = files(folder.path());
    second.open(&autosave_path(&usual)).unwrap();
    second.save(Some(&folder.path().join("fourth.toml")), &work).unwrap();
    assert!(!autosave_path(&usual).exists());
}

#[test]
fn two_at_once_and_one_after_the_other_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let work = |change: &str| {
        let steps = vec![Step { change: change.into(), ..step("FS", None) }];
        Work { steps, current: 0, named: vec![], search: None, overlap: None }
    };
    let change = |name: &str| Session::read(&path(name)).unwrap().history[0].change.clone();
    let (mut first, mut second) = (files(folder.path()), files(folder.path()));
    assert_eq!(first.settle(), (path("a-b.toml"), None));
    let (own, notice) = second.settle();
    assert_eq!(own, path("a-b-2.toml"));
    assert!(notice.unwrap().contains("a-b.toml\n"));
    first.autosave(&work("first")).unwrap();
    second.autosave(&work("second")).unwrap();
    assert_eq!((change("a-b.autosave.toml").as_str(), change("a-b-2.autosave.toml").as_str()), ("first", "second"));
    // The autosave of one that lives is looked at, and stays its own.
    assert_eq!(second.open(&path("a-b.autosave.toml")).unwrap().file, path("a-b-3.toml"));
    second.save(None, &work("second")).unwrap();
    assert!(path("a-b.autosave.toml").exists());
    drop((first, second));

    // Runs that crash one after the other leave an autosave each.
    let mut crashed = files(folder.path());
    crashed.settle();
    crashed.autosave(&work("crashed")).unwrap();
    crashed.autosave(&work("crashed later")).unwrap();
    drop(crashed);
    assert_eq!((change("a-b.autosave.toml"), change("a-b.autosave-2.toml")), ("first".into(), "crashed later".into()));
    let mut third = files(folder.path());
    assert_eq!(third.settle(), (path("a-b.toml"), None));
    // One that is opened stays as it is until what came of it is saved.
    assert_eq!(third.open(&path("a-b.autosave-2.toml")).unwrap().file, path("a-b.toml"));
    third.autosave(&work("third")).unwrap();
    assert_eq!(
        (change("a-b.autosave-2.toml"), change("a-b.autosave-3.toml")),
        ("crashed later".into(), "third".into())
    );
    assert_eq!(third.save(None, &work("third")).unwrap(), path("a-b.toml"));
    assert_eq!(change("a-b.autosave.toml"), "first", "nobody has looked at it");
    assert!(!path("a-b.autosave-2.toml").exists() && !path("a-b.autosave-3.toml").exists());
    drop(third);

    // A session that is there is not replaced by one that was never saved.
    let mut fourth = files(folder.path());
    fourth.settle();
    assert_eq!(fourth.save(None, &work("fourth")).unwrap(), path("a-b-2.toml"));
    assert_eq!(fourth.save(None, &work("fourth again")).unwrap(), path("a-b-2.toml"));
    assert_eq!((change("a-b.toml").as_str(), change("a-b-2.toml").as_str()), ("third", "fourth again"));
    let again = folder.path().join("./a-b.toml");
    assert!(fourth.save(Some(&again), &work("meant")).is_err());
    assert!(fourth.save(Some(&again), &work("meant")).is_ok());
}

#[test]
fn losses_on_another_text_are_left_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a-b.toml");
    let evaluation = Evaluation {
        subject: Subject::Pattern("FS".parse().unwrap()),
        loss: 2.5,
        delta: None,
        delta_all: 0.0,
        reference_loss: 2.4,
        agreement: None,
        bits_per_byte: None,
        by_position: Vec::new(),
        worst_sequence: None,
        by_cluster: Vec::new(),
        sequences: (1, 1),
        targets: 8,
        eligible: 8,
        blocks: 1,
        resumed_from: 0,
        layer_forwards: 2.0,
        seconds: 1.0,
        origin: Origin::Measured,
    };
    let steps = vec![Step { evaluation: Some(evaluation), ..step("FS", None) }];
    let work = Work { steps, current: 0, named: vec![], search: None, overlap: None };
    let on = |text: &str| SessionFiles { calibration: text.into(), ..files(folder.path()) };
    on("text a").save(Some(&path), &work).unwrap();
    let opened = on("text a").open(&path).unwrap();
    assert_eq!((&opened.work, opened.other_text), (&work, false));
    let mut other = on("text b");
    let opened = other.open(&path).unwrap();
    let own = folder.path().join("a-b-2.toml");
    assert_eq!((&opened.file, opened.other_text, &opened.work.steps[0].evaluation), (&own, true, &None));
    assert_eq!(other.save(None, &opened.work).unwrap(), own);
    let kept = |path: &Path| Session::read(path).unwrap();
    assert!(kept(&path).history[0].evaluation.is_some() && kept(&own).history[0].evaluation.is_none());
    assert_eq!((kept(&path).calibration.as_str(), kept(&own).calibration.as_str()), ("text a", "text b"));
}

#[test]
fn a_session_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    let model = SessionModel { name: "other".into(), fingerprint: "g".into(), ..SessionModel::default() };
    Session::new(model, "FS".parse().unwrap()).write(&path).unwrap();
    let refused = files(folder.path()).open(&path).unwrap_err();
    assert!(refused.message.contains("belongs to model 'other'"), "{refused}");
}
