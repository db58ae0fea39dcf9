//! What is done on the Train screen, and what the worker tells of the training.

use std::path::{Path, PathBuf};

use super::edit;
use crate::domain::{Evaluation, LeftTraining, SearchState, Subject, TrainingProgress, TrainingSettings};
use crate::engine::{Command, Coverage};
use crate::session::sidecar_path;
use crate::tui::action::Action;
use crate::tui::app::{
    After, App, Engine, Indexers, Leaving, Overlay, Question, Results, Tone, TrainView, TrainingPlan,
};
use crate::tui::format;
use crate::tui::input::Input;
use crate::tui::msg::Effect;

/// Runs an action of the screen.
pub fn run(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        Action::TrainStart => return begin(app),
        Action::PauseTraining if app.left_training().is_some() => return take_up(app),
        Action::PauseTraining => return pause(app),
        Action::TrainSettings => {
            app.overlay = Overlay::Prompt(Question::Training, Input::proposed(&app.train.plan.to_string()));
        }
        Action::TrainMeasure => {
            app.say(Tone::Info, "measuring this pattern with the trained indexers");
            return app.pattern().map(|p| Effect::Send(Command::EvaluateTrained(p))).into_iter().collect();
        }
        Action::KeepTrained => {
            let name = format!("{}.indexers.safetensors", app.title.trim_end_matches(".gguf"));
            app.overlay = Overlay::Prompt(Question::KeepTrained, Input::proposed(&name));
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
    if let Some(left) = app.train.left.filter(|_| !app.train.replacing) {
        app.train.replacing = true;
        let what = match app.left_training() {
            Some(_) => format!("{}: Space goes on with it", told_left(left)),
            None => "the trained indexers are not kept yet: 'k' keeps them".to_owned(),
        };
        app.say(Tone::Warn, format!("{what}, Enter again gives them up"));
        return Vec::new();
    }
    let TrainingPlan { steps, sparse_steps, lr, targets } = app.train.plan;
    let settings = TrainingSettings { pattern, targets, steps, sparse_steps, lr };
    wait_for(app, settings, 0);
    app.say(Tone::Info, format!("training {} indexers: {}", pattern.full_count(), app.train.plan));
    vec![Effect::Send(Command::Train(settings))]
}

/// Goes on with the training that was put aside.
fn take_up(app: &mut App) -> Vec<Effect> {
    let Some(LeftTraining { settings, done }) = app.left_training() else { return Vec::new() };
    let TrainingSettings { steps, sparse_steps, lr, targets, .. } = settings;
    app.train.plan = TrainingPlan { steps, sparse_steps, lr, targets };
    wait_for(app, settings, done);
    app.say(Tone::Info, format!("going on with the training, after {done} of {} steps", settings.all_steps()));
    vec![Effect::Send(Command::TakeUpTraining(settings))]
}

fn wait_for(app: &mut App, settings: TrainingSettings, before: u64) {
    let TrainView { plan, left, .. } = app.train;
    app.train = TrainView { plan, left, before, waiting: Some(settings), ..TrainView::default() };
    app.failure = None;
    forget_after(app);
}

/// Leaves the view of trained indexers that are no longer there.
fn forget_after(app: &mut App) {
    if app.indexers == Indexers::Trained {
        edit::switch(app, Indexers::Before);
    }
}

/// Changes between the trained indexers and those from before.
pub fn switch(app: &mut App) -> Vec<Effect> {
    let (to, what) = match app.indexers {
        Indexers::Before => {
            (Indexers::Trained, format!("shown: the trained indexers, after {} steps", app.train.done()))
        }
        Indexers::Trained => (Indexers::Before, "shown: the indexers from before the training".to_owned()),
    };
    app.say(Tone::Info, what);
    edit::switch(app, to)
}

/// Returns a training that was put aside in a few words.
pub fn told_left(left: LeftTraining) -> String {
    let LeftTraining { settings, done } = left;
    let full = settings.pattern.full_count();
    format!("{full} indexers of this session are trained for {done} of {} steps", settings.all_steps())
}

/// The session is kept in another file: its training comes along, or is left there.
pub fn moved(app: &mut App, along: bool) -> Vec<Effect> {
    let session = app.file.as_ref().or(app.usual.as_ref()).filter(|_| app.usual.is_some());
    let Some(sidecar) = session.map(|file| sidecar_path(file)) else { return Vec::new() };
    let mut effects = Vec::new();
    if !along {
        effects.extend(app.has_training().then_some(Effect::Send(Command::StopTraining)));
        app.train = TrainView { plan: app.train.plan, closed: true, ..TrainView::default() };
        forget_after(app);
    }
    effects.push(Effect::Send(Command::TrainingAt { sidecar, along }));
    effects
}

/// Ends the program, once the training is put aside.
pub fn leave(app: &mut App) -> Vec<Effect> {
    let asks = app.engine == Engine::Ready && app.usual.is_some() && app.train.is_unsaved();
    if !asks || app.train.leaving != Leaving::No {
        return vec![Effect::Quit];
    }
    app.train.leaving = Leaving::Asked;
    app.say(Tone::Info, "putting the training aside; 'q' again quits without it");
    vec![Effect::Send(Command::PutAside)]
}

/// The worker tells what is put aside.
pub fn left(app: &mut App, left: Option<LeftTraining>) -> Vec<Effect> {
    app.train.left = left;
    if app.train.leaving == Leaving::Asked { vec![Effect::Quit] } else { Vec::new() }
}

/// The training could not be put aside; the program does not end without being asked again.
pub fn not_left(app: &mut App) -> Vec<Effect> {
    if app.train.leaving != Leaving::Asked {
        return Vec::new();
    }
    app.train.leaving = Leaving::Failed;
    edit::refresh(app)
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
    if app.train.closed {
        return;
    }
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
pub fn measured(app: &mut App, evaluation: Evaluation, coverage: Coverage, steps: u64) {
    let Subject::Pattern(pattern) = evaluation.subject else { return };
    let delta = evaluation.delta.map_or_else(String::new, |d| {
        format!(": Δloss {} {}", format::delta(d.value), format::spread(d.spread(), app.theme.ascii))
    });
    app.say(Tone::Info, format!("with the indexers after {steps} steps{delta}"));
    let results = Results { evaluation: Some(evaluation), coverage: Some(coverage), ..Results::default() };
    app.train.after.insert(pattern, After { steps, results });
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
