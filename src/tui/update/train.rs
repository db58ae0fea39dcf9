//! What is done on the Train screen, and what the worker tells of the training.

use std::path::{Path, PathBuf};

use crate::domain::{Evaluation, SearchState, Subject, TrainingProgress, TrainingSettings};
use crate::engine::Command;
use crate::tui::action::Action;
use crate::tui::app::{App, Overlay, Question, Tone, TrainView, TrainingPlan};
use crate::tui::format;
use crate::tui::input::Input;
use crate::tui::msg::Effect;

/// Runs an action of the screen.
pub fn run(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        Action::TrainStart => return begin(app),
        Action::PauseTraining => return pause(app),
        Action::TrainSettings => {
            app.overlay = Overlay::Prompt(Question::Training, Input::new(&app.train.plan.to_string()));
        }
        Action::TrainMeasure => {
            app.say(Tone::Info, "measuring this pattern with the trained indexers");
            return app.pattern().map(|p| Effect::Send(Command::EvaluateTrained(p))).into_iter().collect();
        }
        Action::KeepTrained => {
            let name = format!("{}.indexers.safetensors", app.title.trim_end_matches(".gguf"));
            app.overlay = Overlay::Prompt(Question::KeepTrained, Input::new(&name));
        }
        _ => {}
    }
    Vec::new()
}

/// Takes over what was typed.
pub fn plan(app: &mut App, plan: TrainingPlan) -> Vec<Effect> {
    app.train.plan = plan;
    app.say(Tone::Info, format!("the next training: {plan}"));
    Vec::new()
}

/// Has the trained indexers written.
pub fn keep(path: PathBuf) -> Vec<Effect> {
    vec![Effect::Send(Command::KeepTrained(path))]
}

fn begin(app: &mut App) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    let TrainingPlan { steps, sparse_steps, lr, targets } = app.train.plan;
    let settings = TrainingSettings { pattern, targets, steps, sparse_steps, lr };
    app.train = TrainView { plan: app.train.plan, waiting: Some(settings), ..TrainView::default() };
    app.failure = None;
    app.say(Tone::Info, format!("training {} indexers: {}", pattern.full_count(), app.train.plan));
    vec![Effect::Send(Command::Train(settings))]
}

fn pause(app: &mut App) -> Vec<Effect> {
    let Some(progress) = &mut app.train.progress else { return Vec::new() };
    let running = progress.state == SearchState::Running;
    progress.state = if running { SearchState::Paused } else { SearchState::Running };
    vec![Effect::Send(if running { Command::PauseTraining } else { Command::ResumeTraining })]
}

/// Ends the training; its indexers stay as they are.
pub fn stop(app: &mut App) -> Vec<Effect> {
    app.say(Tone::Info, "the training is stopped; its indexers can be measured and kept");
    app.train.waiting = None;
    vec![Effect::Send(Command::StopTraining)]
}

/// The worker tells where the training stands.
pub fn told_progress(app: &mut App, mut progress: TrainingProgress) {
    let before = app.train.progress.as_ref().map(|p| p.state);
    let news = std::mem::take(&mut progress.news);
    app.train.steps.extend(news);
    app.train.waiting = None;
    let done = app.train.done();
    let text = match progress.state {
        state if before == Some(state) => None,
        SearchState::Done => {
            Some(format!("training done after {done} steps; 'a' measures what it changed, 'k' keeps it"))
        }
        SearchState::Stopped => Some(format!("training stopped after {done} steps")),
        SearchState::Paused => Some(format!("training paused after {done} steps")),
        SearchState::Running => None,
    };
    app.train.progress = Some(progress);
    if let Some(text) = text {
        app.say(Tone::Info, text);
    }
}

/// A pattern was measured with the trained indexers.
pub fn measured(app: &mut App, evaluation: Evaluation, steps: u64) {
    let Subject::Pattern(pattern) = evaluation.subject else { return };
    let delta = evaluation.delta.map_or_else(String::new, |d| {
        format!(": Δloss {} {}", format::delta(d.value), format::spread(d.se, app.theme.ascii))
    });
    app.say(Tone::Info, format!("with the indexers after {steps} steps{delta}"));
    app.train.after.retain(|(p, ..)| *p != pattern);
    app.train.after.push((pattern, steps, evaluation));
}

/// The trained indexers were written.
pub fn kept(app: &mut App, path: &Path) {
    app.say(Tone::Info, format!("kept {}; 'indexscope MODEL --index FILE' opens the model with it", path.display()));
}

/// The training has ended without a word of its own; nothing of it is left with the worker but what was told.
pub fn ended(app: &mut App) {
    app.train.waiting = None;
    if let Some(progress) = app.train.progress.as_mut().filter(|p| p.state == SearchState::Running) {
        progress.state = SearchState::Stopped;
    }
}
