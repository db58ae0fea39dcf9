//! Signals and limits of the system: what ends a command, how soon, and what it leaves.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything; what is waited for takes two seconds at most where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(120);
const MODEL: &str = "tests/data/glm_dsa_tiny";

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until something is seen of a program that must not have ended before.
fn wait_until(child: &mut Child, seen: impl Fn(u32) -> bool) {
    let begin = Instant::now();
    while !seen(child.id()) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be seen");
        assert!(begin.elapsed() < PATIENCE, "nothing is seen of it");
        std::thread::yield_now();
    }
}

/// Returns whether a process has a handler of SIGTERM (15).
fn listens(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map_or("0", str::trim);
    u64::from_str_radix(caught, 16).unwrap() >> 14 & 1 == 1
}

/// Returns whether a process has a file mapped.
fn maps(pid: u32, path: &Path) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default().contains(path.to_str().unwrap())
}

/// Waits for the end, and returns how long it took.
fn end(child: Child) -> (Output, Duration) {
    let begin = Instant::now();
    (child.wait_with_output().unwrap(), begin.elapsed())
}

fn demo(folder: &Path) -> String {
    let out = folder.join("demo");
    assert!(start(&["demo", "--write", out.to_str().unwrap()]).wait_with_output().unwrap().status.success());
    out.display().to_string()
}

/// Work of a minute or more in a debug build, and what is there once it has begun.
fn works(out: &Path) -> Vec<(Vec<String>, Option<&'static str>)> {
    let words = |text: &str| text.replace("OUT", out.to_str().unwrap()).split(' ').map(str::to_owned).collect();
    vec![
        (words("eval demo --pattern uniform:2 --quiet"), None),
        (words("record demo --out OUT/t.trace --quiet"), Some(".indexscope-")),
        (words("record demo --out OUT/t.json --quiet"), Some(".indexscope-")),
        (words("bench demo --context 2048 --pattern uniform:2 --quiet"), None),
        (words("search demo --method greedy --session OUT/s.toml --quiet"), Some("s.journal")),
        (
            words(
                "train indexers demo --tokens tests/data/goldens/tokens.json --seq-len 64 --steps 100000 --out OUT/i.safetensors --quiet",
            ),
            Some("i.safetensors.lock"),
        ),
    ]
}

#[test]
fn the_first_signal_ends_every_command_and_leaves_nothing_half_written() {
    for name in ["-INT", "-TERM", "-HUP"] {
        let folder = tempfile::tempdir().unwrap();
        for (arguments, begun) in works(folder.path()) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut child = start(&arguments);
            let names = || -> Vec<String> {
                let all = fs::read_dir(folder.path()).unwrap().flatten();
                all.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
            };
            wait_until(&mut child, |pid| {
                listens(pid) && begun.is_none_or(|file| names().iter().any(|name| name.starts_with(file)))
            });
            signal(&child, name);
            let (output, seconds) = end(child);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(130), "{name}, {arguments:?}: {:?} {stderr}", output.status);
            assert!(seconds < PATIENCE / 2, "{name}, {arguments:?}: {seconds:?}");
            let left = names();
            assert!(!left.iter().any(|name| name.starts_with(".indexscope-")), "{name}, {arguments:?} leaves {left:?}");
            assert!(
                !left.iter().any(|name| name.starts_with("t.") || name == "i.safetensors"),
                "{arguments:?}: {left:?}"
            );
        }
    }
}

#[test]
fn a_file_that_is_too_large_is_an_error_like_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let export = format!("export {MODEL} --pattern uniform:2 --checkpoint {}", out.display());
    let record = format!("record {MODEL} --tokens random:4096 --seq-len 512 --quiet --out {}.trace", out.display());
    for command in [export, record] {
        let limited = format!("ulimit -f 16; exec {} {command}", env!("CARGO_BIN_EXE_indexscope"));
        let output = Command::new("bash").args(["-c", &limited]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {:?} {stderr}", output.status.signal());
        assert!(stderr.contains("hint: make room on the disk, or raise the limit of file sizes"), "{stderr}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{command} leaves nothing");
    }
}

#[test]
fn a_mapped_file_that_is_cut_short_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path());
    let weights = Path::new(&demo).join("model.safetensors");
    let text = format!("{demo}/calibration.txt");
    let eval = ["eval", &demo, "--stream", "--text", &text, "--pattern", "uniform:2", "--quiet"];
    let mut child = start(&eval);
    wait_until(&mut child, |pid| maps(pid, &weights));
    fs::File::options().write(true).open(&weights).unwrap().set_len(1000).unwrap();
    let (output, _) = end(child);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?} {stderr}", output.status);
    assert!(stderr.contains("model.safetensors' was cut short") && stderr.contains("\nhint: "), "{stderr}");
}

#[test]
fn only_one_training_at_a_time_writes_a_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let (_, arguments) = works(folder.path()).into_iter().map(|(a, begun)| (begun, a)).next_back().unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut first = start(&arguments);
    wait_until(&mut first, |pid| listens(pid) && folder.path().join("i.safetensors.lock").exists());
    let (second, _) = end(start(&arguments));
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("i.safetensors") && stderr.contains("\nhint: "), "{stderr}");
    assert_eq!(first.try_wait().unwrap(), None, "the first one goes on");
    first.kill().unwrap();
    first.wait().unwrap();
}
