//! What the dashboard reads and writes: sessions, and exports to serving engines.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CliError, report, target};
use crate::checkpoint::Checkpoint;
use crate::domain::Diagnostic;
use crate::domain::{Pattern, PatternSource, SearchRecord, Sites, Stages};
use crate::interop::Target;
use crate::session::{
    FileError, NamedPattern, Place, Session, SessionModel, SessionStep, free_autosave, list_sessions, saved_path,
    write_atomic,
};
use crate::tui::{Files, Opened, Step, Work};

/// Returns a checkpoint as sessions name it.
pub(super) fn session_model(checkpoint: &Checkpoint) -> SessionModel {
    SessionModel {
        name: checkpoint.name().to_owned(),
        fingerprint: checkpoint.fingerprint().to_owned(),
        former: checkpoint.former_fingerprints(),
        other: toml::Table::new(),
    }
}

/// Sessions of one model, and the one that is open.
pub(super) struct SessionFiles {
    model: SessionModel,
    calibration: String,
    folder: PathBuf,
    target: Option<Target>,
    /// Where the session is written without being named.
    place: Place,
    /// The session as it was read or written last; `None` before that.
    session: Option<Session>,
    /// The autosave of this run.
    autosave: Option<PathBuf>,
    /// The autosave of another run that was opened: its work is on the screen, and it stays until that is saved.
    opened: Option<PathBuf>,
    /// Another session that is to be replaced, once that is asked for again.
    sure: Option<PathBuf>,
}

impl SessionFiles {
    /// Returns the files of work on a checkpoint.
    pub(super) fn of_model(checkpoint: &Checkpoint, calibration: String, folder: PathBuf) -> Self {
        let model = session_model(checkpoint);
        Self { calibration, target: Some(Target::of(checkpoint)), ..Self::without_model(model, folder) }
    }

    /// Returns the files of a model that is not there.
    pub(super) fn without_model(model: SessionModel, folder: PathBuf) -> Self {
        let name: String =
            model.name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let place = Place::open(folder.join(format!("{name}.toml")));
        Self {
            model,
            calibration: String::new(),
            folder,
            target: None,
            place,
            session: None,
            autosave: None,
            opened: None,
            sure: None,
        }
    }

    /// Returns the model as serving engines see it; `None` where it is not there.
    pub(super) fn target(&self) -> Option<Target> {
        self.target.clone()
    }

    /// Takes the place of a session that was not named; returns it, and what is to be said where another program has
    /// the usual one.
    pub(super) fn settle(&mut self) -> (PathBuf, Option<String>) {
        let usual = self.place.path().to_owned();
        self.place = Place::take(&usual);
        let path = self.place.path().to_owned();
        let notice = (path != usual).then(|| elsewhere(&usual, &path));
        (path, notice)
    }

    /// Makes a session that was read the open one; returns the file that it is saved to.
    ///
    /// What another program works on is saved under a name of its own, and its autosave is left to it.
    pub(super) fn hold(&mut self, path: &Path, session: Session) -> PathBuf {
        if self.calibration.is_empty() {
            self.calibration.clone_from(&session.calibration);
        }
        // An autosave is saved under the name of its session.
        let saved = saved_path(path);
        if !(self.place.is_locked() && self.place.is(&saved)) {
            self.place = Place::take(&saved);
        }
        (self.autosave, self.opened) = (None, (saved != path && self.place.is(&saved)).then(|| path.to_owned()));
        self.session = Some(session);
        self.place.path().to_owned()
    }

    /// Returns what the session would hold if it were saved now.
    fn as_now(&self, work: &Work) -> Session {
        // Fields that this version does not know go along, to a new name too.
        let session = self.session.clone();
        let mut session = session.unwrap_or_else(|| Session::new(self.model.clone(), current(work)));
        if self.target.is_some() {
            // A session of an earlier version gets today's fingerprint.
            session.model = SessionModel { other: std::mem::take(&mut session.model.other), ..self.model.clone() };
        }
        update(&mut session, &self.calibration, work);
        session
    }

