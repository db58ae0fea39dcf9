//! Loss and speed of the current pattern, each number with unit, sample, spread and freshness.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{bars, write};
use crate::analysis::fit::{Fit, Point};
use crate::domain::{IndexSource, Speed};
use crate::engine::{Capability, Job};
use crate::tui::app::{App, Indexers};
use crate::tui::format;
use crate::tui::shown::{self, Fresh};
use crate::tui::theme::Role;

type Line = Vec<(String, Style)>;

/// Columns of a label.
const LABEL: usize = 8;
/// Below so many columns, units and remarks are left out.
const NARROW: usize = 38;

/// Draws loss and speed, in a frame where there is room for one.
pub fn draw(app: &App, area: Rect, framed: bool, buf: &mut Buffer) {
    let inner = if framed {
        let ops = shown::speed(app).1.first().map_or(String::new(), |s| format!(" · {} ops", s.ops));
        super::frame(buf, area, &format!("Quality and speed{ops}"), app.theme)
    } else {
        area
    };
    for (row, line) in lines(app, inner.width as usize, framed).iter().enumerate().take(inner.height as usize) {
        write(buf, inner, row as u16, line);
    }
}

fn label(app: &App, text: &str) -> (String, Style) {
    (format!("{text:<LABEL$}"), app.theme.role(Role::Dim))
}

fn lines(app: &App, width: usize, framed: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = indexers(app, width).into_iter().collect();
    lines.extend(loss(app, width));
    lines.extend(noise(app, width));
    lines.push(kept(app, width));
    let (fresh, speeds) = shown::speed(app);
    for speed in speeds.iter().take(2) {
        lines.push(ratio(app, speed, fresh, width));
    }
    if speeds.is_empty() {
        let text = match fresh {
            Fresh::Failed => "✗ failed",
            _ if app.model.is_none() => "needs a model",
            _ if app.model.as_ref().is_some_and(|m| !m.can.has(Capability::Timed)) => {
                "not timed: the worker lacks 'timed'"
            }
            _ if app.indexers == Indexers::Trained => "not timed with this pattern",
            _ if app.progress.is_some_and(|p| p.job == Job::Speed) => "being timed",
            _ => "measured when the keys rest",
        };
        lines.push(vec![label(app, "speed"), (text.into(), app.theme.role(Role::Dim))]);
    }
    if let Some(speed) = speeds.first() {
        let stale = fresh != Fresh::Measured;
        if framed {
            let mut bar = vec![label(app, "time")];
            bar.extend(bars::breakdown(speed.share, width.saturating_sub(LABEL), app.theme, stale));
            lines.push(bar);
        }
        let mut legend = Line::new();
        if framed && width >= 46 {
            legend.push(label(app, ""));
        }
        bars::legend(speed.share, app.theme, stale).into_iter().for_each(|p| add_if_fits(&mut legend, p, width));
        lines.push(legend);
        // Whatever runs here is no serving engine, and the ops say how far from one it is.
        let texts = if app.model.as_ref().is_some_and(|m| m.index == IndexSource::Oracle) {
            ["the oracle selects by full attention: sharing its indices saves no time", "oracle indices save no time"]
                .map(str::to_owned)
        } else {
            // Without its model, a session does not know where it was timed.
            let on = app.model.as_ref().map_or_else(|| ", from a file,".to_owned(), |m| format!(" on {}", m.device));
            [
                format!("{} ops{on} do not predict serving speed", speed.ops),
                format!("{} ops: not serving speed", speed.ops),
            ]
        };
        let [long, short] = texts;
        let text = if long.chars().count() <= width { long } else { short };
        lines.push(vec![(text, app.theme.role(Role::Warn))]);
    }
    lines.extend(projection(app, width));
    lines.extend(agreement(app, width));
    lines.extend(pinned(app));
    lines
}

/// Says that the numbers are those of trained indexers, and of which.
fn indexers(app: &App, width: usize) -> Option<Line> {
    let after = app.pattern().and_then(|pattern| app.screens.train.after(pattern));
    let steps = after.map_or(app.screens.train.done(), |after| after.steps);
    let mut line = vec![label(app, "with"), (format!("indexers after {steps} steps"), app.theme.role(Role::Accent))];
    add_if_fits(&mut line, (", speed as before".to_owned(), app.theme.role(Role::Dim)), width);
    (app.indexers == Indexers::Trained).then_some(line)
}

