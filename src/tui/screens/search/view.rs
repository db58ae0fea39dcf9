//! The Search screen: what is asked for, how far it has come, what it cost, and Δloss along the flips.
//!
//! ```text
//! goal, step, work / best and candidate / Δloss against Full layers │ the last flips
//! ```

use std::fmt::Write;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::fields;
use super::update::told as search_told;
use crate::analysis::pareto::knee;
use crate::domain::{Flip, Goal, Pattern, Role as LayerRole, SearchProgress, SearchRecord, SearchState, Verdict};
use crate::engine::Job;
use crate::tui::app::App;
use crate::tui::format;
use crate::tui::refuse::no_engine;
use crate::tui::theme::Role;
use crate::tui::widgets::plot::{self, Mark, Plot};
use crate::tui::widgets::{bars, frame, letters, wrapped, write};

type Line = Vec<(String, Style)>;

/// Columns of the list of flips.
const FLIPS: u16 = 38;

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let Some(progress) = &app.screens.search.progress else { return empty(app, body, buf) };
    let inner = Rect { x: body.x + 1, width: body.width.saturating_sub(1), ..body };
    let lines = lines(app, progress, inner.width as usize);
    let mut row = 0;
    for line in &lines {
        write(buf, inner, row, line);
        row += 1;
    }
    for line in strips(app, progress, inner.width as usize) {
        write(buf, inner, row, &line);
        row += 1;
    }
    let rest = Rect { y: body.y + row, height: body.height.saturating_sub(row), ..body };
    if rest.height < 5 {
        return;
    }
    let side = if rest.width >= FLIPS + 40 { FLIPS } else { 0 };
    trajectory(app, &progress.record, Rect { width: rest.width - side, ..rest }, buf);
    if side > 0 {
        flips(app, &progress.record, Rect { x: rest.right() - side, width: side, ..rest }, buf);
    }
}

/// Shows what would be searched for, before anything was.
fn empty(app: &App, body: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let text = match (no_engine(app), &app.screens.search.waiting) {
        (Some(why), _) => why,
        (None, Some(settings)) => {
            let job = app.progress.map_or("starting", |p| App::job_name(p.job));
            format!("{} begins once the worker is free; now: {job}. 'x' takes it back.", search_told(settings))
        }
        (None, None) => {
            "No search yet. Enter starts one with these settings, 'c' changes them; the dashboard stays usable, and \
                 an edit is answered first."
                .to_owned()
        }
    };
    let inner = Rect { x: body.x + 1, width: body.width.saturating_sub(2).min(100), ..body };
    let mut row = 1;
    for line in wrapped(&text, inner.width as usize) {
        write(buf, inner, row, &[(line, theme.role(Role::Text))]);
        row += 1;
    }
    let below = Rect { y: inner.y + row + 1, height: inner.height.saturating_sub(row + 1), ..inner };
    fields(app, &app.screens.search.form, None, below, buf);
}

fn label(app: &App, text: &str) -> (String, Style) {
    (format!("{text:<9}"), app.theme.role(Role::Dim))
}

