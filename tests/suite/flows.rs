//! The dashboard in a real pseudo-terminal, on a small checkpoint: what a person sees, and what the terminal is left in.
//!
//! Two flows need an engine that fails on purpose; there this very test binary is started in the terminal, as [`child`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use indexscope::checkpoint::Checkpoint;
use indexscope::domain::Diagnostic;
use indexscope::domain::{Pattern, PatternSource, Sites, Stages};
use indexscope::engine::{
    BackendError, Calibration, Cancel, Command, DeviceChoice, Handle, Placement, Runtime, Sequence, Settings, Source,
    spawn,
};
use indexscope::tui::{EngineHandle, Files, Opened, Options, Setup, Work, run};
use termlens::{ExitStatus, MouseMode, Screen, Signal, Terminal, TerminalBuilder};

/// Longest wait for anything; a debug build measures a tiny model within a second or two.
const PATIENCE: Duration = Duration::from_secs(180);

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

/// No files: nothing is saved in these flows.
struct Nothing;

fn nothing<T>() -> Result<T, Diagnostic> {
    Err(Diagnostic { message: "there are no files here".into(), hint: None })
}

impl Files for Nothing {
    fn save(&mut self, _: Option<&Path>, _: &Work) -> Result<PathBuf, Diagnostic> {
        nothing()
    }

    fn autosave(&mut self, _: &Work) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn open(&mut self, _: &Path) -> Result<Opened, Diagnostic> {
        nothing()
    }