fn loss(app: &App, width: usize) -> Vec<Line> {
    let theme = app.theme;
    let (fresh, evaluation) = shown::loss(app);
    let Some(e) = evaluation else {
        let text = match fresh {
            Fresh::Failed => "✗ failed",
            _ if app.model.is_none() => "needs a model",
            _ => "measuring",
        };
        let nothing = |name| vec![label(app, name), (text.to_owned(), theme.role(Role::Dim))];
        return vec![nothing("loss"), nothing("Δloss")];
    };
    let style = theme.role(fresh.role());
    let mark = match fresh {
        // No green dot where the number says nothing.
        Fresh::Measured | Fresh::Growing if app.is_random() => {
            format!("≠ text: {}/{} random", e.sequences.0, e.sequences.1)
        }
        Fresh::Measured | Fresh::Growing => format!("● {}/{} sequences", e.sequences.0, e.sequences.1),
        other => other.mark().to_owned(),
    };
    let unit = if width >= NARROW { " nats" } else { "" };
    let mark_role = if fresh == Fresh::Growing || app.is_random() { Role::Warn } else { fresh.mark_role() };
    let first =
        vec![label(app, "loss"), (format!("{:>7}{unit} ", format::loss(e.loss)), style), (mark, theme.role(mark_role))];
    let Some(delta) = e.delta else {
        let why = app.topk().map_or_else(String::new, |k| format!("context ≤ {k}: no pattern can differ"));
        return vec![first, vec![(why, theme.role(Role::Warn))]];
    };
    let against = format!(" {} {}", app.reference_name(), format::loss(e.reference_loss));
    let mut second = vec![
        label(app, "Δloss"),
        (format!("{:>7} {}", format::delta(delta.value), format::spread(delta.spread(), theme.ascii)), style),
    ];
    add_if_fits(&mut second, (against, theme.role(Role::Dim)), width);
    let n = format::count(delta.n);
    let of = match delta.clusters {
        // Why there is no error, where there is none.
        _ if delta.spread().value().is_none() => "too few for ±".to_owned(),
        0 => format!("{} blocks", e.blocks),
        1 => "1 cluster".to_owned(),
        clusters => format!("{clusters} clusters"),
    };
    let long = app.topk().map(|k| format!("{n} targets that see > {k} keys, {of}"));
    let over =
        long.filter(|text| text.chars().count() + LABEL <= width).unwrap_or_else(|| format!("{n} eligible, {of}"));
    vec![first, second, vec![label(app, "over"), (over, theme.role(Role::Dim))]]
}

/// Says what low precision alone moves, beside the Δ that it blurs.
fn noise(app: &App, width: usize) -> Option<Line> {
    let noise = app.model.as_ref()?.noise?;
    let mut line =
        vec![label(app, "noise"), (format!("{:>7} ", format::delta(noise.delta)), app.theme.role(Role::Dim))];
    let again = format!("the reference again, {} targets", format::count(noise.targets));
    add_if_fits(&mut line, (again, app.theme.role(Role::Dim)), width);
    Some(line)
}

fn kept(app: &App, width: usize) -> Line {
    let Some(pattern) = app.pattern() else { return Line::new() };
    let share = pattern.full_count() as f64 / pattern.len() as f64;
    let text = format!("{}/{} Full ", pattern.full_count(), pattern.len());
    let percent = format!(" {}", format::percent(share));
    let room = width.saturating_sub(LABEL + text.chars().count() + percent.chars().count());
    let mut line = vec![label(app, "kept"), (text, app.theme.role(Role::Text))];
    line.extend(bars::meter(share, room, app.theme));
    line.push((percent, app.theme.role(Role::Text)));
    line
}

