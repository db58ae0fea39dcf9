use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ratatui::crossterm::event::KeyCode;

use super::scene::{Scene, evaluation, model, opened};
use super::snapshot::dump;
use crate::domain::*;
use crate::engine::scripted::Fake;
use crate::engine::{Command, Job, Progress, Update, spawn_with};
use crate::tui::app::{Overlay, Tone};
use crate::tui::msg::Effect;
use crate::tui::screens::Screen;

fn p(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn settings(goal: Goal) -> SearchSettings {
    SearchSettings { seed: 17, ..SearchSettings::new(Strategy::Lazy, goal) }
}

/// A search of which so many flips are accepted: later ones cost more and more.
pub fn progress(layers: usize, flips: usize, goal: Goal) -> SearchProgress {
    let start = Pattern::all_full(layers).unwrap();
    let mut record = SearchRecord::new(settings(goal), start);
    let estimate = |value: f64| Delta::measured(value, 0.0007, 9812);
    let mut sum = 0.0;
    for at in 0..flips {
        let step = 0.0002 * (1.6f64).powi(at as i32) - 0.0004;
        sum += step;
        record.order.push(Flip {
            layer: 1 + (at * 5) % (layers - 1),
            to: Role::Shared,
            delta: estimate(sum),
            step: estimate(step),
            p_best: (at > 0).then_some(0.5 + 0.04 * at as f64),
            compared: 1 + at,
            within_noise: step.abs() < 0.0014,
            work: Work::default(),
        });
    }
    record.pattern = record.after(flips);
    record.delta = Some(estimate(sum));
    record.work = Work { evaluations: 41.5, layer_forwards: 212.0, seconds: 192.0 };
    record.audit = Some(Audit { audited: 6, violations: 0 });
    record.delta = record.delta.filter(|_| flips > 0);
    let untested = (1..layers).find(|&l| record.pattern.is_full(l)).unwrap_or(0);
    SearchProgress {
        candidate: record.pattern.with(untested, Role::Shared).ok(),
        steps: (flips, 9.max(flips)),
        measured: (31, 60),
        eta: Some((31.0, 49.0)),
        record,
    }
}

fn ready() -> Scene {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    scene.posted.clear();
    scene.type_keys("4");
    scene
}

fn told(scene: &mut Scene, flips: usize, state: SearchState) {
    let mut progress = progress(12, flips, Goal::Keep(3));
    progress.record.state = state;
    scene.worker(Update::Search(Box::new(progress)));
}

#[test]
fn the_search_at_three_sizes() {
    let mut scene = ready();
    insta::assert_snapshot!("search_empty", scene.text(80, 24));
    scene.type_keys("c");
    insta::assert_snapshot!("search_settings", scene.text(80, 24));
    scene.press(KeyCode::Esc);
    told(&mut scene, 7, SearchState::Running);
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        insta::assert_snapshot!(format!("search_{width}x{height}"), scene.text(width, height));
    }
    scene.press(KeyCode::Right);
    insta::assert_snapshot!("search_cut", dump(&scene.draw(100, 30), Scene::colours()));
    scene.app.theme = Scene::mono();
    insta::assert_snapshot!("search_mono", dump(&scene.draw(80, 24), Scene::mono()));
    let mut large = Scene::ready(model(78, &[]), Scene::colours());
    large.type_keys("4");
    large.worker(Update::Search(Box::new(progress(78, 9, Goal::MaxDelta(0.01)))));
    insta::assert_snapshot!("search_78", large.text(80, 24));
}

