//! Subcommands and the dashboard on a model that runs in a worker: a scripted one, in a thread, at a Unix socket.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};

const MODEL: &str = "tests/data/glm_dsa_tiny";
const LAYERS: usize = 6;
/// k of the model.
const K: usize = 16;
const DATA: [&str; 4] = ["--tokens", "random:360", "--seq-len", "90"];

/// What a worker is like.
#[derive(Clone, Copy)]
struct Script {
    can: &'static [&'static str],
    dtype: &'static str,
    /// Units that it measures before it ends.
    lives: usize,
}

const USUAL: Script =
    Script { can: &["losses", "top1", "kl", "record", "shadow", "dense"], dtype: "float32", lives: usize::MAX };

impl Script {
    /// Listens at a socket in the folder, and returns the argument for --worker.
    fn listen(self, folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        let door = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for stream in door.incoming() {
                thread::spawn(move || self.serve(stream.unwrap()));
            }
        });
        format!("unix:{}", path.display())
    }

    fn serve(self, mut to: UnixStream) {
        let mut from = BufReader::new(to.try_clone().unwrap());
        let sites: Vec<usize> = (0..LAYERS).collect();
        let hello = json!({"hello": "indexscope-worker", "protocol": [1, 1], "engine": "scripted 1", "name": "scripted",
            "model_type": "glm_moe_dsa", "layers": LAYERS, "sites": sites, "unit": {"kind": "token"}, "groups": 1,
            "index_topk": K, "index_heads": 4, "native": "FFFFFF", "locked_shared": [], "dtype": self.dtype,
            "devices": ["cpu"], "ranks": 1, "fingerprint": "x", "can": self.can});
        let (mut lengths, mut measured) = (Vec::<usize>::new(), 0);
        if !send(&mut to, hello, &[]) {
            return;
        }
        while let Some((head, _)) = read(&mut from) {
            let id = &head["id"];
            match head["do"].as_str().unwrap() {
                "calibrate" => lengths = serde_json::from_value(head["lengths"].clone()).unwrap(),
                "losses" => {
                    for unit in head["units"].as_array().unwrap() {
                        measured += 1;
                        if measured > self.lives {
                            return;
                        }
                        let targets = lengths[unit[1].as_u64().unwrap() as usize] - 1;
                        let pattern = unit[0].as_str().unwrap();
                        let mut body: Vec<u8> = (0..targets).flat_map(|p| nll(pattern, p).to_le_bytes()).collect();
                        let mut reply =
                            json!({"id": id, "unit": unit, "layers": LAYERS, "seconds": 0.25, "dtype": "f32"});
                        for (key, asked) in [("top1", head["top1"] == true), ("kl", head["kl"].is_string())] {
                            if asked {
                                reply[key] = json!(true);
                                body.extend((0..targets).flat_map(|_| [0; 4]));
                            }
                        }
                        if !send(&mut to, reply, &body) {
                            return;
                        }
                    }
                }
                "record" => {
                    for sequence in head["sequences"].as_array().unwrap() {
                        let queries = lengths[sequence.as_u64().unwrap() as usize];
                        for (layer, role) in head["pattern"].as_str().unwrap().chars().enumerate() {
                            let body: Vec<u8> = (0..queries).flat_map(set).flat_map(i32::to_le_bytes).collect();
                            let mut reply = json!({"id": id, "sequence": sequence, "layer": layer,
                                "shape": [queries, 1, K], "dtype": "i32"});
                            send(&mut to, reply.clone(), &body);
                            if role == 'S' && head["shadow"] == true {
                                reply["own"] = json!(true);
                                send(&mut to, reply, &body);
                            }
                        }
                    }
                }
                "cancel" => continue,
                _ => return,
            }
            if !send(&mut to, json!({"id": id, "done": true}), &[]) {
                return;
            }
        }
    }
}

/// −log p of a target: a Shared layer costs a hundredth of its number where more than k keys are seen.
fn nll(pattern: &str, position: usize) -> f32 {
    let cost = |(layer, role): (usize, char)| if role == 'S' { layer as f32 } else { 0.0 };
    let shared: f32 = if pattern == "dense" { -0.5 } else { pattern.chars().enumerate().map(cost).sum() };
    2.0 + if position >= K { 0.01 * shared } else { 0.0 }
}