fn ratio(app: &App, speed: &Speed, fresh: Fresh, width: usize) -> Line {
    let theme = app.theme;
    let tokens = if speed.phase == "decode" { 1.0 } else { speed.context as f64 };
    let dash = if theme.ascii { "-" } else { "–" };
    let interval = speed.ratio.interval.map_or_else(String::new, |(low, high)| format!("{low:.2}{dash}{high:.2} "));
    // The reference is not faster than itself; its interval is the noise of the timing.
    let is_reference = app.reference() == Some(speed.pattern);
    let ratio = match (is_reference, app.pattern() == Some(speed.pattern)) {
        (true, true) => "reference ".to_owned(),
        (true, false) => format!("{:.2}× ", app.faster(speed)),
        (false, _) => format!("{:.2}× {interval}", speed.ratio.median),
    };
    let rate = format::rate(tokens / speed.seconds.median.max(1e-9));
    let mark = match fresh {
        Fresh::Measured if width >= 44 => {
            format!("● {} runs, ctx {}", speed.ratio.runs, format::count(speed.context))
        }
        Fresh::Measured => format!("● {} runs", speed.ratio.runs),
        other => other.mark().to_owned(),
    };
    let mut line =
        vec![label(app, &speed.phase), (ratio, theme.role(fresh.role())), (mark, theme.role(fresh.mark_role()))];
    add_if_fits(&mut line, (format!("  {rate}"), theme.role(Role::Dim)), width);
    line
}

/// Adds a piece that may be left out where there is no room.
fn add_if_fits(line: &mut Line, piece: (String, Style), width: usize) {
    let used: usize = line.iter().chain([&piece]).map(|(text, _)| text.chars().count()).sum();
    if used <= width {
        line.push(piece);
    }
}

/// Returns what the cost model fitted to all measured contexts predicts for longer ones.
fn projection(app: &App, width: usize) -> Option<Line> {
    let (pattern, reference) = (app.pattern()?, app.reference()?);
    let measured = app.known.results.values().flat_map(|r| &r.speed).chain(&app.known.profile);
    let points: Vec<Point> = measured.filter(|s| s.phase == "prefill").map(Point::of).collect();
    let longest = points.iter().map(|p| p.context).max()?;
    let fit = Fit::of(&points)?;
    let mut line = vec![label(app, "prefill≈")];
    // The error of the fit, at the longest context from the shorter ones alone, goes before a third context.
    let error = (format!("±{} ", format::percent(fit.held_out)), app.theme.role(Role::Dim));
    for times in [4, 16, 64] {
        let context = times * longest;
        let ratio = fit.seconds(reference.full_count(), context) / fit.seconds(pattern.full_count(), context);
        add_if_fits(&mut line, (format!("{ratio:.2}× at {} ", thousands(context)), app.theme.role(Role::Dim)), width);
        if times == 16 {
            add_if_fits(&mut line, error.clone(), width);
        }
    }
    Some(line)
}

/// Returns a context in short, such as `32K`.
fn thousands(context: usize) -> String {
    if context < 1024 { context.to_string() } else { format!("{}K", context / 1024) }
}

fn agreement(app: &App, width: usize) -> Option<Line> {
    let (fresh, evaluation) = shown::loss(app);
    let agreement = evaluation?.agreement?;
    let (token, unit) = if width >= 46 { (" token", " nats") } else { ("", "") };
    let text = format!("{:.1} % same top{token}, KL {:.4}{unit}", agreement.same_top * 100.0, agreement.kl);
    Some(vec![label(app, "agree"), (text, app.theme.role(fresh.role()))])
}

fn pinned(app: &App) -> Option<Line> {
    let pinned = app.pinned?;
    let results = app.results_of(pinned);
    let delta = results.and_then(|r| r.evaluation.as_ref()?.delta).map(|d| format::delta(d.value));
    let speed = results.and_then(|r| r.speed.first()).map(|s| format!("{:.2}×", app.faster(s)));
    let text = format!(
        "{}/{} Full  Δ {}  {}",
        pinned.full_count(),
        pinned.len(),
        delta.as_deref().unwrap_or("not measured"),
        speed.unwrap_or_default()
    );
    Some(vec![label(app, "B"), (text, app.theme.role(Role::Second))])
}
