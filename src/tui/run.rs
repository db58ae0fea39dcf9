//! The loop: one channel for keys, worker, files and signals; drain, then draw at most once per 16 ms.

use std::io::{self, BufWriter, IsTerminal, Stdout, stdin, stdout};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::clipboard::CopyToClipboard;
use ratatui::crossterm::event::MouseEventKind::{Drag, Moved, Up};
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};
use ratatui::crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use ratatui::crossterm::{execute, queue};
use ratatui::layout::Rect;
use signal_hook::consts::signal::{SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};

use super::app::{App, Engine, Overlay, Tone};
use super::color::Depth;
use super::msg::{Effect, Msg};
use super::terminal::Guard;
use super::theme::Theme;
use super::update::{start, update};
use super::view::view;
use super::{EngineHandle, Files, Setup};
use crate::analysis::overlap;
use crate::engine::{Command, Job, Update};
use crate::terminal;

/// Fewest milliseconds between two frames.
const FRAME: Duration = Duration::from_millis(16);

/// Longest wait for a training to be put aside, once the terminal is handed back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the dashboard cannot begin where the system refuses a thread.
const NO_THREAD: &str = "cannot start a thread; raise the limit of processes (ulimit -u)";

/// Anything that wakes the loop.
enum Event {
    /// Something for `update`.
    Msg(Msg),
    /// A signal.
    Signal(i32),
    /// The terminal is gone.
    Lost(io::Error),
}

type Errand = Box<dyn FnOnce(&mut dyn Files) -> Msg + Send>;

/// Shows the dashboard until it is left.
///
/// # Errors
/// If there is no terminal, or it is lost.
pub fn run(setup: Setup) -> anyhow::Result<()> {
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        bail!("the dashboard needs a terminal, but input or output is redirected");
    }
    let theme = Theme::new(setup.options, Depth::detect(setup.options.color, |name| std::env::var(name).ok()));
    let (engine, state) = match setup.engine {
        Some(engine) => (Some(engine), Engine::Loading),
        None => (None, Engine::Absent),
    };
    let mut app = App::new(setup.title, theme, state, setup.trace, setup.work.as_ref());
    app.target = setup.target;
    app.known.floors = setup.floors;
    app.texts = setup.texts;
    app.session.usual = setup.usual;
    if let Some(body) = setup.notice {
        app.note(Tone::Warn, body.split_whitespace().collect::<Vec<_>>().join(" "));
        app.overlay = Overlay::Text { title: "A session of its own".into(), body, scroll: 0 };
    }
    let (events, inbox) = channel();
    if engine.is_some() {
        forward(setup.updates, events.clone()).context(NO_THREAD)?;
    }
    signals(events.clone()).context("cannot listen to signals")?;
    let guard = Guard::take().context("cannot take over the terminal")?;
    let terminal = ManuallyDrop::new(Terminal::new(CrosstermBackend::new(BufWriter::new(stdout())))?);
    keys(events.clone()).context(NO_THREAD)?;
    let (errands, clerk) = errands(setup.files, events.clone()).context(NO_THREAD)?;
    let mut shell = Shell { terminal, _guard: guard, engine, errands, events, quit: None };
    let result = shell.turn(&mut app, &inbox);
    if !matches!(shell.quit, Some(Quit::Asked)) && app.session.unsaved {
        // A signal or a lost terminal: nobody can be asked any more.
        if let Some(work) = app.work() {
            shell.errand(move |files| Msg::Autosaved(files.autosave(&work)));
        }
    }
    if let Some(engine) = &shell.engine {
        engine.post(Command::Shutdown);
    }
    let quit = shell.quit;
    drop(shell);
    // What is being written is written to its end, and the session is let go of.
    let clerk = clerk.join();
    if app.screens.train.progress.is_some() {
        farewell(&inbox)?;
    }
    if clerk.is_err() {
        bail!("the thread that writes files has panicked");
    }
    // Ends as the signal asked for, now that the terminal is restored.
    if let Some(Quit::Signal(signal)) = quit {
        signal_hook::low_level::emulate_default_handler(signal)?;
    }
    result
}

