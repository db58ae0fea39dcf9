//! Every command that writes, with each of its writes, fsyncs and renames failing in turn: the old file or the new one,
//! an error with a hint, no leftovers. In a debug build `INDEXSCOPE_FAIL_AT` has the n-th of them fail.

use std::path::Path;
use std::process::{Command, Output};

use indexscope::checkpoint::{Checkpoint, Sidecar};
use safetensors::SafeTensors;

const MODEL: &str = "tests/data/glm_dsa_tiny";

fn run(fail_at: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
    command.args(arguments).env("INDEXSCOPE_FAIL_AT", fail_at.to_string()).output().unwrap()
}

/// Runs a command in a new folder for each point of failure until it succeeds; returns how many points there were.
///
/// `whole` says whether what is there is what was there before, or what a command that succeeds writes.
fn points(arguments: &[&str], prepare: impl Fn(&Path), whole: impl Fn(&Path) -> bool) -> usize {
    for fail_at in 1.. {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let place = |text: &&str| text.replace("OUT", &folder.path().display().to_string());
        let arguments: Vec<String> = arguments.iter().map(place).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(fail_at, &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(whole(folder.path()), "{arguments:?}, point {fail_at}: {stderr}");
        let names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
        let left: Vec<_> = names.filter(|n| n.to_string_lossy().starts_with(".indexscope-")).collect();
        assert!(left.is_empty(), "{arguments:?}, point {fail_at} leaves {left:?}");
        if output.status.success() {
            return fail_at - 1;
        }
        assert_eq!(output.status.code(), Some(1), "{arguments:?}, point {fail_at}: {stderr}");
        let mut lines = stderr.lines().skip_while(|line| !line.starts_with("error: "));
        assert!(lines.next().is_some() && lines.next().is_some_and(|line| line.starts_with("hint: ")), "{stderr}");
        assert!(fail_at < 500, "{arguments:?} never succeeds");
    }
    unreachable!()
}

fn old(folder: &Path, name: &str) {
    std::fs::write(folder.join(name), "old").unwrap();
}

/// Returns whether a file is the old one, or one that `new` accepts.
fn old_or(path: &Path, new: impl Fn(&str) -> bool) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes == b"old" || new(&String::from_utf8_lossy(&bytes))
}

#[test]
fn a_file_that_is_replaced_is_the_old_one_or_the_new_one() {
    if !cfg!(debug_assertions) {
        println!("skipped: faults are injected in debug builds only");
        return;
    }
    let data = ["--tokens", "random:64", "--seq-len", "32", "--quiet"];
    let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    let record = [&["record", MODEL, "--out", "OUT/t.json"][..], &data].concat();
    let matrix = points(&record, |f| old(f, "t.json"), |f| old_or(&f.join("t.json"), is_json));
    let record = [&["record", MODEL, "--out", "OUT/t.trace"][..], &data].concat();
    let packed = points(&record, |f| old(f, "t.trace"), |f| old_or(&f.join("t.trace"), |t| t.starts_with("ixtrace")));
    let report = ["report", "sessions/demo-tour.toml", "--out", "OUT/r.html"];
    let page =
        points(&report, |f| old(f, "r.html"), |f| old_or(&f.join("r.html"), |t| t.trim_end().ends_with("</html>")));
    let config = ["export", MODEL, "--pattern", "uniform:2", "--write-config", "OUT/c.json"];
    let config = points(
        &config,
        |_| {},
        |f| !f.join("c.json").exists() || is_json(&std::fs::read_to_string(f.join("c.json")).unwrap()),
    );
    let figure = ["report", "sessions/demo-tour.toml", "--figure", "pareto", "--out", "OUT/r.svg"];
    let figure =
        points(&figure, |f| old(f, "r.svg"), |f| old_or(&f.join("r.svg"), |t| t.trim_end().ends_with("</svg>")));
    let responses = "tests/data/goldens/sglang_indices.json";
    let served = ["import", "indices", responses, "--config", MODEL, "--quiet", "--out", "OUT/t.trace"];
    let served = points(&served, |f| old(f, "t.trace"), |f| old_or(&f.join("t.trace"), |t| t.starts_with("ixtrace")));
    let found = [matrix, packed, page, config, figure, served];
    println!("points: {found:?}");
    assert!(found.iter().all(|&n| n >= 3), "a write, an fsync and a rename each: {found:?}");
}

