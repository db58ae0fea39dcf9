//! Saves a search as it goes on, so that a kill at any moment loses nothing, and shows where it stands.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Args;
use crate::atomic::rename;
use crate::checkpoint::Checkpoint;
use crate::cli::CliError;
use crate::cli::files::session_model;
use crate::cli::output::OutputArgs;
use crate::cli::progress::Progress;
use crate::domain::{Pattern, SearchProgress, SearchRecord, SearchState, Site, Sites};
use crate::engine::{Cancel, ModelInfo};
use crate::search::{Layout, Measured, Watch};
use crate::session::{FileError, Journal, Session, SessionLock, SessionModel, SessionStep, sessions_folder};

/// The session of a search, the journal of its measurements beside it, and the line on the terminal.
pub(super) struct Keeper {
    /// What was measured, by an interrupted run and by this one.
    pub known: Vec<Measured>,
    path: PathBuf,
    journal: Journal,
    /// The session as it was, or a new one; what the search finds is added to it.
    before: Session,
    /// Hash of the set that is searched on.
    calibration: String,
    /// The layers that select.
    sites: Sites,
    /// The first thing that went wrong while saving: it ends the search.
    failure: Option<FileError>,
    /// Where the search stood last.
    last: Option<SearchRecord>,
    cancel: Cancel,
    told: (usize, SearchState),
    line: Progress,
    _lock: SessionLock,
}

impl Keeper {
    /// Opens the session, with what was measured before if the search is resumed.
    pub(super) fn open(
        args: &Args,
        checkpoint: &Checkpoint,
        info: &ModelInfo,
        layout: &Layout,
        cancel: &Cancel,
    ) -> Result<Self, CliError> {
        let path = args.session.clone().unwrap_or_else(|| {
            let name: String =
                info.name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
            sessions_folder(args.sessions.as_deref()).join(format!("{name}.search.toml"))
        });
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| CliError::file("cannot make", folder, e))?;
        }
        let lock = SessionLock::acquire(&path)?.ok_or_else(|| {
            CliError::run(format!("'{}' is open in another indexscope", path.display()))
                .hint("wait for it, or name another file with --session")
        })?;
        let before = session(&path, checkpoint, info)?;
        let journal = path.with_extension("journal");
        // Measurements of another model, set or arithmetic are none of this search.
        let about = |fingerprint: &str| {
            let ModelInfo { calibration, device, dtype, ops, .. } = info;
            format!("indexscope journal 1: {fingerprint} {calibration} {device} {dtype} {ops}")
        };
        // A search that was killed before its journal was there has measured nothing that could be lost.
        let (journal, known) = if args.resume && journal.exists() {
            let former = checkpoint.former_fingerprints();
            let abouts: Vec<String> = former.iter().chain([&info.fingerprint]).map(|f| about(f)).collect();
            resume(&journal, &abouts, &|m| m.fits(info.reference.len(), layout), &args.output)?
        } else {
            if args.resume {
                let text = format!("'{}' does not exist: the search starts from the beginning", journal.display());
                args.output.note(&text);
            }
            (begin(&journal, &about(&info.fingerprint))?, vec![])
        };
        Ok(Self {
            known,
            path,
            journal,
            before,
            calibration: info.calibration.clone(),
            sites: info.constraints.sites,
            failure: None,
            last: None,
            cancel: cancel.clone(),
            told: (0, SearchState::Running),
            line: Progress::new(&args.output),
            _lock: lock,
        })
    }

    /// Shows where a search stands.
    pub(super) fn show(&mut self, progress: &SearchProgress) {
        let (done, all) = progress.measured;
        self.line.tell(&line(progress), done as f64 / all.max(1) as f64);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the line on the terminal away.
    pub(super) fn clear(&mut self) {
        self.line.clear();
    }

    /// Returns why the search had to end because it could not be saved, and where it stood.
    pub(super) fn failure(&mut self) -> Option<(CliError, Option<SearchRecord>)> {
        let failure = self.failure.take()?;
        let hint = "make room for it, or name another file with --session; with --resume the search goes on from what was saved";
        Some((CliError::run(failure).hint(hint), self.last.take()))
    }

    /// Saves the search, unless that has failed before; a failure ends the search.
    pub(super) fn save(&mut self, record: &SearchRecord) {
        self.note(|keeper| {
            // Each step lasts, even where the power fails.
            keeper.journal.sync()?;
            keeper.write(record)
        });
    }

    fn note(&mut self, save: impl FnOnce(&mut Self) -> Result<(), FileError>) {
        if self.failure.is_none()
            && let Err(failure) = save(self)
        {
            self.failure = Some(failure);
            self.cancel.cancel();
        }
    }

    /// Writes the session: what it held before, the search, and the search's patterns in the history.
    fn write(&self, record: &SearchRecord) -> Result<(), FileError> {
        let mut session = self.before.clone();
        let record = SearchRecord { calibration: self.calibration.clone(), ..record.clone() };
        let method = record.settings.method;
        let mut at = reach(&mut session, record.start, None, "start of the search".to_owned());
        for (i, flip) in record.order.iter().enumerate() {
            let change =
                format!("{method}: L{} Full → Shared", self.sites.layer(Site(flip.layer)).unwrap_or(flip.layer));
            at = reach(&mut session, record.after(i + 1), Some(at), change);
        }
        let change = match record.swaps.as_slice() {
            [] => method.to_string(),
            swaps => format!("{method}: {} swaps", swaps.len()),
        };
        (session.current, session.pattern) = (reach(&mut session, record.pattern, Some(at), change), record.pattern);
        // The same search, interrupted or run again, takes the place of what it was.
        session.searches.retain(|s| {
            (&s.settings, &s.calibration, s.start) != (&record.settings, &record.calibration, record.start)
        });
        session.searches.push(record);
        session.write(&self.path)
    }
}

