//! What is done on the Train screen, and what the worker tells of the training.

use std::path::{Path, PathBuf};

use super::{Leaving, State, TrainingPlan};
use crate::domain::{Evaluation, LeftTraining, SearchState, Subject, TrainingProgress, TrainingSettings};
use crate::engine::{Command, Coverage};
use crate::session::sidecar_path;
use crate::tui::app::{After, App, Engine, Indexers, LongWork, Overlay, Question, Results, Tone};
use crate::tui::format;
use crate::tui::msg::Effect;
use crate::tui::update::edit;
use crate::tui::update::overlay::ask;

/// Asks for steps, rate and targets of the next training.
pub fn ask_plan(app: &mut App) -> Vec<Effect> {
    let plan = app.screens.train.plan.to_string();
    ask(app, Question::Training, &plan)
}

/// Measures the pattern with the trained indexers.
pub fn measure(app: &mut App) -> Vec<Effect> {
    app.say(Tone::Info, "measuring this pattern with the trained indexers");
    app.pattern().map(|p| Effect::Send(Command::EvaluateTrained(p))).into_iter().collect()
}

/// Asks where the trained indexers are written.
pub fn ask_path(app: &mut App) -> Vec<Effect> {
    let name = format!("{}.indexers.safetensors", app.title.trim_end_matches(".gguf"));
    ask(app, Question::KeepTrained, &name)
}

/// Pauses the training, resumes it, or goes on with the one that was left.
pub fn pause_or_resume(app: &mut App) -> Vec<Effect> {
    if app.left_training().is_some() { take_up(app) } else { pause(app) }
}

/// Takes over what was typed.
pub fn plan(app: &mut App, plan: TrainingPlan) -> Vec<Effect> {
    app.screens.train.plan = plan;
    app.say(Tone::Info, format!("the next training: {plan}"));
    Vec::new()
}

/// Has the trained indexers written.
pub fn keep(path: PathBuf) -> Vec<Effect> {
    vec![Effect::Send(Command::KeepTrained(path))]
}

/// Trains the indexers of this pattern's Full layers; asks first where something speaks against it.
pub fn begin(app: &mut App) -> Vec<Effect> {
    if let Some(left) = app.screens.train.left.filter(|_| !app.screens.train.replacing) {
        app.screens.train.replacing = true;
        let what = match app.left_training() {
            Some(_) => format!("{}: Space goes on with it", told_left(left)),
            None => "the trained indexers are not kept yet: 'k' keeps them".to_owned(),
        };
        app.say(Tone::Warn, format!("{what}, Enter again gives them up"));
        return Vec::new();
    }
    let doubts = app.doubts(estimate(app));
    if doubts.is_empty() {
        return start(app);
    }
    app.overlay = Overlay::Confirm(LongWork::Training, doubts);
    Vec::new()
}

/// Forwards of a sequence that a step costs at most: the model's own, the indexers', and the way back.
const FORWARDS: f64 = 4.0;

/// Returns the seconds that the planned training takes at most, at the pace of an evaluation.
fn estimate(app: &App) -> Option<f64> {
    let model = app.model.as_ref()?;
    let plan = app.screens.train.plan;
    let sequence = app.pace()? / model.targets.max(1) as f64 * model.context as f64;
    Some((plan.steps + plan.sparse_steps) as f64 * FORWARDS * sequence)
}

/// Starts the planned training.
pub fn start(app: &mut App) -> Vec<Effect> {
    let Some(pattern) = app.pattern() else { return Vec::new() };
    let TrainingPlan { steps, sparse_steps, lr, targets } = app.screens.train.plan;
    let settings = TrainingSettings { pattern, targets, steps, sparse_steps, lr };
    wait_for(app, settings, 0);
    app.say(Tone::Info, format!("training {} indexers: {}", pattern.full_count(), app.screens.train.plan));
    vec![Effect::Send(Command::Train(settings))]
}

/// Goes on with the training that was put aside.
fn take_up(app: &mut App) -> Vec<Effect> {
    let Some(LeftTraining { settings, done }) = app.left_training() else { return Vec::new() };
    let TrainingSettings { steps, sparse_steps, lr, targets, .. } = settings;
    app.screens.train.plan = TrainingPlan { steps, sparse_steps, lr, targets };
    wait_for(app, settings, done);
    app.say(Tone::Info, format!("going on with the training, after {done} of {} steps", settings.all_steps()));
    vec![Effect::Send(Command::TakeUpTraining(settings))]
}

