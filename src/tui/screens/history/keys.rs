//! What can be done on the History screen.

use super::update;
use crate::tui::action::actions;
use crate::tui::app::App;
use crate::tui::refuse::no_pattern;

actions! { ACTIONS:
    "entry-up" ["Up" "k"] "Go to the entry above, a newer one" 1 |_| "entry".into(), no_pattern => |app| update::step(app, -1);
    "entry-down" ["Down" "j"] "Go to the entry below, an older one" 0 |_| "entry".into(), no_pattern => |app| update::step(app, 1);
    "entry-page-up" ["PageUp"] "Go ten entries up" 0 |_| "ten up".into(), no_pattern => |app| update::step(app, -10);
    "entry-page-down" ["PageDown"] "Go ten entries down" 0 |_| "ten down".into(), no_pattern => |app| update::step(app, 10);
    "entry-first" ["Home"] "Go to the newest entry" 0 |_| "newest".into(), no_pattern => |app| update::step(app, isize::MIN);
    "entry-last" ["End"] "Go to the oldest entry" 0 |_| "oldest".into(), no_pattern => |app| update::step(app, isize::MAX);
    "go-to-entry" ["Enter"] "Make the entry's pattern the current one; undo returns" 2 go_to_entry, cannot_go_to_entry => update::go;
    "pin-entry" ["b"] "Pin the entry as B, or unpin it" 3 pin_entry, no_pattern => update::pin;
    "name-entry" ["N"] "Name the entry's pattern; no name removes it" 6 |_| "name".into(), no_pattern => update::ask_name;
    "axes" ["a"] "Plot Δloss against speed, Full layers, or overlap, mass recall, cosine given up" 4 axes, no_pattern => update::next_axes;
    "frontier-only" ["f"] "List only entries that no other one beats, or all" 5 frontier_only, no_pattern => update::toggle_frontier;
}

/// Names the entry that Enter would go to.
pub fn go_to_entry(app: &App) -> String {
    format!("go to #{}", app.entry())
}

/// Refuses to go where one is.
pub fn cannot_go_to_entry(app: &App) -> Option<String> {
    let here = app.history.as_ref().is_some_and(|h| h.current() == app.entry());
    no_pattern(app).or_else(|| here.then(|| format!("#{} is the current entry already", app.entry())))
}

/// Says what pinning would do.
pub fn pin_entry(app: &App) -> String {
    if app.pinned.is_some() && app.pinned == app.entry_pattern() { "unpin B" } else { "pin as B" }.into()
}

/// Says what is plotted next.
pub fn axes(app: &App) -> String {
    format!("plot {}", app.screens.history.axes.next().name())
}

/// Says what is listed next.
pub fn frontier_only(app: &App) -> String {
    if app.screens.history.frontier_only { "all" } else { "frontier only" }.into()
}
