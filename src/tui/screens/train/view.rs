//! The Train screen: what is asked for, how far it has come, KL per layer over time, and Δ before and after.
//!
//! ```text
//! training, step, speed, progress / KL per layer as a heat strip over steps │ the first and last KL of each layer, its floor
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::keys::no_training_text;
use super::{TrainingPlan, kl};
use crate::domain::{Delta, LeftTraining, Origin, SearchState, TrainingProgress, TrainingSettings};
use crate::tui::app::{App, Indexers};
use crate::tui::format;
use crate::tui::refuse::no_engine;
use crate::tui::theme::Role;
use crate::tui::widgets::{bars, letters, wrapped, write};

type Line = Vec<(String, Style)>;

/// Columns of the list of layers.
const LAYERS: u16 = 40;

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let inner = Rect { x: body.x + 1, width: body.width.saturating_sub(1), ..body };
    let mut row = 0;
    let Some(progress) = &app.screens.train.progress else {
        for line in wrapped(&empty(app), inner.width.saturating_sub(1).min(100) as usize) {
            write(buf, inner, row + 1, &[(line, app.theme.role(Role::Text))]);
            row += 1;
        }
        for line in compared(app) {
            write(buf, inner, row + 2, &line);
            row += 1;
        }
        return;
    };
    for line in lines(app, progress, inner.width as usize).into_iter().chain(compared(app)) {
        write(buf, inner, row, &line);
        row += 1;
    }
    let rest = Rect { y: body.y + row, height: body.height.saturating_sub(row), ..body };
    if rest.height < 4 {
        return;
    }
    let side = if rest.width >= LAYERS + 40 { LAYERS } else { 0 };
    kl::strip(app, progress, Rect { width: rest.width - side, ..rest }, buf);
    if side > 0 {
        kl::layers(app, progress, Rect { x: rest.right() - side, width: side, ..rest }, buf);
    }
}

/// Says what would be trained, before anything was.
fn empty(app: &App) -> String {
    match (no_engine(app).or_else(|| no_training_text(app)), app.screens.train.waiting) {
        (Some(why), _) => why,
        (None, Some(settings)) => {
            let job = app.progress.map_or("starting", |p| App::job_name(p.job));
            format!("Training {} begins once the worker is free; now: {job}. 'x' takes it back.", told(&settings))
        }
        (None, None) if app.left_training().is_some() => left(app),
        (None, None) => format!(
            "No training yet. Enter trains the indexers of this pattern's Full layers for the layers that they serve \
             ({}) on {}; 'c' changes steps and rate. The model stays as it is, and an edit is answered first.",
            app.screens.train.plan,
            texts(app)
        ),
    }
}

/// Says what was put aside, and how to go on with it.
fn left(app: &App) -> String {
    let Some(left) = app.left_training() else { return String::new() };
    let LeftTraining { settings, done } = left;
    let there = if app.pattern() == Some(settings.pattern) {
        "Space goes on with it, to the same end as if it had never been left.".to_owned()
    } else {
        format!(
            "Space goes on with it, once its pattern is in view: 'P' on the Overlap screen takes {}.",
            settings.pattern
        )
    };
    format!(
        "A training of this session was put aside after {done} of {} steps: {}. {there} Enter begins another one.",
        settings.all_steps(),
        told(&settings)
    )
}

/// Returns what is trained in a few words.
fn told(settings: &TrainingSettings) -> String {
    let TrainingSettings { pattern, targets, steps, sparse_steps, lr } = *settings;
    format!("{} indexers, {}", pattern.full_count(), TrainingPlan { steps, sparse_steps, lr, targets })
}

/// Names what is trained on, such as `demo text, training (131,072 tokens)`.
fn texts(app: &App) -> String {
    let texts = app.model.iter().flat_map(|model| &model.training);
    let named: Vec<String> = texts.map(|(name, n)| format!("{name} ({} tokens)", format::count(*n))).collect();
    named.join(", ")
}

fn label(app: &App, text: &str) -> (String, Style) {
    (format!("{text:<9}"), app.theme.role(Role::Dim))
}

