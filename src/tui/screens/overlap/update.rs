//! What is done on the Overlap screen: a layer changes its role, the pair moves, the maps change.

use std::sync::Arc;

use super::Marks;
use crate::domain::Diagnostic;
use crate::domain::{Role, Trace};
use crate::engine::Command;
use crate::tui::app::{App, Cursor, Overlay, Tone};
use crate::tui::layout::{MapView, Wanted};
use crate::tui::msg::Effect;
use crate::tui::study::{Findings, Study};
use crate::tui::update::edit;

/// Switches the layer between Full and Shared.
pub fn toggle(app: &mut App) -> Vec<Effect> {
    let layer = app.cursor.row;
    let full = app.pattern().is_some_and(|pattern| pattern.is_full(layer));
    set(app, if full { Role::Shared } else { Role::Full })
}

/// Gives the layer a role.
pub fn set(app: &mut App, role: Role) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    let layer = app.cursor.row;
    match pattern.with(layer, role) {
        Ok(next) if next == pattern => app.say(Tone::Info, format!("{} is {} already", app.label(layer), name(role))),
        Ok(next) => {
            let change = format!("{} {} → {}", app.label(layer), name(pattern.role(layer)), name(role));
            return edit::apply(app, next, change);
        }
        Err(error) => app.say(Tone::Warn, error.to_string()),
    }
    Vec::new()
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Full => "Full",
        Role::Shared => "Shared",
    }
}

/// Makes every layer Full that has an indexer.
pub fn all_full(app: &mut App) -> Vec<Effect> {
    match app.constraints().map(|constraints| constraints.reference()) {
        Some(Ok(all)) => return edit::apply(app, all, "all Full".into()),
        Some(Err(error)) => app.say(Tone::Bad, error.to_string()),
        None => {}
    }
    Vec::new()
}

/// Pins the pattern as B.
pub fn pin(app: &mut App) -> Vec<Effect> {
    app.pinned = app.pattern();
    app.say(Tone::Info, "pinned as B; '=' shows the differences");
    Vec::new()
}

/// Has shorter contexts timed.
pub fn profile(app: &mut App) -> Vec<Effect> {
    app.say(Tone::Info, "timing shorter contexts, to predict others");
    app.pattern().map(|p| Effect::Send(Command::Profile(p))).into_iter().collect()
}

/// Has the overlap of queries with later ones computed.
pub fn over_time(app: &mut App) -> Vec<Effect> {
    study(app, Study::OverTime)
}

/// Has a study of the recording made.
pub fn study(app: &mut App, study: Study) -> Vec<Effect> {
    app.overlay = Overlay::None;
    app.say(Tone::Info, "comparing sets");
    app.trace.iter().map(|trace| Effect::Study(trace.clone(), study.clone())).collect()
}

/// A study is done; that of an older recording is dropped.
pub fn studied(app: &mut App, trace: &Arc<Trace>, result: Result<Findings, Diagnostic>) -> Vec<Effect> {
    if app.trace.as_ref().is_some_and(|now| Arc::ptr_eq(now, trace)) {
        match result {
            Ok(_) if app.overlay != Overlay::None => app.say(Tone::Info, "sets are compared; ask again to see them"),
            Ok(Findings { title, body }) => app.overlay = Overlay::Text { title, body, scroll: 0 },
            Err(problem) => app.say(Tone::Bad, problem.to_string()),
        }
    }
    Vec::new()
}

/// Moves the pair by so many cells of the map that is drawn.
pub fn step(app: &mut App, across: isize, down: isize) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    let last = pattern.len() - 1;
    let within = |at: usize, by: isize, most: usize| at.saturating_add_signed(by).min(most);
    let Cursor { row, column } = app.cursor;
    let ribbon = app.layout().map.is_none_or(|m| m.view == MapView::Ribbon);
    app.cursor = match (ribbon, across) {
        (false, _) => Cursor { row: within(row, down, last), column: within(column, across, last) },
        (true, 0) => Cursor { row, column: within(column, -down, row.saturating_sub(1)) },
        // In the ribbon a layer keeps its distance to the one that would lend it indices.
        (true, _) => {
            let (distance, row) = (row.saturating_sub(column).max(1), within(row, across, last));
            Cursor { row, column: row.saturating_sub(distance) }
        }
    };
    Vec::new()
}

/// Goes so many layers on, to the pair of the layer and the one that serves it.
pub fn layer(app: &mut App, by: isize) -> Vec<Effect> {
    app.look_at(app.cursor.row.saturating_add_signed(by));
    Vec::new()
}

/// Goes to the Full layer before.
pub fn previous_full(app: &mut App) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    (0..app.cursor.row).rev().find(|&l| pattern.is_full(l)).into_iter().for_each(|l| app.look_at(l));
    Vec::new()
}

/// Goes to the next Full layer.
pub fn next_full(app: &mut App) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    (app.cursor.row + 1..pattern.len()).find(|&l| pattern.is_full(l)).into_iter().for_each(|l| app.look_at(l));
    Vec::new()
}

/// Shows the next view.
pub fn next_view(app: &mut App) -> Vec<Effect> {
    app.screens.overlap.wish.view = Wanted::Only(app.layout().next_view());
    Vec::new()
}

/// Draws the next measure.
pub fn next_measure(app: &mut App) -> Vec<Effect> {
    let measure = &mut app.screens.overlap.measure;
    *measure = measure.next();
    Vec::new()
}

/// Marks groups in the next way.
pub fn next_marks(app: &mut App) -> Vec<Effect> {
    let (marks, name) = match app.screens.overlap.marks {
        Marks::Spotlight => (Marks::Brackets, "groups: marked in the margin"),
        Marks::Brackets => (Marks::Off, "groups: not marked"),
        Marks::Off => (Marks::Spotlight, "groups: spotlight"),
    };
    app.screens.overlap.marks = marks;
    app.say(Tone::Info, name);
    Vec::new()
}

/// Uses the next colour map.
pub fn next_colours(app: &mut App) -> Vec<Effect> {
    app.theme.map = app.theme.map.next();
    app.say(Tone::Info, format!("colours: {}", app.theme.map.name()));
    Vec::new()
}

/// Draws layers larger, or smaller for negative steps.
pub fn zoom(app: &mut App, step: i8) -> Vec<Effect> {
    let before = app.layout();
    let zoom = app.screens.overlap.wish.zoom;
    app.screens.overlap.wish.zoom = (zoom + step).clamp(-12, 12);
    if app.layout() == before {
        app.screens.overlap.wish.zoom = zoom;
        app.say(Tone::Info, if step > 0 { "larger is not possible" } else { "smaller is not possible" });
    }
    Vec::new()
}

/// Draws layers as large as all of them fit.
pub fn fit(app: &mut App) -> Vec<Effect> {
    app.screens.overlap.wish.zoom = 0;
    Vec::new()
}

/// Gives the whole screen to the map, or takes it back.
pub fn maximise(app: &mut App) -> Vec<Effect> {
    let wish = &mut app.screens.overlap.wish;
    wish.maximised = !wish.maximised;
    Vec::new()
}
