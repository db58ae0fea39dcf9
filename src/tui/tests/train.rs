use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ratatui::crossterm::event::KeyCode;

use super::scene::{Scene, evaluation, model, opened};
use super::snapshot::dump;
use crate::domain::Diagnostic;
use crate::domain::*;
use crate::engine::scripted::Fake;
use crate::engine::{Command, Coverage, Failure, Job, LayerCoverage, Progress, Update, spawn_with};
use crate::tui::app::Overlay;
use crate::tui::msg::{Effect, Msg};
use crate::tui::screens::Screen;

fn settings(pattern: Pattern) -> TrainingSettings {
    TrainingSettings { pattern, targets: Targets::Served, steps: 200, sparse_steps: 50, lr: 2e-3 }
}

/// A training of which so many steps are done: KL falls, later layers slower.
fn progress(pattern: Pattern, steps: std::ops::RangeInclusive<u64>, state: SearchState) -> TrainingProgress {
    let layers: Vec<usize> = (0..pattern.len()).filter(|&l| pattern.is_full(l)).collect();
    let step = |done: u64| TrainingStep {
        sparse: done > 200,
        done,
        kl: layers.iter().map(|&l| 0.1 + 0.9 * (-(done as f64) / (20.0 + 10.0 * l as f64)).exp()).collect(),
        floor: layers.iter().map(|&l| 0.01 * l as f64).collect(),
        rate: 1.7e-3,
        tokens: 512 * done,
        tokens_per_second: 842.0,
    };
    TrainingProgress { settings: settings(pattern), state, news: steps.map(step).collect(), eta: Some(93.0), layers }
}

/// uniform:4 of 12 layers is in view and measured; nothing is trained yet.
fn ready() -> Scene {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    scene.type_keys("n\n");
    scene.wait(100);
    let pattern = scene.pattern();
    scene.settle(pattern);
    scene.posted.clear();
    scene.type_keys("7");
    scene
}

fn told(scene: &mut Scene, steps: std::ops::RangeInclusive<u64>, state: SearchState) {
    let progress = progress(scene.pattern(), steps, state);
    scene.worker(Update::Training(Box::new(progress)));
}

/// A pattern measured with trained indexers, under which every Shared layer finds 0.9 of its own selection.
fn trained(evaluation: Evaluation, steps: u64) -> Update {
    let Subject::Pattern(pattern) = evaluation.subject else { unreachable!("tests measure patterns") };
    let overlap = Estimate { value: 0.9, se: None, n: 1 };
    let shared = (0..pattern.len()).filter(|&l| !pattern.is_full(l));
    let layers = shared.map(|layer| LayerCoverage { layer, overlap }).collect();
    Update::Trained { evaluation: Box::new(evaluation), coverage: Coverage { pattern, layers }, steps }
}

#[test]
fn the_training_at_three_sizes() {
    let mut scene = ready();
    insta::assert_snapshot!("train_empty", scene.text(80, 24));
    scene.type_keys("c");
    insta::assert_snapshot!("train_settings", scene.text(80, 24));
    scene.press(KeyCode::Esc);
    told(&mut scene, 1..=140, SearchState::Running);
    let pattern = scene.pattern();
    let mut after = evaluation(pattern, 20);
    after.delta = Some(Delta::measured(0.0021, 0.0006, 9812));
    scene.worker(trained(after, 140));
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        insta::assert_snapshot!(format!("train_{width}x{height}"), scene.text(width, height));
    }
    insta::assert_snapshot!("train_colours", dump(&scene.draw(80, 24), Scene::colours()));
    scene.app.theme = Scene::mono();
    insta::assert_snapshot!("train_mono", dump(&scene.draw(80, 24), Scene::mono()));
}

#[test]
fn enter_trains_for_the_pattern_in_view() {
    let mut scene = ready();
    scene.type_keys("c^U30+10 5e-4 own\n");
    assert_eq!(scene.app.message.text, "the next training: 30+10 5e-4 own");
    scene.type_keys("\n");
    let expected =
        TrainingSettings { pattern: scene.pattern(), targets: Targets::Own, steps: 30, sparse_steps: 10, lr: 5e-4 };
    assert_eq!(scene.posted, [Command::Train(expected)]);
    scene.worker(Update::Progress(Progress { job: Job::Speed, share: 0.5, eta: None }));
    assert!(scene.text(120, 40).contains("begins once the worker is free; now: speed"), "{}", scene.text(120, 40));
    scene.type_keys("\n");
    assert!(scene.app.message.text.contains("a training goes on"), "{}", scene.app.message.text);
    // One long job at a time.
    told(&mut scene, 1..=3, SearchState::Running);
    scene.type_keys("4\n");
    assert!(scene.app.message.text.contains("only one long job"), "{}", scene.app.message.text);
    scene.type_keys("7c^U3\n");
    assert!(matches!(scene.app.overlay, Overlay::Prompt(..)), "what is wrong stays open");
}

