use std::path::Path;

use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::Rect;
use ratatui::style::Color;

use super::scene::{Scene, coverage, evaluation, model, speeds};
use super::snapshot::dump;
use crate::domain::{Pattern, Role};
use crate::engine::{Job, Progress, Update};
use crate::tui::app::Cursor;
use crate::tui::svg::svg;
use crate::tui::theme::Theme;

/// A pattern with groups of 1 to 5 layers.
fn mixed(layers: usize) -> Pattern {
    Pattern::from_fn(layers, |l| if l % 7 == 0 || l % 7 == 3 || l % 11 == 5 { Role::Full } else { Role::Shared })
        .unwrap()
}

/// The moment after an edit: coverage predicted, loss growing, speed stale.
fn edited(layers: usize, theme: Theme) -> Scene {
    let mut scene = Scene::ready(model(layers, &[]), theme);
    let pattern = mixed(layers);
    scene.type_keys("P");
    scene.type_keys(&pattern.to_string());
    scene.press(KeyCode::Enter);
    scene.wait(100);
    scene.worker(Update::Partial(Box::new(evaluation(pattern, 3))));
    scene.app.look_at(layers / 2);
    scene
}

#[test]
fn three_sizes_in_colour_and_without() {
    for layers in [12, 30, 78] {
        for (mode, theme) in [("colour", Scene::colours()), ("mono", Scene::mono())] {
            let mut scene = edited(layers, theme);
            for (width, height) in [(80, 24), (120, 40), (200, 60)] {
                let buffer = scene.draw(width, height);
                picture(&format!("{width}x{height}_{layers}_{mode}"), &buffer, theme);
                insta::assert_snapshot!(format!("{width}x{height}_{layers}_{mode}"), dump(&buffer, theme));
                if mode == "mono" {
                    let odd = buffer.content.iter().find(|c| !c.symbol().is_ascii() || c.symbol() == "?");
                    let hint = odd.filter(|c| c.symbol() != "?");
                    assert_eq!(hint, None, "only ASCII at {width}×{height}");
                }
            }
        }
    }
}

/// Leaves a picture for people under `target/screens`; a folder that cannot be written changes nothing.
fn picture(name: &str, buffer: &Buffer, theme: Theme) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screens");
    if std::fs::create_dir_all(&folder).is_ok() {
        let _ = std::fs::write(folder.join(format!("{name}.svg")), svg(buffer, theme));
    }
}

/// What is drawn where the layout has a map: cells, letters, numbers, a scale, and what of the layers is not seen.
#[test]
fn a_maximised_map_is_drawn_whole_or_says_what_is_hidden() {
    for layers in [12, 30, 47, 61, 78, 128] {
        for (width, height) in [(60, 15), (80, 24), (120, 38), (120, 39), (120, 40), (200, 60)] {
            for keys in ["", "z", "v", "vz"] {
                let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
                scene.draw(width, height);
                scene.type_keys(keys);
                let buffer = scene.draw(width, height);
                let layout = scene.app.layout();
                let (map, axis) = (layout.map.unwrap(), layout.axis.unwrap());
                let text = super::snapshot::glyphs(&buffer);
                let context = format!("{layers} layers, {width}×{height}, '{keys}':\n{text}");
                let painted = |area: Rect| {
                    area.positions().filter(|p| buffer[*p].symbol() != " " || buffer[*p].bg != Color::Reset).count()
                };
                for area in map.matrix.into_iter().chain(map.ribbon) {
                    assert!(4 * painted(area) > area.area() as usize || area.height == 1, "no cells: {context}");
                }
                let row =
                    |area: Rect| (0..area.width).map(|x| buffer[(area.x + x, area.y)].symbol()).collect::<String>();
                let letters = axis.strip.width / axis.cell;
                assert_eq!(row(axis.strip).matches('F').count(), letters as usize, "{context}");
                assert!(row(axis.ruler).contains('▾') && row(axis.ruler).contains(char::is_numeric), "{context}");
                assert!(row(map.caption).contains("0 ") && row(map.caption).contains(" 1"), "{context}");
                let hidden = (letters as usize) < layers;
                assert!(!hidden || row(map.caption).contains("layers "), "{context}");
            }
        }
    }
}

