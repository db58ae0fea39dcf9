//! What the worker tells.

use std::sync::Arc;

use super::edit;
use crate::analysis::{Metric, OverlapMatrix};
use crate::domain::{Evaluation, Subject, Trace};
use crate::engine::{Command, Failure, Job, ModelInfo, Update};
use crate::tui::app::{App, Engine, Tone};
use crate::tui::format;
use crate::tui::history::History;
use crate::tui::msg::Effect;
use crate::tui::screens::search::update as search;
use crate::tui::screens::train::update as train;

/// Takes in an update.
pub fn update(app: &mut App, update: Update) -> Vec<Effect> {
    match update {
        Update::Ready(model) => return ready(app, *model),
        Update::Progress(progress) => app.progress = Some(progress),
        Update::Partial(evaluation) => app.known.partial = Some(*evaluation),
        Update::Evaluated(evaluation) => evaluated(app, *evaluation),
        Update::Recorded(trace) => return recorded(app, trace),
        Update::Covered(coverage) => {
            let pattern = coverage.pattern;
            app.known.results.entry(pattern).or_default().coverage = Some(coverage);
        }
        Update::Measured(speeds) => {
            if let Some(pattern) = speeds.first().map(|s| s.pattern) {
                app.known.results.entry(pattern).or_default().speed = speeds;
            }
            edit::remember_shown(app);
            edit::put_aside_soon(app);
        }
        Update::Profiled(speeds) => {
            app.known
                .profile
                .retain(|known| speeds.iter().all(|s| (s.pattern, s.context) != (known.pattern, known.context)));
            app.known.profile.extend(speeds);
        }
        Update::Affinity(kind, affinity) => {
            app.known.affinities.retain(|(known, _)| *known != kind);
            app.known.affinities.push((kind, affinity));
        }
        Update::Validated(pattern, validation) => search::validated(app, pattern, validation),
        Update::Search(progress) => return search::told_progress(app, *progress),
        Update::Training(progress) => train::told_progress(app, *progress),
        Update::Trained { evaluation, coverage, steps } => train::measured(app, *evaluation, coverage, steps),
        Update::Kept(path) => train::kept(app, &path),
        Update::Left(left) => return train::left(app, left),
        Update::Failed(failure) => {
            if failure.job == Job::Search {
                search::ended(app);
            }
            if failure.job == Job::Train {
                train::ended(app);
            }
            let aside = failure.job == Job::PutAside;
            failed(app, failure);
            if aside {
                return train::not_left(app);
            }
        }
        Update::Memory(free, total) => app.memory = Some((free, total)),
        Update::Idle => {
            app.awaited = false;
            app.progress = None;
            app.known.partial = None;
        }
        Update::Crashed(why) => {
            app.awaited = false;
            search::ended(app);
            train::ended(app);
            app.progress = None;
            app.known.partial = None;
            let text = format!("the engine stopped: {why}; 'r' starts it again, everything measured is kept");
            app.notify(Tone::Bad, text);
        }
    }
    Vec::new()
}

/// The worker has gone without a word.
pub fn disconnected(app: &mut App) -> Vec<Effect> {
    if matches!(app.engine, Engine::Loading | Engine::Ready) {
        app.engine = Engine::Failed("the engine has ended".into());
        app.awaited = false;
        app.progress = None;
        search::ended(app);
        train::ended(app);
        app.notify(Tone::Bad, "the engine has ended; what was measured can still be saved with 'w'");
    }
    Vec::new()
}