    /// Refuses to replace a file that was not opened: a session only when that is asked for twice, anything else never.
    fn spare(&mut self, path: &Path) -> Result<(), Diagnostic> {
        if !path.exists() || self.sure.as_deref() == Some(path) {
            return Ok(());
        }
        Session::read(path).map_err(|_| Diagnostic {
            message: format!("'{}' is there already, and no session", path.display()),
            hint: Some("save under another name".to_owned()),
        })?;
        self.sure = Some(path.to_owned());
        Err(Diagnostic {
            message: format!("'{}' is another session", path.display()),
            hint: Some("saving there once more replaces it".to_owned()),
        })
    }

    /// Takes the place that is to be written, if it is another than now.
    fn place_for(&mut self, path: Option<&Path>) -> Result<Option<Place>, Diagnostic> {
        let claim = |path: &Path| {
            Place::claim(path).map_err(file_problem)?.ok_or_else(|| Diagnostic {
                message: format!("'{}' is open in another indexscope", path.display()),
                hint: Some("save under another name".to_owned()),
            })
        };
        match path {
            Some(path) if !self.place.is(path) => {
                let place = claim(path)?;
                self.spare(path)?;
                Ok(Some(place))
            }
            // The usual file holds a session of before, which nobody has opened.
            None if self.session.is_none() && self.place.path().exists() => Ok(Some(Place::beside(self.place.path()))),
            _ if self.place.is_locked() => Ok(None),
            _ => claim(self.place.path()).map(Some),
        }
    }
}

impl Files for SessionFiles {
    fn save(&mut self, path: Option<&Path>, work: &Work) -> Result<PathBuf, Diagnostic> {
        let other = self.place_for(path)?;
        let session = self.as_now(work);
        session.write(other.as_ref().unwrap_or(&self.place).path()).map_err(file_problem)?;
        self.session = Some(session);
        if let Some(other) = other {
            self.place = other;
        }
        // What was autosaved is in the session now; a leftover would only be offered again.
        for leftover in self.autosave.take().into_iter().chain(self.opened.take()) {
            let _ = std::fs::remove_file(leftover);
        }
        Ok(self.place.path().to_owned())
    }

    fn autosave(&mut self, work: &Work) -> Result<(), Diagnostic> {
        // Those of other runs stay as they are: this run has a number of its own.
        let own = self.autosave.take().filter(|own| self.place.is(&saved_path(own)));
        let path = own.unwrap_or_else(|| free_autosave(self.place.path()));
        self.as_now(work).write(&path).map_err(file_problem)?;
        self.autosave = Some(path);
        Ok(())
    }

    fn open(&mut self, path: &Path) -> Result<Opened, Diagnostic> {
        let session = Session::read(path).map_err(file_problem)?;
        if !self.model.is(&session.model.fingerprint) {
            return Err(Diagnostic {
                message: format!("'{}' belongs to model '{}'", path.display(), session.model.name),
                hint: Some(format!("open it by 'indexscope {}'", path.display())),
            });
        }
        let mut work = work_of(&session);
        let known = |hash: &str| !hash.is_empty();
        let other_text =
            known(&self.calibration) && known(&session.calibration) && session.calibration != self.calibration;
        if !other_text {
            return Ok(Opened { work, file: self.hold(path, session), other_text });
        }
        // Losses on another text would stand beside those of this one; the file keeps them.
        work.steps.iter_mut().for_each(|step| step.evaluation = None);
        self.place = Place::beside(&saved_path(path));
        (self.session, self.autosave, self.opened) = (Some(session), None, None);
        Ok(Opened { work, file: self.place.path().to_owned(), other_text })
    }

    fn sessions(&mut self) -> Vec<PathBuf> {
        list_sessions(&self.folder)
    }