#[test]
fn a_training_leaves_its_sidecar_whole_and_its_state_too() {
    if !cfg!(debug_assertions) {
        println!("skipped: faults are injected in debug builds only");
        return;
    }
    let train = [
        ["train", "indexers", "tests/data/llama_rope3", "--tokens", "tests/data/goldens/tokens.json", "--seq-len"],
        ["32", "--steps", "51", "--sparse-steps", "1", "--heads"],
        ["2", "--dim", "8", "--index-topk", "8", "--quiet"],
    ];
    let train = [&train.concat()[..], &["--out", "OUT/i.safetensors"]].concat();
    let whole = |folder: &Path| {
        let (out, state) = (folder.join("i.safetensors"), folder.join("i.safetensors.state"));
        let is_whole = |path: &Path| SafeTensors::deserialize(&std::fs::read(path).unwrap()).is_ok();
        (!out.exists() || Sidecar::open(&out).is_ok()) && (!state.exists() || is_whole(&state))
    };
    let found = points(&train, |_| {}, whole);
    println!("points: {found}");
    assert!(found >= 6, "a state after 50 steps and the sidecar, a write, an fsync and a rename each: {found}");
}

#[test]
fn a_folder_appears_whole_or_not_at_all() {
    if !cfg!(debug_assertions) {
        println!("skipped: faults are injected in debug builds only");
        return;
    }
    let export = ["export", MODEL, "--pattern", "uniform:2", "--checkpoint", "OUT/c"];
    let whole = |folder: &Path| {
        let out = folder.join("c");
        !out.exists() || Checkpoint::open(&out).unwrap().check().is_ok()
    };
    let sharded = ["export", "tests/data/glm_sharded", "--pattern", "FSFS", "--checkpoint", "OUT/c"];
    let demo = ["demo", "--write", "OUT/c"];
    let found = [&export[..], &sharded, &demo].map(|command| points(command, |_| {}, whole));
    println!("points: {found:?}");
    assert!(found.iter().all(|&n| n >= 4), "{found:?}");
}

#[test]
fn a_search_whose_disk_fails_prints_what_it_has_and_goes_on_from_there() {
    if !cfg!(debug_assertions) {
        println!("skipped: faults are injected in debug builds only");
        return;
    }
    let search = |fail_at: usize, folder: &Path, more: &[&str]| {
        let session = folder.join("s.toml").display().to_string();
        let asked = ["search", MODEL, "--tokens", "random:270", "--seq-len", "90", "--sequences", "2", "--quiet"];
        run(
            fail_at,
            &[&asked[..], &["--method", "uniform", "--keep", "1/2", "--json", "--session", &session], more].concat(),
        )
    };
    let pattern = |output: &Output| {
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        found["pattern"].as_str().unwrap().to_owned()
    };
    let whole = tempfile::tempdir().unwrap();
    let want = pattern(&search(0, whole.path(), &[]));
    let mut points = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let failed = search(points + 1, folder.path(), &[]);
        if failed.status.success() {
            break;
        }
        points += 1;
        let stderr = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1), "point {points}: {stderr}");
        assert!(stderr.contains("hint: "), "point {points}: {stderr}");
        let resumed = search(0, folder.path(), &["--resume"]);
        assert!(resumed.status.success(), "point {points}: {}", String::from_utf8_lossy(&resumed.stderr));
        assert_eq!(pattern(&resumed), want, "point {points}");
    }
    println!("points: {points}");
    assert!(points >= 6, "{points} points");
}
