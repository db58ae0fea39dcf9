//! `indexscope search` as scripts see it: the JSON contract, interrupted searches, every method on a small model.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const MODEL: &str = "tests/data/glm_dsa_tiny";
/// Three sequences of which two are searched on and one is judged on.
const DATA: [&str; 6] = ["--tokens", "random:270", "--seq-len", "90", "--sequences", "2"];
/// Five, of which four are searched on: two batches of tokens, and eight blocks of eligible targets.
const LONGER: [&str; 6] = ["--tokens", "random:1500", "--seq-len", "300", "--sequences", "4"];

fn on(data: &[&str], folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
    command.args(["search", MODEL, "--quiet"]).args(data).args(arguments).arg("--sessions").arg(folder);
    command
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    on(&DATA, folder, arguments)
}

fn search(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    parsed(&search(folder, &[arguments, &["--json"]].concat()), arguments)
}

fn parsed(output: &Output, arguments: &[&str]) -> Value {
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_contract_holds_and_the_session_has_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let asked = ["--keep", "1/2", "--method", "greedy", "--split", "2", "--json"];
    let found = parsed(&on(&LONGER, folder.path(), &asked).output().unwrap(), &asked);
    assert_eq!((&found["schema"], &found["method"]), (&1.into(), &"greedy".into()));
    // 5 + 4 + 3 candidates.
    assert_eq!((&found["full"], &found["evaluations"]), (&3.into(), &12.into()));
    let pattern = found["pattern"].as_str().unwrap();
    assert_eq!(pattern.matches('F').count(), 3);
    let order = found["order"].as_array().unwrap();
    assert_eq!(order.len(), 3);
    for flip in order {
        assert_eq!(pattern.as_bytes()[flip["layer"].as_u64().unwrap() as usize], b'S');
        // Four sequences say nothing about others: there is only the error over their blocks.
        assert!(flip["delta"].is_f64() && flip["delta_se_blocks"].is_f64() && flip["p_best"].is_f64(), "{flip}");
        assert!(flip["delta_se"].is_null() && flip["interval"].is_null() && flip["clusters"] == 4, "{flip}");
    }
    assert!(found["layer_forwards"].as_f64().unwrap() < found["paper_layer_forwards"].as_f64().unwrap());
    assert!(found["validation"]["loss"].is_f64() && found["validation"]["delta"].is_f64());
    assert_eq!(found["split"]["orders"].as_array().unwrap().len(), 2);
    assert!((-1.0..=1.0).contains(&found["split"]["kendall_tau"].as_f64().unwrap()));
    let session = std::fs::read_to_string(folder.path().join("glm_dsa_tiny.search.toml")).unwrap();
    let session: toml::Table = session.parse().unwrap();
    assert_eq!(session["pattern"].as_str(), Some(pattern));
    assert_eq!(session["history"].as_array().unwrap().len(), 4);
    assert_eq!(session["searches"][0]["order"].as_array().unwrap().len(), 3);
    assert_eq!(session["searches"][0]["state"].as_str(), Some("done"));
}

#[test]
fn a_session_that_is_there_keeps_all_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let session = ["--session", path.to_str().unwrap()];
    let read = || std::fs::read_to_string(&path).unwrap().parse::<toml::Table>().unwrap();
    let all = |keep: &str| json(folder.path(), &[&["--keep", keep, "--method", "lazy"], &session[..]].concat());
    let pattern = all("5")["pattern"].as_str().unwrap().to_owned();
    let own = format!("[[named]]\nname = 'mine'\npattern = '{pattern}'\n");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &own).unwrap();
    let before = read();
    all("4");
    let after = read();
    assert_eq!(after["named"], before["named"]);
    let (steps, more) = (before["history"].as_array().unwrap(), after["history"].as_array().unwrap());
    assert_eq!(&more[..steps.len()], steps);
    assert_eq!(more.len(), steps.len() + 1);
    assert_eq!((before["searches"].as_array().unwrap().len(), after["searches"].as_array().unwrap().len()), (1, 2));
    // The same search again is no third one.
    all("4");
    assert_eq!(read()["searches"].as_array().unwrap().len(), 2);
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("fingerprint = \"", "fingerprint = \"0"))
        .unwrap();
    let other = search(folder.path(), &[&["--keep", "4"], &session[..]].concat());
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("a session of another model"));
}