/// The arrow over the ruler, and the letters, stand over the column that the crosshair marks.
#[test]
fn the_arrow_stands_over_the_crosshair() {
    for (layers, width, height) in [(12, 120, 40), (61, 120, 40), (78, 120, 40), (78, 200, 60)] {
        let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
        scene.draw(width, height);
        scene.app.cursor = Cursor { row: layers - 3, column: layers / 2 };
        let buffer = scene.draw(width, height);
        let layout = scene.app.layout();
        let (axis, matrix) = (layout.axis.unwrap(), layout.map.unwrap().matrix.unwrap());
        let arrow = (0..width).find(|&x| buffer[(x, axis.ruler.y)].symbol() == "▾").unwrap();
        let column = matrix.x + (layers / 2) as u16 * axis.cell;
        assert!((column..column + axis.cell).contains(&arrow), "{arrow} {column}, {layers} layers");
    }
}

#[test]
fn settled_and_overlaid() {
    let theme = Scene::colours();
    let mut scene = edited(30, theme);
    let pattern = scene.pattern();
    scene.worker(Update::Evaluated(Box::new(evaluation(pattern, 20))));
    scene.worker(Update::Covered(coverage(pattern)));
    scene.worker(Update::Measured(speeds(pattern)));
    scene.worker(Update::Idle);
    insta::assert_snapshot!("settled", scene.text(120, 40));
    picture("settled", &scene.draw(120, 40), theme);
    scene.type_keys("?");
    insta::assert_snapshot!("help", scene.text(80, 24));
    scene.type_keys("redo");
    insta::assert_snapshot!("help_filtered", scene.text(80, 24));
    scene.type_keys("\u{1b}:exp");
    insta::assert_snapshot!("palette", scene.text(80, 24));
    scene.type_keys("\u{1b}P\u{15}FSX");
    insta::assert_snapshot!("prompt", scene.text(80, 24));
    for (name, theme) in [("proposal_colour", Scene::colours()), ("proposal_mono", Scene::mono())] {
        scene.app.theme = theme;
        scene.type_keys("\u{1b}n");
        insta::assert_snapshot!(name, dump(&scene.draw(80, 24), theme));
    }
    scene.app.theme = theme;
    scene.type_keys("\u{1b}e");
    insta::assert_snapshot!("export", scene.text(80, 24));
    scene.type_keys("\u{1b}b=");
    insta::assert_snapshot!("compare", scene.text(80, 24));
}

#[test]
fn small_terminals_show_something() {
    let mut scene = edited(30, Scene::colours());
    insta::assert_snapshot!("tiny", scene.text(28, 6));
    insta::assert_snapshot!("extra_small", scene.text(50, 12));
    let mut loading = Scene::loading(Scene::colours());
    assert!(loading.text(80, 24).contains("loading demo"));
}

#[test]
fn the_header_is_never_garbled() {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    assert_eq!(scene.text(30, 8).lines().next(), Some("  1 Overlap 12F 100%  ● ready"));
    for (job, eta) in [(Job::Record, None), (Job::Coverage, Some(3723.0))] {
        scene.worker(Update::Progress(Progress { job, share: 0.62, eta }));
        for width in 30..130 {
            let text = scene.text(width, 15);
            let line = text.lines().next().unwrap();
            let whole = ["⠋ recording 62%", "⠋ coverage 62% 1:02:03"].iter().any(|job| line.ends_with(job));
            // The screen's name is cut short before what runs is touched.
            assert!(whole && line.trim_start().starts_with(['1', 'i']), "{width}: {line}");
        }
    }
}

#[test]
fn numbers_in_narrow_cells_stand_apart() {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    let text = scene.text(80, 24);
    assert_eq!(scene.app.layout().map.unwrap().cell.columns(), 3);
    assert!(text.contains(" == ") && !text.contains("100100"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_keys_at_any_size_draw(
        keys in proptest::collection::vec(proptest::char::range(' ', '~'), 0..30),
        (width, height) in (1u16..220, 1u16..70),
        layers in prop::sample::select(vec![1usize, 2, 12, 61, 128]),
        buffer in (1u16..220, 1u16..70),
    ) {
        let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
        scene.type_keys(&keys.iter().map(|c| if *c == '^' { 'n' } else { *c }).collect::<String>());
        scene.wait(100);
        scene.draw(width, height);
        // A frame may be older than the size, or newer.
        let mut other = Buffer::empty(Rect::new(0, 0, buffer.0, buffer.1));
        crate::tui::view::render(&scene.app, &mut other);
    }
}
