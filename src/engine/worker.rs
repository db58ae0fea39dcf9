//! The one thread that owns a backend.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::mailbox::{Kind, Long, Mailbox, Next, Task};
use super::outbox::Outbox;
use super::searching::Searching;
use super::training::Trained;
use super::{Backend, BackendError, Cancel, Capability, Command, Failure, Job, Update};
use crate::domain::{Evaluation, Pattern, QuerySampling, Speed, Subject};

/// How long the hands must be still before speed is measured.
const QUIET: Duration = Duration::from_millis(500);

/// The way to the worker; dropping it ends the worker.
#[derive(Debug)]
pub struct Handle(Arc<Mailbox>);

impl Handle {
    /// Hands a command to the worker; never waits.
    pub fn post(&self, command: Command) {
        self.0.post(command);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.post(Command::Shutdown);
    }
}

/// Starts the worker: it makes its backend, tells [`Update::Ready`] and then answers commands.
///
/// `make` is called again after a crash, on the next command.
pub fn spawn(
    make: impl FnMut() -> Result<Box<dyn Backend>, BackendError> + Send + 'static,
) -> (Handle, Receiver<Update>) {
    spawn_with(QUIET, make)
}

/// Starts the worker with another time of quiet before speed is measured.
pub fn spawn_with(
    quiet: Duration,
    make: impl FnMut() -> Result<Box<dyn Backend>, BackendError> + Send + 'static,
) -> (Handle, Receiver<Update>) {
    let mailbox = Arc::new(Mailbox::new(quiet));
    let (sender, updates) = channel();
    let worker = Worker {
        make: Box::new(make),
        backend: None,
        speeds: HashMap::new(),
        searching: Searching::default(),
        trained: Trained::default(),
        mailbox: mailbox.clone(),
        outbox: Outbox::new(sender),
    };
    if let Err(error) = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run()) {
        // The closure, and the sender with it, is gone: the receiver reports a closed channel.
        drop(error);
    }
    (Handle(mailbox), updates)
}

type Make = Box<dyn FnMut() -> Result<Box<dyn Backend>, BackendError> + Send>;

struct Worker {
    make: Make,
    backend: Option<Box<dyn Backend>>,
    /// Speeds measured so far, so that undo shows them at once.
    speeds: HashMap<Pattern, Vec<Speed>>,
    searching: Searching,
    trained: Trained,
    mailbox: Arc<Mailbox>,
    outbox: Outbox,
}

impl Worker {
    fn run(mut self) {
        self.guarded(Job::Load, Self::load);
        loop {
            match self.mailbox.next() {
                Next::Shutdown => return self.guarded(Job::PutAside, |worker| worker.trained.put_aside()),
                Next::Idle => self.outbox.send(Update::Idle),
                Next::Long(Kind::Search, state) => self.searching.tell(state, &self.outbox),
                Next::Long(Kind::Train, state) => self.trained.tell(state, &self.outbox),
                Next::Task(task, cancel) => {
                    if self.backend.is_none() {
                        self.guarded(Job::Load, Self::load);
                    }
                    if self.backend.is_some() {
                        self.guarded(task.job(), |worker| worker.perform(&task, &cancel));
                        self.tell_memory();
                    } else {
                        self.mailbox.clear();
                    }
                }
            }
        }
    }

