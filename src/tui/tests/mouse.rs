use ratatui::crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::scene::{Scene, model};
use crate::tui::app::Cursor;
use crate::tui::hit::{Hit, hit};
use crate::tui::msg::{Effect, Msg};
use crate::tui::screens::Screen;

fn click(scene: &mut Scene, x: u16, y: u16) {
    mouse(scene, MouseEventKind::Down(MouseButton::Left), x, y);
}

fn mouse(scene: &mut Scene, kind: MouseEventKind, column: u16, row: u16) {
    scene.send(Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
}

/// Returns where a text stands on the screen.
fn find(scene: &mut Scene, width: u16, height: u16, text: &str) -> (u16, u16) {
    let screen = scene.text(width, height);
    let (y, line) = screen.lines().enumerate().find(|(_, line)| line.contains(text)).unwrap_or_else(|| {
        panic!("'{text}' is not on the screen:\n{screen}");
    });
    (line.split(text).next().unwrap().chars().count() as u16, y as u16)
}

#[test]
fn the_mouse_is_the_terminals_until_asked_for() {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    scene.type_keys("M");
    assert_eq!(scene.asked.pop(), Some(Effect::Mouse(true)));
    assert!(scene.text(120, 40).contains("mouse, M off"));
    scene.type_keys("M");
    assert_eq!(scene.asked.pop(), Some(Effect::Mouse(false)));
}

#[test]
fn a_click_chooses_and_a_second_one_toggles() {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    scene.type_keys("M");
    scene.draw(120, 40);
    let strip = scene.app.layout().axis.unwrap();
    let x = strip.strip.x + 7 * strip.cell;
    click(&mut scene, x, strip.strip.y);
    assert_eq!((scene.app.cursor.row, scene.pattern().is_full(7)), (7, true));
    scene.wait(100);
    click(&mut scene, x, strip.strip.y);
    assert!(!scene.pattern().is_full(7), "a double click toggles");
    scene.wait(1000);
    click(&mut scene, x, strip.strip.y);
    assert!(!scene.pattern().is_full(7), "a late click only chooses");
    let (x, y) = find(&mut scene, 140, 40, "3 History");
    click(&mut scene, x + 3, y);
    assert_eq!(scene.app.screen, Screen::History);
    let (x, y) = find(&mut scene, 120, 40, "opened");
    click(&mut scene, x, y);
    assert_eq!(scene.app.entry(), 0);
    let (x, y) = find(&mut scene, 120, 40, "go to #0");
    click(&mut scene, x, y);
    assert!(scene.pattern().is_full(7), "a click on a hint runs it");
}

#[test]
fn every_cell_of_the_map_is_hit_where_it_is_drawn() {
    for (layers, width, height, view) in [
        (12, 120, 40, ""),
        (12, 80, 24, ""),
        (30, 120, 40, ""),
        (61, 120, 40, "v"),
        (78, 200, 60, ""),
        (78, 80, 24, "v"),
    ] {
        let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
        scene.draw(width, height);
        scene.type_keys(view);
        for (row, column) in [(layers / 2, layers / 3), (layers - 1, 0), (3, 2), (layers - 1, layers - 2)] {
            scene.app.cursor = Cursor { row, column };
            scene.draw(width, height);
            let map = scene.app.layout().map.unwrap();
            let seen = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let hits: Vec<Hit> = seen.filter_map(|(x, y)| hit(&scene.app, x, y)).collect();
            let near = |h: &Hit| match h {
                // A cell may stand for several rows, and half rows for two.
                Hit::Pair(p) => {
                    p.row.abs_diff(row) < 2 * map.cell.layers(1, 1).1.max(1) && p.column.abs_diff(column) <= 1
                }
                _ => false,
            };
            let far = map.matrix.is_none() && row - column > 2 * map.ribbon.unwrap().height as usize;
            assert!(far || hits.iter().any(near), "{row},{column} of {layers} at {width}×{height}");
            assert!(hits.iter().all(|h| !matches!(h, Hit::Pair(p) if p.row >= layers || p.column >= layers)));
            assert!(hits.contains(&Hit::Layer(scene.app.cursor.row)) || layers > 60);
        }
    }
}

#[test]
fn the_wheel_zooms_and_scrolls() {
    let mut scene = Scene::ready(model(30, &[]), Scene::colours());
    scene.draw(120, 40);
    mouse(&mut scene, MouseEventKind::ScrollDown, 10, 10);
    assert_eq!(scene.app.screens.overlap.wish.zoom, -1);
    scene.type_keys("/5\n 5");
    let messages = scene.app.screens.log.messages().len();
    assert!(messages > 1);
    mouse(&mut scene, MouseEventKind::ScrollUp, 10, 10);
    assert_eq!(scene.app.screens.log.back, 1);
}