/// Returns where a pattern stands in the history, where it is put if it is not there yet.
fn reach(session: &mut Session, pattern: Pattern, parent: Option<usize>, change: String) -> usize {
    if let Some(at) = session.history.iter().position(|step| step.pattern == pattern) {
        return at;
    }
    // A history has one beginning; a search that starts elsewhere hangs on it.
    let parent = parent.or((!session.history.is_empty()).then_some(0));
    let (evaluation, speed, validation, other) = (None, Vec::new(), None, toml::Table::new());
    session.history.push(SessionStep { pattern, parent, change, evaluation, speed, validation, other });
    session.history.len() - 1
}

/// Returns the session that is there, or a new one.
fn session(path: &Path, checkpoint: &Checkpoint, info: &ModelInfo) -> Result<Session, CliError> {
    let model = session_model(checkpoint);
    if !path.exists() {
        return Ok(Session { calibration: info.calibration.clone(), ..Session::new(model, info.reference) });
    }
    let session = Session::read(path)?;
    if !model.is(&session.model.fingerprint) {
        let (path, other, name) = (path.display(), &session.model.name, &model.name);
        return Err(CliError::run(format!("'{path}' is a session of another model, '{other}', not of this '{name}'"))
            .hint("name another file with --session"));
    }
    // A session of an earlier version gets today's fingerprint beside the one that it had.
    let model = SessionModel { other: session.model.other.clone(), ..model };
    Ok(Session { model, ..session })
}

fn begin(path: &Path, about: &str) -> Result<Journal, CliError> {
    if path.exists() {
        // One that may be worth going on with is put aside, not thrown away.
        let aside = path.with_extension("journal.old");
        rename(path, &aside).map_err(|e| CliError::file("cannot put aside", path, e))?;
        // Without a new journal the old one stays what --resume finds.
        return Journal::create(path, about).map_err(|e| {
            let _ = rename(&aside, path);
            e.into()
        });
    }
    Ok(Journal::create(path, about)?)
}

fn resume(
    path: &Path,
    abouts: &[String],
    fits: &dyn Fn(&Measured) -> bool,
    output: &OutputArgs,
) -> Result<(Journal, Vec<Measured>), CliError> {
    let (journal, entries) = Journal::resume(path)?;
    if !abouts.contains(&entries.about) {
        return Err(CliError::run(format!(
            "'{}' was measured with another model, calibration set, device, dtype or attention",
            path.display()
        ))
        .hint("give the same options as before, or start anew without --resume"));
    }
    let known: Vec<Measured> =
        entries.lines.iter().filter_map(|line| Measured::from_str(line).ok().filter(fits)).collect();
    let damaged = entries.damaged + entries.lines.len() - known.len();
    if damaged > 0 {
        output.warn(&format!("{damaged} measurements in '{}' are damaged, and made again", path.display()));
    }
    Ok((journal, known))
}

impl Watch for Keeper {
    fn measured(&mut self, measured: &Measured) {
        self.known.push(measured.clone());
        self.note(|keeper| keeper.journal.add(&measured.to_string()));
    }

    fn progress(&mut self, progress: &SearchProgress) {
        let record = &progress.record;
        let now = (record.order.len() + record.swaps.len(), record.state);
        if now != self.told {
            self.told = now;
            self.save(record);
        }
        self.last = Some(record.clone());
        self.show(progress);
    }
}

/// Returns where a search stands, in one line.
pub(super) fn line(progress: &SearchProgress) -> String {
    let record = &progress.record;
    let (step, steps) = progress.steps;
    let minutes = |s: f64| format!("{}:{:02}", s as u64 / 60, s as u64 % 60);
    let eta = progress.eta.map_or(String::new(), |(low, high)| format!(", {}–{} left", minutes(low), minutes(high)));
    let delta = record.delta.map_or(String::new(), |d| format!(" Δ {:+.4}", d.value));
    format!(
        "{} step {}/{steps} {}{delta}, {:.1} evaluations, {:.0} layer-forwards (the paper's count {:.0}){eta}; this step",
        record.settings.method,
        (step + 1).min(steps.max(1)),
        record.pattern,
        record.work.evaluations,
        record.work.layer_forwards,
        record.work.paper(record.pattern.len()),
    )
}
