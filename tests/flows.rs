//! The dashboard in a real pseudo-terminal, on a small checkpoint: what a person sees, and what the terminal is left in.
//!
//! The program under test is this very test binary, started as [`child`]: the dashboard over the real engine, and, for
//! the flows that need it, with an engine that fails.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use indexscope::checkpoint::Checkpoint;
use indexscope::domain::Pattern;
use indexscope::engine::{
    BackendError, Calibration, Command, DeviceChoice, Handle, LocalBackend, Placement, Sequence, Settings, spawn,
};
use indexscope::session::{Session, SessionModel, SessionStep, list_sessions};
use indexscope::tui::{EngineHandle, Files, Options, Problem, Setup, Step, Work, run};
use termlens::{ExitStatus, MouseMode, Screen, Signal, Terminal};

/// Longest wait for anything; a debug build measures a tiny model within a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

struct Engine {
    handle: Handle,
    /// Panics in the thread of the screen when the first edit is posted.
    fragile: bool,
}

impl EngineHandle for Engine {
    fn post(&self, command: Command) {
        let edited = matches!(command, Command::Evaluate(pattern) if pattern.shared_count() > 0);
        assert!(!(self.fragile && edited), "a panic on purpose");
        self.handle.post(command);
    }
}

struct Folder(PathBuf);

fn problem(error: impl std::fmt::Display) -> Problem {
    Problem { message: error.to_string(), hint: None }
}

impl Files for Folder {
    fn save(&mut self, path: Option<&Path>, work: &Work) -> Result<PathBuf, Problem> {
        let path = path.map_or_else(|| self.0.join("tiny.toml"), Path::to_owned);
        let step = |s: &Step| SessionStep {
            pattern: s.pattern,
            parent: s.parent,
            change: s.change.clone(),
            evaluation: s.evaluation.clone(),
            speed: s.speed.clone(),
            other: toml::Table::new(),
        };
        let mut session = Session::new(SessionModel::default(), work.steps[work.current].pattern);
        session.history = work.steps.iter().map(step).collect();
        session.current = work.current;
        session.write(&path).map_err(problem)?;
        Ok(path)
    }

    fn open(&mut self, path: &Path) -> Result<Work, Problem> {
        let session = Session::read(path).map_err(problem)?;
        let step = |s: SessionStep| Step {
            pattern: s.pattern,
            parent: s.parent,
            change: s.change,
            evaluation: s.evaluation,
            speed: s.speed,
        };
        Ok(Work { current: session.current, steps: session.history.into_iter().map(step).collect() })
    }

    fn sessions(&mut self) -> Vec<PathBuf> {
        list_sessions(&self.0)
    }

    fn export(&mut self, engine: &str, pattern: Pattern) -> Result<String, Problem> {
        Ok(format!("{engine}: {pattern}"))
    }
}

#[test]
#[ignore = "started in a terminal by the other tests"]
fn child() {
    let Ok(mode) = std::env::var("FLOW") else { return };
    let folder = PathBuf::from(std::env::var("FLOW_FOLDER").unwrap());
    let broken = mode == "broken";
    let (handle, updates) = spawn(move || {
        if broken {
            let message = "the tensor 'model.norm.weight' is missing".to_owned();
            return Err(BackendError::Failed { message, hint: Some("download it again".into()) });
        }
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
        let checkpoint = Checkpoint::open(&model).unwrap();
        let vocab = checkpoint.config().vocab_size as u32;
        let sequence = |s: u32| Sequence::of((0..96).map(|i| (i * 37 + s * 11 + i * i * s) % vocab).collect());
        let calibration = Calibration::new((0..4).map(sequence).collect(), "made-up tokens", vocab as usize).unwrap();
        let settings = Settings::new(Placement::open(DeviceChoice::Cpu, None)?);
        Ok(Box::new(LocalBackend::load(&checkpoint, calibration, settings)?) as _)
    });
    run(Setup {
        title: "tiny".into(),
        engine: Some(Box::new(Engine { handle, fragile: mode == "fragile" })),
        updates,
        trace: None,
        work: None,
        files: Box::new(Folder(folder)),
        options: Options::default(),
    })
    .unwrap();
}

/// Starts the dashboard in a terminal of its own.
fn open(mode: &str, folder: &Path, (width, height): (u16, u16)) -> Terminal {
    Terminal::builder()
        .size(width, height)
        .env_clear()
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor")
        .env("FLOW", mode)
        .env("FLOW_FOLDER", folder)
        .timeout(PATIENCE)
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .spawn(std::env::current_exe().unwrap())
        .unwrap()
}

fn measured(screen: &Screen) -> bool {
    screen.contains("4/4 sequences") && screen.contains("runs")
}

/// Types `keys` one by one.
fn type_keys(terminal: &mut Terminal, keys: &str) {
    terminal.send_str(keys).unwrap();
}

