use ratatui::crossterm::event::KeyCode;

use super::scene::{Scene, evaluation, model, opened, speeds};
use super::snapshot::dump;
use crate::domain::{Delta, Pattern};
use crate::engine::{Affinity, AffinityKind, Command, Update};
use crate::tui::msg::Effect;
use crate::tui::screens::Screen;
use crate::tui::screens::history::{Axes, plotted};

fn p(text: &str) -> Pattern {
    text.parse().unwrap()
}

/// A tree: five patterns in a row, one branch; the last two have no speed yet.
fn tried() -> Scene {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    for (at, letters) in ["FFSFFFFFFFFF", "FFSFSFFFFFFF", "FFSFSFSFFFFF"].into_iter().enumerate() {
        scene.type_keys(&format!("P{letters}\n"));
        scene.wait(2000 + 700 * at as u64);
        scene.settle(p(letters));
    }
    scene.type_keys("u");
    for letters in ["FFSFSFFSFFFF", "FSSSSSSSSSSS"] {
        scene.type_keys(&format!("P{letters}\n"));
        scene.wait(1500);
        scene.worker(Update::Evaluated(Box::new(evaluation(p(letters), 20))));
    }
    scene.worker(Update::Idle);
    scene
}

#[test]
fn the_history_at_three_sizes() {
    let mut scene = tried();
    scene.type_keys("3");
    scene.press(KeyCode::Down);
    scene.type_keys("bNsafe\n");
    scene.press(KeyCode::Up);
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        insta::assert_snapshot!(format!("history_{width}x{height}"), scene.text(width, height));
    }
    insta::assert_snapshot!("history_colours", dump(&scene.draw(100, 30), Scene::colours()));
    scene.type_keys("aaa");
    insta::assert_snapshot!("history_scatter", scene.text(100, 30));
    scene.app.theme = Scene::mono();
    insta::assert_snapshot!("history_mono", dump(&scene.draw(80, 24), Scene::mono()));
}

#[test]
fn only_what_was_measured_is_plotted() {
    let mut scene = tried();
    scene.type_keys("3");
    let entries = |scene: &Scene| plotted::dots(&scene.app).iter().filter_map(|d| d.entry).collect::<Vec<_>>();
    assert_eq!((scene.app.screens.history.axes, entries(&scene)), (Axes::Prefill, vec![0, 1, 2, 3]));
    // The invented speeds grow with every Shared layer, and so does the loss: nothing is beaten.
    assert!(scene.text(120, 40).contains("4 measured, 4 not clearly beaten"), "{}", scene.text(120, 40));
    scene.type_keys("aa");
    assert_eq!((scene.app.screens.history.axes, entries(&scene)), (Axes::Full, vec![0, 1, 2, 3, 4, 5]));
    scene.worker(Update::Measured(speeds(p("FFSFSFFSFFFF"))));
    scene.type_keys("aaaa");
    assert_eq!(entries(&scene), [0, 1, 2, 3, 4]);
    // Two patterns with three Shared layers are as fast and as good: the first is kept.
    scene.type_keys("f");
    assert_eq!(scene.app.entries(), [3, 2, 1, 0]);
}

#[test]
fn overlap_given_up_is_ranked_against_the_loss() {
    let mut scene = tried();
    scene.type_keys("3aaa");
    let dots = plotted::dots(&scene.app);
    assert_eq!(dots.len(), 5, "the reference gives up nothing and is no evidence");
    // Only two of them have as many Full layers: what the number of those explains is no evidence for overlap.
    assert_eq!(plotted::correlation(&scene.app, &dots), None);
    assert!(scene.text(120, 40).contains("5 patterns, too few per Full count"), "{}", scene.text(120, 40));
    for (letters, more) in [("FFSSSFFFFFFF", 0.004), ("FSFSFSFFFFFF", 0.001), ("FFSSFFFSFFFF", 0.002)] {
        scene.type_keys(&format!("1P{letters}\n"));
        let mut evaluation = evaluation(p(letters), 20);
        evaluation.delta = evaluation.delta.map(|d| Delta { value: d.value + more, ..d });
        scene.worker(Update::Evaluated(Box::new(evaluation)));
    }
    scene.type_keys("3");
    let dots = plotted::dots(&scene.app);
    let found = plotted::correlation(&scene.app, &dots).unwrap();
    assert!(found.rho > 0.3 && found.n == 5, "{found:?}");
    assert!(scene.text(120, 40).contains("Spearman's ρ +"), "{}", scene.text(120, 40));
    scene.app.matrices.clear();
    scene.app.trace = None;
    assert!(scene.text(120, 40).contains("overlap needs a recording"));
}

