//! Sessions, exports and reports: what is asked of the disk, and what came of it.

use std::path::PathBuf;

use super::edit;
use super::overlay::ask;
use crate::domain::Diagnostic;
use crate::domain::Stages;
use crate::engine::Command;
use crate::interop;
use crate::session::saved_path;
use crate::tui::Opened;
use crate::tui::app::{App, Overlay, Question, Tone};
use crate::tui::input::Input;
use crate::tui::msg::Effect;
use crate::tui::screens::train::update as train;

/// Shows the sessions that were found, if they are still asked for; at the start, says what was put aside.
pub fn sessions(app: &mut App, found: Vec<PathBuf>) -> Vec<Effect> {
    if let Overlay::Sessions { paths, .. } = &mut app.overlay {
        *paths = found;
        return Vec::new();
    }
    // Nobody has asked: it is the start.
    let Some(usual) = &app.session.usual else { return Vec::new() };
    let left: Vec<&PathBuf> = found.iter().filter(|path| *path != usual && saved_path(path) == *usual).collect();
    if let [newest, older @ ..] = left.as_slice() {
        let more = if older.is_empty() { String::new() } else { format!(" and {} older", older.len()) };
        let text = format!("work that was never saved is in {}{more}; 'o' opens it", newest.display());
        app.notify(Tone::Warn, text);
    }
    Vec::new()
}

/// Lists the sessions that can be opened.
pub fn list(app: &mut App) -> Vec<Effect> {
    app.overlay = Overlay::Sessions { query: Input::default(), paths: Vec::new(), chosen: 0 };
    vec![Effect::ListSessions]
}

/// Asks under which name the session is saved.
pub fn save_as(app: &mut App) -> Vec<Effect> {
    let name = app.session.file.as_ref().map_or_else(String::new, |p| p.display().to_string());
    ask(app, Question::SaveAs, &name)
}

/// Copies the pattern to the clipboard.
pub fn copy(app: &mut App) -> Vec<Effect> {
    let text = app.pattern().map(|p| p.to_string()).unwrap_or_default();
    app.say(Tone::Info, format!("sent to the clipboard: {text}"));
    vec![Effect::Copy(text)]
}

/// Has the session written.
pub fn save(app: &mut App, path: Option<PathBuf>) -> Vec<Effect> {
    app.work().map(|work| Effect::Save { path, work }).into_iter().collect()
}

/// The session was written, or not.
pub fn saved(app: &mut App, result: Result<PathBuf, Diagnostic>) -> Vec<Effect> {
    match result {
        Ok(path) => {
            app.hold(Tone::Info, format!("saved {}", path.display()));
            let other = app.session.file.as_ref().or(app.session.usual.as_ref()).is_some_and(|file| *file != path);
            app.session.file = Some(path);
            app.session.unsaved = false;
            app.session.autosave = None;
            if other {
                return train::moved(app, true);
            }
        }
        Err(problem) => app.hold(Tone::Bad, problem.to_string()),
    }
    Vec::new()
}

/// Unsaved work was put aside, which is only told when it failed.
pub fn autosaved(app: &mut App, result: Result<(), Diagnostic>) -> Vec<Effect> {
    if let Err(problem) = result {
        app.notify(Tone::Bad, format!("autosave: {problem}"));
    }
    Vec::new()
}

/// A session was read, or not.
pub fn opened(app: &mut App, path: PathBuf, result: Result<Opened, Diagnostic>) -> Vec<Effect> {
    let Opened { work, file, other_text } = match result {
        Ok(opened) => opened,
        Err(problem) => {
            app.say(Tone::Bad, problem.to_string());
            return Vec::new();
        }
    };
    let layers = app.constraints();
    let misfit = layers.and_then(|c| work.steps.iter().find_map(|s| c.check(s.pattern).err()));
    if let Some(error) = misfit {
        app.say(Tone::Bad, format!("'{}' does not fit: {error}", path.display()));
        return Vec::new();
    }
    // A search of the work that is closed would go on for nobody.
    let alive = app.is_searching() || app.is_search_paused() || app.screens.search.waiting.take().is_some();
    if app.take_work(&work) {
        // A notice about this very file is answered.
        let name = path.display().to_string();
        app.notices.retain(|notice| !notice.text.contains(&name));
        if file == saved_path(&path) {
            app.say(Tone::Info, format!("opened {}", path.display()));
        } else if other_text {
            let (path, file) = (path.display(), file.display());
            let text = format!("{path} is about another text: its losses are left out; here it is {file}");
            app.notify(Tone::Warn, text);
        } else {
            let text = format!("{} is open in another indexscope; here it is {}", path.display(), file.display());
            app.notify(Tone::Warn, text);
        }
        app.session.unsaved = file != path;
        app.session.file = Some(file);
        app.known.failure = None;
        let stop = alive.then_some(Effect::Send(Command::StopSearch));
        let training = train::moved(app, false);
        return edit::refresh(app).into_iter().chain(stop).chain(training).collect();
    }
    app.say(Tone::Bad, format!("'{}' is not sound: its history refers to steps that are not there", path.display()));
    Vec::new()
}

/// Shows the argument of an engine and copies it.
pub fn export(app: &mut App, engine: interop::Engine) -> Vec<Effect> {
    app.overlay = Overlay::None;
    let Some(pattern) = app.pattern() else { return Vec::new() };
    let Some(target) = &app.target else {
        app.say(Tone::Bad, "an export needs the model · open the checkpoint's folder");
        return Vec::new();
    };
    let layers = target.sites().layers();
    let split = app.screens.engines.stages.clone().filter(|stages| stages.check(layers).is_ok());
    match interop::export(engine, target, pattern, &split.unwrap_or_else(|| Stages::one(layers))) {
        Ok(export) => {
            let (warned, tone) = match export.warnings.len() {
                0 => (String::new(), Tone::Info),
                1 => (", with 1 warning".to_owned(), Tone::Warn),
                n => (format!(", with {n} warnings"), Tone::Warn),
            };
            app.hold(tone, format!("argument for {engine} sent to the clipboard{warned}"));
            // As on the command line: what to paste, and what to know before serving.
            let warnings = export.warnings.iter().map(|w| format!("warning: {w}"));
            let body = std::iter::once(export.argument.clone()).chain(warnings).collect::<Vec<_>>().join("\n\n");
            app.overlay = Overlay::Text { title: format!("Export for {engine}"), body, scroll: 0 };
            vec![Effect::Copy(export.argument)]
        }
        Err(error) => {
            let problem = Diagnostic { hint: error.hint(), message: error.to_string() };
            app.say(Tone::Bad, problem.to_string());
            Vec::new()
        }
    }
}

/// Has the report of the session written.
pub fn report(app: &mut App) -> Vec<Effect> {
    app.overlay = Overlay::None;
    let asked = app.work().zip(app.stages()).map(|(work, stages)| Effect::Report { work, stages });
    asked.into_iter().collect()
}

/// The report was written, or not.
pub fn reported(app: &mut App, result: Result<PathBuf, Diagnostic>) -> Vec<Effect> {
    match result {
        Ok(path) => app.hold(Tone::Info, format!("report written to {}", path.display())),
        Err(problem) => app.hold(Tone::Bad, problem.to_string()),
    }
    Vec::new()
}
