//! What can be done on the Search screen.

use super::{Field, update};
use crate::domain::SearchState;
use crate::tui::action::actions;
use crate::tui::app::App;
use crate::tui::refuse::{no_engine, no_pattern};

actions! { ACTIONS:
    "search-enter" ["Enter"] "Start the search, or apply what it found" 1 search_enter, cannot_search => update::enter;
    "pause-search" ["Space"] "Pause the search, or let it go on" 2 pause_search, cannot_pause_search => update::pause;
    "search-settings" ["c"] "Change the settings and start a new search" 4 |_| "settings".into(), no_pattern => update::settings;
    "cut-fewer" ["Right" "l"] "Cut the flip order at one Full layer fewer" 3 |_| "cut".into(), cannot_cut => |app| update::slide(app, -1);
    "cut-more" ["Left" "h"] "Cut the flip order at one Full layer more" 0 |_| "cut".into(), cannot_cut => |app| update::slide(app, 1);
    "cut-result" ["0"] "Take the search's own result, not a cut" 0 |_| "own result".into(), cannot_cut => update::uncut;
}

/// Says what Enter does on the Search screen.
pub fn search_enter(app: &App) -> String {
    match app.found() {
        Some(found) => format!("apply {} Full", found.full_count()),
        None => format!("start {}", app.screens.search.form.value(Field::Method)),
    }
}

/// Refuses to search without a model.
pub fn cannot_search(app: &App) -> Option<String> {
    if app.has_training() {
        return Some("a training goes on, and only one long job can; 'x' on the Train screen stops it".into());
    }
    if app.screens.search.waiting.is_some() {
        return Some("the search begins once the worker is free; 'x' takes it back".into());
    }
    match app.search_record() {
        Some(r) if r.state == SearchState::Running && r.pattern == r.start => {
            Some("the search has found nothing yet; 'c' starts another one".into())
        }
        Some(_) => no_pattern(app),
        None => no_engine(app).or_else(|| no_pattern(app)),
    }
}

/// Says what Space does on the Search screen.
pub fn pause_search(app: &App) -> String {
    if app.is_searching() { "pause" } else { "go on" }.into()
}

/// Refuses to pause where no search goes on or waits.
pub fn cannot_pause_search(app: &App) -> Option<String> {
    (!app.is_searching() && !app.is_search_paused()).then(|| "no search is running; Enter starts one".into())
}

/// Refuses to cut where there is no flip order.
pub fn cannot_cut(app: &App) -> Option<String> {
    app.search_record().is_none_or(|r| r.order.is_empty()).then(|| "there is no flip order to cut yet".into())
}