/// The last k keys.
fn set(position: usize) -> Vec<i32> {
    let end = position as i32 + 1;
    let mut row: Vec<i32> = ((end - K as i32).max(0)..end).collect();
    row.resize(K, -1);
    row
}

fn send(to: &mut UnixStream, mut head: Value, body: &[u8]) -> bool {
    if !body.is_empty() {
        head["bytes"] = json!(body.len());
    }
    to.write_all(format!("{head}\n").as_bytes()).and_then(|()| to.write_all(body)).is_ok()
}

fn read(from: &mut BufReader<UnixStream>) -> Option<(Value, Vec<u8>)> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let head: Value = serde_json::from_str(&line).unwrap();
    let mut body = vec![0; head["bytes"].as_u64().unwrap_or(0) as usize];
    from.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().unwrap()
}

fn json_of(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command that must fail with a code and a message, and a hint.
fn refused(code: i32, needle: &str, arguments: &[&str]) {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(needle) && stderr.contains("hint: "), "{arguments:?}: {stderr}");
}

#[test]
fn losses_of_a_worker_are_evaluated_as_those_of_this_process() {
    let folder = tempfile::tempdir().unwrap();
    let worker = USUAL.listen(folder.path(), "w");
    let patterns = ["--pattern", "FSFSFF", "--pattern", "dense", "--json", "--quiet"];
    let found = json_of(&[&["eval", MODEL, "--worker", &worker][..], &DATA, &patterns].concat());
    assert_eq!((&found["attention"], &found["dtype"]), (&"scripted 1".into(), &"float32".into()));
    assert_eq!((&found["reference"]["pattern"], &found["noise"]), (&"FFFFFF".into(), &Value::Null));
    let info = json_of(&["info", MODEL, "--worker", &worker, "--json"]);
    assert_eq!((&info["worker"]["engine"], &info["layers"]), (&"scripted 1".into(), &6.into()));
    assert_eq!(info["worker"]["can"], json!(["top1", "kl", "shadow", "dense"]));
    let delta = |n: usize| found["results"][n]["delta"].as_f64().unwrap();
    assert!((delta(0) - 0.04).abs() < 1e-6 && (delta(1) + 0.005).abs() < 1e-6, "{found}");
    assert_eq!((&found["results"][0]["same_top"], &found["results"][0]["kl"]), (&1.0.into(), &0.0.into()));
}

#[test]
fn low_precision_comes_with_its_noise() {
    let folder = tempfile::tempdir().unwrap();
    let worker = Script { dtype: "bfloat16", can: &["losses"], ..USUAL }.listen(folder.path(), "w");
    let asked = [&["eval", MODEL, "--worker", &worker, "--pattern", "FSFSFF"][..], &DATA].concat();
    let json = json_of(&[&asked[..], &["--json", "--quiet"]].concat());
    assert_eq!(json["noise"], json!({"delta": 0.0, "targets": 73}));
    assert!(json["results"][0]["kl"].is_null(), "a worker that lists no kl tells none");
    let table = String::from_utf8(run(&asked).stdout).unwrap();
    assert!(table.contains("near-ties of bfloat16: the reference run again differs from itself by +0.0000"), "{table}");
}

#[test]
fn sets_of_a_worker_are_recorded_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let worker = USUAL.listen(folder.path(), "w");
    let trace = folder.path().join("t.safetensors").display().to_string();
    let found = json_of(&[&["record", MODEL, "--worker", &worker, "--out", &trace, "--json"][..], &DATA].concat());
    assert_eq!((&found["sequences"], &found["engine"]), (&4.into(), &"scripted 1".into()));
    let overlap = json_of(&["overlap", &trace, "--json"]);
    assert_eq!(overlap["matrix"][0][LAYERS - 1], 1.0);
    let matrix = folder.path().join("t.json").display().to_string();
    let some = ["--queries", "8", "--pattern", "FFSFSF", "--json"];
    json_of(&[&["record", MODEL, "--worker", &worker, "--out", &matrix][..], &DATA, &some].concat());
    let matrix: Value = serde_json::from_slice(&std::fs::read(matrix).unwrap()).unwrap();
    assert_eq!((&matrix["queries"], &matrix["borrowed"]), (&32.into(), &json!([2, 4])));
}

