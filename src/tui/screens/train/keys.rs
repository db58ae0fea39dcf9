//! What can be done on the Train screen.

use super::update;
use crate::domain::LeftTraining;
use crate::engine::Capability;
use crate::tui::action::actions;
use crate::tui::app::{App, Indexers};
use crate::tui::refuse::{lack, no_engine, no_pattern};

actions! { ACTIONS:
    "train-start" ["Enter"] "Train the indexers of this pattern's Full layers for the layers that they serve" 1 train_start, cannot_train => update::begin;
    "pause-training" ["Space"] "Pause the training, or let it go on" 2 pause_training, cannot_pause_training => update::pause_or_resume;
    "train-measure" ["a"] "Measure this pattern with the trained indexers, beside those before" 3 |_| "measure after".into(), cannot_keep => update::measure;
    "keep-trained" ["k"] "Write the trained indexers as they are now as a sidecar" 5 |_| "keep".into(), cannot_keep => update::ask_path;
    "train-settings" ["c"] "Change steps, rate and targets of the next training" 6 |_| "settings".into(), no_pattern => update::ask_plan;
}

/// Says what Enter does on the Train screen.
pub fn train_start(app: &App) -> String {
    let full = app.pattern().map_or(0, crate::domain::Pattern::full_count);
    format!("train {full} indexers")
}

/// Refuses to train where that cannot begin, or would end what goes on.
pub fn cannot_train(app: &App) -> Option<String> {
    if let Some(lack) = lack(app, Capability::Train) {
        return Some(lack);
    }
    let other = if app.has_training() {
        Some("a training goes on; 'x' stops it".to_owned())
    } else if app.is_searching() || app.is_search_paused() || app.screens.search.waiting.is_some() {
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

/// Says what Space does on the Train screen.
pub fn pause_training(app: &App) -> String {
    if app.is_training() { "pause" } else { "go on" }.into()
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
    let none = app.screens.train.steps.is_empty().then(|| "no indexers have been trained yet; Enter starts".to_owned());
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
    let none = app.screens.train.done() == 0 || app.screens.train.progress.is_none();
    no_engine(app)
        .or_else(|| none.then(|| "no indexers have been trained yet; Enter on the Train screen starts".into()))
}