    fn pattern(&mut self, source: &PatternSource, native: Pattern, sites: Sites) -> Result<Pattern, Diagnostic> {
        match target::pattern_of(source, native, sites) {
            Ok(Some(pattern)) => Ok(pattern),
            Ok(None) => Err(problem("dense attention is not a pattern of layers")),
            Err(CliError::Told { diagnostic, .. }) => Err(diagnostic),
            Err(_) => Err(problem(format!("'{source}' cannot be read"))),
        }
    }

    fn report(&mut self, work: &Work, stages: &Stages) -> Result<PathBuf, Diagnostic> {
        let (path, session) = (self.place.path(), self.as_now(work));
        let source = path.display().to_string();
        let engines = self.target.as_ref().map(|target| (target, stages));
        let report = report::assemble(session, source, None, engines).map_err(problem)?;
        let page = path.with_extension("html");
        write_atomic(&page, report.html().as_bytes()).map_err(file_problem)?;
        Ok(page)
    }
}

/// Says under which name a session goes on that another program has open.
pub(super) fn elsewhere(open: &Path, own: &Path) -> String {
    format!(
        "Another indexscope works on\n  {}\n\nWhat is done here is saved to\n  {}\nso that neither overwrites the other.",
        open.display(),
        own.display()
    )
}

/// Returns a session's history as the dashboard keeps it; a session without one is a single step.
pub(super) fn work_of(session: &Session) -> Work {
    let mut steps: Vec<Step> = session
        .history
        .iter()
        .map(|step| Step {
            pattern: step.pattern,
            parent: step.parent,
            change: step.change.clone(),
            evaluation: step.evaluation.clone(),
            speed: step.speed.clone(),
            validation: step.validation.clone(),
        })
        .collect();
    if steps.is_empty() {
        steps.push(Step {
            pattern: session.pattern,
            parent: None,
            change: "opened".to_owned(),
            evaluation: None,
            speed: Vec::new(),
            validation: None,
        });
    }
    let named = session.named.iter().map(|n| (n.name.clone(), n.pattern)).collect();
    let search = session.searches.last().cloned().map(Box::new);
    Work { steps, current: session.current, named, search, overlap: session.overlap.clone().map(Arc::new) }
}

fn current(work: &Work) -> Pattern {
    work.steps[work.current].pattern
}

/// Writes the dashboard's history into a session; what this version does not know of stays with its entry.
fn update(session: &mut Session, calibration: &str, work: &Work) {
    session.pattern = current(work);
    session.current = work.current;
    calibration.clone_into(&mut session.calibration);
    if let Some(overlap) = &work.overlap {
        session.overlap = Some((**overlap).clone());
    }
    if let Some(record) = &work.search {
        // A search that goes on takes the place of what was kept of it before.
        let same = |kept: &SearchRecord| kept.settings == record.settings && kept.calibration == record.calibration;
        session.searches.retain(|kept| !same(kept));
        session.searches.push((**record).clone());
    }
    let names = std::mem::take(&mut session.named);
    let other = |name: &str| names.iter().find(|n| n.name == name).map(|n| n.other.clone()).unwrap_or_default();
    session.named = work
        .named
        .iter()
        .map(|(name, pattern)| NamedPattern { name: name.clone(), pattern: *pattern, other: other(name) })
        .collect();
    let before = std::mem::take(&mut session.history);
    session.history = work
        .steps
        .iter()
        .enumerate()
        .map(|(i, step)| SessionStep {
            pattern: step.pattern,
            parent: step.parent,
            change: step.change.clone(),
            evaluation: step.evaluation.clone(),
            speed: step.speed.clone(),
            validation: step.validation.clone(),
            other: before.get(i).filter(|b| b.pattern == step.pattern).map(|b| b.other.clone()).unwrap_or_default(),
        })
        .collect();
}

fn file_problem(error: FileError) -> Diagnostic {
    Diagnostic { hint: error.hint(), message: error.to_string() }
}

fn problem(message: impl Display) -> Diagnostic {
    Diagnostic::new(message.to_string())
}
