//! Every subcommand that runs a model, on a worker that evaluates and records and can do nothing else: it works, or is
//! refused by the name of what is missing.
//!
//! The worker is this test binary itself, started by the program as its `--worker`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, stdin};
use std::process::{Command, Output};

use serde_json::{Value, json};

const MODEL: &str = "tests/data/glm_dsa_tiny";
/// Three sequences, of which a search takes two.
const DATA: [&str; 6] = ["--tokens", "random:120", "--seq-len", "40", "--sequences", "2"];
/// k and layers of the model.
const K: usize = 16;
const LAYERS: usize = 6;

fn indexscope(arguments: &[&str]) -> Output {
    let own = std::env::current_exe().unwrap();
    // The test harness writes to stdout: frames go through another descriptor.
    let worker = format!(
        "sh -c 'HALF_CAPABLE=1 exec \"{}\" --exact half_capable::worker --ignored --nocapture 3>&1 >/dev/null'",
        own.display()
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
    command.args(arguments).args(["--worker", &worker]).output().unwrap()
}

fn json_of(arguments: &[&str]) -> Value {
    let output = indexscope(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs what must be refused and returns the message.
fn refused(arguments: &[&str], code: i32) -> String {
    let output = indexscope(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains("hint:"), "{message}");
    message
}

#[test]
#[ignore = "started as a worker by the other tests"]
fn worker() {
    if std::env::var_os("HALF_CAPABLE").is_none() {
        return;
    }
    let (mut from, mut to) = (BufReader::new(stdin()), File::create("/dev/fd/3").unwrap());
    let mut send = |mut head: Value, body: Vec<u8>| {
        if !body.is_empty() {
            head["bytes"] = json!(body.len());
        }
        to.write_all(format!("{head}\n").as_bytes())
            .and_then(|()| to.write_all(&body))
            .and_then(|()| to.flush())
            .is_ok()
    };
    let all: Vec<usize> = (0..LAYERS).collect();
    send(
        json!({"hello": "indexscope-worker", "protocol": [1, 1], "engine": "half 1", "layers": LAYERS, "sites": all,
            "unit": {"kind": "token"}, "groups": 1, "index_topk": K, "index_heads": 4, "native": "FFFFFF",
            "locked_shared": [], "dtype": "f32", "devices": ["cpu"], "ranks": 1, "fingerprint": "x",
            "can": ["losses", "record"]}),
        Vec::new(),
    );
    let mut sets: std::collections::HashMap<String, Vec<usize>> = std::collections::HashMap::new();
    let mut line = String::new();
    while from.read_line(&mut line).is_ok_and(|n| n > 0) {
        let head: Value = serde_json::from_str(&line).unwrap();
        line.clear();
        let mut body = vec![0; head["bytes"].as_u64().unwrap_or(0) as usize];
        from.read_exact(&mut body).unwrap();
        let (id, set) = (head["id"].clone(), head["set"].as_str().unwrap_or_default().to_owned());
        match head["do"].as_str().unwrap_or_default() {
            "calibrate" => {
                sets.insert(set, serde_json::from_value(head["lengths"].clone()).unwrap());
            }
            "losses" => {
                for unit in head["units"].as_array().unwrap() {
                    let (pattern, n) = (unit[0].as_str().unwrap(), unit[1].as_u64().unwrap() as usize);
                    // Later layers cost more, and a little more in later sequences.
                    let shared = pattern.chars().enumerate().filter(|(_, role)| *role == 'S');
                    let cost: f32 = shared.map(|(layer, _)| 0.01 * layer as f32 * (1.0 + n as f32 / 8.0)).sum();
                    let nll = |p: usize| 2.0 + if p >= K { cost } else { 0.0 };
                    let values = (0..sets[&set][n] - 1).map(nll).flat_map(f32::to_le_bytes).collect();
                    send(json!({"id": id, "unit": unit, "layers": LAYERS, "seconds": 0.1, "dtype": "f32"}), values);
                }
            }
            "record" => {
                for n in head["sequences"].as_array().unwrap() {
                    let queries = sets[&set][n.as_u64().unwrap() as usize];
                    for layer in 0..LAYERS {
                        // The newest keys; of layers with odd numbers the one before the oldest instead of it.
                        let row = |p: usize| {
                            let end = p as i32 + 1;
                            let mut row: Vec<i32> = ((end - K as i32).max(0)..end).collect();
                            if layer % 2 == 1 && p > K {
                                row[0] -= 1;
                            }
                            row.resize(K, -1);
                            row
                        };
                        let rows = (0..queries).flat_map(row).flat_map(i32::to_le_bytes).collect();
                        let shape = [queries, 1, K];
                        send(json!({"id": id, "sequence": n, "layer": layer, "shape": shape, "dtype": "i32"}), rows);
                    }
                }
            }
            _ => return,
        }
        send(json!({"id": id, "done": true}), Vec::new());
    }
}

#[test]
fn eval_gives_losses_without_what_the_worker_does_not_compute() {
    let found = json_of(&[&["eval", MODEL, "--pattern", "FFSFSF"][..], &DATA].concat());
    let result = &found["results"][0];
    assert!(result["delta"].as_f64().is_some_and(|delta| (0.06..0.07).contains(&delta)), "{result}");
    assert!(result["kl"].is_null() && result["same_top"].is_null(), "{result}");
    assert!(refused(&[&["eval", MODEL, "--pattern", "dense"][..], &DATA].concat(), 1).contains("lacks 'dense'"));
    let logits = refused(&[&["eval", MODEL, "--pattern", "FFSFSF", "--logits", "x"][..], &DATA].concat(), 2);
    assert!(logits.contains("--logits runs the model in this process"), "{logits}");
}

#[test]
fn record_writes_every_form_but_mass_recall() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let run = |name: &str, more: &[&str]| {
        let out = path(name);
        let arguments = [&["record", MODEL, "--out", &out][..], &DATA, more].concat();
        let found = json_of(&arguments);
        assert_eq!((&found["layers"], &found["engine"]), (&6.into(), &"half 1".into()));
        std::fs::read(out).unwrap()
    };
    run("all.safetensors", &[]);
    run("some.trace", &["--queries", "9", "--pattern", "FFSFSF"]);
    let matrix: Value = serde_json::from_slice(&run("matrix.json", &[])).unwrap();
    let at = |i: usize, j: usize| matrix["matrix"][i][j].as_f64().unwrap();
    assert_eq!(at(0, 2), 1.0);
    assert!((0.9..1.0).contains(&at(0, 1)), "{}", at(0, 1));
    let mass = path("mass.trace");
    let refusal = refused(&[&["record", MODEL, "--out", &mass, "--mass-recall", "4"][..], &DATA].concat(), 1);
    assert!(refusal.contains("the backend (half 1) cannot do this: it lacks 'affinity'"), "{refusal}");
}

#[test]
fn search_measures_losses_and_refuses_what_needs_more() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = folder.path().display().to_string();
    let common = [&["search", MODEL, "--keep", "1/2", "--sessions", &sessions][..], &DATA].concat();
    let refusal = refused(&[&common[..], &["--method", "similarity"]].concat(), 1);
    assert!(refusal.contains("lacks 'affinity'"), "{refusal}");
    let found = json_of(&[&common[..], &["--method", "greedy"]].concat());
    assert_eq!((&found["pattern"], &found["full"]), (&"FSSSFF".into(), &3.into()));
    assert!(found["validation"]["loss"].is_f64(), "validated on the sequence that was left: {found}");
    assert!(refused(&[&common[..], &["--plan"]].concat(), 2).contains("--plan runs the model in this process"));
}

#[test]
fn bench_is_refused_by_name() {
    let refusal = refused(&["bench", MODEL, "--pattern", "FFSFSF", "--context", "64"], 1);
    assert!(refusal.contains("the backend (half 1) cannot do this: it lacks 'timed'"), "{refusal}");
    let refusal = refused(&["bench", "--geometry", "glm-5", "--pattern", "all-full", "--context", "64"], 2);
    assert!(refusal.contains("--geometry runs the model in this process"), "{refusal}");
}

#[test]
fn the_dashboard_draws_losses_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("p.svg").display().to_string();
    let arguments = [&[MODEL, "--picture", &picture, "--keys", "p"][..], &DATA].concat();
    let output = indexscope(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let svg = std::fs::read_to_string(picture).unwrap();
    // Every letter is an element of its own, and spaces are none.
    let letters = svg.split("<text").skip(1).filter_map(|element| element.split(['>', '<']).nth(1));
    let text: String = letters.collect();
    assert!(text.contains("half1runsthemodelandlacks"), "{text}");
}
