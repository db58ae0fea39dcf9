//! The connection with a worker: a process, whose standard input and output it uses, or a Unix socket.

use std::io::{BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::frame::Frame;
use crate::domain::Diagnostic;
use crate::engine::BackendError;

/// How often a waiting request looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(10);
/// How long a worker may take to answer a cancel at most.
const CANCEL_WITHIN: Duration = Duration::from_secs(60);
/// Signs of life that may be missing in a row before a worker counts as lost.
const MISSING: f64 = 12.0;
/// Bytes of the worker's log that an error quotes at most.
const LOG_TAIL: usize = 1500;
/// Most bytes behind a frame's line before anything was asked for.
const FEW: u64 = 1 << 16;

/// Where a worker is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerAddress {
    /// The command that starts it: its program and its arguments.
    Command(Vec<String>),
    /// The Unix socket at which it listens.
    Socket(String),
}

/// A worker that runs.
pub(super) struct Link {
    /// The process; `None` for a worker in a thread of a test.
    child: Option<Child>,
    input: Option<Box<dyn Write + Send>>,
    replies: Receiver<Result<Frame, String>>,
    log: Arc<Mutex<Vec<u8>>>,
    /// Most bytes that a reply to the present request may have behind its line.
    most: Arc<AtomicU64>,
    last: u64,
    /// What is left of a worker that is of no use any more.
    lost: Option<String>,
    /// When the worker was last heard, and how long it may be silent, if it gives signs of life.
    heard: Arc<Mutex<(Instant, Option<Duration>)>>,
    /// How long a worker may take to answer a cancel before it is killed.
    pub(super) cancel_within: Duration,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pid = self.child.as_ref().map(Child::id);
        f.debug_struct("Link").field("pid", &pid).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Link {
    /// Starts a worker, or connects with one.
    pub(super) fn open(address: &WorkerAddress) -> Result<Self, BackendError> {
        match address {
            WorkerAddress::Command(command) => Self::start(command),
            WorkerAddress::Socket(path) => Self::connect(path),
        }
    }

    /// Starts a worker by its command.
    fn start(command: &[String]) -> Result<Self, BackendError> {
        let [program, args @ ..] = command else {
            return Err(failed(
                "the worker's command is empty",
                Some("give one: --worker 'python3 my_worker.py MODEL'"),
            ));
        };
        let mut start = Command::new(program);
        // Ctrl-C reaches this program only, which then cancels what the worker does and ends it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut start, 0);
        let mut child =
            start.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(
                |e| {
                    failed(
                        &format!("the worker '{program}' cannot be started: {e}"),
                        Some("give its command with --worker, such as --worker 'python3 my_worker.py MODEL'"),
                    )
                },
            )?;
        let (Some(input), Some(out), Some(err)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(failed(
                "the worker's pipes cannot be opened",
                Some("raise the limit of open files (ulimit -n)"),
            ));
        };
        let mut link = Self::over(Box::new(out), Box::new(input));
        link.child = Some(child);
        link.keep_log(err);
        Ok(link)
    }

    /// Connects with a worker that listens at a Unix socket.
    #[cfg(unix)]
    fn connect(path: &str) -> Result<Self, BackendError> {
        let connect = || {
            let stream = std::os::unix::net::UnixStream::connect(path)?;
            Ok((stream.try_clone()?, stream))
        };
        let (replies, requests) = connect().map_err(|e: std::io::Error| {
            failed(
                &format!("no worker listens at '{path}': {e}"),
                Some("start one there: indexscope-worker MODEL --listen PATH"),
            )
        })?;
        Ok(Self::over(Box::new(replies), Box::new(requests)))
    }

    /// Connects with a worker that listens at a Unix socket.
    #[cfg(not(unix))]
    fn connect(path: &str) -> Result<Self, BackendError> {
        Err(failed(&format!("'unix:{path}': this system has no Unix sockets"), Some("give a command")))
    }

    /// Speaks with a worker over a pair of streams.
    pub(super) fn over(replies_from: Box<dyn Read + Send>, input: Box<dyn Write + Send>) -> Self {
        let (sender, replies) = channel();
        let (most, log) = (Arc::new(AtomicU64::new(FEW)), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::new(Mutex::new((Instant::now(), None)));
        let (limit, at) = (Arc::clone(&most), Arc::clone(&heard));
        // Where no thread can be started, the sender is dropped, and the worker is lost at the first request.
        let _ = thread::Builder::new().name("worker's replies".into()).spawn(move || {
            let mut from = BufReader::new(replies_from);
            loop {
                let frame = match Frame::read(&mut from, || limit.load(Ordering::Acquire)) {
                    Ok(Some(frame)) => Ok(frame),
                    Ok(None) => return,
                    Err(error) => Err(error.to_string()),
                };
                let alive = frame.as_ref().ok().and_then(sign_of_life);
                let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
                *at = (Instant::now(), alive.or(at.1));
                drop(at);
                if alive.is_some() {
                    continue;
                }
                let ends = frame.is_err();
                if sender.send(frame).is_err() || ends {
                    return;
                }
            }
        });
        Self {
            child: None,
            input: Some(input),
            replies,
            log,
            most,
            last: 0,
            lost: None,
            heard,
            cancel_within: CANCEL_WITHIN,
        }
    }

    /// Keeps the end of what the worker logs.
    fn keep_log(&self, mut err: impl Read + Send + 'static) {
        let log = Arc::clone(&self.log);
        let _ = thread::Builder::new().name("worker's log".into()).spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut piece) {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.extend_from_slice(&piece[..n]);
                let over = log.len().saturating_sub(LOG_TAIL);
                log.drain(..over);
            }
        });
    }

    /// Waits for what the worker says of itself.
    pub(super) fn hello(&mut self, stale: &dyn Fn() -> bool) -> Result<Value, BackendError> {
        let hello = self.receive(&mut || stale())?.ok_or(BackendError::Cancelled)?;
        if hello.head["hello"] != "indexscope-worker" {
            let started = hello.head.to_string().chars().take(80).collect::<String>();
            return Err(self.lose(&format!("it began with {started}, not with its hello")));
        }
        Ok(hello.head)
    }

    /// Returns why the worker is of no use any more; `None` while it is.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Sends a request and hands every reply but the last to `each`; returns the last.
    ///
    /// `most` is how many bytes a reply may have. A request that nobody waits for any more is cancelled, and the worker's
    /// terminal reply awaited.
    pub(super) fn ask(
        &mut self,
        mut request: Value,
        body: Vec<u8>,
        most: usize,
        stale: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Frame) -> Result<(), BackendError>,
    ) -> Result<Value, BackendError> {
        self.last += 1;
        let id = self.last;
        request["id"] = id.into();
        self.most.store((most as u64).max(FEW), Ordering::Release);
        self.send(Frame { head: request, body })?;
        let mut cancelled: Option<Instant> = None;
        let mut refused = None;
        loop {
            let within = self.cancel_within;
            let mut give_up = || cancelled.map_or_else(stale, |at| at.elapsed() > within);
            let Some(frame) = self.receive(&mut give_up)? else {
                if cancelled.is_some() {
                    return Err(self.lose(&format!("it did not answer a cancel within {} s", within.as_secs_f64())));
                }
                cancelled = Some(Instant::now());
                self.send(Frame { head: json!({"do": "cancel", "of": id}), body: Vec::new() })?;
                continue;
            };
            if frame.head["id"] != id {
                continue;
            }
            if let Some(error) = frame.head.get("error") {
                return Err(refused.unwrap_or_else(|| told(error)));
            }
            if frame.head["done"] == true {
                return match (refused, cancelled) {
                    (Some(error), _) => Err(error),
                    (None, Some(_)) => Err(BackendError::Cancelled),
                    (None, None) => Ok(frame.head),
                };
            }
            if refused.is_none() && cancelled.is_none() {
                refused = each(frame).err();
            }
        }
    }

    fn send(&mut self, frame: Frame) -> Result<(), BackendError> {
        if let Some(lost) = &self.lost {
            return Err(failed(lost, Some("start again; the session and the search's journal have what was measured")));
        }
        let Some(input) = &mut self.input else { return Err(self.lose("its input is closed")) };
        frame.write(input).map_err(|e| self.lose(&format!("it does not take requests any more ({e})")))
    }

    /// Waits for the next frame; `None` once `give_up` says so.
    fn receive(&mut self, give_up: &mut dyn FnMut() -> bool) -> Result<Option<Frame>, BackendError> {
        loop {
            match self.replies.recv_timeout(TICK) {
                Ok(Ok(frame)) => return Ok(Some(frame)),
                Ok(Err(what)) => return Err(self.lose(&what)),
                Err(RecvTimeoutError::Disconnected) => return Err(self.lose("it ended")),
                Err(RecvTimeoutError::Timeout) if give_up() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    let (heard, silence) = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(silence) = silence.filter(|silence| heard.elapsed() > *silence) {
                        let seconds = silence.as_secs_f64();
                        return Err(self.lose(&format!("it has given no sign of life for {seconds} s")));
                    }
                }
            }
        }
    }

    /// Ends a worker that is of no use any more; returns what a person should read.
    fn lose(&mut self, what: &str) -> BackendError {
        self.input = None;
        // What it has said last may still be on its way.
        let status = self.end(Duration::from_millis(300)).map_or_else(String::new, |status| format!(" ({status})"));
        if self.child.is_some() {
            thread::sleep(TICK);
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let log = String::from_utf8_lossy(&log);
        let tail: Vec<&str> = log.trim().lines().rev().take(6).collect();
        let tail: Vec<String> = tail.into_iter().rev().map(clean).collect();
        let message = if tail.is_empty() {
            format!("the worker is lost: {}{status}; it left no log", clean(what))
        } else {
            format!("the worker is lost: {}{status}; its log ends with: {}", clean(what), tail.join(" | "))
        };
        self.lost = Some(message.clone());
        failed(&message, Some("start again; the session and the search's journal have what was measured"))
    }
}

