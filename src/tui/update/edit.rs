//! Changing the pattern.

use std::time::Duration;

use crate::domain::{Constraints, Pattern, Role};
use crate::engine::{Command, Job};
use crate::tui::app::{App, Engine, Indexers, Tone};
use crate::tui::history::History;
use crate::tui::msg::Effect;
use crate::tui::refuse::no_pattern;

/// How long unsaved work rests before it is put aside.
const AUTOSAVE: Duration = Duration::from_secs(2);
/// How long the keys must rest before a pattern is posted, so that a held key is one evaluation.
const DEBOUNCE: Duration = Duration::from_millis(80);

/// Refuses where nothing was done.
pub fn cannot_undo(app: &App) -> Option<String> {
    no_pattern(app)
        .or_else(|| app.history.as_ref().is_some_and(|h| !h.can_undo()).then(|| "there is nothing to undo".into()))
}

/// Refuses where nothing was undone.
pub fn cannot_redo(app: &App) -> Option<String> {
    no_pattern(app)
        .or_else(|| app.history.as_ref().is_some_and(|h| !h.can_redo()).then(|| "there is nothing to redo".into()))
}

/// Goes back to the pattern before the last change.
pub fn undo(app: &mut App) -> Vec<Effect> {
    let undone = app.history.as_mut().and_then(History::undo).unwrap_or_default();
    moved(app, format!("undone: {undone}"))
}

/// Makes the change again that was undone last.
pub fn redo(app: &mut App) -> Vec<Effect> {
    let again = app.history.as_mut().and_then(History::redo).unwrap_or_default();
    moved(app, format!("done again: {again}"))
}

/// Makes layers without an indexer Shared, because nothing else is possible for them.
pub fn within(constraints: Constraints, pattern: Pattern) -> Pattern {
    constraints.locked_shared.iter().fold(pattern, |p, l| p.with(l, Role::Shared).unwrap_or(p))
}

/// Goes to `pattern` as a new step of the history.
pub fn apply(app: &mut App, pattern: Pattern, change: String) -> Vec<Effect> {
    if app.pattern() == Some(pattern) {
        app.say(Tone::Info, format!("{change}: that is the pattern already"));
        return Vec::new();
    }
    let now = app.now;
    if let Some(history) = &mut app.history {
        history.push(pattern, change.clone(), now);
    }
    let also = if app.engine == Engine::Absent { " (no model is loaded, so nothing is measured)" } else { "" };
    moved(app, format!("{change}{also}"))
}

/// Says what happened and has the current pattern measured, unless everything is known already.
pub fn moved(app: &mut App, what: String) -> Vec<Effect> {
    app.say(Tone::Info, what);
    app.session.unsaved = true;
    app.known.failure = None;
    put_aside_soon(app);
    refresh(app)
}

/// Has unsaved work put aside in a moment, however much changes until then.
pub fn put_aside_soon(app: &mut App) {
    if app.session.unsaved {
        app.session.autosave.get_or_insert(app.now + AUTOSAVE);
    }
}

/// Puts unsaved work aside if its time has come.
pub fn put_aside_if_due(app: &mut App) -> Vec<Effect> {
    if app.session.autosave.is_none_or(|due| app.now < due) {
        return Vec::new();
    }
    app.session.autosave = None;
    let work = app.work().filter(|_| app.session.unsaved);
    work.map(Effect::Autosave).into_iter().collect()
}

/// Has the current pattern measured once the keys rest; what is known already is shown at once.
pub fn refresh(app: &mut App) -> Vec<Effect> {
    remember_shown(app);
    if app.engine != Engine::Ready {
        return Vec::new();
    }
    app.due = Some(app.now + DEBOUNCE);
    Vec::new()
}

/// Keeps the numbers of the current pattern for later, when they are shown as stale beside another.
pub fn remember_shown(app: &mut App) {
    let Some(results) = app.current().cloned() else { return };
    if let Some(evaluation) = results.evaluation {
        app.known.last_loss = Some(evaluation);
    }
    if !results.speed.is_empty() {
        app.known.last_speed = results.speed;
    }
}

/// Shows the numbers of the trained indexers, or of those before; what is known is there at once, the rest is measured.
pub fn switch(app: &mut App, indexers: Indexers) -> Vec<Effect> {
    app.indexers = indexers;
    // Nothing of the others is to be seen, not even as stale.
    (app.known.last_loss, app.known.failure) = (None, None);
    refresh(app)
}

/// Posts the current pattern if its time has come.
pub fn post_if_due(app: &mut App) -> Vec<Effect> {
    if app.due.is_none_or(|due| due > app.now) {
        return Vec::new();
    }
    app.due = None;
    let command = match app.pattern() {
        // All is known; only what runs for another pattern is to stop, so that nothing is measured in vain.
        Some(_) if app.is_settled() => app.progress.filter(|p| p.job != Job::Record).map(|_| Command::Stop),
        pattern if app.indexers == Indexers::Trained => pattern.map(Command::EvaluateTrained),
        pattern => pattern.map(Command::Evaluate),
    };
    command.map(Effect::Send).into_iter().collect()
}

/// Forgets the speed of the current pattern and measures again.
pub fn measure(app: &mut App) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    app.known.failure = None;
    app.say(Tone::Info, "measuring again");
    if app.indexers == Indexers::Trained {
        return vec![Effect::Send(Command::EvaluateTrained(pattern))];
    }
    let known = app.current().is_some_and(|r| r.evaluation.is_some());
    if let Some(results) = app.known.results.get_mut(&pattern) {
        results.speed.clear();
    }
    let command = if known { Command::Measure(pattern) } else { Command::Evaluate(pattern) };
    vec![Effect::Send(command)]
}
