//! What is done on the History screen.

use super::edit;
use crate::domain::Pattern;
use crate::engine::Command;
use crate::tui::action::Action;
use crate::tui::app::{App, Engine, Overlay, Question, Tone};
use crate::tui::input::Input;
use crate::tui::msg::Effect;

/// Runs an action of the screen.
pub fn run(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        Action::EntryUp => step(app, -1),
        Action::EntryDown => step(app, 1),
        Action::EntryPageUp => step(app, -10),
        Action::EntryPageDown => step(app, 10),
        Action::EntryFirst => step(app, isize::MIN),
        Action::EntryLast => step(app, isize::MAX),
        Action::GoToEntry => return go(app),
        Action::PinEntry => pin(app),
        Action::NameEntry => {
            let name = app.entry_pattern().and_then(|p| app.name_of(p)).unwrap_or_default();
            app.overlay = Overlay::Prompt(Question::Name, Input::proposed(name));
        }
        Action::Axes => return axes(app),
        Action::FrontierOnly => app.view.frontier_only = !app.view.frontier_only,
        _ => {}
    }
    Vec::new()
}

/// Plots the next thing, and has it measured where that was never done.
fn axes(app: &mut App) -> Vec<Effect> {
    app.view.axes = app.view.axes.next();
    let missing = app.view.axes.affinity().filter(|kind| app.affinities.iter().all(|(known, _)| known != kind));
    match missing.filter(|_| app.engine == Engine::Ready) {
        Some(kind) => {
            app.say(
                Tone::Info,
                format!("measuring what layers could lend each other, for the {}", app.view.axes.name()),
            );
            vec![Effect::Send(Command::Affinity(kind))]
        }
        None => Vec::new(),
    }
}

/// Looks at the entry that is so many lines further down in the list.
fn step(app: &mut App, by: isize) {
    let entries = app.entries();
    let here = app.entry();
    // An entry that is not listed lies between those that are.
    let at = entries.iter().position(|&e| e <= here).unwrap_or(entries.len());
    let to = at.saturating_add_signed(by).min(entries.len().saturating_sub(1));
    app.view.chosen = entries.get(to).copied();
}

fn go(app: &mut App) -> Vec<Effect> {
    let entry = app.entry();
    if let Some(history) = &mut app.history {
        history.go(entry);
    }
    app.view.chosen = None;
    app.look_at(app.cursor.row);
    edit::moved(app, format!("at #{entry}; 'u' returns"))
}

fn pin(app: &mut App) {
    let pattern = app.entry_pattern();
    if app.pinned == pattern {
        app.pinned = None;
        app.say(Tone::Info, "nothing is pinned as B");
    } else {
        app.pinned = pattern;
        app.say(Tone::Info, format!("#{} is pinned as B", app.entry()));
    }
}

/// Calls a pattern by a name, or by none.
pub fn name(app: &mut App, pattern: Pattern, name: String) -> Vec<Effect> {
    app.named.retain(|(_, p)| *p != pattern);
    if name.is_empty() {
        app.say(Tone::Info, "the pattern has no name");
    } else {
        app.say(Tone::Info, format!("{pattern} is called '{name}'"));
        app.named.push((name, pattern));
    }
    app.unsaved = true;
    edit::put_aside_soon(app);
    Vec::new()
}