/// Asserts that every mode that was turned on is off again, and returns how the program ended.
fn restored(terminal: &mut Terminal) -> ExitStatus {
    let status = terminal.wait_exit().unwrap();
    let screen = terminal.screen();
    assert!(!screen.alternate_screen() && !screen.bracketed_paste() && screen.cursor_visible(), "{screen}");
    assert!(screen.mouse_mode() == MouseMode::default(), "{screen}");
    status
}

#[test]
fn start_and_quit() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("plain", folder.path(), (80, 24));
    terminal.wait_until(measured).unwrap();
    let screen = terminal.screen();
    assert!(screen.alternate_screen() && screen.contains("glm_dsa_tiny 6L k16"), "{screen}");
    assert!(screen.contains("all-F") && screen.contains("palette"), "{screen}");
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_toggle_is_seen_at_once_measured_and_undone() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("plain", folder.path(), (120, 40));
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "/3\r ");
    terminal.wait_until(|s| s.contains("L3 Full → Shared") && s.contains("5/6 Full")).unwrap();
    // The loss of this pattern, with its spread, and then its speed.
    terminal.wait_until(|s| s.contains("L3 Full → Shared: Δloss") && s.contains("±")).unwrap();
    terminal.wait_until(|s| measured(s) && s.contains("cov●") && !s.contains("stale")).unwrap();
    type_keys(&mut terminal, "u");
    terminal.wait_until(|s| s.contains("undone: L3 Full → Shared") && s.contains("6/6 Full") && measured(s)).unwrap();
    // Layer 0 says why it stays.
    type_keys(&mut terminal, "/0\r ");
    terminal.wait_until(|s| s.contains("L0 stays Full")).unwrap();
    type_keys(&mut terminal, "qq");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_storm_of_resizes_leaves_a_whole_screen() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("plain", folder.path(), (80, 24));
    terminal.wait_until(measured).unwrap();
    for (width, height) in [(120, 40), (10, 3), (200, 60), (61, 15), (2, 2), (300, 20), (40, 50), (100, 30)] {
        terminal.resize(width, height).unwrap();
    }
    terminal.wait_until(|s| s.contains("Quality and speed") && s.contains("History") && s.contains("palette")).unwrap();
    terminal.resize(28, 6).unwrap();
    terminal.wait_until(|s| s.contains("FFFFFF") && s.contains("6/6 Full")).unwrap();
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_session_is_saved_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("plain", folder.path(), (80, 24));
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "PFSFSFS\r");
    terminal.wait_until(|s| s.contains("3/6 Full") && measured(s)).unwrap();
    type_keys(&mut terminal, "q");
    terminal.wait_until(|s| s.contains("changes are not saved")).unwrap();
    type_keys(&mut terminal, "w");
    terminal.wait_until(|s| s.contains("saved ")).unwrap();
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());

    let mut terminal = open("plain", folder.path(), (80, 24));
    terminal.wait_until(|s| measured(s) && s.contains("6/6 Full")).unwrap();
    type_keys(&mut terminal, "o");
    terminal.wait_until(|s| s.contains("tiny.toml")).unwrap();
    type_keys(&mut terminal, "\r");
    terminal.wait_until(|s| s.contains("3/6 Full") && s.contains("4/4 sequences")).unwrap();
    type_keys(&mut terminal, "u");
    terminal.wait_until(|s| s.contains("6/6 Full")).unwrap();
    type_keys(&mut terminal, "qq");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("fragile", folder.path(), (80, 24));
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "/3\r ");
    assert!(!restored(&mut terminal).success());
    let screen = terminal.screen();
    assert!(screen.full_text().contains("a panic on purpose"), "{screen}");
}

#[test]
fn an_error_while_loading_is_told_and_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("broken", folder.path(), (80, 24));
    terminal.wait_until(|s| s.contains("model.norm.weight") && s.contains("download it again")).unwrap();
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    for signal in [Signal::Term, Signal::Hup] {
        let folder = tempfile::tempdir().unwrap();
        let mut terminal = open("plain", folder.path(), (80, 24));
        terminal.wait_until(measured).unwrap();
        terminal.signal(signal).unwrap();
        let status = restored(&mut terminal);
        assert!(status.signal().is_some(), "it ends by the signal: {status:?}");
    }
}

#[test]
fn the_clipboard_takes_the_pattern_and_silence_reigns_when_idle() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open("plain", folder.path(), (80, 24));
    terminal.wait_until(|s| measured(s) && s.contains("● ready")).unwrap();
    type_keys(&mut terminal, "y");
    terminal.wait_until(|s| s.clipboard().is_some_and(|c| c.text() == Some("FFFFFF"))).unwrap();
    // Nothing is written while nothing happens.
    terminal.wait_idle(Duration::from_millis(300)).unwrap();
    let before = terminal.screen().repaints();
    terminal.wait_idle(Duration::from_millis(700)).unwrap();
    assert_eq!(terminal.screen().repaints(), before);
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}