fn lines(app: &App, progress: &SearchProgress, width: usize) -> Vec<Line> {
    let theme = app.theme;
    let record = &progress.record;
    let (text, dim) = (theme.role(Role::Text), theme.role(Role::Dim));
    let settings = &record.settings;
    let mut goal = search_told(settings);
    let _ = write!(goal, ", seed {}", settings.seed);
    if let Some(stages) = &settings.stages {
        let _ = write!(goal, ", stages {stages}");
    }
    let (state, role) = match record.state {
        SearchState::Running if app.progress.is_some_and(|p| p.job == Job::Validate) => {
            ("tests its budget", Role::Good)
        }
        SearchState::Running if app.progress.is_some() => ("waits for the edit", Role::Warn),
        SearchState::Running => ("running", Role::Good),
        SearchState::Paused => ("paused", Role::Warn),
        SearchState::Stopped => ("stopped", Role::Warn),
        SearchState::Done => ("done", Role::Good),
    };
    let data = app.model.as_ref().map_or_else(String::new, |m| format!(" on {} sequences of {}", m.sequences, m.data));
    let mut first = vec![label(app, "search"), (goal, text), (format!("  {state}"), theme.role(role))];
    let used: usize = first.iter().map(|(t, _)| t.chars().count()).sum();
    first.push((format::fit(&data, width.saturating_sub(used)), dim));
    let mut lines = vec![first];
    let (done, all) = progress.steps;
    let most = if matches!(settings.goal, Goal::MaxDelta(_)) { "≤ " } else { "" };
    let (measured, asked) = progress.measured;
    let mut step = format!("{done} of {most}{all} steps");
    if asked > 0 {
        let _ = write!(step, ", {measured} of {asked} measurements in this one");
    }
    lines.push(vec![label(app, "step"), (step, text)]);
    // The first step is the longest: it knows nothing yet. What was measured of it stays when the search pauses.
    let within = if done == 0 { measured as f64 / asked.max(1) as f64 } else { 0.0 };
    let share = match record.state {
        SearchState::Done => 1.0,
        _ => ((done as f64 + within) / all.max(1) as f64).min(1.0),
    };
    let eta = progress.eta.filter(|_| record.state == SearchState::Running);
    let eta = eta.map_or_else(String::new, |eta| format!(" eta {}", format::range(eta)));
    let tail = format!(" {}{eta}", format::percent(share));
    let mut bar = vec![label(app, "progress")];
    bar.extend(bars::meter(share, width.saturating_sub(9 + tail.chars().count()).min(80), theme));
    bar.push((tail, text));
    lines.push(bar);
    let work = record.work;
    let spent = format!(
        "{:.1} evaluations, {:.0} layer-forwards ({:.0} by the paper's count), {}",
        work.evaluations,
        work.layer_forwards,
        work.paper(record.pattern.len()),
        format::took(work.seconds)
    );
    let mut line = vec![label(app, "work"), (spent, text)];
    if let Some(audit) = record.audit {
        let role = if audit.violations > 0 { Role::Warn } else { Role::Dim };
        let told = format!("  audit {}: {} violations", audit.audited, audit.violations);
        // Where there is no room only what is wrong is told, first.
        let used: usize = line.iter().map(|(t, _)| t.chars().count()).sum();
        if used + told.chars().count() <= width {
            line.push((told, theme.role(role)));
        } else if audit.violations > 0 {
            line.insert(1, (format!("{} audit violations, ", audit.violations), theme.role(role)));
        }
    }
    lines.push(line);
    lines
}

/// Returns the best pattern, or the cut of the slider, and the one under test.
fn strips(app: &App, progress: &SearchProgress, width: usize) -> Vec<Line> {
    let theme = app.theme;
    let record = &progress.record;
    let found = app.found().unwrap_or(record.pattern);
    let cut = found != record.pattern;
    let delta = record.delta_of(found);
    let number = delta.map_or_else(String::new, |d| {
        format!("  Δloss {} {}", format::delta(d.value), format::spread(d.spread(), theme.ascii))
    });
    let name = if cut { "cut" } else { "best" };
    let text = format!("{}/{} Full{number}", found.full_count(), found.len());
    let mut heading = vec![label(app, name), (text, theme.role(Role::Text))];
    if let Some(judged) = app.validation(found) {
        let delta = judged.delta.map_or_else(
            || "–".to_owned(),
            |d| format!("{} {}", format::delta(d.value), format::spread(d.spread(), theme.ascii)),
        );
        // Colours are for verdicts, which only a budget gives.
        let verdict = record.confirmation.as_ref().and_then(|c| c.verdict(found));
        let role = match verdict {
            Some(Verdict::Confirmed) => Role::Good,
            Some(Verdict::OverBudget) => Role::Bad,
            Some(Verdict::Undecided) => Role::Warn,
            None => Role::Text,
        };
        heading.push((format!("  validation {delta}"), theme.role(role)));
        heading.extend(verdict.map(|v| (format!("  {}", v.words()), theme.role(role))));
        let on = format!(" on {} sequences of {}", judged.sequences, judged.data);
        let used: usize = heading.iter().map(|(t, _)| t.chars().count()).sum();
        if used + on.chars().count() <= width {
            heading.push((on, theme.role(Role::Dim)));
        }
    } else if app.progress.is_some_and(|p| p.job == Job::Validate) {
        heading.push(("  being judged".to_owned(), theme.role(Role::Dim)));
    }
    let mut lines = vec![heading, indented(letters(found, theme), width)];
    let candidate = progress.candidate.filter(|_| record.state == SearchState::Running);
    if let Some(candidate) = candidate {
        lines.push(indented(tested(app, record.after(record.order.len()), candidate), width));
    }
    lines
}

/// Puts letters under the heading where there is room beside the label, else at the margin.
fn indented(mut line: Line, width: usize) -> Line {
    if line.len() + 9 <= width {
        line.insert(0, (" ".repeat(9), Style::default()));
    }
    line
}

