//! What is done on the Search screen, and what the worker tells of the search.

use super::Form;
use crate::domain::{Constraints, Goal, Pattern, SearchProgress, SearchSettings, SearchState, Validation};
use crate::engine::Command;
use crate::tui::app::{App, Engine, LongWork, Overlay, Tone};
use crate::tui::format;
use crate::tui::msg::Effect;
use crate::tui::update::edit;

/// Opens the settings of the next search.
pub fn settings(app: &mut App) -> Vec<Effect> {
    let mut form = app.screens.search.form.clone();
    form.propose();
    app.overlay = Overlay::Search(form);
    Vec::new()
}

/// Applies what the search found, or starts one.
pub fn enter(app: &mut App) -> Vec<Effect> {
    if app.screens.search.progress.is_some() { apply(app) } else { begin(app, app.screens.search.form.clone()) }
}

/// Starts a search with the settings that were typed, asks first where something speaks against it, or says what is wrong
/// with them.
pub fn begin(app: &mut App, form: Form) -> Vec<Effect> {
    let settings = app.constraints().and_then(|c| Some((form.settings(c.len()).ok()?, c)));
    let seconds = settings.as_ref().and_then(|(settings, c)| Some(evaluations(settings, *c)? as f64 * app.pace()?));
    let doubts = app.doubts(seconds);
    // Settings that are wrong are refused before anything is asked.
    if settings.is_none() || doubts.is_empty() {
        return start(app, form);
    }
    app.screens.search.form = form;
    app.overlay = Overlay::Confirm(LongWork::Search, doubts);
    Vec::new()
}

/// Returns how many evaluations the paper's greedy needs, which its faster relatives stay below; `None` for strategies
/// that do not flip layer after layer.
pub fn evaluations(settings: &SearchSettings, constraints: Constraints) -> Option<usize> {
    let reference = constraints.reference().ok()?;
    let start = reference.full_count() - settings.lock_shared.iter().filter(|&l| reference.is_full(l)).count();
    let full = match settings.goal {
        Goal::Keep(full) => full,
        Goal::MaxDelta(_) => 1,
    };
    // Layer 0 is never a candidate; each step has one candidate fewer.
    let all = (0..start.saturating_sub(full)).map(|step| start.saturating_sub(1 + step)).sum();
    settings.method.strategy.has_order().then_some(all)
}

/// Starts a search with the settings that were typed, or says what is wrong with them.
pub fn start(app: &mut App, form: Form) -> Vec<Effect> {
    let Some(layers) = app.pattern().map(Pattern::len) else { return Vec::new() };
    match form.settings(layers) {
        Ok(settings) => {
            app.say(Tone::Info, format!("searching: {}", told(&settings)));
            app.screens.search.form = form;
            app.screens.search.cut = None;
            app.screens.search.progress = None;
            app.screens.search.closed = false;
            app.known.failure = None;
            app.screens.search.waiting = Some(settings.clone());
            vec![Effect::Send(Command::Search(settings))]
        }
        Err(why) => {
            app.say(Tone::Warn, why);
            app.overlay = Overlay::Search(form);
            Vec::new()
        }
    }
}

/// Returns settings in a few words.
pub fn told(settings: &SearchSettings) -> String {
    match settings.goal {
        Goal::Keep(full) => format!("{} to {full} Full", settings.method),
        Goal::MaxDelta(most) => format!("{} within Δloss {most}", settings.method),
    }
}

/// Pauses the search, or resumes it.
pub fn pause(app: &mut App) -> Vec<Effect> {
    let Some(state) = app.search_record().map(|r| r.state) else { return Vec::new() };
    let command = match state {
        SearchState::Running => Command::PauseSearch,
        _ => Command::ResumeSearch,
    };
    if let Some(progress) = &mut app.screens.search.progress {
        progress.record.state = if state == SearchState::Running { SearchState::Paused } else { SearchState::Running };
    }
    vec![Effect::Send(command)]
}

/// Ends the search; what it found stays.
pub fn stop(app: &mut App) -> Vec<Effect> {
    app.say(Tone::Info, "the search is stopped; what it found stays");
    app.screens.search.waiting = None;
    vec![Effect::Send(Command::StopSearch)]
}