#[test]
fn an_entry_is_gone_to_and_undo_returns() {
    let mut scene = tried();
    let last = scene.pattern();
    scene.type_keys("3");
    assert!(scene.text(80, 24).contains("▸"));
    scene.type_keys("\n");
    assert_eq!(scene.app.message.text, "#5 is the current entry already");
    scene.press(KeyCode::Down);
    scene.press(KeyCode::Down);
    scene.posted.clear();
    scene.type_keys("\n");
    assert_eq!((scene.pattern(), scene.app.screen), (p("FFSFSFSFFFFF"), Screen::History));
    scene.wait(100);
    assert!(scene.posted.is_empty(), "all is known: {:?}", scene.posted);
    scene.type_keys("u");
    assert_eq!(scene.pattern(), last);
    scene.type_keys("1");
    assert!(scene.text(80, 24).contains("1 Overlap"));
}

#[test]
fn names_and_pins_belong_to_patterns() {
    let mut scene = tried();
    scene.type_keys("3");
    scene.press(KeyCode::End);
    scene.type_keys("Nbase\n");
    assert_eq!(scene.app.named, [("base".to_owned(), p("FFFFFFFFFFFF"))]);
    scene.press(KeyCode::Up);
    scene.type_keys("Nbase");
    assert!(scene.text(80, 24).contains("is called 'base' already"));
    scene.type_keys("^Usafe\n");
    scene.type_keys("b");
    assert_eq!(scene.app.pinned, Some(p("FFSFFFFFFFFF")));
    scene.type_keys("w");
    let Some(Effect::Save { work, .. }) = scene.asked.pop() else { panic!("{:?}", scene.asked) };
    assert_eq!(work.named.len(), 2);
    let mut other = Scene::ready(model(12, &[]), Scene::colours());
    other.send(opened("s.toml", work));
    assert_eq!(other.app.name_of(p("FFSFFFFFFFFF")), Some("safe"));
    scene.type_keys("N^U\n");
    assert_eq!(scene.app.named.len(), 1);
    scene.type_keys("b");
    assert_eq!(scene.app.pinned, None);
}

#[test]
fn before_anything_is_measured_the_screen_says_so() {
    let mut loading = Scene::loading(Scene::colours());
    loading.type_keys("3");
    assert!(loading.text(80, 24).contains("loading demo"));
    loading.worker(Update::Ready(Box::new(model(12, &[]))));
    let text = loading.text(80, 24);
    assert!(text.contains("no pattern's loss and speed are both"), "{text}");
}

#[test]
fn the_log_keeps_what_was_said_and_scrolls() {
    let mut scene = tried();
    scene.type_keys("5");
    let text = scene.text(80, 24);
    assert!(text.contains("5 Log") && text.contains("typed: Δloss +0.0030 ±0.0007 (2.1 s, resumed from L5)"), "{text}");
    assert!(text.contains("0:02  typed"), "{text}");
    let before = scene.app.screens.log.messages().len();
    scene.press(KeyCode::PageUp);
    assert_eq!(scene.app.screens.log.back, before.min(11) - 1);
    scene.type_keys("F");
    assert_eq!(scene.app.screens.log.back, 0);
}

#[test]
fn what_a_search_accepted_is_plotted_too() {
    let mut scene = tried();
    let record = super::search::progress(12, 7, crate::domain::Goal::Keep(3));
    scene.worker(Update::Search(Box::new(record)));
    scene.type_keys("3");
    assert_eq!(plotted::dots(&scene.app).len(), 4, "nothing of it has a measured speed");
    scene.type_keys("aa");
    let dots = plotted::dots(&scene.app);
    assert_eq!((dots.len(), dots.iter().filter(|d| d.entry.is_none()).count()), (13, 7));
    assert!(scene.text(120, 40).contains("13 measured (7 · by the search)"), "{}", scene.text(120, 40));
}

#[test]
fn mass_recall_is_measured_when_it_is_plotted() {
    let mut scene = tried();
    scene.posted.clear();
    scene.type_keys("3aaaa");
    assert_eq!(
        (scene.app.screens.history.axes, scene.posted.as_slice()),
        (Axes::MassLost, &[Command::Affinity(AffinityKind::MassRecall)][..])
    );
    assert!(scene.text(120, 40).contains("it is being measured"));
    // A lender that lies farther away keeps less.
    let values = (0..144).map(|at| 1.0 - 0.02 * (at / 12usize).abs_diff(at % 12) as f64).collect();
    let affinity = Affinity { layers: 12, values, layer_forwards: 12.0, seconds: 1.0 };
    scene.worker(Update::Affinity(AffinityKind::MassRecall, affinity.into()));
    let dots = plotted::dots(&scene.app);
    assert_eq!(dots.len(), 5);
    assert!((dots[0].x - 0.02).abs() < 1e-9, "one layer shared with the layer before: {dots:?}");
    assert!(scene.text(120, 40).contains("mass recall given up"));
    scene.posted.clear();
    scene.type_keys("aaaaaa");
    assert_eq!(scene.posted, [Command::Affinity(AffinityKind::OutputCosine)], "what is known is not measured again");
}