/// Why the loop ends.
#[derive(Clone, Copy)]
enum Quit {
    Asked,
    Signal(i32),
}

/// Everything outside: terminal, worker, files.
struct Shell {
    /// Never dropped: dropping it on a terminal that is gone would panic. Each frame is flushed as it is drawn.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stdout>>>>,
    /// Restores the terminal when dropped.
    _guard: Guard,
    engine: Option<Box<dyn EngineHandle>>,
    errands: Sender<Errand>,
    events: Sender<Event>,
    quit: Option<Quit>,
}

impl Shell {
    fn turn(&mut self, app: &mut App, inbox: &Receiver<Event>) -> anyhow::Result<()> {
        let began = Instant::now();
        let size = self.terminal.size()?;
        let mut effects = update(app, Msg::Resize(size.width, size.height));
        effects.extend(start(app));
        self.perform(effects)?;
        let (mut dirty, mut drawn) = (true, None::<Instant>);
        while self.quit.is_none() {
            let frame_due = drawn.is_none_or(|at| at.elapsed() >= FRAME);
            if dirty && frame_due {
                self.draw(app)?;
                (dirty, drawn) = (false, Some(Instant::now()));
            }
            let frame = dirty.then(|| drawn.map_or(Duration::ZERO, |at| FRAME.saturating_sub(at.elapsed())));
            let task = app.deadline().map(|at| at.saturating_sub(began.elapsed()));
            let first = match frame.into_iter().chain(task).min() {
                None => Some(inbox.recv().context("every source of events has ended")?),
                Some(wait) => match inbox.recv_timeout(wait) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => bail!("every source of events has ended"),
                },
            };
            // A frame that was only waited for is no news; a deadline that has come is.
            dirty |= first.is_some() || task.is_some_and(|_| app.deadline().is_some_and(|at| at <= began.elapsed()));
            let effects = update(app, Msg::Tick(began.elapsed()));
            self.perform(effects)?;
            for event in first.into_iter().chain(inbox.try_iter()) {
                match event {
                    Event::Msg(msg) => {
                        let effects = update(app, msg);
                        self.perform(effects)?;
                    }
                    Event::Signal(SIGTSTP) => self.perform(vec![Effect::Suspend])?,
                    Event::Signal(signal) => self.quit = Some(Quit::Signal(signal)),
                    Event::Lost(error) => return Err(error).context("the terminal is gone"),
                }
            }
        }
        Ok(())
    }

    fn draw(&mut self, app: &App) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| view(app, frame))?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    fn perform(&mut self, effects: Vec<Effect>) -> io::Result<()> {
        for effect in effects {
            match effect {
                Effect::Send(command) => {
                    if let Some(engine) = &self.engine {
                        engine.post(command);
                    }
                }
                Effect::Compare(trace, metric) => {
                    let events = self.events.clone();
                    // Where no thread can be started, the matrix is not shown; nothing else is lost.
                    let compare = move || {
                        let matrix = Arc::new(overlap::matrix(&trace, metric));
                        // The loop may have ended meanwhile.
                        let _ = events.send(Event::Msg(Msg::Matrix(trace, matrix)));
                    };
                    let _ = thread::Builder::new().spawn(compare)?;
                }
                Effect::Study(trace, study) => {
                    let events = self.events.clone();
                    let found = move || {
                        let findings = study.of(&trace);
                        // The loop may have ended meanwhile.
                        let _ = events.send(Event::Msg(Msg::Studied(trace, findings)));
                    };
                    let _ = thread::Builder::new().spawn(found)?;
                }
                Effect::Save { path, work } => {
                    self.errand(move |files| Msg::Saved(files.save(path.as_deref(), &work)));
                }
                Effect::Autosave(work) => self.errand(move |files| Msg::Autosaved(files.autosave(&work))),
                Effect::Open(path) => self.errand(move |files| {
                    let result = files.open(&path);
                    Msg::Opened(path, result)
                }),
                Effect::ListSessions => self.errand(|files| Msg::Sessions(files.sessions())),
                Effect::ReadPattern { source, native, sites } => {
                    self.errand(move |files| {
                        Msg::PatternRead(source.to_string(), files.pattern(&source, native, sites))
                    });
                }
                Effect::Report { work, stages } => {
                    self.errand(move |files| Msg::Reported(files.report(&work, &stages)));
                }
                Effect::Copy(text) => {
                    execute!(self.terminal.backend_mut(), CopyToClipboard::to_clipboard_from(text))?;
                }
                Effect::Mouse(on) => Guard::mouse(on)?,
                Effect::Suspend => {
                    Guard::suspend(|| {
                        // Where a process cannot be stopped, the dashboard simply comes back.
                        let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                    })?;
                    self.anew()?;
                }
                Effect::Redraw => self.anew()?,
                Effect::Quit => self.quit = Some(Quit::Asked),
            }
        }
        Ok(())
    }

    /// Makes the next frame draw every cell.
    ///
    /// Not by `Terminal::clear`: that asks where the cursor is, and the thread that reads keys holds the answer.
    fn anew(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    fn errand(&self, work: impl FnOnce(&mut dyn Files) -> Msg + Send + 'static) {
        // Fails only if the thread has panicked, which its absence of an answer shows.
        let _ = self.errands.send(Box::new(work));
    }
}