    /// Runs `work`; failures and panics become updates.
    fn guarded(&mut self, job: Job, work: impl FnOnce(&mut Self) -> Result<(), BackendError>) {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(()) | Err(BackendError::Cancelled)) => {}
            Ok(Err(BackendError::Failed(diagnostic) | BackendError::OutOfMemory(diagnostic))) => {
                self.outbox.send(Update::Failed(Failure { job, diagnostic }));
            }
            Err(panic) => {
                self.backend = None;
                self.outbox.send(Update::Crashed(panic_message(panic.as_ref())));
                if matches!(job, Job::Search | Job::Train) {
                    self.mailbox.long_crashed();
                }
                if job == Job::Train {
                    self.trained.tell_left(&self.outbox);
                }
            }
        }
    }

    /// Tells what the device's memory holds, where it has one of its own.
    fn tell_memory(&self) {
        if let Some((free, total)) = self.backend.as_ref().and_then(|backend| backend.memory()) {
            self.outbox.send(Update::Memory(free, total));
        }
    }

    fn load(&mut self) -> Result<(), BackendError> {
        self.outbox.progress(Job::Load, 0.0, Instant::now());
        let backend = (self.make)()?;
        self.outbox.send(Update::Ready(Box::new(backend.describe().clone())));
        self.backend = Some(backend);
        Ok(())
    }

    fn perform(&mut self, task: &Task, cancel: &Cancel) -> Result<(), BackendError> {
        let Self { backend: Some(backend), outbox, mailbox, speeds, searching, trained, .. } = self else {
            return Ok(());
        };
        let started = Instant::now();
        match *task {
            Task::Evaluate(pattern) => {
                let evaluation = backend.evaluate(Subject::Pattern(pattern), cancel, &mut |partial: &Evaluation| {
                    outbox.send(Update::Partial(Box::new(partial.clone())));
                    outbox.progress(Job::Evaluate, share(partial.sequences), started);
                })?;
                outbox.send(Update::Evaluated(Box::new(evaluation)));
                let can = backend.describe().can;
                let speed = can.has(Capability::Timed) && !speeds.contains_key(&pattern);
                mailbox.follow_up(pattern, cancel, can.has(Capability::Shadow), speed);
                if let Some(known) = speeds.get(&pattern) {
                    outbox.send(Update::Measured(known.clone()));
                }
            }
            Task::Record => {
                let reference = backend.describe().reference;
                let mut tell = |share| outbox.progress(Job::Record, share, started);
                let trace = backend.record(reference, QuerySampling::All, cancel, &mut tell);
                if matches!(trace, Err(BackendError::Cancelled)) {
                    mailbox.resume_record();
                }
                outbox.send(Update::Recorded(Arc::new(trace?)));
            }
            Task::Coverage(pattern) => {
                outbox.progress(Job::Coverage, 0.0, started);
                outbox.send(Update::Covered(backend.coverage(pattern, cancel)?));
            }
            Task::Measure(pattern) => {
                let mut tell = |share| outbox.progress(Job::Speed, share, started);
                let measured = backend.measure(pattern, None, cancel, &mut tell, &mut |_| ())?;
                speeds.insert(pattern, measured.clone());
                outbox.send(Update::Measured(measured));
            }
            Task::Profile(pattern) => {
                let measured =
                    backend.profile(pattern, cancel, &mut |share| outbox.progress(Job::Speed, share, started))?;
                outbox.send(Update::Profiled(measured));
            }
            Task::Affinity(kind) => {
                outbox.progress(Job::Affinity, 0.0, started);
                outbox.send(Update::Affinity(kind, Arc::new(backend.affinity(kind, cancel)?)));
            }
            Task::Validate(pattern) => {
                let mut tell = |share| outbox.progress(Job::Validate, share, started);
                let judged = backend.validate(pattern, cancel, &mut tell);
                if matches!(judged, Err(BackendError::Cancelled)) {
                    mailbox.resume_validation(pattern);
                }
                outbox.send(Update::Validated(pattern, judged?));
            }
            Task::EvaluateTrained(pattern) => {
                outbox.progress(Job::Trained, 0.0, started);
                let mut partial =
                    |partial: &Evaluation| outbox.progress(Job::Trained, share(partial.sequences), started);
                let measured = trained.evaluate(pattern, backend.as_mut(), cancel, &mut partial);
                if matches!(measured, Err(BackendError::Cancelled)) {
                    mailbox.resume_trained(pattern);
                }
                outbox.send(measured?);
            }
            Task::KeepTrained(ref path) => {
                trained.keep(path)?;
                outbox.send(Update::Kept(path.clone()));
                trained.tell_left(outbox);
            }
            Task::TrainingAt(ref sidecar, along) => {
                trained.at(sidecar, along, backend.as_ref())?;
                trained.tell_left(outbox);
            }
            Task::PutAside => {
                trained.put_aside()?;
                trained.tell_left(outbox);
            }
            Task::Long(ref long) => {
                let result = match long {
                    Long::Search(settings) => searching.run(settings, backend.as_mut(), outbox, cancel),
                    Long::Train(settings, begin) => trained.run(settings, *begin, backend.as_mut(), outbox, cancel),
                };
                if !matches!(result, Err(BackendError::Cancelled)) {
                    mailbox.long_ended(long);
                }
                result?;
            }
        }
        Ok(())
    }
}

impl Task {
    fn job(&self) -> Job {
        match self {
            Self::Evaluate(_) => Job::Evaluate,
            Self::Record => Job::Record,
            Self::Coverage(_) => Job::Coverage,
            Self::Measure(_) | Self::Profile(_) => Job::Speed,
            Self::Affinity(_) => Job::Affinity,
            Self::Validate(_) => Job::Validate,
            Self::EvaluateTrained(_) => Job::Trained,
            Self::KeepTrained(_) => Job::Keep,
            Self::Long(Long::Search(_)) => Job::Search,
            Self::TrainingAt(..) | Self::PutAside => Job::PutAside,
            Self::Long(Long::Train(..)) => Job::Train,
        }
    }
}

fn share((done, all): (usize, usize)) -> f64 {
    done as f64 / all.max(1) as f64
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the engine stopped for an unknown reason").to_owned()
}