#[test]
fn a_training_is_paused_stopped_measured_and_kept() {
    let mut scene = ready();
    scene.type_keys("a");
    assert!(scene.app.message.text.contains("no indexers have been trained yet"), "{}", scene.app.message.text);
    told(&mut scene, 1..=7, SearchState::Running);
    scene.type_keys(" ");
    assert_eq!(scene.posted, [Command::PauseTraining]);
    told(&mut scene, 8..=8, SearchState::Paused);
    assert!(scene.text(80, 24).contains("paused"));
    scene.type_keys(" ");
    assert_eq!(scene.posted.last(), Some(&Command::ResumeTraining));
    told(&mut scene, 9..=9, SearchState::Running);
    scene.type_keys("x");
    assert_eq!(scene.posted.last(), Some(&Command::StopTraining));
    told(&mut scene, 10..=10, SearchState::Stopped);
    let pattern = scene.pattern();
    scene.type_keys("a");
    assert_eq!(scene.posted.last(), Some(&Command::EvaluateTrained(pattern)));
    scene.worker(trained(evaluation(pattern, 20), 10));
    let text = scene.text(100, 30);
    assert!(text.contains("before") && text.contains("after 10 steps, against the same reference"), "{text}");
    scene.type_keys("k");
    scene.type_keys("out\n");
    assert_eq!(scene.app.message.text, "sidecars are .safetensors files");
    scene.type_keys(".safetensors\n");
    assert_eq!(scene.posted.last(), Some(&Command::KeepTrained("out.safetensors".into())));
    scene.worker(Update::Kept("out.safetensors".into()));
    assert!(scene.app.message.text.starts_with("kept out.safetensors"));
    // What was measured is stale once training went on.
    told(&mut scene, 11..=12, SearchState::Running);
    assert!(scene.text(100, 30).contains("'a' measures those of now"));
}

#[test]
fn the_pair_tells_the_floor_of_its_group() {
    let mut scene = ready();
    scene.app.known.floors = vec![crate::tui::Floor { source: 8, end: 12, value: 0.375 }];
    scene.type_keys("1/9\n");
    assert!(scene.text(120, 40).contains("floor 0.375 nats"), "{}", scene.text(120, 40));
    assert!(scene.text(80, 24).contains("fl  0.375"), "{}", scene.text(80, 24));
    // What has just been measured counts for more; other groups have none.
    told(&mut scene, 1..=3, SearchState::Running);
    assert!(scene.text(120, 40).contains("floor 0.080 nats"), "{}", scene.text(120, 40));
    scene.type_keys(" ");
    assert!(!scene.text(120, 40).contains("floor"), "{}", scene.text(120, 40));
}

#[test]
fn an_edit_is_answered_first_and_a_failure_ends_it() {
    let mut scene = ready();
    told(&mut scene, 1..=3, SearchState::Running);
    scene.worker(Update::Progress(Progress { job: Job::Evaluate, share: 0.3, eta: None }));
    assert!(scene.text(80, 24).contains("waits for the edit"));
    scene.worker(Update::Idle);
    scene.type_keys("1");
    assert!(scene.text(80, 24).contains("training 3/250 1:33"), "{}", scene.text(80, 24));
    scene.posted.clear();
    scene.type_keys("^C");
    assert_eq!(scene.posted, [Command::StopTraining, Command::Stop]);
    let message = "the loss became NaN at step 3 of the warmup stage".to_owned();
    scene.worker(Update::Failed(Failure {
        job: Job::Train,
        diagnostic: Diagnostic { message, hint: Some("lower the learning rate".into()) },
    }));
    assert!(!scene.app.is_training() && scene.app.message.text.contains("NaN"), "{}", scene.app.message.text);
}