impl Link {
    /// Waits so long for the process to end, and kills it then; returns its status where it ended by itself.
    fn end(&mut self, within: Duration) -> Option<std::process::ExitStatus> {
        let child = self.child.as_mut()?;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            thread::sleep(TICK);
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(input) = &mut self.input {
            let _ = Frame { head: json!({"do": "shutdown", "id": 0}), body: Vec::new() }.write(input);
        }
        self.input = None;
        self.end(Duration::from_secs(2));
    }
}

/// Returns how long a worker may be silent after this frame, if that is a sign of life: `{"alive": seconds until the
/// next}`, which answers nothing.
fn sign_of_life(frame: &Frame) -> Option<Duration> {
    let seconds = frame.head["alive"].as_f64().filter(|seconds| (0.001..=3600.0).contains(seconds));
    seconds.filter(|_| frame.head.get("hello").is_none()).map(|seconds| Duration::from_secs_f64(seconds * MISSING))
}

/// Returns a worker's error as the program's.
fn told(error: &Value) -> BackendError {
    let text = |key: &str| error[key].as_str().map(clean);
    match error["code"].as_str() {
        Some("cancelled") => BackendError::Cancelled,
        code => {
            let said = text("message").unwrap_or_else(|| "nothing".to_owned());
            let diagnostic =
                |also: &str| Diagnostic { message: format!("the worker says: {said}{also}"), hint: text("hint") };
            match code {
                Some("out_of_memory") => BackendError::OutOfMemory(diagnostic(" (out of memory)")),
                _ => BackendError::Failed(diagnostic("")),
            }
        }
    }
}

/// Returns foreign text without control characters.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn failed(message: &str, hint: Option<&str>) -> BackendError {
    BackendError::Failed(Diagnostic { message: message.to_owned(), hint: hint.map(str::to_owned) })
}
