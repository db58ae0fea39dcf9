//! Sessions, exports and reports: what is asked of the disk, and what came of it.

use std::path::PathBuf;

use super::{edit, train};
use crate::engine::Command;
use crate::session::{autosave_path, saved_path};
use crate::tui::app::{App, Overlay, Tone};
use crate::tui::msg::Effect;
use crate::tui::{Opened, Problem};

/// Shows the sessions that were found, if they are still asked for; at the start, says what was put aside.
pub fn sessions(app: &mut App, found: Vec<PathBuf>) -> Vec<Effect> {
    if let Overlay::Sessions { paths, .. } = &mut app.overlay {
        *paths = found;
        return Vec::new();
    }
    // Nobody has asked: it is the start.
    let aside = app.usual.as_deref().map(autosave_path).filter(|aside| found.contains(aside));
    if let Some(aside) = aside {
        app.say(Tone::Warn, format!("work that was never saved is in {}; 'o' opens it", aside.display()));
    }
    Vec::new()
}

/// Has the session written.
pub fn save(app: &mut App, path: Option<PathBuf>) -> Vec<Effect> {
    app.work().map(|work| Effect::Save { path, work }).into_iter().collect()
}

/// The session was written, or not.
pub fn saved(app: &mut App, result: Result<PathBuf, Problem>) -> Vec<Effect> {
    match result {
        Ok(path) => {
            app.say(Tone::Info, format!("saved {}", path.display()));
            let other = app.file.as_ref().or(app.usual.as_ref()).is_some_and(|file| *file != path);
            app.file = Some(path);
            app.unsaved = false;
            app.autosave = None;
            if other {
                return train::moved(app, true);
            }
        }
        Err(problem) => app.say(Tone::Bad, problem.to_string()),
    }
    Vec::new()
}

/// Unsaved work was put aside, which is only told when it failed.
pub fn autosaved(app: &mut App, result: Result<(), Problem>) -> Vec<Effect> {
    if let Err(problem) = result {
        app.say(Tone::Bad, format!("autosave: {problem}"));
    }
    Vec::new()
}

/// A session was read, or not.
pub fn opened(app: &mut App, path: PathBuf, result: Result<Opened, Problem>) -> Vec<Effect> {
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
    let alive = app.is_searching() || app.is_search_paused() || app.search.waiting.take().is_some();
    if app.take_work(&work) {
        if file == saved_path(&path) {
            app.say(Tone::Info, format!("opened {}", path.display()));
        } else if other_text {
            let (path, file) = (path.display(), file.display());
            let text = format!("{path} is about another text: its losses are left out; here it is {file}");
            app.say(Tone::Warn, text);
        } else {
            let text = format!("{} is open in another indexscope; here it is {}", path.display(), file.display());
            app.say(Tone::Warn, text);
        }
        app.unsaved = file != path;
        app.file = Some(file);
        app.failure = None;
        let stop = alive.then_some(Effect::Send(Command::StopSearch));
        let training = train::moved(app, false);
        return edit::refresh(app).into_iter().chain(stop).chain(training).collect();
    }
    app.say(Tone::Bad, format!("'{}' is not sound: its history refers to steps that are not there", path.display()));
    Vec::new()
}

/// Asks for the argument of an engine.
pub fn export(app: &mut App, engine: &'static str) -> Vec<Effect> {
    app.overlay = Overlay::None;
    app.pattern().map(|pattern| Effect::Export { engine, pattern }).into_iter().collect()
}

/// Shows the argument of an engine and copies it.
pub fn exported(app: &mut App, engine: &str, result: Result<String, Problem>) -> Vec<Effect> {
    match result {
        Ok(text) => {
            app.say(Tone::Info, format!("argument for {engine} sent to the clipboard"));
            app.overlay = Overlay::Text { title: format!("Export for {engine}"), body: text.clone(), scroll: 0 };
            vec![Effect::Copy(text)]
        }
        Err(problem) => {
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
pub fn reported(app: &mut App, result: Result<PathBuf, Problem>) -> Vec<Effect> {
    match result {
        Ok(path) => app.say(Tone::Info, format!("report written to {}", path.display())),
        Err(problem) => app.say(Tone::Bad, problem.to_string()),
    }
    Vec::new()
}