#[test]
fn enter_starts_with_what_the_form_says() {
    let mut scene = ready();
    scene.type_keys("\n");
    let expected = SearchSettings::new(Strategy::Racing, Goal::Keep(3));
    assert_eq!(scene.posted, [Command::Search(expected)]);
    assert_eq!(scene.app.message.text, "searching: racing to 3 Full");
    scene.worker(Update::Progress(Progress { job: Job::Speed, share: 0.5, eta: None }));
    assert!(scene.text(120, 40).contains("racing to 3 Full begins once the worker is free; now: speed"));
    // What waits is not started twice, and can be taken back.
    let text = scene.text(120, 40);
    assert!(text.contains("x take back") && !text.contains("Enter start"), "{text}");
    scene.type_keys("\n");
    assert!(scene.app.message.text.contains("'x' takes it back") && scene.posted.len() == 1);
    scene.type_keys("c");
    // Racing, with swaps, at most 0.02 nats, two stages, layer 5 stays Full, seed 7.
    scene.press(KeyCode::Right);
    scene.press(KeyCode::Down);
    scene.type_keys(" ");
    scene.press(KeyCode::Down);
    scene.type_keys(" ");
    scene.press(KeyCode::Down);
    scene.type_keys("0.02");
    scene.press(KeyCode::Down);
    scene.type_keys("2x6");
    scene.press(KeyCode::Down);
    scene.press(KeyCode::Down);
    scene.type_keys("5,99");
    let text = scene.text(80, 24);
    assert!(text.contains("'99' is not a layer"), "{text}");
    scene.type_keys("\n");
    assert!(matches!(scene.app.overlay, Overlay::Search(_)), "what is wrong stays open");
    assert_eq!(scene.app.message.tone, Tone::Warn);
    scene.type_keys("^U5");
    scene.press(KeyCode::PageDown);
    scene.type_keys("7\n");
    let Some(Command::Search(asked)) = scene.posted.last() else { panic!("{:?}", scene.posted) };
    assert_eq!((asked.method.to_string().as_str(), asked.goal, asked.seed), ("dp+swap", Goal::MaxDelta(0.02), 7));
    assert_eq!(asked.stages.as_ref().map(ToString::to_string).as_deref(), Some("2x6"));
    assert!(asked.lock_full.contains(5) && asked.lock_full.iter().count() == 1);
}

#[test]
fn a_search_is_paused_stopped_and_applied() {
    let mut scene = ready();
    told(&mut scene, 0, SearchState::Running);
    scene.type_keys("\n");
    assert!(scene.app.message.text.contains("found nothing yet"), "{}", scene.app.message.text);
    told(&mut scene, 4, SearchState::Running);
    scene.type_keys(" ");
    assert_eq!(scene.posted, [Command::PauseSearch]);
    assert!(scene.text(80, 24).contains("paused"));
    told(&mut scene, 4, SearchState::Paused);
    scene.type_keys(" ");
    assert_eq!(scene.posted.last(), Some(&Command::ResumeSearch));
    told(&mut scene, 5, SearchState::Running);
    scene.type_keys("x");
    assert_eq!(scene.posted.last(), Some(&Command::StopSearch));
    told(&mut scene, 5, SearchState::Stopped);
    assert!(scene.app.message.text.starts_with("search stopped at 7/12 Full"), "{}", scene.app.message.text);
    let found = progress(12, 5, Goal::Keep(3)).record.pattern;
    let before = scene.app.history.as_ref().unwrap().nodes().len();
    scene.type_keys("\n");
    assert_eq!(scene.pattern(), found);
    assert_eq!(scene.app.history.as_ref().unwrap().nodes().len(), before + 1, "one step of the history");
    scene.type_keys("u");
    assert_eq!(scene.pattern(), p("FFFFFFFFFFFF"));
}

#[test]
fn the_slider_cuts_the_flip_order_at_any_retention() {
    let mut scene = ready();
    scene.press(KeyCode::Left);
    assert_eq!(scene.app.message.text, "there is no flip order to cut yet");
    told(&mut scene, 7, SearchState::Done);
    assert_eq!(scene.app.found().unwrap().full_count(), 5);
    scene.press(KeyCode::Right);
    assert_eq!(scene.app.found().unwrap().full_count(), 5, "the flips end there");
    // The key moves the marker to its own side of the plot, on which Full layers grow to the left.
    let marker = |scene: &mut Scene| {
        let text = scene.text(100, 30);
        let line = text.lines().find(|line| line.contains('◆')).unwrap_or_else(|| panic!("{text}")).to_owned();
        line.chars().position(|c| c == '◆').unwrap()
    };
    let end = marker(&mut scene);
    scene.press(KeyCode::Left);
    assert!(marker(&mut scene) < end);
    scene.press(KeyCode::Left);
    let record = progress(12, 7, Goal::Keep(3)).record;
    assert_eq!(scene.app.found(), record.cut(7));
    let text = scene.text(100, 30);
    assert!(text.contains("cut      7/12 Full") && text.contains("apply 7 Full"), "{text}");
    scene.type_keys("\n");
    assert_eq!(scene.app.pattern(), record.cut(7));
    assert!(scene.app.history.as_ref().unwrap().nodes().last().unwrap().change.ends_with("cut at 7 Full"));
    scene.type_keys("0");
    assert_eq!(scene.app.found().unwrap().full_count(), 5);
}