    fn sessions(&mut self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn pattern(&mut self, _: &PatternSource, _: Pattern, _: Sites) -> Result<Pattern, Diagnostic> {
        nothing()
    }

    fn report(&mut self, _: &Work, _: &Stages) -> Result<PathBuf, Diagnostic> {
        nothing()
    }
}

/// Returns four sequences of made-up tokens.
fn tokens(vocab: u32) -> Vec<Vec<u32>> {
    (0..4).map(|s| (0..96).map(|i| (i * 37 + s * 11 + i * i * s) % vocab).collect()).collect()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny")
}

#[test]
#[ignore = "started in a terminal by the other tests"]
fn child() {
    let Ok(mode) = std::env::var("FLOW") else { return };
    let broken = mode == "broken";
    let (handle, updates) = spawn(move || {
        if broken {
            let message = "the tensor 'model.norm.weight' is missing".to_owned();
            return Err(BackendError::Failed(Diagnostic { message, hint: Some("download it again".into()) }));
        }
        let checkpoint = Checkpoint::open(&model()).unwrap();
        let vocab = checkpoint.config().vocab_size;
        let sequences = tokens(vocab as u32).into_iter().map(Sequence::of).collect();
        let calibration = Calibration::new(sequences, "made-up tokens", vocab).unwrap();
        let settings = Settings::new(Placement::open(DeviceChoice::Cpu, None)?);
        Source::new(checkpoint, calibration, Runtime::Process(settings)).open(&Cancel::never())
    });
    run(Setup {
        title: "tiny".into(),
        engine: Some(Box::new(Engine { handle, fragile: mode == "fragile" })),
        updates,
        trace: None,
        texts: std::sync::Arc::default(),
        work: None,
        files: Box::new(Nothing),
        usual: None,
        notice: None,
        target: None,
        floors: Vec::new(),
        options: Options::default(),
    })
    .unwrap();
}

fn terminal((width, height): (u16, u16)) -> TerminalBuilder {
    Terminal::builder()
        .size(width, height)
        .env_clear()
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor")
        .timeout(PATIENCE)
}

/// Starts the program on the small checkpoint, with its sessions in `folder`.
fn open(folder: &Path, size: (u16, u16)) -> Terminal {
    let file = folder.join("tokens.json");
    std::fs::write(&file, serde_json::to_string(&tokens(100)).unwrap()).unwrap();
    let sessions = folder.join("sessions");
    terminal(size)
        .arg(model())
        .args(["--tokens".as_ref(), file.as_os_str(), "--sessions".as_ref(), sessions.as_os_str()])
        .spawn(env!("CARGO_BIN_EXE_indexscope"))
        .unwrap()
}

/// Starts this test binary as [`child`].
fn open_child(mode: &str) -> Terminal {
    terminal((80, 24))
        .env("FLOW", mode)
        .args(["--exact", "flows::child", "--ignored", "--nocapture", "--test-threads=1"])
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

/// Waits for a file: an autosave draws nothing, so that there is no screen to wait for.
fn wait_for(path: &Path) {
    let begin = std::time::Instant::now();
    while !path.is_file() {
        assert!(begin.elapsed() < PATIENCE, "'{}' is not there", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
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
    let mut terminal = open(folder.path(), (80, 24));
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
    let mut terminal = open(folder.path(), (120, 40));
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
fn screens_are_changed_by_keys_and_by_the_mouse() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open(folder.path(), (120, 40));
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "3");
    terminal.wait_until(|s| s.contains("Δloss against prefill speed") && s.contains("1 measured")).unwrap();
    assert!(terminal.screen().mouse_mode() == MouseMode::None);
    type_keys(&mut terminal, "M");
    terminal.wait_until(|s| s.contains("mouse, M off") && s.mouse_mode() != MouseMode::None).unwrap();
    // The first name in the first line.
    terminal.click(13, 0).unwrap();
    terminal.wait_until(|s| s.contains("overlap |A∩B|/k")).unwrap();
    type_keys(&mut terminal, "4");
    terminal.wait_until(|s| s.contains("No search yet")).unwrap();
    type_keys(&mut terminal, "\r");
    terminal.wait_until(|s| s.contains("search done")).unwrap();
    type_keys(&mut terminal, "\r1");
    terminal.wait_until(|s| s.contains("2/6 Full") && measured(s)).unwrap();
    type_keys(&mut terminal, "qq");
    assert!(restored(&mut terminal).success());
}

#[test]
fn the_demo_opens_without_arguments_and_unsaved_work_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = folder.path().join("sessions");
    let mut terminal = terminal((120, 40))
        .args(["--sessions".as_ref(), sessions.as_os_str()])
        .spawn(env!("CARGO_BIN_EXE_indexscope"))
        .unwrap();
    terminal.wait_until(|s| s.contains("demo 12L k32 ctx 512") && s.contains("/24 sequences")).unwrap();
    // An edit is answered although the first evaluation and the recording may still run.
    type_keys(&mut terminal, "/11\r ");
    terminal.wait_until(|s| s.contains("11/12 Full") && s.contains("L11 Full → Shared: Δloss +0.1")).unwrap();
    terminal.wait_until(|s| s.contains("24/24 sequences") && s.contains("cov●") && s.contains("chance 0.1")).unwrap();
    let aside = sessions.join("demo.autosave.toml");
    wait_for(&aside);
    assert!(std::fs::read_to_string(&aside).unwrap().contains("FFFFFFFFFFFS"));
    type_keys(&mut terminal, "w");
    terminal.wait_until(|s| s.contains("saved ")).unwrap();
    assert!(sessions.join("demo.toml").is_file() && !aside.exists());
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_storm_of_resizes_leaves_a_whole_screen() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open(folder.path(), (80, 24));
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
    let mut terminal = open(folder.path(), (80, 24));
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "PFSFSFS\r");
    terminal.wait_until(|s| s.contains("3/6 Full") && measured(s)).unwrap();
    type_keys(&mut terminal, "q");
    terminal.wait_until(|s| s.contains("changes are not saved")).unwrap();
    type_keys(&mut terminal, "w");
    terminal.wait_until(|s| s.contains("saved ")).unwrap();
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());

    let mut terminal = open(folder.path(), (80, 24));
    terminal.wait_until(|s| measured(s) && s.contains("6/6 Full")).unwrap();
    type_keys(&mut terminal, "o");
    terminal.wait_until(|s| s.contains("glm_dsa_tiny.toml")).unwrap();
    type_keys(&mut terminal, "\r");
    terminal.wait_until(|s| s.contains("3/6 Full") && s.contains("4/4 sequences")).unwrap();
    type_keys(&mut terminal, "u");
    terminal.wait_until(|s| s.contains("6/6 Full")).unwrap();
    type_keys(&mut terminal, "eh");
    terminal.wait_until(|s| s.contains("report written to")).unwrap();
    let page = std::fs::read_to_string(folder.path().join("sessions/glm_dsa_tiny.html")).unwrap();
    assert!(page.contains("What engines would run") && page.contains("Overlap of 6 layers"), "{page}");
    type_keys(&mut terminal, "qq");
    assert!(restored(&mut terminal).success());
}

