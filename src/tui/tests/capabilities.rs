//! A backend with half of the capabilities behind the real worker: what it cannot do is refused with the reason.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ratatui::crossterm::event::KeyCode;

use super::scene::Scene;
use crate::engine::scripted::Fake;
use crate::engine::{Capability, Handle, Update, spawn_with};
use crate::tui::action::groups;

/// Hands over what is posted and takes in what comes back, until `until` is true.
fn pump(scene: &mut Scene, (handle, updates): &(Handle, Receiver<Update>), until: impl Fn(&Scene) -> bool) {
    while !until(scene) {
        scene.posted.drain(..).for_each(|command| handle.post(command));
        match updates.recv_timeout(Duration::from_secs(20)) {
            Ok(Update::Crashed(why)) => panic!("the worker panicked: {why}"),
            Ok(update) => scene.worker(update),
            Err(RecvTimeoutError::Timeout) => panic!("nothing was reported:\n{}", scene.text(80, 24)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_a_backend_lacks_is_refused_by_name_and_no_key_panics() {
    let lacking = [Capability::Shadow, Capability::Affinity, Capability::Timed, Capability::Train, Capability::Logits];
    let mut fake = Some(Fake::new(6).without(&lacking));
    let worker = spawn_with(Duration::ZERO, move || Ok(Box::new(fake.take().unwrap()) as _));
    let mut scene = Scene::loading(Scene::colours());
    pump(&mut scene, &worker, |s| s.app.model.is_some());
    pump(&mut scene, &worker, |s| s.app.current().is_some_and(|r| r.evaluation.is_some()));
    scene.type_keys("PFFSFFS\n");
    scene.wait(500);
    pump(&mut scene, &worker, |s| s.app.current().is_some_and(|r| r.evaluation.is_some()));
    pump(&mut scene, &worker, |s| s.app.is_settled());
    assert!(scene.app.current().is_some_and(|r| r.coverage.is_none() && r.speed.is_empty()), "neither was asked for");
    assert!(!scene.app.message.text.contains("lacks"), "{}", scene.app.message.text);

    scene.type_keys("1p");
    assert_eq!(scene.app.message.text, "reference runs the model and lacks 'timed'");
    scene.type_keys("7\n");
    assert!(scene.app.message.text.ends_with("lacks 'train'"), "{}", scene.app.message.text);
    assert!(scene.posted.is_empty(), "nothing is asked of the worker in vain: {:?}", scene.posted);

    for screen in ["1", "2", "3", "4", "5", "6", "7"] {
        for key in groups()
            .iter()
            .flat_map(|group| group.actions.iter())
            .flat_map(|action| action.keys)
            .filter(|key| !matches!(**key, "q" | "w" | "M"))
        {
            scene.type_keys(screen);
            match (*key, key.chars().next()) {
                ("Space", _) => scene.press(KeyCode::Char(' ')),
                ("Enter", _) => scene.press(KeyCode::Enter),
                (one, Some(c)) if one.chars().count() == 1 => scene.press(KeyCode::Char(c)),
                _ => continue,
            }
            scene.draw(100, 30);
            scene.press(KeyCode::Esc);
        }
    }
    // Whatever the keys have started ends, with an answer or a refusal.
    pump(&mut scene, &worker, |s| s.posted.is_empty() && s.app.is_settled());
}