#[test]
fn the_time_left_is_a_range_and_progress_never_goes_back() {
    let mut scene = ready();
    let mut running = progress(12, 0, Goal::Keep(3));
    running.record.state = SearchState::Running;
    running.eta = Some((62.0, 6464.0));
    scene.worker(Update::Search(Box::new(running.clone())));
    let text = scene.text(120, 40);
    assert!(text.contains("search 0/9 1:02–1:47:44") && text.contains("eta 1:02–1:47:44"), "{text}");
    let percent =
        |text: &str| text.lines().find(|l| l.contains("progress")).unwrap().split('%').next().unwrap().to_owned();
    let before = percent(&text);
    let shown = before.rsplit(' ').nth(1).map(str::to_owned);
    assert_eq!(shown.as_deref(), Some("6"), "{before}");
    running.record.state = SearchState::Paused;
    scene.worker(Update::Search(Box::new(running)));
    let after = percent(&scene.text(120, 40));
    assert_eq!(after.rsplit(' ').nth(1).map(str::to_owned), shown, "{after}");
}

/// A model of which an evaluation of the whole set takes so many seconds, on such data.
fn slow(seconds: f64, change: impl Fn(&mut crate::engine::ModelInfo)) -> Scene {
    let mut model = model(30, &[]);
    change(&mut model);
    let pattern = model.native;
    let mut scene = Scene::ready(model, Scene::colours());
    let mut evaluation = evaluation(pattern, 20);
    (evaluation.seconds, evaluation.layer_forwards) = (seconds, 30.0);
    scene.worker(Update::Evaluated(Box::new(evaluation)));
    scene.posted.clear();
    scene
}

#[test]
fn long_work_is_started_only_once_its_estimate_was_accepted() {
    // 7 of 30 layers by greedy: 29 + 28 + … + 7 = 414 evaluations.
    for (screen, what) in [("4", "search"), ("7", "training")] {
        let mut quick = slow(0.5, |_| {});
        quick.type_keys(&format!("{screen}\n"));
        assert_eq!(quick.posted.len(), 1, "{what}: {:?}", quick.posted);
        let mut scene = slow(900.0, |_| {});
        scene.type_keys(&format!("{screen}\n"));
        let text = scene.text(80, 24);
        assert!(scene.posted.is_empty() && text.contains(&format!("Start this {what}?")), "{text}");
        assert!(text.contains("It may take up to ") && text.contains("Enter starts it"), "{text}");
        scene.press(KeyCode::Esc);
        assert!(scene.posted.is_empty() && scene.app.overlay == Overlay::None);
        scene.type_keys("\n\n");
        assert!(matches!(scene.posted[..], [Command::Search(_) | Command::Train(_)]), "{:?}", scene.posted);
    }
    // The form asks as well, and what was typed is kept.
    let mut scene = slow(900.0, |_| {});
    scene.type_keys("4c\n");
    assert!(scene.text(80, 24).contains("Start this search?"));
    scene.type_keys("\n");
    assert_eq!(scene.posted.len(), 1);
}

#[test]
fn random_tokens_and_no_eligible_targets_are_marked_and_asked_about() {
    let mut scene = slow(0.5, |model| model.data = crate::engine::RANDOM_TOKENS.into());
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let text = scene.text(width, height);
        assert!(text.contains("random tokens") && text.contains("≠ text"), "{text}");
        assert!(!text.contains("● 20/20"), "no green mark: {text}");
    }
    assert!(scene.app.screens.log.messages().iter().any(|m| m.text.contains("random tokens")));
    scene.type_keys("4\n");
    let text = scene.text(80, 24);
    assert!(scene.posted.is_empty() && text.contains("say nothing about text"), "{text}");
    scene.type_keys("\n");
    assert!(matches!(scene.posted[..], [Command::Search(_)]), "{:?}", scene.posted);
    let mut scene = slow(0.5, |model| model.eligible = 0);
    scene.type_keys("4\n");
    assert!(scene.posted.is_empty() && scene.text(80, 24).contains("No target sees more than k = 32 keys"));
}

fn judged(delta: f64) -> Validation {
    let delta = Some(Delta::measured(delta, 0.0019, 11_270));
    Validation { loss: 2.6611, delta, sequences: 23, data: "demo text, validation".into() }
}

