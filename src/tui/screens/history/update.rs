//! What is done on the History screen.

use crate::domain::Pattern;
use crate::engine::{Capability, Command};
use crate::tui::app::{App, Engine, Question, Tone};
use crate::tui::msg::Effect;
use crate::tui::refuse::lack;
use crate::tui::update::edit;
use crate::tui::update::overlay::ask;

/// Plots the next thing, and has it measured where that was never done.
pub fn next_axes(app: &mut App) -> Vec<Effect> {
    app.screens.history.axes = app.screens.history.axes.next();
    let missing =
        app.screens.history.axes.affinity().filter(|kind| app.known.affinities.iter().all(|(known, _)| known != kind));
    if let Some(why) = missing.and_then(|_| lack(app, Capability::Affinity)) {
        app.say(Tone::Warn, why);
        return Vec::new();
    }
    match missing.filter(|_| app.engine == Engine::Ready) {
        Some(kind) => {
            app.say(
                Tone::Info,
                format!("measuring what layers could lend each other, for the {}", app.screens.history.axes.name()),
            );
            vec![Effect::Send(Command::Affinity(kind))]
        }
        None => Vec::new(),
    }
}

/// Looks at the entry that is so many lines further down in the list.
pub fn step(app: &mut App, by: isize) -> Vec<Effect> {
    let entries = app.entries();
    let here = app.entry();
    // An entry that is not listed lies between those that are.
    let at = entries.iter().position(|&e| e <= here).unwrap_or(entries.len());
    let to = at.saturating_add_signed(by).min(entries.len().saturating_sub(1));
    app.screens.history.chosen = entries.get(to).copied();
    Vec::new()
}

/// Lists only entries that no other one beats, or all.
pub fn toggle_frontier(app: &mut App) -> Vec<Effect> {
    let only = &mut app.screens.history.frontier_only;
    *only = !*only;
    Vec::new()
}

/// Asks for a name of the entry's pattern.
pub fn ask_name(app: &mut App) -> Vec<Effect> {
    let name = app.entry_pattern().and_then(|p| app.name_of(p)).unwrap_or_default().to_owned();
    ask(app, Question::Name, &name)
}

/// Makes the entry's pattern the current one.
pub fn go(app: &mut App) -> Vec<Effect> {
    let entry = app.entry();
    if let Some(history) = &mut app.history {
        history.go(entry);
    }
    app.screens.history.chosen = None;
    app.look_at(app.cursor.row);
    edit::moved(app, format!("at #{entry}; 'u' returns"))
}

/// Pins the entry as B, or unpins it.
pub fn pin(app: &mut App) -> Vec<Effect> {
    let pattern = app.entry_pattern();
    if app.pinned == pattern {
        app.pinned = None;
        app.say(Tone::Info, "nothing is pinned as B");
    } else {
        app.pinned = pattern;
        app.say(Tone::Info, format!("#{} is pinned as B", app.entry()));
    }
    Vec::new()
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
    app.session.unsaved = true;
    edit::put_aside_soon(app);
    Vec::new()
}