/// Cuts the flip order one Full layer further on or back, within what it reaches.
pub fn slide(app: &mut App, by: isize) -> Vec<Effect> {
    let (Some(record), Some(found)) = (app.search_record(), app.found()) else { return Vec::new() };
    let full = found.full_count().saturating_add_signed(by);
    let (fewest, most) = (record.after(record.order.len()).full_count(), record.start.full_count());
    app.screens.search.cut = Some(full.clamp(fewest, most));
    Vec::new()
}

/// Takes the search's own result.
pub fn uncut(app: &mut App) -> Vec<Effect> {
    app.screens.search.cut = None;
    Vec::new()
}

fn apply(app: &mut App) -> Vec<Effect> {
    let (Some(record), Some(pattern)) = (app.search_record(), app.found()) else { return Vec::new() };
    let what = format!("{} applied", told(&record.settings));
    let what = if pattern == record.pattern { what } else { format!("{what}, cut at {} Full", pattern.full_count()) };
    let judge = judge(app, pattern);
    edit::apply(app, pattern, what).into_iter().chain(judge).collect()
}

/// Has a pattern judged on text that no search saw, unless that is known.
fn judge(app: &App, pattern: Pattern) -> Option<Effect> {
    let news = app.validation(pattern).is_none() && app.engine == Engine::Ready;
    news.then_some(Effect::Send(Command::Validate(pattern)))
}

/// A pattern was judged; without text to judge on there is nothing to tell.
pub fn validated(app: &mut App, pattern: Pattern, validation: Option<Validation>) {
    let Some(validation) = validation else {
        // How the search ended was reported just now, and stays in sight.
        let text = "judged on nothing else: no text is left that the search never saw (--sequences N leaves some)";
        app.note(Tone::Info, text);
        return;
    };
    let ascii = app.theme.ascii;
    let delta = validation.delta.map_or_else(
        || "no target sees more than k keys".to_owned(),
        |d| format!("Δloss {} {}", format::delta(d.value), format::spread(d.spread(), ascii)),
    );
    let Validation { sequences, data, .. } = &validation;
    let full = format!("{}/{} Full", pattern.full_count(), pattern.len());
    app.report(
        Tone::Info,
        format!("validation of {full}: {delta} on {sequences} sequences never searched on ({data})"),
    );
    if let Some(progress) = app.screens.search.progress.as_mut().filter(|p| p.record.pattern == pattern) {
        progress.record.validation = Some(validation.clone());
    }
    app.known.results.entry(pattern).or_default().validation = Some(validation);
    app.session.unsaved = true;
    edit::put_aside_soon(app);
}

/// The worker tells where the search stands; what an ended one has found is judged.
pub fn told_progress(app: &mut App, mut progress: SearchProgress) -> Vec<Effect> {
    if app.screens.search.closed {
        return Vec::new();
    }
    progress.record.validation = app.validation(progress.record.pattern).cloned();
    let before = app.search_record().map(|r| (r.state, r.order.len()));
    let record = &progress.record;
    let now = (record.state, record.order.len());
    let delta = record.delta.map_or_else(String::new, |d| {
        format!(", Δloss {} {}", format::delta(d.value), format::spread(d.spread(), app.theme.ascii))
    });
    let found = format!("{}/{} Full{delta}", record.pattern.full_count(), record.pattern.len());
    let text = match record.state {
        state if before.is_some_and(|(s, _)| s == state) => None,
        SearchState::Done => Some(format!("search done: {found}; Enter on the Search screen applies it")),
        SearchState::Stopped => Some(format!("search stopped at {found}")),
        SearchState::Paused => Some(format!("search paused at {found}")),
        SearchState::Running => None,
    };
    let ended = text.is_some() && matches!(record.state, SearchState::Done | SearchState::Stopped);
    let found = Some(record.pattern).filter(|p| ended && *p != record.start);
    app.screens.search.progress = Some(progress);
    app.screens.search.waiting = None;
    if let Some(text) = text {
        app.report(Tone::Info, text);
    }
    if before != Some(now) {
        app.session.unsaved = true;
        edit::put_aside_soon(app);
    }
    found.and_then(|pattern| judge(app, pattern)).into_iter().collect()
}

/// The search has ended without a word of its own; what it found stays.
pub fn ended(app: &mut App) {
    app.screens.search.waiting = None;
    if let Some(progress) = app.screens.search.progress.as_mut().filter(|p| p.record.state == SearchState::Running) {
        progress.record.state = SearchState::Stopped;
    }
}
