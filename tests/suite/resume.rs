//! A training of indexers that is killed goes on to the same bits: in both stages, and in the midst of saving its state.
//! One that the dashboard was left in the midst of is offered by the next one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;
use termlens::Terminal;

/// Steps of the warm-up and of the sparse stage: a state is saved after 50, in the one, and after 100, in the other.
const STAGES: [&str; 4] = ["--steps", "70", "--sparse-steps", "50"];

/// A training in a folder of its own.
struct Run {
    folder: TempDir,
    arguments: Vec<String>,
}

impl Run {
    fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<Vec<u32>> = (0..8).map(|s| (0..40).map(|i| (s * 13 + i * i * 7 + i) % 60).collect()).collect();
        let tokens = folder.path().join("tokens.json");
        std::fs::write(&tokens, json!(ids).to_string()).unwrap();
        let mut run = Self { arguments: Vec::new(), folder };
        let (tokens, out) = (tokens.display().to_string(), run.sidecar().display().to_string());
        let more = ["--tokens", &tokens, "--out", &out, "--seq-len", "32", "--index-topk", "8", "--quiet"];
        run.arguments = arguments.iter().chain(&more).chain(&STAGES).map(ToString::to_string).collect();
        run
    }

    fn sidecar(&self) -> PathBuf {
        self.folder.path().join("s.safetensors")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("s.safetensors.state")
    }

    fn spawn(&self, resume: bool) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
        command.arg("train").args(&self.arguments).args(resume.then_some("--resume"));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs to the end.
    fn finish(&self, resume: bool) {
        let output = self.spawn(resume).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!self.state().exists(), "a finished run leaves no state");
    }

    /// Runs until `now` is true and kills it there; returns the steps that the state it leaves has seen.
    fn kill_when(&self, resume: bool, now: impl Fn(&Self) -> bool) -> u64 {
        let mut child = self.spawn(resume);
        while !now(self) {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be killed");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        assert!(!self.sidecar().exists(), "nothing unfinished has the sidecar's name");
        self.saved().unwrap()
    }

    /// Returns the steps that the saved state has seen. It is whole whenever it is there.
    fn saved(&self) -> Option<u64> {
        let bytes = std::fs::read(self.state()).ok()?;
        SafeTensors::deserialize(&bytes).expect("a state is written whole or not at all");
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let header: Value =
            serde_json::from_str(&header.metadata().as_ref().unwrap()["indexscope.train.indexers"]).unwrap();
        header["step"].as_u64()
    }

    /// Returns whether a state is being written: its bytes go to a file of another name first.
    fn is_saving(&self) -> bool {
        let names = std::fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.to_string_lossy().starts_with(".indexscope-"))
    }
}

/// Returns a sidecar's header without the time that it took and the checksum that depends on it, and its numbers as they lie in the file.
fn content(path: &Path) -> (Value, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let (size, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut all: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    for (key, text) in header.metadata().clone().unwrap() {
        let mut told: Value = serde_json::from_str(&text).unwrap();
        told["trained"].as_object_mut().unwrap().remove("seconds").unwrap();
        told.as_object_mut().unwrap().remove("crc32").unwrap();
        all["__metadata__"][key] = told;
    }
    (all, bytes[8 + size..].to_vec())
}

fn killed_and_whole(arguments: &[&str]) {
    let (whole, killed) = (Run::new(arguments), Run::new(arguments));
    whole.finish(false);
    assert_eq!(killed.kill_when(false, |run| run.saved().is_some()), 50);
    // In the midst of the next saving: what is left is the state before it, or the one that it wrote.
    let left = killed.kill_when(true, |run| run.is_saving() || run.saved() == Some(100));
    assert!([50, 100].contains(&left), "{left}");
    if left == 50 {
        assert_eq!(killed.kill_when(true, |run| run.saved() == Some(100)), 100);
    }
    killed.finish(true);
    let (whole, killed) = (content(&whole.sidecar()), content(&killed.sidecar()));
    assert_eq!(whole.0, killed.0);
    assert!(whole.1 == killed.1, "the trained numbers differ");
}

#[test]
fn distillation_of_a_sparse_model() {
    killed_and_whole(&["distill", "tests/data/deepseek_v32_tiny", "--pattern", "uniform:2"]);
}

#[test]
fn indexers_for_a_dense_model() {
    killed_and_whole(&["indexers", "tests/data/llama_rope3", "--heads", "2", "--dim", "8"]);
}

/// Opens the demo in a terminal.
fn dashboard(sessions: &Path) -> Terminal {
    Terminal::builder()
        .size(120, 40)
        .env_clear()
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor")
        .env("LANG", "C.UTF-8")
        .timeout(Duration::from_secs(120))
        .args(["--sequences", "2", "--seq-len", "128", "--sessions"])
        .arg(sessions)
        .spawn(env!("CARGO_BIN_EXE_indexscope"))
        .unwrap()
}

#[test]
fn a_training_in_the_dashboard_is_left_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("demo.indexers.safetensors.state");
    let mut terminal = dashboard(folder.path());
    terminal.wait_until(|s| s.contains("2/2 sequences")).unwrap();
    terminal.send_str("7c2000+0 1e-3 own\r").unwrap();
    terminal.wait_until(|s| s.contains("(2000+0 1e-3 own)")).unwrap();
    terminal.send_str("\r").unwrap();
    // A slow machine asks before it starts what may take more than ten minutes.
    terminal.wait_until(|s| s.contains("Start this training?") || s.contains("running")).unwrap();
    if terminal.screen().contains("Start this training?") {
        terminal.send_str("\r").unwrap();
    }
    // Ten steps are what stands in the table as the first ones.
    terminal.wait_until(|s| s.contains("Warm-up KL: first 10, last 10")).unwrap();
    let first = |text: &str| {
        let row = text.lines().find_map(|line| Some(line.split_once("││L0 ")?.1)).unwrap();
        row.split_whitespace().next().unwrap().to_owned()
    };
    let begun = first(&terminal.screen().full_text());
    terminal.send_str("q").unwrap();
    assert!(terminal.wait_exit().unwrap().success());
    assert!(state.is_file());

    let mut terminal = dashboard(folder.path());
    terminal.send_str("7").unwrap();
    terminal.wait_until(|s| s.contains("put aside after") && s.contains("of 2000 steps: 12 indexers")).unwrap();
    terminal.send_str(" ").unwrap();
    terminal.wait_until(|s| s.contains("running") && s.contains("Warm-up KL: first 10, last 10")).unwrap();
    let screen = terminal.screen();
    assert_eq!(first(&screen.full_text()), begun, "what the first steps found is remembered: {screen}");
    terminal.send_str("x").unwrap();
    terminal.wait_until(|s| s.contains("training stopped after")).unwrap();
    terminal.send_str("q").unwrap();
    assert!(terminal.wait_exit().unwrap().success());
    assert!(state.is_file(), "what was stopped can still be gone on with");
}