/// Waits until the worker has put its training aside and is gone.
///
/// # Errors
/// If that fails, or takes longer than half a minute.
fn farewell(inbox: &Receiver<Event>) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Msg(Msg::Disconnected)) => return Ok(()),
            Ok(Event::Msg(Msg::Update(Update::Failed(failure)))) if failure.job == Job::PutAside => {
                bail!("the training is lost: {}", failure.diagnostic.message)
            }
            Ok(_) => {}
            Err(error) => return Err(error).context("the training could not be put aside"),
        }
    }
}

/// Runs file work one after the other beside the screen.
fn errands(mut files: Box<dyn Files>, events: Sender<Event>) -> io::Result<(Sender<Errand>, JoinHandle<()>)> {
    let (sender, inbox) = channel::<Errand>();
    let clerk = thread::Builder::new().spawn(move || {
        for errand in inbox {
            if events.send(Event::Msg(errand(files.as_mut()))).is_err() {
                break;
            }
        }
    })?;
    Ok((sender, clerk))
}

fn forward(updates: Receiver<Update>, events: Sender<Event>) -> io::Result<()> {
    thread::Builder::new().spawn(move || {
        for update in updates {
            if events.send(Event::Msg(Msg::Update(update))).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Msg(Msg::Disconnected));
    })?;
    Ok(())
}

fn keys(events: Sender<Event>) -> io::Result<()> {
    thread::Builder::new().spawn(move || {
        loop {
            let event = match event::read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Event::Msg(Msg::Key(key)),
                // Mere movement means nothing here, and would draw every frame anew.
                Ok(Input::Mouse(event)) if !matches!(event.kind, Moved | Drag(_) | Up(_)) => {
                    Event::Msg(Msg::Mouse(event))
                }
                Ok(Input::Paste(text)) => Event::Msg(Msg::Paste(text)),
                Ok(Input::Resize(width, height)) => Event::Msg(Msg::Resize(width, height)),
                Ok(_) => continue,
                Err(error) => Event::Lost(error),
            };
            let lost = matches!(event, Event::Lost(_));
            if events.send(event).is_err() || lost {
                return;
            }
        }
    })?;
    Ok(())
}

fn signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT, SIGTSTP])?;
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    // These end the program where they strike; the terminal is restored first.
    #[cfg(unix)]
    for signal in [SIGQUIT, SIGABRT, SIGUSR1, SIGUSR2] {
        let restore = move || {
            terminal::restore();
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        };
        // SAFETY: both are async-signal-safe.
        #[allow(unsafe_code)]
        unsafe {
            signal_hook::low_level::register(signal, restore)?;
        }
    }
    Ok(())
}