#[test]
fn what_a_search_ends_with_and_what_is_applied_of_it_are_judged_on_unseen_text() {
    let mut scene = ready();
    told(&mut scene, 7, SearchState::Running);
    assert!(scene.posted.is_empty(), "nothing is judged before the end");
    told(&mut scene, 7, SearchState::Done);
    let found = progress(12, 7, Goal::Keep(3)).record.pattern;
    assert_eq!(scene.posted, [Command::Validate(found)]);
    scene.worker(Update::Progress(Progress { job: Job::Validate, share: 0.4, eta: None }));
    assert!(scene.text(100, 30).contains("being judged"));
    scene.worker(Update::Validated(found, Some(judged(0.0148))));
    scene.worker(Update::Idle);
    assert!(scene.app.message.text.starts_with("validation of 5/12 Full: Δloss +0.0148 ±0.0019"));
    insta::assert_snapshot!("search_judged", scene.text(120, 40));
    assert!(scene.text(80, 24).contains("validation +0.0148 ±0.0019"), "{}", scene.text(80, 24));
    assert_eq!(scene.app.search_record().unwrap().validation, Some(judged(0.0148)), "the session keeps it");
    // Applied as it is it is not judged again; a cut is another pattern.
    scene.type_keys("\n");
    assert_eq!(scene.posted.len(), 1);
    scene.press(KeyCode::Left);
    assert!(!scene.text(100, 30).contains("validation +0.0148"), "another pattern's number");
    scene.type_keys("\n");
    let cut = progress(12, 7, Goal::Keep(3)).record.cut(6).unwrap();
    assert_eq!(scene.posted[1..], [Command::Validate(cut)]);
    scene.worker(Update::Validated(cut, Some(judged(0.0101))));
    // History compares them, and the session keeps both.
    scene.settle(cut);
    scene.type_keys("3");
    scene.press(KeyCode::Down);
    scene.type_keys("b");
    scene.press(KeyCode::Up);
    let text = scene.text(120, 40);
    assert!(text.contains("unseen Δ   +0.0101  +0.0148  −0.0047"), "{text}");
    let work = scene.app.work().unwrap();
    let kept: Vec<Option<f64>> =
        work.steps.iter().map(|s| s.validation.as_ref().and_then(|v| Some(v.delta?.value))).collect();
    assert_eq!(kept, [None, Some(0.0148), Some(0.0101)]);
    let mut other = ready();
    other.send(opened("s.toml", work));
    assert_eq!(other.app.validation(found), Some(&judged(0.0148)));
    assert!(other.posted.is_empty(), "what was judged is known");
}

#[test]
fn what_only_a_search_measured_stands_in_the_history_too() {
    let mut scene = ready();
    let mut found = progress(12, 7, Goal::Keep(3));
    found.record.state = SearchState::Done;
    // Swaps led on from the last flip.
    found.record.pattern = found.record.pattern.with(1, Role::Full).unwrap();
    found.record.delta = Some(Delta::measured(0.0031, 0.0007, 9812));
    let record = found.record.clone();
    scene.worker(Update::Search(Box::new(found)));
    scene.type_keys("\n3aa");
    let text = scene.text(120, 40);
    assert!(text.contains("lazy to 3 Full applied") && text.contains("+0.0031  ±0.0007"), "{text}");
    assert!(text.contains("9 measured (7 · by the search)"), "{text}");
    assert_eq!(
        (scene.app.delta(record.pattern), scene.app.delta(record.after(3))),
        (record.delta, Some(record.order[2].delta))
    );
    assert_eq!(scene.app.delta(p("FFFFFFFFFFFS")), None);
    // A search on another set says nothing about this one.
    scene.app.screens.search.progress.as_mut().unwrap().record.calibration = "another".into();
    assert_eq!(scene.app.delta(record.pattern), None);
}

#[test]
fn without_unseen_text_that_is_said() {
    let mut scene = ready();
    told(&mut scene, 3, SearchState::Running);
    told(&mut scene, 3, SearchState::Stopped);
    let Some(Command::Validate(found)) = scene.posted.last().cloned() else { panic!("{:?}", scene.posted) };
    scene.worker(Update::Validated(found, None));
    assert!(scene.app.message.text.starts_with("search stopped at"), "the line that says how it ended stays");
    scene.type_keys("5");
    assert!(scene.text(120, 40).contains("judged on nothing else"), "{}", scene.text(120, 40));
}

#[test]
fn a_search_of_work_that_was_closed_says_nothing_any_more() {
    let mut scene = ready();
    told(&mut scene, 6, SearchState::Running);
    let work = scene.app.work().unwrap();
    told(&mut scene, 7, SearchState::Running);
    scene.posted.clear();
    scene.send(opened("s.toml", work));
    assert_eq!(scene.posted, [Command::StopSearch]);
    told(&mut scene, 8, SearchState::Stopped);
    assert_eq!(scene.app.search_record().map(|r| r.order.len()), Some(6), "as it was saved");
    scene.type_keys("4c\n");
    told(&mut scene, 2, SearchState::Running);
    assert_eq!(scene.app.search_record().map(|r| r.order.len()), Some(2), "a new one is told of");
}