fn wait_for(app: &mut App, settings: TrainingSettings, before: u64) {
    let State { plan, left, .. } = app.screens.train;
    app.screens.train = State { plan, left, before, waiting: Some(settings), ..State::default() };
    app.known.failure = None;
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
            (Indexers::Trained, format!("shown: the trained indexers, after {} steps", app.screens.train.done()))
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
    let session = app.session.file.as_ref().or(app.session.usual.as_ref()).filter(|_| app.session.usual.is_some());
    let Some(sidecar) = session.map(|file| sidecar_path(file)) else { return Vec::new() };
    let mut effects = Vec::new();
    if !along {
        effects.extend(app.has_training().then_some(Effect::Send(Command::StopTraining)));
        app.screens.train = State { plan: app.screens.train.plan, closed: true, ..State::default() };
        forget_after(app);
    }
    effects.push(Effect::Send(Command::TrainingAt { sidecar, along }));
    effects
}

/// Ends the program, once the training is put aside.
pub fn leave(app: &mut App) -> Vec<Effect> {
    let asks = app.engine == Engine::Ready && app.session.usual.is_some() && app.screens.train.is_unsaved();
    if !asks || app.screens.train.leaving != Leaving::No {
        return vec![Effect::Quit];
    }
    app.screens.train.leaving = Leaving::Asked;
    app.say(Tone::Info, "putting the training aside; 'q' again quits without it");
    vec![Effect::Send(Command::PutAside)]
}

/// The worker tells what is put aside.
pub fn left(app: &mut App, left: Option<LeftTraining>) -> Vec<Effect> {
    app.screens.train.left = left;
    if app.screens.train.leaving == Leaving::Asked { vec![Effect::Quit] } else { Vec::new() }
}

/// The training could not be put aside; the program does not end without being asked again.
pub fn not_left(app: &mut App) -> Vec<Effect> {
    if app.screens.train.leaving != Leaving::Asked {
        return Vec::new();
    }
    app.screens.train.leaving = Leaving::Failed;
    edit::refresh(app)
}

fn pause(app: &mut App) -> Vec<Effect> {
    let Some(progress) = &mut app.screens.train.progress else { return Vec::new() };
    let running = progress.state == SearchState::Running;
    progress.state = if running { SearchState::Paused } else { SearchState::Running };
    vec![Effect::Send(if running { Command::PauseTraining } else { Command::ResumeTraining })]
}

/// Ends the training; its indexers stay as they are.
pub fn stop(app: &mut App) -> Vec<Effect> {
    app.say(Tone::Info, "the training is stopped; its indexers can be measured and kept");
    app.screens.train.waiting = None;
    vec![Effect::Send(Command::StopTraining)]
}

/// The worker tells where the training stands.
pub fn told_progress(app: &mut App, mut progress: TrainingProgress) {
    if app.screens.train.closed {
        return;
    }
    let before = app.screens.train.progress.as_ref().map(|p| p.state);
    let news = std::mem::take(&mut progress.news);
    app.screens.train.steps.extend(news);
    app.screens.train.waiting = None;
    let done = app.screens.train.done();
    let text = match progress.state {
        state if before == Some(state) => None,
        SearchState::Done => {
            Some(format!("training done after {done} steps; 'a' measures what it changed, 'k' keeps it"))
        }
        SearchState::Stopped => Some(format!("training stopped after {done} steps")),
        SearchState::Paused => Some(format!("training paused after {done} steps")),
        SearchState::Running => None,
    };
    app.screens.train.progress = Some(progress);
    if let Some(text) = text {
        app.report(Tone::Info, text);
    }
}

/// A pattern was measured with the trained indexers.
pub fn measured(app: &mut App, evaluation: Evaluation, coverage: Coverage, steps: u64) {
    let Subject::Pattern(pattern) = evaluation.subject else { return };
    let delta = evaluation.delta.map_or_else(String::new, |d| {
        format!(": Δloss {} {}", format::delta(d.value), format::spread(d.spread(), app.theme.ascii))
    });
    app.report(Tone::Info, format!("with the indexers after {steps} steps{delta}"));
    let results = Results { evaluation: Some(evaluation), coverage: Some(coverage), ..Results::default() };
    app.screens.train.after.insert(pattern, After { steps, results });
}

/// The trained indexers were written.
pub fn kept(app: &mut App, path: &Path) {
    app.hold(Tone::Info, format!("kept {}; 'indexscope MODEL --index FILE' opens the model with it", path.display()));
}

/// The training has ended without a word of its own; nothing of it is left with the worker but what was told.
pub fn ended(app: &mut App) {
    app.screens.train.waiting = None;
    if let Some(progress) = app.screens.train.progress.as_mut().filter(|p| p.state == SearchState::Running) {
        progress.state = SearchState::Stopped;
    }
}