/// Returns the letters of a candidate with `?` where it differs from what it is compared with.
fn tested(app: &App, best: Pattern, candidate: Pattern) -> Line {
    let theme = app.theme;
    let mut line = letters(candidate, theme);
    for (layer, piece) in line.iter_mut().enumerate() {
        if best.len() == candidate.len() && best.role(layer) != candidate.role(layer) {
            *piece = ("?".to_owned(), theme.role(Role::Cursor));
        }
    }
    line
}

fn trajectory(app: &App, record: &SearchRecord, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let inner = frame(
        buf,
        area,
        if area.width >= 50 { "Δloss along the flips, against Full layers" } else { "Δloss along the flips" },
        theme,
    );
    if record.order.is_empty() {
        let text = if record.settings.method.strategy.has_order() {
            "no flip is accepted yet"
        } else {
            "this method places all layers at once; it has no flips to draw"
        };
        for (row, line) in wrapped(text, inner.width as usize).into_iter().enumerate() {
            write(buf, inner, inner.height / 3 + row as u16, &[(line, theme.role(Role::Dim))]);
        }
        return;
    }
    let full = |n: usize| record.after(n).full_count() as f64;
    let points: Vec<(f64, f64)> =
        record.order.iter().enumerate().map(|(i, flip)| (full(i + 1), flip.delta.value)).collect();
    let bend = knee(&points);
    let mut marks: Vec<Mark> = record
        .order
        .iter()
        .zip(&points)
        .enumerate()
        .map(|(i, (flip, &(x, y)))| {
            let (glyph, role, label) = match () {
                () if bend == Some(i) => ('■', Role::Text, format!("knee {x:.0} Full")),
                () if flip.within_noise => ('○', Role::Dim, String::new()),
                () => ('●', Role::Good, String::new()),
            };
            Mark { x, y, se: flip.delta.spread().value(), glyph, role, label }
        })
        .collect();
    marks.insert(
        0,
        Mark {
            x: record.start.full_count() as f64,
            y: 0.0,
            se: None,
            glyph: '●',
            role: Role::Dim,
            label: String::new(),
        },
    );
    if let Some(found) = app.found().filter(|_| app.screens.search.cut.is_some()) {
        let y = record.delta_of(found).map_or(0.0, |d| d.value);
        let x = found.full_count() as f64;
        marks.push(Mark { x, y, se: None, glyph: '◆', role: Role::Accent, label: format!("cut {x:.0} Full") });
    }
    let level = match record.settings.goal {
        Goal::MaxDelta(most) => Some((most, "budget")),
        Goal::Keep(_) => None,
    };
    let whole = |x: f64| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() };
    let plot = Plot { marks: &marks, line: &[], level, falling: true, across: whole, upwards: format::delta };
    plot::draw(plot, inner, theme, buf);
}

fn flips(app: &App, record: &SearchRecord, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let inner = frame(buf, area, "Accepted, the newest first", theme);
    write(buf, inner, 0, &[("  #  flip     its Δ          best".into(), theme.role(Role::Dim))]);
    let rows = inner.height.saturating_sub(1) as usize;
    let swaps = record.swaps.iter().rev().map(|s| {
        let full = s.full.map_or(String::new(), |layer| format!("{} F, ", app.label(layer)));
        let text = format!("swap {full}{} S {}", app.label(s.shared), format::delta(s.step.value));
        (text, Role::Text)
    });
    let numbered = record.order.iter().enumerate().rev().map(|(i, flip)| line(app, i + 1, flip));
    for (row, (text, role)) in swaps.chain(numbered).take(rows).enumerate() {
        write(buf, inner, row as u16 + 1, &[(format::fit(&text, inner.width as usize), theme.role(role))]);
    }
}

/// Returns one accepted flip: dim where its own difference is within noise.
fn line(app: &App, number: usize, flip: &Flip) -> (String, Role) {
    let to = if flip.to == LayerRole::Full { 'F' } else { 'S' };
    let sign = if app.theme.ascii { "+/-" } else { "±" };
    let se = flip
        .step
        .spread()
        .value()
        .map_or_else(|| "–".to_owned(), |se| format!("{se:.4}").trim_start_matches('0').to_owned());
    let best = flip.p_best.map_or_else(String::new, |p| format!("p {}", format!("{p:.2}").trim_start_matches('0')));
    let name = format!("{} → {to}", app.label(flip.layer));
    let step = format::delta(flip.step.value);
    let text = format!("{number:>3}  {name:<8} {step} {sign}{se:<5} {best}");
    (text, if flip.within_noise { Role::Dim } else { Role::Text })
}