#[test]
fn an_edit_is_answered_first_and_the_screen_says_so() {
    let mut scene = ready();
    told(&mut scene, 3, SearchState::Running);
    scene.type_keys("1/5\n ");
    scene.wait(100);
    assert_eq!(scene.posted, [Command::Evaluate(p("FFFFFSFFFFFF"))]);
    scene.worker(Update::Progress(Progress { job: Job::Evaluate, share: 0.3, eta: None }));
    scene.type_keys("4");
    assert!(scene.text(80, 24).contains("waits for the edit"));
    scene.worker(Update::Idle);
    assert!(scene.text(80, 24).contains("  running"));
    // Elsewhere the header tells how far the search is.
    scene.type_keys("1");
    assert!(scene.text(80, 24).contains("search 3/9 0:31–0:49"), "{}", scene.text(80, 24));
    scene.posted.clear();
    scene.type_keys("^C");
    assert_eq!(scene.posted, [Command::StopSearch, Command::Stop]);
}

#[test]
fn without_a_model_there_is_no_search() {
    let mut scene = Scene::loading(Scene::colours());
    scene.type_keys("4");
    assert!(scene.text(80, 24).contains("loading demo"));
    let trace = super::scene::trace(p("FFFFFFFFFFFF"));
    scene.app =
        crate::tui::app::App::new("t".into(), Scene::colours(), crate::tui::app::Engine::Absent, Some(trace), None);
    scene.type_keys("4\n");
    assert!(scene.posted.is_empty());
    assert!(scene.text(80, 24).contains("no model is loaded"), "{}", scene.text(80, 24));
}

/// The real worker with an invented model: the search runs, an edit comes between, and its result is applied.
#[test]
fn a_search_and_an_edit_share_one_worker() {
    let (fake, gate) = Fake::new(6).gated();
    let mut fake = Some(fake);
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
    (0..100).for_each(|_| gate.send(()).unwrap());
    pump(&mut scene, &|s| s.app.is_settled() || s.app.current().is_some_and(|r| r.coverage.is_some()));
    scene.type_keys("4\n");
    assert_eq!(scene.app.screen, Screen::Search);
    // Some candidates are measured, then an edit comes.
    pump(&mut scene, &|s| s.app.screens.search.progress.as_ref().is_some_and(|p| p.measured.0 > 0));
    scene.type_keys("1PFFFFFS\n");
    scene.wait(100);
    drop(gate);
    pump(&mut scene, &|s| s.app.current().is_some_and(|r| r.evaluation.is_some()));
    pump(&mut scene, &|s| s.app.search_record().is_some_and(|r| r.state == SearchState::Done));
    let record = scene.app.search_record().unwrap().clone();
    pump(&mut scene, &|s| s.app.search_record().is_some_and(|r| r.validation.is_some()));
    // Later layers cost more in the invented model: 1 to 4 are flipped, so 2 of 6 stay.
    assert_eq!((record.pattern, record.order.len()), (p("FSSSSF"), 4));
    scene.type_keys("4\n");
    assert_eq!(scene.pattern(), p("FSSSSF"));
    assert!(!scene.asked.contains(&Effect::Quit));
}

#[test]
fn what_was_found_is_saved_and_comes_back() {
    let mut scene = ready();
    told(&mut scene, 6, SearchState::Running);
    scene.type_keys("w");
    let Some(Effect::Save { work, .. }) = scene.asked.pop() else { panic!("{:?}", scene.asked) };
    assert_eq!(work.search.as_ref().map(|r| r.order.len()), Some(6));
    let mut other = ready();
    other.send(opened("s.toml", work));
    let back = other.app.search_record().unwrap();
    assert_eq!((back.order.len(), back.state), (6, SearchState::Stopped), "nothing goes on in a file");
    let saved = progress(12, 6, Goal::Keep(3)).record;
    assert_eq!((&back.order, back.pattern, &back.settings), (&saved.order, saved.pattern, &saved.settings));
    other.press(KeyCode::Left);
    assert_eq!(other.app.found().map(Pattern::full_count), Some(7), "the flip order can still be cut");
}

#[test]
fn every_screen_draws_at_every_size() {
    for layers in [2, 12, 128] {
        let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
        scene.worker(Update::Search(Box::new(progress(layers, (layers - 2).min(9), Goal::MaxDelta(0.01)))));
        for screen in ["3", "4", "5", "6", "4c"] {
            scene.type_keys(screen);
            for (width, height) in (1..=130u16).step_by(3).flat_map(|w| (1..=44u16).step_by(4).map(move |h| (w, h))) {
                scene.draw(width, height);
            }
            scene.press(KeyCode::Esc);
        }
    }
}