#[test]
fn a_search_on_several_workers_finds_what_it_finds_on_one() {
    let folder = tempfile::tempdir().unwrap();
    let search = |workers: &[&str], name: &str| {
        let session = folder.path().join(name).display().to_string();
        let mut asked = vec!["search", MODEL, "--keep", "3", "--sequences", "3", "--session", &session, "--json"];
        workers.iter().for_each(|worker| asked.extend(["--worker", worker]));
        let output = run(&[&asked[..], &DATA].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
        found["session"] = Value::Null;
        (found, stderr)
    };
    let sockets: Vec<String> = ["a", "b", "c"].iter().map(|name| USUAL.listen(folder.path(), name)).collect();
    let (one, _) = search(&[&sockets[0]], "one.toml");
    assert_eq!(one["pattern"], "FSSSFF", "{one}");
    let (two, _) = search(&[&sockets[1], &sockets[2]], "two.toml");
    assert_eq!(one, two);
    let journal = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(journal("one.journal").lines().count() > 10);
    assert_eq!(journal("one.journal"), journal("two.journal"));
    // One of two ends in mid-search.
    let dying = Script { lives: 7, ..USUAL }.listen(folder.path(), "d");
    let (rest, stderr) = search(&[&dying, &sockets[0]], "rest.toml");
    assert_eq!((&one["pattern"], &one["order"]), (&rest["pattern"], &rest["order"]));
    assert!(
        stderr.contains("worker 1 of 2: the worker is lost: it ended") && stderr.contains("1 of 2 take over"),
        "{stderr}"
    );
}

#[test]
fn the_dashboard_on_a_worker_greys_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let worker = USUAL.listen(folder.path(), "w");
    let picture = folder.path().join("screen.svg").display().to_string();
    let asked = [&[MODEL, "--worker", &worker, "--picture", &picture][..], &DATA].concat();
    let output = run(&asked);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let svg = std::fs::read_to_string(&picture).unwrap();
    // One element per letter, and none per space.
    let letters: String = svg.lines().filter_map(|l| Some(l.strip_suffix("</text>")?.rsplit_once('>')?.1)).collect();
    assert!(letters.contains("nottimed:theworkerlacks"), "{letters}");
}

#[test]
fn what_cannot_be_done_on_a_worker_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let worker = USUAL.listen(folder.path(), "w");
    let on = |arguments: &[&str]| -> Vec<String> {
        let [command, rest @ ..] = arguments else { unreachable!() };
        [&[command, MODEL, "--worker", &worker][..], &DATA, rest].concat().iter().map(|&w| w.to_owned()).collect()
    };
    for (code, needle, arguments) in [
        (2, "--plan runs the model in this process", on(&["search", "--plan"])),
        (2, "--stream runs the model in this process", on(&["record", "--stream", "--out", "t"])),
        (1, "lacks 'affinity'", on(&["record", "--mass-recall", "4", "--out", "t"])),
        (2, "--parallel starts several", on(&["eval", "--pattern", "FFFFFF", "--parallel", "2"])),
        (2, "are of --worker transformers", on(&["eval", "--pattern", "FFFFFF", "--tp", "2"])),
    ] {
        refused(code, needle, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let nobody = format!("unix:{}", folder.path().join("nobody").display());
    for (worker, needle) in [
        (nobody.as_str(), "no worker listens at"),
        ("/no/such/program", "cannot be started"),
        ("sh -c 'echo no module named torch >&2; exit 3'", "no module named torch"),
        ("echo hello", "the worker is lost: a line is no JSON object"),
    ] {
        refused(1, needle, &[&["eval", MODEL, "--worker", worker, "--pattern", "FFFFFF"][..], &DATA].concat());
    }
    let half = Script { can: &["losses"], ..USUAL }.listen(folder.path(), "h");
    refused(1, "lacks 'dense'", &[&["eval", MODEL, "--worker", &half, "--pattern", "dense"][..], &DATA].concat());
}