#[test]
fn two_dashboards_at_once_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path(), (80, 24));
    first.wait_until(measured).unwrap();
    let mut second = open(folder.path(), (80, 24));
    second.wait_until(|s| s.contains("Another indexscope works on") && s.contains("glm_dsa_tiny-2.toml")).unwrap();
    type_keys(&mut second, "\u{1b}");
    second.wait_until(|s| measured(s) && !s.contains("Another indexscope")).unwrap();
    type_keys(&mut first, "PFSFSFS\r");
    type_keys(&mut second, "PFFFSSS\r");
    let aside = |name: &str| folder.path().join("sessions").join(name);
    for (name, pattern) in [("glm_dsa_tiny.autosave.toml", "FSFSFS"), ("glm_dsa_tiny-2.autosave.toml", "FFFSSS")] {
        wait_for(&aside(name));
        assert!(std::fs::read_to_string(aside(name)).unwrap().contains(pattern));
    }
    // One of them is killed: whoever comes next is told what it left, and takes its name.
    first.signal(Signal::Kill).unwrap();
    first.wait_exit().unwrap();
    let mut third = open(folder.path(), (120, 40));
    third.wait_until(measured).unwrap();
    type_keys(&mut third, "5");
    third.wait_until(|s| s.contains("work that was never saved is in")).unwrap();
    type_keys(&mut third, "1PFFSSSS\r");
    wait_for(&aside("glm_dsa_tiny.autosave-2.toml"));
    for terminal in [&mut second, &mut third] {
        type_keys(terminal, "w");
        terminal.wait_until(|s| s.contains("saved /")).unwrap();
        type_keys(terminal, "q");
        assert!(restored(terminal).success());
    }
    let mut names: Vec<_> = std::fs::read_dir(aside("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    // The lock of the one that was killed was taken over and is gone, too.
    assert_eq!(names, ["glm_dsa_tiny-2.toml", "glm_dsa_tiny.autosave.toml", "glm_dsa_tiny.toml"]);
}

#[test]
fn a_large_paste_without_brackets_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open(folder.path(), (80, 24));
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "P");
    terminal.wait_until(|s| s.contains("6 letters F or S")).unwrap();
    // 200 KB, key by key; what comes after it is answered without another key.
    type_keys(&mut terminal, &"FS".repeat(100_000));
    type_keys(&mut terminal, "\u{15}FSF");
    terminal.wait_until(|s| s.contains("3 letters but the model has 6 layers")).unwrap();
    type_keys(&mut terminal, "\u{1b}");
    terminal.wait_until(|s| !s.contains("Enter accepts")).unwrap();
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let mut terminal = open_child("fragile");
    terminal.wait_until(measured).unwrap();
    type_keys(&mut terminal, "/3\r ");
    assert!(!restored(&mut terminal).success());
    let screen = terminal.screen();
    assert!(screen.full_text().contains("a panic on purpose"), "{screen}");
}

#[test]
fn an_error_while_loading_is_told_and_leaves_the_terminal_as_it_was() {
    let mut terminal = open_child("broken");
    terminal.wait_until(|s| s.contains("model.norm.weight") && s.contains("download it again")).unwrap();
    type_keys(&mut terminal, "q");
    assert!(restored(&mut terminal).success());
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let kill = |name: &str, pid: u32| {
        assert!(std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    };
    for name in ["-TERM", "-HUP", "-QUIT", "-ABRT", "-USR1", "-USR2"] {
        let folder = tempfile::tempdir().unwrap();
        let mut terminal = open(folder.path(), (80, 24));
        terminal.wait_until(measured).unwrap();
        kill(name, terminal.pid().unwrap());
        let status = restored(&mut terminal);
        assert!(status.signal().is_some(), "it ends by the signal {name}: {status:?}");
    }
}

#[test]
fn the_clipboard_takes_the_pattern_and_silence_reigns_when_idle() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = open(folder.path(), (80, 24));
    terminal.wait_until(|s| measured(s) && s.contains("● ready")).unwrap();
    // Drawing anew asks the terminal nothing, whose answer would never reach the one who asked.
    type_keys(&mut terminal, "\u{c}/3\r");
    terminal.wait_until(|s| s.contains("Space make L3 Shared")).unwrap();
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