/// The real worker with an invented model: a training runs, is measured beside what was before, and is kept.
#[test]
fn a_training_with_the_real_worker() {
    let mut fake = Some(Fake::new(6));
    let (handle, updates) = spawn_with(Duration::ZERO, move || Ok(Box::new(fake.take().unwrap()) as _));
    let mut scene = Scene::loading(Scene::colours());
    let pump = |scene: &mut Scene, until: &dyn Fn(&Scene) -> bool| {
        while !until(scene) {
            scene.posted.drain(..).for_each(|command| handle.post(command));
            match updates.recv_timeout(Duration::from_secs(20)) {
                Ok(update) => scene.worker(update),
                Err(RecvTimeoutError::Timeout) => panic!("nothing was told:\n{}", scene.text(80, 24)),
                Err(error) => panic!("{error}"),
            }
        }
    };
    pump(&mut scene, &|s| s.app.model.is_some());
    scene.type_keys("PFSFSFS\n");
    scene.wait(100);
    pump(&mut scene, &|s| s.app.current().is_some_and(|r| r.evaluation.is_some()));
    scene.type_keys("7c^U4+2 1e-2\n\n");
    assert_eq!(scene.app.screen, Screen::Train);
    pump(&mut scene, &|s| s.app.screens.train.progress.as_ref().is_some_and(|p| p.state == SearchState::Done));
    assert_eq!(scene.app.screens.train.steps.iter().map(|s| s.done).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    scene.type_keys("a");
    let pattern = scene.pattern();
    pump(&mut scene, &|s| s.app.screens.train.after(pattern).is_some());
    let after = scene.app.screens.train.after(pattern).unwrap();
    assert_eq!((after.steps, after.results.evaluation.as_ref().unwrap().delta.unwrap().value), (6, 0.03 / 7.0));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    scene.type_keys("k");
    scene.type_keys(&format!("^U{}\n", path.display()));
    pump(&mut scene, &|s| s.app.message.text.starts_with("kept "));
    assert!(path.exists());
}

#[test]
fn numbers_of_trained_indexers_and_of_those_before_never_stand_together() {
    let mut scene = ready();
    scene.type_keys("1i");
    assert!(scene.app.message.text.contains("no indexers have been trained yet"), "{}", scene.app.message.text);
    told(&mut scene, 1..=140, SearchState::Running);
    let every_4 = scene.pattern();
    let before = scene.text(120, 40);
    assert!(before.contains("+0.0090") && !before.contains("indexers after"));

    // Measured once; until then nothing is shown, and nothing of the others is.
    scene.type_keys("i");
    scene.wait(100);
    assert_eq!(scene.posted, [Command::EvaluateTrained(every_4)]);
    let text = scene.text(120, 40);
    assert!(!text.contains("+0.0090 ±") && text.contains("indexers after 140 steps"), "{text}");
    let mut after = evaluation(every_4, 20);
    after.delta = Some(Delta::measured(0.0021, 0.0006, 9812));
    scene.worker(trained(after, 140));
    insta::assert_snapshot!("trained_80x24", scene.text(80, 24));
    insta::assert_snapshot!("trained_120x40", scene.text(120, 40));
    assert_eq!(scene.app.coverage().0[1].unwrap().value, 0.9);

    // To and fro at once, and what is measured of one never shows as the other's.
    scene.posted.clear();
    scene.type_keys("i");
    scene.wait(100);
    assert_eq!(
        scene.text(120, 40).lines().skip(1).take(36).collect::<Vec<_>>(),
        before.lines().skip(1).take(36).collect::<Vec<_>>()
    );
    scene.type_keys("i");
    scene.wait(100);
    assert_eq!(scene.posted, [], "both are known");
    scene.worker(Update::Evaluated(Box::new(evaluation(every_4, 20))));
    assert!(scene.text(120, 40).contains("+0.0021 ±0.0006"));

    // An edit is measured with the indexers in view; none is predicted from a recording of the others.
    scene.type_keys("u");
    scene.wait(100);
    let all = scene.pattern();
    assert_eq!(scene.posted, [Command::EvaluateTrained(all)]);
    scene.type_keys("^R");
    scene.wait(100);
    // Once they have learnt more, what was measured is stale, until it is measured again.
    told(&mut scene, 141..=150, SearchState::Running);
    assert!(scene.text(120, 40).contains("◌ stale"));
    scene.posted.clear();
    scene.type_keys("r");
    assert_eq!(scene.posted, [Command::EvaluateTrained(every_4)]);
    // A session keeps what holds for the model as it was opened.
    let work = scene.app.work().unwrap();
    assert_eq!(work.steps[work.current].evaluation, scene.app.known.results[&every_4].evaluation);
    // Another training begins: what the former changed is gone.
    told(&mut scene, 151..=151, SearchState::Stopped);
    scene.type_keys("7\n1");
    assert!(!scene.text(120, 40).contains("indexers after") && scene.text(120, 40).contains("+0.0090"));
}

/// A session in which 140 steps are done, and put aside.
fn left_after(done: u64) -> Scene {
    let mut scene = Scene::loading(Scene::colours());
    scene.app.session.usual = Some("sessions/demo.toml".into());
    scene.worker(Update::Ready(Box::new(model(12, &[]))));
    let sidecar = "sessions/demo.indexers.safetensors".into();
    assert!(scene.posted.contains(&Command::TrainingAt { sidecar, along: false }), "{:?}", scene.posted);
    scene.type_keys("n\n");
    scene.wait(100);
    let pattern = scene.pattern();
    scene.settle(pattern);
    scene.type_keys("7");
    scene.worker(Update::Left(Some(LeftTraining { settings: settings(pattern), done })));
    scene.posted.clear();
    scene
}

#[test]
fn what_was_left_goes_on_for_its_own_pattern() {
    let mut scene = left_after(140);
    let pattern = scene.pattern();
    insta::assert_snapshot!("train_left", scene.text(80, 24));
    scene.type_keys("1a7 ");
    assert!(scene.app.message.text.contains(&format!("is for {pattern}: go to that pattern first")));
    assert!(scene.text(120, 40).contains("once its pattern is in view"));
    scene.type_keys("u\n");
    assert!(scene.app.message.text.contains("Space goes on with it, Enter again"), "{}", scene.app.message.text);
    assert_eq!(scene.posted, [], "nothing is given up unasked");
    scene.type_keys(" ");
    assert_eq!(scene.posted, [Command::TakeUpTraining(settings(pattern))]);
    // A state of an earlier version does not know what the steps before had found; those of now do.
    told(&mut scene, 141..=150, SearchState::Running);
    let text = scene.text(120, 40);
    assert!(text.contains("150 of 250") && text.contains("L0          –   0.101"), "{text}");
    scene.app.screens.train.steps.clear();
    told(&mut scene, 1..=150, SearchState::Running);
    let text = scene.text(120, 40);
    assert!(text.contains("150 of 250") && text.contains("L0      0.791   0.101"), "{text}");
    // What failed to be put aside is told, and the training goes on.
    let message = "sessions/demo.indexers.safetensors.state cannot be written: No space left on device".to_owned();
    scene.worker(Update::Failed(Failure { job: Job::PutAside, diagnostic: Diagnostic { message, hint: None } }));
    assert!(scene.app.is_training() && scene.app.message.text.contains("No space left"));
}

#[test]
fn the_program_ends_when_the_training_is_put_aside() {
    let mut scene = left_after(140);
    let pattern = scene.pattern();
    scene.app.session.unsaved = false;
    scene.type_keys(" ");
    told(&mut scene, 141..=150, SearchState::Running);
    scene.posted.clear();
    scene.type_keys("q");
    assert_eq!((&scene.posted[..], &scene.asked[..]), (&[Command::PutAside][..], &[][..]));
    let message = "no room".to_owned();
    scene.worker(Update::Failed(Failure { job: Job::PutAside, diagnostic: Diagnostic { message, hint: None } }));
    scene.worker(Update::Left(Some(LeftTraining { settings: settings(pattern), done: 151 })));
    assert_eq!(scene.asked, [], "it was not put aside when it was asked for");
    // Something else is done first; then it is asked for again.
    scene.type_keys("1q");
    scene.worker(Update::Left(Some(LeftTraining { settings: settings(pattern), done: 152 })));
    assert_eq!(scene.asked, [Effect::Quit]);
    // A person who does not wait leaves without it.
    let mut scene = left_after(140);
    scene.app.session.unsaved = false;
    scene.type_keys(" ");
    told(&mut scene, 141..=150, SearchState::Running);
    scene.type_keys("qq");
    assert_eq!(scene.asked, [Effect::Quit]);
}

#[test]
fn a_training_belongs_to_its_session() {
    let mut scene = left_after(140);
    scene.type_keys(" ");
    told(&mut scene, 141..=150, SearchState::Running);
    scene.posted.clear();
    let at = |name: &str, along| Command::TrainingAt { sidecar: format!("{name}.indexers.safetensors").into(), along };
    scene.send(Msg::Saved(Ok("sessions/demo.toml".into())));
    assert_eq!(scene.posted, [], "it is there already");
    scene.send(Msg::Saved(Ok("other.toml".into())));
    assert_eq!(scene.posted, [at("other", true)]);
    let work = scene.app.work().unwrap();
    scene.posted.clear();
    scene.send(opened("third.autosave.toml", work));
    assert_eq!(scene.posted, [Command::StopTraining, at("third", false)]);
    // What is still told of it is for nobody.
    told(&mut scene, 151..=152, SearchState::Stopped);
    scene.worker(Update::Left(None));
    assert!(scene.app.screens.train.progress.is_none() && scene.text(80, 24).contains("No training yet"));
}

#[test]
fn the_train_screen_draws_at_every_size() {
    for layers in [2, 12, 128] {
        let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
        scene.type_keys("7");
        told(&mut scene, 1..=60, SearchState::Running);
        for (width, height) in (1..=130u16).step_by(3).flat_map(|w| (1..=44u16).step_by(4).map(move |h| (w, h))) {
            scene.draw(width, height);
        }
    }
}