fn lines(app: &App, progress: &TrainingProgress, width: usize) -> Vec<Line> {
    let theme = app.theme;
    let (text, dim) = (theme.role(Role::Text), theme.role(Role::Dim));
    let (state, role) = match progress.state {
        SearchState::Running if app.progress.is_some() => ("waits for the edit", Role::Warn),
        SearchState::Running => ("running", Role::Good),
        SearchState::Paused => ("paused", Role::Warn),
        SearchState::Stopped => ("stopped", Role::Warn),
        SearchState::Done => ("done", Role::Good),
    };
    let mut lines =
        vec![vec![label(app, "training"), (told(&progress.settings), text), (format!("  {state}"), theme.role(role))]];
    if progress.settings.pattern.len() + 9 <= width {
        let mut line = vec![label(app, "pattern")];
        line.extend(letters(progress.settings.pattern, theme));
        lines.push(line);
    }
    lines.push(vec![label(app, "text"), (format::fit(&texts(app), width.saturating_sub(9)), dim)]);
    let (done, all) = (app.screens.train.done(), progress.settings.all_steps());
    let last = app.screens.train.steps.last();
    let stage = if last.is_some_and(|s| s.sparse) { "sparse stage" } else { "warm-up" };
    let mut step = vec![label(app, "step"), (format!("{done} of {all}, {stage}"), text)];
    if let Some(s) = last {
        let more = format!(", rate {:.1e}, {} tokens, {}", s.rate, s.tokens, format::rate(s.tokens_per_second));
        step.push((more, dim));
    }
    lines.push(step);
    let share = done as f64 / all.max(1) as f64;
    let eta = progress.eta.filter(|_| progress.state == SearchState::Running);
    let tail = format!(
        " {}{}",
        format::percent(share),
        eta.map_or_else(String::new, |s| format!(" eta {}", format::clock(s)))
    );
    let mut bar = vec![label(app, "progress")];
    bar.extend(bars::meter(share, width.saturating_sub(9 + tail.chars().count()).min(80), theme));
    bar.push((tail, text));
    lines.push(bar);
    lines
}

/// Returns Δ of the pattern in view before training and after it, against the same reference.
fn compared(app: &App) -> Vec<Line> {
    let theme = app.theme;
    let Some(pattern) = app.pattern() else { return Vec::new() };
    // Those that the Overlap screen shows stand out.
    let side = |indexers, text: &str| {
        let (text, style) = label(app, text);
        (text, if app.indexers == indexers { theme.role(Role::Accent) } else { style })
    };
    let number = |delta: Option<Delta>| {
        delta.map_or_else(
            || "–".to_owned(),
            |d| format!("Δloss {} {}", format::delta(d.value), format::spread(d.spread(), theme.ascii)),
        )
    };
    let known = app.known.results.get(&pattern).and_then(|r| r.evaluation.as_ref());
    let text = match known {
        None => "not measured yet".to_owned(),
        Some(e) if e.origin == Origin::Imported => format!("{} ○ from file", number(e.delta)),
        Some(e) => format!("{} ● measured", number(e.delta)),
    };
    let kept = format!("  {}/{} Full in view", pattern.full_count(), pattern.len());
    let before = vec![side(Indexers::Before, "before"), (text, theme.role(Role::Text)), (kept, theme.role(Role::Dim))];
    let after =
        app.screens.train.after(pattern).and_then(|after| Some((after.steps, after.results.evaluation.as_ref()?)));
    let (text, role) = match after {
        None => ("not measured; 'a' measures it once something is trained".to_owned(), Role::Dim),
        Some((steps, e)) if steps == app.screens.train.done() => {
            (format!("{} ●  after {steps} steps, against the same reference", number(e.delta)), Role::Text)
        }
        Some((steps, e)) => {
            (format!("{} ◌  after {steps} steps; 'a' measures those of now", number(e.delta)), Role::Dim)
        }
    };
    vec![before, vec![side(Indexers::Trained, "after"), (text, theme.role(role))]]
}
