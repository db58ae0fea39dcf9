//! What a message does to the state, and what it asks of the outside: no clock, no file, no device.

pub mod edit;
mod engine;
pub mod files;
pub mod mouse;
pub mod overlay;

use super::action::{Action, resolve};
use super::app::{App, Overlay, Tone};
use super::keys;
use super::msg::{Effect, Msg};
use super::screens::train::Leaving;
use super::screens::{SHOW, Screen, overlap, search, train};
use crate::engine::Command;
use ratatui::crossterm::event::KeyEvent;

pub use mouse::Click;

/// Returns what is to be done before anything has happened.
pub fn start(app: &App) -> Vec<Effect> {
    let look = app.session.usual.as_ref().map(|_| Effect::ListSessions);
    engine::compare(app).into_iter().chain(look).collect()
}

/// Takes in what happened; returns what is to be done outside, in order.
pub fn update(app: &mut App, msg: Msg) -> Vec<Effect> {
    let effects = take_in(app, msg);
    app.awaited |= effects.iter().any(is_measurement);
    if app.screen == Screen::Engines {
        app.simulate();
    }
    effects
}

/// Returns whether an effect asks the worker for something that ends with the worker being idle.
fn is_measurement(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Send(
            Command::Record
                | Command::Evaluate(_)
                | Command::EvaluateTrained(_)
                | Command::Measure(_)
                | Command::Profile(_)
                | Command::Affinity(_)
                | Command::Validate(_)
        )
    )
}

fn take_in(app: &mut App, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(key) => press(app, key),
        Msg::Mouse(event) => mouse::event(app, event),
        Msg::Paste(text) => overlay::paste(app, &text),
        Msg::Resize(width, height) => {
            app.size = (width, height);
            Vec::new()
        }
        Msg::Tick(now) => {
            app.now = now;
            let mut effects = edit::post_if_due(app);
            effects.extend(edit::put_aside_if_due(app));
            effects
        }
        Msg::Update(update) => engine::update(app, update),
        Msg::Disconnected => engine::disconnected(app),
        Msg::Matrix(trace, matrix) => engine::matrix(app, &trace, matrix),
        Msg::Studied(trace, result) => overlap::update::studied(app, &trace, result),
        Msg::Sessions(found) => files::sessions(app, found),
        Msg::Saved(result) => files::saved(app, result),
        Msg::Autosaved(result) => files::autosaved(app, result),
        Msg::Opened(path, result) => files::opened(app, path, result),
        Msg::PatternRead(name, result) => overlay::read(app, name, result),
        Msg::Reported(result) => files::reported(app, result),
    }
}

/// Returns where keys are looked up: on the screen, or in what lies over it.
fn tables(app: &App) -> Vec<&'static [Action]> {
    match app.overlay {
        Overlay::None => vec![app.screen.spec().actions, SHOW, keys::SCREEN, keys::ALWAYS],
        Overlay::Export => vec![keys::EXPORT, keys::ALWAYS],
        _ => vec![keys::OVERLAY, keys::ALWAYS],
    }
}

fn press(app: &mut App, key: KeyEvent) -> Vec<Effect> {
    app.held = false;
    match resolve(&tables(app), key) {
        Some(action) => run(app, action),
        None if app.overlay == Overlay::Export => {
            app.overlay = Overlay::None;
            app.say(Tone::Info, "no export begins with that key");
            Vec::new()
        }
        None => overlay::edit(app, key),
    }
}

/// Runs an action, or says why it cannot be run.
pub fn run(app: &mut App, action: &Action) -> Vec<Effect> {
    if !matches!(action.id, "quit" | "interrupt") {
        app.quitting = false;
        app.screens.train.leaving = Leaving::No;
    }
    app.screens.train.replacing &= action.id == "train-start";
    if let Some(why) = (action.refusal)(app) {
        app.say(Tone::Warn, why);
        return Vec::new();
    }
    (action.run)(app)
}

/// Says what is stopped.
pub fn what_stops(app: &App) -> String {
    match () {
        () if app.stops_training() && app.screens.train.waiting.is_some() => "take back",
        () if app.stops_training() => "stop training",
        () if app.stops_search() && app.screens.search.waiting.is_some() => "take back",
        () if app.stops_search() => "stop, keep best",
        () => "stop",
    }
    .into()
}

/// Refuses where nothing runs.
pub fn cannot_stop(app: &App) -> Option<String> {
    (!app.is_busy() && !app.stops_search() && !app.stops_training()).then(|| "nothing is running".into())
}

/// Stops what is running; what was measured stays.
pub fn stop(app: &mut App) -> Vec<Effect> {
    if app.stops_training() {
        return train::update::stop(app);
    }
    if app.stops_search() {
        return search::update::stop(app);
    }
    app.due = None;
    app.say(Tone::Info, "stopped; what was measured stays");
    vec![Effect::Send(Command::Stop)]
}

/// Quits; asks once where changes are not saved.
pub fn quit(app: &mut App) -> Vec<Effect> {
    if app.session.unsaved && !app.quitting {
        app.quitting = true;
        app.say(Tone::Warn, "changes are not saved: 'w' saves them, the same key again quits (an autosave is kept)");
        return Vec::new();
    }
    train::update::leave(app)
}

/// Stops what is running; pressed again, quits.
pub fn interrupt(app: &mut App) -> Vec<Effect> {
    if (app.is_busy() || app.is_searching() || app.is_training()) && !app.quitting {
        app.quitting = true;
        app.due = None;
        let unsaved = if app.session.unsaved { " (changes are not saved; an autosave is kept)" } else { "" };
        app.say(Tone::Warn, format!("stopped; Ctrl-C again quits{unsaved}"));
        let search = app.is_searching().then_some(Effect::Send(Command::StopSearch));
        let training = app.is_training().then_some(Effect::Send(Command::StopTraining));
        return search.into_iter().chain(training).chain([Effect::Send(Command::Stop)]).collect();
    }
    quit(app)
}
