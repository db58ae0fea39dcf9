use ratatui::crossterm::event::KeyCode;

use super::scene::{Scene, model};
use super::snapshot::dump;
use crate::interop::Target;

/// A folder with nothing but a config, as engines would read it.
pub fn target(layers: usize) -> Target {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = format!(
        r#"{{"model_type":"glm_moe_dsa","architectures":["GlmMoeDsaForCausalLM"],"num_hidden_layers":{layers},"index_topk":2048}}"#
    );
    std::fs::write(&path, config).unwrap();
    Target::of_config(&path).unwrap()
}

fn scene(layers: usize) -> Scene {
    let mut scene = Scene::ready(model(layers, &[]), Scene::colours());
    scene.app.target = Some(target(layers));
    scene
}

#[test]
fn the_engines_at_three_sizes() {
    let mut scene = scene(12);
    scene.type_keys("PFSSSFSSFSSSS\n6");
    scene.type_keys("s6,6\n");
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        insta::assert_snapshot!(format!("engines_{width}x{height}"), scene.text(width, height));
    }
    insta::assert_snapshot!("engines_colours", dump(&scene.draw(100, 30), Scene::colours()));
    let mut large = self::scene(78);
    large.type_keys("n\n6");
    insta::assert_snapshot!("engines_78", large.text(80, 24));
}

#[test]
fn strips_follow_every_edit_and_the_stages() {
    let mut scene = scene(12);
    scene.type_keys("6");
    let vllm = |scene: &Scene| {
        let simulation = scene.app.simulation().unwrap().unwrap();
        simulation.engines.iter().find(|s| s.engine.to_lowercase().contains("vllm")).unwrap().letters()
    };
    assert_eq!(vllm(&scene), "FFFFFFFFFFFF");
    scene.type_keys("1/5\n 6");
    assert_eq!(vllm(&scene), "FFFFFSFFFFFF");
    scene.type_keys("u");
    assert_eq!(vllm(&scene), "FFFFFFFFFFFF");
    scene.type_keys("s6,7");
    assert!(scene.text(120, 40).contains("the stages hold 13 layers but the model has 12"));
    scene.type_keys("^U2x6\n");
    assert!(scene.text(120, 40).contains("stages 2x6"), "{}", scene.text(120, 40));
    scene.type_keys("s^U\n");
    assert!(scene.text(120, 40).contains("one stage"));
}

#[test]
fn the_chosen_engine_is_explained() {
    let mut scene = scene(12);
    scene.type_keys("PFSSSFSSFSSSS\n6");
    let count = scene.app.simulation().unwrap().unwrap().engines.len();
    assert!(count > 5);
    for at in 0..count {
        assert_eq!(scene.app.screens.engines.chosen, at);
        let strip = scene.app.simulation().unwrap().unwrap().engines[at].clone();
        let text = scene.text(200, 60);
        assert!(text.contains(&format!("{} {}, ", strip.engine, strip.version)), "{text}");
        scene.press(KeyCode::Down);
    }
    assert_eq!(scene.app.screens.engines.chosen, count - 1);
}

#[test]
fn without_a_config_the_screen_says_what_it_needs() {
    let mut scene = Scene::ready(model(12, &[]), Scene::colours());
    scene.type_keys("6");
    assert!(scene.text(80, 24).contains("depends on the model's config.json"));
    scene.type_keys("s");
    assert!(scene.app.message.text.contains("no model is open"));
}
