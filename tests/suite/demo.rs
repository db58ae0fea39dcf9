//! The demo model at the command line: evaluated by name, written as a folder, judged by its card.

use std::path::Path;
use std::process::{Command, Output};

use indexscope::train::demo;
use serde_json::Value;

fn indexscope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().expect("the binary runs")
}

fn json_of(arguments: &[&str]) -> Value {
    let output = indexscope(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is JSON")
}

#[test]
fn the_demo_is_evaluated_on_its_own_texts_and_learned_from_them() {
    let run = |split: &str| {
        json_of(&[
            "eval",
            "demo",
            "--split",
            split,
            "--sequences",
            "2",
            "--pattern",
            "uniform:4",
            "--pattern",
            "dense",
            "--json",
        ])
    };
    let (calibration, validation) = (run("calibration"), run("validation"));
    for result in [&calibration, &validation] {
        assert_eq!((&result["model"], result["index_topk"].as_u64()), (&"demo".into(), Some(32)));
        assert!(result["results"][0]["delta"].as_f64().is_some_and(|d| d > 0.1), "{result}");
        assert!(result["results"][1]["bits_per_byte"].as_f64().is_some_and(|b| b < 1.88), "{result}");
    }
    assert_ne!(calibration["reference"]["loss"], validation["reference"]["loss"]);
}

#[test]
fn the_written_demo_is_the_demo() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model").display().to_string();
    assert!(indexscope(&["demo", "--write", &path]).status.success());
    let text = format!("{path}/calibration.txt");
    let short = ["--sequences", "1", "--pattern", "all-full", "--json"];
    let embedded = json_of(&[&["eval", "demo"][..], &short].concat());
    let written = json_of(&[&["eval", &path, "--text", &text][..], &short].concat());
    assert_eq!(written["results"][0]["loss"], embedded["results"][0]["loss"]);

    let refused = indexscope(&["eval", &path, "--split", "validation", "--pattern", "all-full"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--split is for the demo"));
}

#[test]
fn training_names_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().display().to_string();
    let refused = indexscope(&["train", "/nowhere/recipe.toml", "--out", &out]);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr.contains("/nowhere/recipe.toml") && stderr.contains("\nhint: "), "{stderr}");
    let resumed = indexscope(&["train", "assets/demo/recipe.toml", "--resume", "--out", &format!("{out}/none")]);
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("cannot be resumed"), "no state to go on from");
}

#[test]
fn the_example_session_belongs_to_the_demo_and_keeps_its_numbers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/demo-tour.toml");
    let session = indexscope::session::Session::read(&path).unwrap();
    // It was saved by a version before 0.2.
    assert_eq!(demo::checkpoint().unwrap().former_fingerprints(), [session.model.fingerprint.as_str()]);
    assert_eq!((session.pattern.to_string().as_str(), session.current), ("FSSSFFFSSSFF", 2));
    let deltas: Vec<f64> =
        session.history.iter().map(|step| step.evaluation.as_ref().unwrap().delta.unwrap().value).collect();
    assert!(deltas[0] == 0.0 && deltas[1] > 10.0 * deltas[2] && deltas[2] > 0.0, "{deltas:?}");
    // Writing it again loses nothing.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.toml");
    session.write(&copy).unwrap();
    let again = indexscope::session::Session::read(&copy).unwrap();
    assert_eq!(again.history, session.history);
}
