//! The Tokens screen: which keys two layers select, and walking through queries.

use std::sync::Arc;

use ratatui::crossterm::event::KeyCode;

use super::scene::{Scene, model};
use super::snapshot::dump;
use crate::engine::Update;
use crate::tui::screens::Screen;
use crate::tui::screens::tokens::Texts;
use crate::tui::theme::Theme;

/// A recording of 12 layers with words for its tokens, at the Tokens screen.
fn scene(theme: Theme) -> Scene {
    let mut scene = Scene::ready(model(12, &[]), theme);
    let mut trace = Arc::unwrap_or_clone(scene.app.trace.take().unwrap());
    trace.tokens = (0..2).map(|s| (0..512u32).map(|t| (t * 7 + t / 11 + s * 3) % 23).collect()).collect();
    let words = [
        "the",
        " committee",
        " met",
        ",",
        " in",
        " an",
        " old",
        " hall",
        ".\n",
        " Mara",
        " who",
        " had",
        " written",
        " 日本",
        " ",
        " report",
        "\t",
        " last",
        " {\n   ",
        " bridge",
        " piers",
        " before",
        " winter",
    ];
    scene.worker(Update::Recorded(Arc::new(trace)));
    scene.app.texts = Arc::new(words.iter().zip(0..).map(|(text, id)| (id, (*text).to_owned())).collect::<Texts>());
    scene.app.cursor = crate::tui::app::Cursor { row: 7, column: 3 };
    scene.type_keys("2");
    scene
}

fn place(scene: &Scene) -> (u32, u32) {
    let query = scene.app.pair_sets().unwrap().query;
    (query.sequence, query.position)
}

#[test]
fn three_sizes_in_colour_and_without() {
    for (mode, theme) in [("colour", Scene::colours()), ("mono", Scene::mono())] {
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            let mut scene = scene(theme);
            let buffer = scene.draw(width, height);
            insta::assert_snapshot!(format!("tokens_{width}x{height}_{mode}"), dump(&buffer, theme));
        }
    }
    let mut scene = scene(Scene::mono());
    scene.type_keys("d");
    insta::assert_snapshot!("tokens_80x24_differences", scene.text(80, 24));
}

#[test]
fn what_is_counted_is_what_is_marked() {
    let mut scene = scene(Scene::mono());
    let (shared, a, differences) = {
        let sets = scene.app.pair_sets().unwrap();
        (sets.shared(), sets.a.len(), sets.differences())
    };
    assert_eq!(differences.len(), 2 * (a - shared));
    let text = scene.text(200, 60);
    let body: String = text.lines().skip(5).take(50).collect::<Vec<_>>().join("\n");
    assert_eq!(body.matches('[').count(), shared, "{text}");
    assert_eq!((body.matches('<').count(), body.matches('(').count()), (a - shared, a - shared), "{text}");
    assert!(text.contains(&format!("share {shared} of {a} = {:.3}", shared as f64 / a as f64)), "{text}");
}

#[test]
fn queries_are_walked_through_and_the_most_different_comes_first() {
    let mut scene = scene(Scene::colours());
    assert_eq!(place(&scene), (0, 411), "the last of the first sequence");
    scene.press(KeyCode::Left);
    assert_eq!(place(&scene), (0, 410));
    scene.press(KeyCode::PageUp);
    assert_eq!(place(&scene), (0, 400));
    scene.press(KeyCode::End);
    scene.press(KeyCode::Right);
    assert_eq!(place(&scene), (1, 423));
    let shared = |scene: &Scene| scene.app.pair_sets().unwrap().shared();
    let mut seen = Vec::new();
    for _ in 0..24 {
        scene.type_keys("m");
        seen.push(shared(&scene));
    }
    assert!(seen.is_sorted() && seen[0] < seen[23], "{seen:?}");
    scene.type_keys("m");
    assert_eq!(shared(&scene), seen[0], "around the end");
}

#[test]
fn layers_are_changed_one_by_one_and_swapped() {
    let mut scene = scene(Scene::colours());
    scene.type_keys("]}}");
    scene.press(KeyCode::Tab);
    assert_eq!((scene.app.cursor.row, scene.app.cursor.column), (5, 8));
    scene.type_keys("[{");
    assert_eq!((scene.app.cursor.row, scene.app.cursor.column), (4, 7));
    scene.type_keys("1");
    scene.press(KeyCode::Enter);
    assert_eq!(scene.app.screen, Screen::Tokens);
}

#[test]
fn text_and_positions_are_found() {
    let mut scene = scene(Scene::colours());
    scene.type_keys("/0:405\n");
    assert_eq!(place(&scene), (0, 405));
    scene.type_keys("/bridge, who\n");
    let first = place(&scene);
    assert!(first.1 > 405 || first.0 == 1, "{first:?}");
    let id = scene.app.query_ids()[first.1 as usize];
    assert_eq!(scene.app.token_text(id), " who");
    scene.type_keys("/hall\n");
    let halls: Vec<_> = (0..3)
        .map(|_| {
            scene.type_keys("n");
            place(&scene)
        })
        .collect();
    assert!(halls[0] != halls[1], "{halls:?}");
    scene.type_keys("/nowhere");
    assert!(scene.text(80, 24).contains("ends with no recorded query"));
    scene.type_keys("\u{1b}/9:1");
    assert!(scene.text(80, 24).contains("no query of sequence 9"));
}

#[test]
fn text_scrolls_only_as_far_as_there_is_more() {
    let mut scene = scene(Scene::colours());
    scene.draw(80, 24);
    (0..500).for_each(|_| scene.press(KeyCode::Up));
    let back = scene.app.screens.tokens.back;
    assert!(back > 0 && back < 100, "{back}");
    assert!(scene.text(80, 24).contains(" the hall"));
    scene.press(KeyCode::Down);
    assert_eq!(scene.app.screens.tokens.back, back - 1);
}

#[test]
fn without_texts_ids_are_shown_and_without_a_recording_nothing() {
    let mut scene = scene(Scene::colours());
    scene.app.texts = Arc::default();
    let text = scene.text(80, 24);
    assert!(text.contains("no tokenizer is open") && text.contains(" 15 "), "{text}");
    let mut loading = Scene::loading(Scene::colours());
    loading.type_keys("2");
    loading.text(80, 24);
    loading.press(KeyCode::Left);
    assert!(loading.text(80, 24).contains("nothing is recorded yet"));
}