fn ready(app: &mut App, model: ModelInfo) -> Vec<Effect> {
    app.title.clone_from(&model.name);
    app.engine = Engine::Ready;
    app.progress = None;
    let misfit = app.pattern().and_then(|p| model.constraints.check(p).err());
    if let Some(error) = &misfit {
        app.notify(Tone::Warn, format!("what was opened does not fit the model: {error}"));
        app.trace = None;
        app.matrices.clear();
        app.known.results.clear();
    }
    let native = model.native;
    let again = app.model.replace(model).is_some();
    if misfit.is_some() || app.history.is_none() {
        app.begin(History::new(native, "opened"));
    }
    if app.is_random() {
        app.notify(
            Tone::Warn,
            "losses here are of random tokens and say nothing about text; start with --text FILE to measure on text",
        );
    }
    if app.is_short() {
        let k = app.topk().unwrap_or_default();
        app.say(Tone::Warn, format!("context ≤ {k}, the top-k: no pattern can differ"));
    }
    let record = app.trace.is_none().then_some(Effect::Send(Command::Record));
    let evaluate = app.pattern().map(|p| Effect::Send(Command::Evaluate(p)));
    // A worker that had to start again still knows where, and has the training that was not the reason.
    let training = if again { Vec::new() } else { train::moved(app, false) };
    record.into_iter().chain(evaluate).chain(training).collect()
}

fn evaluated(app: &mut App, evaluation: Evaluation) {
    let Subject::Pattern(pattern) = evaluation.subject else { return };
    if app.known.partial.as_ref().is_some_and(|p| p.subject == evaluation.subject) {
        app.known.partial = None;
    }
    let news = app.known.results.get(&pattern).and_then(|r| r.evaluation.as_ref()) != Some(&evaluation);
    if app.pattern() == Some(pattern) && news {
        app.known.failure = None;
        app.report(Tone::Info, told(app, &evaluation));
    }
    app.known.results.entry(pattern).or_default().evaluation = Some(evaluation);
    edit::remember_shown(app);
    edit::put_aside_soon(app);
}

/// Returns the sentence about a measured loss.
fn told(app: &App, evaluation: &Evaluation) -> String {
    let change = app.history.as_ref().map_or("", |h| &h.nodes()[h.current()].change);
    let ascii = app.theme.ascii;
    let delta = evaluation.delta.map_or_else(
        || "no target sees more than k keys, so Δ is nothing".to_owned(),
        |d| format!("Δloss {} {}", format::delta(d.value), format::spread(d.spread(), ascii)),
    );
    let how = match evaluation.resumed_from {
        0 => format::took(evaluation.seconds),
        layer => format!("{}, resumed from L{layer}", format::took(evaluation.seconds)),
    };
    format!("{change}: {delta} ({how})")
}

fn recorded(app: &mut App, trace: Arc<Trace>) -> Vec<Effect> {
    app.trace = Some(trace);
    app.matrices.clear();
    if app.history.is_none()
        && let Some(trace) = &app.trace
    {
        let pattern = trace.meta.pattern;
        app.begin(History::new(pattern, "recorded"));
    }
    compare(app)
}

/// Asks for the matrices that are not there yet.
pub fn compare(app: &App) -> Vec<Effect> {
    let Some(trace) = &app.trace else { return Vec::new() };
    let mut wanted = vec![Metric::Overlap, Metric::Jaccard];
    wanted.retain(|&metric| app.matrix(metric).is_none());
    wanted.into_iter().map(|metric| Effect::Compare(trace.clone(), metric)).collect()
}

/// A matrix is computed; that of an older recording is dropped.
pub fn matrix(app: &mut App, trace: &Arc<Trace>, matrix: Arc<OverlapMatrix>) -> Vec<Effect> {
    if app.trace.as_ref().is_some_and(|t| Arc::ptr_eq(t, trace)) && app.matrix(matrix.metric).is_none() {
        app.matrices.push(matrix);
    }
    Vec::new()
}

fn failed(app: &mut App, failure: Failure) {
    app.progress = None;
    if failure.job == Job::Load {
        app.engine = Engine::Failed(failure.diagnostic.message.clone());
    }
    if failure.job == Job::Evaluate {
        app.known.partial = None;
    }
    let hint = failure.diagnostic.hint.as_ref().map_or_else(String::new, |h| format!(" · {h}"));
    app.say(Tone::Bad, format!("{}: {}{hint}", App::job_name(failure.job), failure.diagnostic.message));
    app.known.failure = Some(failure);
}
