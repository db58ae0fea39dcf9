//! The Train screen: what is asked for, how far it has come, KL per layer over time, and Δ before and after.
//!
//! ```text
//! training, step, speed, progress / KL per layer as a heat strip over steps │ the last KL and floor of each layer
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::domain::{Estimate, LeftTraining, SearchState, TrainingProgress, TrainingSettings, TrainingStep};
use crate::tui::app::{App, TrainingPlan};
use crate::tui::format;
use crate::tui::hint;
use crate::tui::shown::loss;
use crate::tui::theme::{Role, Shade};
use crate::tui::widgets::{bars, frame, letters, wrapped, write};

type Line = Vec<(String, Style)>;

/// Columns of the list of layers.
const LAYERS: u16 = 40;
/// Columns of a layer's name beside its strip.
const NAME: u16 = 5;

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let inner = Rect { x: body.x + 1, width: body.width.saturating_sub(1), ..body };
    let mut row = 0;
    let Some(progress) = &app.train.progress else {
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
    strip(app, progress, Rect { width: rest.width - side, ..rest }, buf);
    if side > 0 {
        layers(app, progress, Rect { x: rest.right() - side, width: side, ..rest }, buf);
    }
}

/// Says what would be trained, before anything was.
fn empty(app: &App) -> String {
    match (hint::no_engine(app), app.train.waiting) {
        (Some(why), _) => why,
        (None, Some(settings)) => {
            let job = app.progress.map_or("starting", |p| App::job_name(p.job));
            format!("{} begins once the worker is free; now: {job}. 'x' takes it back.", told(&settings))
        }
        (None, None) if app.left_training().is_some() => left(app),
        (None, None) => format!(
            "No training yet. Enter trains the indexers of this pattern's Full layers for the layers that they serve \
             ({}), 'c' changes steps and rate; the model stays as it is, and an edit is answered first.",
            app.train.plan
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
    let (done, all) = (app.train.done(), progress.settings.all_steps());
    let last = app.train.steps.last();
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
    let number = |delta: Option<Estimate>| {
        delta.map_or_else(
            || "–".to_owned(),
            |d| format!("Δloss {} {}", format::delta(d.value), format::spread(d.se, theme.ascii)),
        )
    };
    let (fresh, evaluation) = loss(app);
    let kept = format!("{}/{} Full in view", pattern.full_count(), pattern.len());
    let before = format!("{} {}", number(evaluation.and_then(|e| e.delta)), fresh.mark());
    let before =
        vec![label(app, "before"), (before, theme.role(Role::Text)), (format!("  {kept}"), theme.role(Role::Dim))];
    let after = match app.train.after(pattern) {
        None => ("not measured; 'a' measures it once something is trained".to_owned(), Role::Dim),
        Some((_, steps, e)) if *steps == app.train.done() => {
            (format!("{} ●  after {steps} steps, against the same reference", number(e.delta)), Role::Text)
        }
        Some((_, steps, e)) => {
            (format!("{} ◌  after {steps} steps; 'a' measures those of now", number(e.delta)), Role::Dim)
        }
    };
    vec![before, vec![label(app, "after"), (after.0, theme.role(after.1))]]
}

/// Returns the mean KL of each trained layer over every column's share of the steps; `None` where it has none yet.
fn columns(steps: &[TrainingStep], all: u64, width: usize) -> Vec<Option<Vec<f64>>> {
    let mut columns: Vec<(usize, Vec<f64>)> = vec![(0, Vec::new()); width];
    for step in steps {
        let at = ((step.done.saturating_sub(1)) as f64 / all.max(1) as f64 * width as f64) as usize;
        let Some((n, sum)) = columns.get_mut(at) else { continue };
        sum.resize(step.kl.len(), 0.0);
        sum.iter_mut().zip(&step.kl).for_each(|(sum, kl)| *sum += kl);
        *n += 1;
    }
    let mean = |(n, sum): (usize, Vec<f64>)| (n > 0).then(|| sum.into_iter().map(|s| s / n as f64).collect());
    let mut filled: Vec<Option<Vec<f64>>> = columns.into_iter().map(mean).collect();
    // Fewer steps than columns: each one reaches to the next.
    let reached = filled.iter().rposition(Option::is_some).unwrap_or(0);
    for at in 1..=reached.min(width.saturating_sub(1)) {
        if filled[at].is_none() {
            let before = filled[at - 1].clone();
            filled[at] = before;
        }
    }
    filled
}

/// Draws KL per layer over the steps: from 0 to its largest, dark is low.
fn strip(app: &App, progress: &TrainingProgress, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let largest = app.train.steps.iter().flat_map(|s| &s.kl).copied().filter(|kl| kl.is_finite()).fold(0.0, f64::max);
    let title = format!("KL per layer over steps, 0 to {largest:.2} nats per query row");
    let short = "KL per layer over steps";
    let inner = frame(buf, area, if area.width as usize >= title.chars().count() + 6 { &title } else { short }, theme);
    let width = inner.width.saturating_sub(NAME) as usize;
    let columns = columns(&app.train.steps, progress.settings.all_steps(), width);
    let rows = (inner.height as usize).min(progress.layers.len());
    for row in 0..rows {
        // Where there are more layers than rows, some share one: the first of them is named.
        let (from, to) = (row * progress.layers.len() / rows, (row + 1) * progress.layers.len() / rows);
        let name = format!("L{:<3} ", progress.layers[from]);
        write(buf, inner, row as u16, &[(name, theme.role(Role::Dim))]);
        for (x, column) in columns.iter().enumerate() {
            let value = column.as_ref().and_then(|kl| {
                let group = kl.get(from..to.max(from + 1))?;
                Some(group.iter().sum::<f64>() / group.len() as f64 / largest.max(f64::MIN_POSITIVE))
            });
            let at = (inner.x + NAME + x as u16, inner.y + row as u16);
            if let (Some(value), Some(cell)) = (value, buf.cell_mut(at)) {
                theme.paint(cell, Shade::of(Some(value)));
            }
        }
    }
}

/// Draws each layer's KL now, at the beginning, and the floor that no indexer could go below.
fn layers(app: &App, progress: &TrainingProgress, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let inner = frame(buf, area, "Layer, KL at first, now, floor", theme);
    let steps = &app.train.steps;
    let span = (steps.len() / 8).clamp(1, 20).min(steps.len().max(1));
    let mean = |steps: &[TrainingStep], of: fn(&TrainingStep) -> &Vec<f64>, at: usize| {
        let values: Vec<f64> = steps.iter().filter_map(|s| of(s).get(at).copied()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
    for (row, layer) in progress.layers.iter().enumerate().take(inner.height as usize) {
        let newest = &steps[steps.len().saturating_sub(span)..];
        let first = mean(&steps[..span.min(steps.len())], |s| &s.kl, row);
        let (now, floor) = (mean(newest, |s| &s.kl, row), mean(newest, |s| &s.floor, row));
        let text = format!("L{layer:<4} {:>7} {:>7} {:>7}", number(first), number(now), number(floor));
        let role = if now < first { Role::Text } else { Role::Dim };
        write(buf, inner, row as u16, &[(format::fit(&text, inner.width as usize), theme.role(role))]);
    }
}
