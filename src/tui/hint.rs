//! What actions would do now, and why some cannot.

use super::app::{App, Engine, Indexers};
use super::layout::MapView;
use crate::domain::{LeftTraining, Role, SearchState};
use crate::engine::Capability;

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
    app.measure.next().name().into()
}

/// Names the entry that Enter would go to.
pub fn go_to_entry(app: &App) -> String {
    format!("go to #{}", app.entry())
}

/// Says what pinning would do.
pub fn pin_entry(app: &App) -> String {
    if app.pinned.is_some() && app.pinned == app.entry_pattern() { "unpin B" } else { "pin as B" }.into()
}

/// Says what is plotted next.
pub fn axes(app: &App) -> String {
    format!("plot {}", app.view.axes.next().name())
}

/// Says what is listed next.
pub fn frontier_only(app: &App) -> String {
    if app.view.frontier_only { "all" } else { "frontier only" }.into()
}

/// Says which tokens are shown next.
pub fn only_differences(app: &App) -> String {
    if app.tokens.only_differences { "all tokens" } else { "differences" }.into()
}

/// Refuses without a recording.
pub fn no_recording(app: &App) -> Option<String> {
    app.query().is_none().then(|| "nothing is recorded yet".into())
}

/// Refuses before any text was looked for.
pub fn no_needle(app: &App) -> Option<String> {
    app.tokens.needle.is_empty().then(|| "no text was looked for yet; '/' asks for one".into())
}

/// Refuses to go where one is.
pub fn cannot_go_to_entry(app: &App) -> Option<String> {
    let here = app.history.as_ref().is_some_and(|h| h.current() == app.entry());
    no_pattern(app).or_else(|| here.then(|| format!("#{} is the current entry already", app.entry())))
}

/// Refuses without the config of a model.
pub fn no_target(app: &App) -> Option<String> {
    app.target.is_none().then(|| "no model is open whose config engines could read".into())
}

/// Says what Enter does on the Search screen.
pub fn search_enter(app: &App) -> String {
    match app.found() {
        Some(found) => format!("apply {} Full", found.full_count()),
        None => format!("start {}", app.search.form.value(super::app::Field::Method)),
    }
}

/// Says what Space does on the Search screen.
pub fn pause_search(app: &App) -> String {
    if app.is_searching() { "pause" } else { "go on" }.into()
}

/// Says what is stopped.
pub fn stop(app: &App) -> String {
    match () {
        () if app.stops_training() && app.train.waiting.is_some() => "take back",
        () if app.stops_training() => "stop training",
        () if app.stops_search() && app.search.waiting.is_some() => "take back",
        () if app.stops_search() => "stop, keep best",
        () => "stop",
    }
    .into()
}

/// Says what Enter does on the Train screen.
pub fn train_start(app: &App) -> String {
    let full = app.pattern().map_or(0, crate::domain::Pattern::full_count);
    format!("train {full} indexers")
}

/// Says what Space does on the Train screen.
pub fn pause_training(app: &App) -> String {
    if app.is_training() { "pause" } else { "go on" }.into()
}

/// Refuses to train where that cannot begin, or would end what goes on.
pub fn cannot_train(app: &App) -> Option<String> {
    if let Some(lack) = lack(app, Capability::Train) {
        return Some(lack);
    }
    let other = if app.has_training() {
        Some("a training goes on; 'x' stops it".to_owned())
    } else if app.is_searching() || app.is_search_paused() || app.search.waiting.is_some() {
        Some("a search goes on, and only one long job can; 'x' on the Search screen stops it".to_owned())
    } else {
        None
    };
    no_engine(app).or_else(|| no_pattern(app)).or(other).or_else(|| no_training_text(app))
}

/// Refuses where there is nothing to train on.
pub fn no_training_text(app: &App) -> Option<String> {
    let none = app.model.as_ref().is_some_and(|model| model.training.is_empty());
    none.then(|| "there is no text to train on: start with --train-text FILE, text that is not judged on".into())
}

