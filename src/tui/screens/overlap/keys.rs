//! What can be done on the Overlap screen.

use super::update;
use crate::domain::Role;
use crate::engine::Capability;
use crate::tui::action::{actions, never};
use crate::tui::app::{App, Question};
use crate::tui::layout::MapView;
use crate::tui::refuse::{lack, no_engine, no_pattern, no_recording};
use crate::tui::screens::{Screen, show};
use crate::tui::update::overlay::ask;

actions! { ACTIONS:
    "toggle" ["Space"] "Switch the layer between Full and Shared" 2 toggle, cannot_toggle => update::toggle;
    "set-full" ["f"] "Make the layer Full" 0 |_| "Full".into(), cannot_set_full => |app| update::set(app, Role::Full);
    "set-shared" ["s"] "Make the layer Shared" 0 |_| "Shared".into(), cannot_set_shared => |app| update::set(app, Role::Shared);
    "all-full" ["a"] "Make every layer Full that has an indexer" 9 |_| "all Full".into(), no_pattern => update::all_full;
    "every-n" ["n"] "Make every N-th layer Full" 3 |_| "every N".into(), no_pattern => |app| ask(app, Question::EveryN, "4");
    "type-pattern" ["P"] "Type or paste a pattern" 12 |_| "type pattern".into(), no_pattern => |app| ask(app, Question::Pattern, "");
    "left" ["Left" "h"] "Move left: lending layer, in the ribbon the layer" 1 moving, no_pattern => |app| update::step(app, -1, 0);
    "right" ["Right" "l"] "Move right: lending layer, in the ribbon the layer" 0 moving, no_pattern => |app| update::step(app, 1, 0);
    "up" ["Up" "k"] "Move up: layer, in the ribbon the distance" 0 moving, no_pattern => |app| update::step(app, 0, -1);
    "down" ["Down" "j"] "Move down: layer, in the ribbon the distance" 0 moving, no_pattern => |app| update::step(app, 0, 1);
    "previous-layer" ["[" "Shift-Tab"] "Go to the layer before" 0 |_| "layer before".into(), no_pattern => |app| update::layer(app, -1);
    "next-layer" ["]" "Tab"] "Go to the next layer" 0 |_| "next layer".into(), no_pattern => |app| update::layer(app, 1);
    "previous-full" ["H"] "Go to the previous Full layer" 0 |_| "previous Full".into(), no_pattern => update::previous_full;
    "next-full" ["L"] "Go to the next Full layer" 0 |_| "next Full".into(), no_pattern => update::next_full;
    "first" ["Home"] "Go to the first layer" 0 |_| "first layer".into(), no_pattern => |app| update::layer(app, isize::MIN);
    "last" ["End"] "Go to the last layer" 0 |_| "last layer".into(), no_pattern => |app| update::layer(app, isize::MAX);
    "go-to" ["/"] "Go to a layer or a pair, such as 45 or 45,43" 10 |_| "go to layer".into(), no_pattern => |app| ask(app, Question::GoTo, "");
    "view" ["v"] "Show the matrix, the ribbon, or both" 5 view, no_pattern => update::next_view;
    "metric" ["m"] "Show overlap, Jaccard, or overlap above chance" 6 metric, no_pattern => update::next_measure;
    "groups" ["g"] "Mark the groups: spotlight, brackets, or not" 7 |_| "groups".into(), no_pattern => update::next_marks;
    "colours" ["c"] "Use the next colour map" 0 |_| "colours".into(), never => update::next_colours;
    "zoom-in" ["+"] "Draw layers larger" 0 |_| "zoom in".into(), no_pattern => |app| update::zoom(app, 1);
    "zoom-out" ["-"] "Draw layers smaller" 0 |_| "zoom out".into(), no_pattern => |app| update::zoom(app, -1);
    "zoom-fit" ["0"] "Fit all layers" 0 |_| "fit".into(), no_pattern => update::fit;
    "maximise" ["z"] "Give the whole screen to the map, or give it back" 8 |_| "maximise".into(), no_pattern => update::maximise;
    "profile" ["p"] "Time this pattern at shorter contexts too, to predict others" 0 |_| "predict contexts".into(), cannot_time => update::profile;
    "pin" ["b"] "Pin this pattern as B" 0 |_| "pin as B".into(), no_pattern => update::pin;
    "show-pair" ["Enter" "t"] "Show which tokens the pair selects" 6 |_| "tokens".into(), no_recording => |app| show(app, Screen::Tokens);
    "over-time" ["T"] "Show how much of its set each layer keeps for later queries" 0 |_| "over time".into(), no_recording => update::over_time;
    "compare-recording" ["C"] "Compare with another recording of the same tokens" 0 |_| "compare recordings".into(), no_recording => |app| ask(app, Question::Recording, "");
}

/// Says what Space would do.
pub fn toggle(app: &App) -> String {
    let layer = app.cursor.row;
    match app.pattern().map(|p| p.role(layer)) {
        Some(Role::Full) => format!("make {} Shared", app.label(layer)),
        Some(Role::Shared) => format!("make {} Full", app.label(layer)),
        None => "toggle".into(),
    }
}

/// Says what the arrows move.
pub fn moving(app: &App) -> String {
    if app.layout().map.is_some_and(|m| m.view == MapView::Ribbon) { "layer" } else { "pair" }.into()
}

/// Says which view comes next.
pub fn view(app: &App) -> String {
    app.layout().next_view().name().into()
}

/// Says which measure comes next.
pub fn metric(app: &App) -> String {
    app.screens.overlap.measure.next().name().into()
}

/// Refuses to toggle layer 0 and locked layers.
pub fn cannot_toggle(app: &App) -> Option<String> {
    no_pattern(app).or_else(|| first(app)).or_else(|| locked(app))
}

/// Refuses to make a locked layer Full.
pub fn cannot_set_full(app: &App) -> Option<String> {
    no_pattern(app).or_else(|| locked(app))
}

/// Refuses to make layer 0 Shared.
pub fn cannot_set_shared(app: &App) -> Option<String> {
    no_pattern(app).or_else(|| first(app))
}

fn first(app: &App) -> Option<String> {
    (app.cursor.row == 0).then(|| "L0 stays Full: there is no earlier layer whose indices it could reuse".into())
}

fn locked(app: &App) -> Option<String> {
    let layer = app.cursor.row;
    app.constraints()?.locked_shared.contains(layer).then(|| {
        let name = app.label(layer);
        format!("{name} stays Shared: the checkpoint has no indexer weights for it, so it cannot select keys itself")
    })
}

/// Refuses where patterns cannot be timed.
pub fn cannot_time(app: &App) -> Option<String> {
    no_engine(app).or_else(|| lack(app, Capability::Timed))
}