#[test]
fn a_search_killed_at_any_moment_comes_to_the_same_end() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = ["--keep", "2", "--method", "lazy+swap", "--seed", "3"];
    let want = json(whole.path(), &arguments);
    let journal = killed.path().join("glm_dsa_tiny.search.journal");
    let lines = || std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    for kill_at in [2, 5, 9] {
        let resume: &[&str] = if kill_at == 2 { &[] } else { &["--resume"] };
        let mut child = command(killed.path(), &[&arguments, resume].concat()).stdout(Stdio::null()).spawn().unwrap();
        while lines() < kill_at && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "the search ended before it was killed at line {kill_at}");
    }
    // Half a line, as if the kill had come while it was written.
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, format!("{text}FFS 1")).unwrap();
    let got = json(killed.path(), &[&arguments[..], &["--resume"]].concat());
    for key in ["pattern", "order", "swaps", "evaluations", "validation", "audit", "delta"] {
        assert_eq!(got[key], want[key], "{key}");
    }
    let other = search(killed.path(), &["--resume", "--attention", "reference"]);
    let stderr = String::from_utf8_lossy(&other.stderr);
    assert!(other.status.code() == Some(1) && stderr.contains("measured with another model"), "{stderr}");
}

#[test]
fn every_method_finds_a_pattern_of_the_space() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["swap", "lazy", "racing", "dp", "similarity", "uniform", "exhaustive"] {
        let found = json(folder.path(), &["--keep", "3", "--method", method, "--lock-full", "4", "--lock-shared", "1"]);
        let pattern = found["pattern"].as_str().unwrap().as_bytes();
        assert_eq!(
            (pattern[0], pattern[1], pattern[4], found["full"].as_u64()),
            (b'F', b'S', b'F', Some(3)),
            "{method}"
        );
    }
}

#[test]
fn a_budget_is_confirmed_on_sequences_that_the_search_never_saw() {
    let folder = tempfile::tempdir().unwrap();
    let data = ["--tokens", "random:1350", "--seq-len", "45", "--sequences", "8", "--validation-sequences", "20"];
    let asked = ["--max-delta", "0.5", "--method", "lazy", "--json"];
    let found = parsed(&on(&data, folder.path(), &asked).output().unwrap(), &asked);
    let confirmation = &found["confirmation"];
    assert_eq!((&confirmation["budget"], &confirmation["clusters"]), (&0.5.into(), &20.into()));
    let trials = confirmation["trials"].as_array().unwrap();
    let confirmed: Vec<&Value> = trials.iter().filter(|t| t["verdict"] == "confirmed").collect();
    assert!(confirmed.iter().all(|t| t["upper"].as_f64().unwrap() <= 0.5 && t["clusters"].as_u64() >= Some(16)));
    // Random tokens cost next to nothing, whatever is shared.
    assert_eq!(confirmed.last().unwrap()["pattern"], found["pattern"]);
    assert_eq!((found["over_budget"].as_bool(), found["validation"]["clusters"].as_u64()), (Some(false), Some(20)));
}

#[test]
fn plans_and_comparisons_are_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let plan = json(folder.path(), &["--plan", "--keep", "1/2"]);
    assert_eq!(plan["plan"][0]["method"], "greedy");
    assert_eq!(plan["plan"][0]["evaluations"], serde_json::json!([12, 12]));
    assert!(plan["resolvable_delta"].is_null(), "two sequences resolve nothing");
    let compared = json(folder.path(), &["--compare", "greedy,lazy,uniform,exhaustive", "--keep", "1/2"]);
    let results = compared["results"].as_array().unwrap();
    let methods: Vec<&str> = results.iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["greedy", "lazy", "uniform", "exhaustive"]);
    let delta = |i: usize| results[i]["delta"].as_f64().unwrap();
    assert!((0..3).all(|i| delta(i) >= delta(3) - 1e-9), "nothing is better than the best: {compared}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "neither writes a session");
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (code, needle, arguments) in [
        (2, "'0' is not a number of Full layers", &["--keep", "0"][..]),
        (2, "'best' is not a method", &["--method", "best"]),
        (2, "stages hold 5 layers", &["--stages", "3,2"]),
        (2, "layer 0 would have to be Full and Shared", &["--lock-shared", "0"]),
        (2, "1 Full layers were asked for, but 2 must stay", &["--keep", "1", "--lock-full", "3"]),
        (2, "no budget", &["--max-delta=-1"]),
        (1, "needs 16 sequences or documents that the search does not see", &["--max-delta", "0.1"]),
        (2, "has none", &["--method", "uniform", "--split", "2"]),
    ] {
        let output = search(folder.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(needle) && stderr.contains("hint: "), "{stderr}");
    }
}