/// Refuses to pause where no training goes on or waits.
pub fn cannot_pause_training(app: &App) -> Option<String> {
    if app.is_training() || app.is_training_paused() {
        return None;
    }
    let Some(LeftTraining { settings, .. }) = app.left_training() else {
        return Some("no training is running or was left; Enter starts one".into());
    };
    let other = (app.pattern() != Some(settings.pattern))
        .then(|| format!("the training that was left is for {}: go to that pattern first ('P')", settings.pattern));
    cannot_train(app).or(other)
}

/// Refuses where nothing was trained.
pub fn cannot_keep(app: &App) -> Option<String> {
    let none = app.train.steps.is_empty().then(|| "no indexers have been trained yet; Enter starts".to_owned());
    no_engine(app).or(none)
}

/// Says whose numbers are shown next.
pub fn indexers(app: &App) -> String {
    match app.indexers {
        Indexers::Before => "trained indexers",
        Indexers::Trained => "indexers before",
    }
    .into()
}

/// Refuses to change indexers where nothing was trained.
pub fn cannot_switch(app: &App) -> Option<String> {
    let none = app.train.done() == 0 || app.train.progress.is_none();
    no_engine(app)
        .or_else(|| none.then(|| "no indexers have been trained yet; Enter on the Train screen starts".into()))
}

/// Refuses to search without a model.
pub fn cannot_search(app: &App) -> Option<String> {
    if app.has_training() {
        return Some("a training goes on, and only one long job can; 'x' on the Train screen stops it".into());
    }
    if app.search.waiting.is_some() {
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

/// Refuses to pause where no search goes on or waits.
pub fn cannot_pause_search(app: &App) -> Option<String> {
    (!app.is_searching() && !app.is_search_paused()).then(|| "no search is running; Enter starts one".into())
}

/// Refuses to cut where there is no flip order.
pub fn cannot_cut(app: &App) -> Option<String> {
    app.search_record().is_none_or(|r| r.order.is_empty()).then(|| "there is no flip order to cut yet".into())
}

/// Refuses where patterns cannot be timed.
pub fn cannot_time(app: &App) -> Option<String> {
    no_engine(app).or_else(|| lack(app, Capability::Timed))
}

/// Says which capability the model's backend lacks.
fn lack(app: &App, capability: Capability) -> Option<String> {
    let model = app.model.as_ref().filter(|model| !model.can.has(capability))?;
    Some(format!("{} runs the model and lacks '{}'", model.ops, capability.name()))
}

/// Refuses while there is no pattern to act on.
pub fn no_pattern(app: &App) -> Option<String> {
    app.pattern().is_none().then(|| "there is no pattern yet: the model is still loading".into())
}

fn locked(app: &App) -> Option<String> {
    let layer = app.cursor.row;
    app.constraints()?.locked_shared.contains(layer).then(|| {
        let name = app.label(layer);
        format!("{name} stays Shared: the checkpoint has no indexer weights for it, so it cannot select keys itself")
    })
}

fn first(app: &App) -> Option<String> {
    (app.cursor.row == 0).then(|| "L0 stays Full: there is no earlier layer whose indices it could reuse".into())
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

/// Refuses without a pinned pattern.
pub fn cannot_compare(app: &App) -> Option<String> {
    app.pinned.is_none().then(|| "no pattern is pinned as B; 'b' pins the current one".into())
}

/// Refuses without a model.
pub fn no_engine(app: &App) -> Option<String> {
    match &app.engine {
        Engine::Ready => None,
        Engine::Absent => Some("no model is loaded: start 'indexscope MODEL' to measure".into()),
        Engine::Loading => Some("the model is still loading".into()),
        Engine::Failed(why) => Some(format!("the model cannot be asked: {why}")),
    }
}

/// Refuses where nothing runs.
pub fn cannot_stop(app: &App) -> Option<String> {
    (!app.is_busy() && !app.stops_search() && !app.stops_training()).then(|| "nothing is running".into())
}
