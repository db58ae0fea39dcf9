//! The pair of layers under the cursor in words and numbers.

use std::fmt::Write;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{loupe, write};
use crate::analysis::Metric;
use crate::domain::{Group, Pattern};
use crate::tui::app::{App, Indexers};
use crate::tui::screens::overlap::keys::{cannot_toggle, toggle};
use crate::tui::theme::Role;

type Line = Vec<(String, Style)>;

/// Returns the heading: which layer uses whose indices.
pub fn title(app: &App, pattern: Pattern) -> String {
    let (row, column) = (app.cursor.row, app.cursor.column);
    let letter = pattern.role(row).letter();
    match pattern.source(row) {
        source if source == row => format!("{} {letter} · {}", app.label(row), app.label(column)),
        source if source == column => format!("{} {letter} ← {}", app.label(row), app.label(column)),
        source => format!("{} {letter} ← {} · {}", app.label(row), app.label(source), app.label(column)),
    }
}

/// Draws the pair in a frame of its own.
pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(pattern) = app.pattern() else { return };
    let inner = super::frame(buf, area, &format!("Pair  {}", title(app, pattern)), app.theme);
    for (row, line) in lines(app, pattern).iter().enumerate().take(inner.height as usize) {
        write(buf, inner, row as u16, line);
    }
}

/// Draws pair and loupe into the small screen, without a frame.
pub fn draw_small(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(pattern) = app.pattern() else { return };
    let theme = app.theme;
    let heading =
        vec![(title(app, pattern), theme.role(Role::Text)), (format!("  {}", overlap(app)), theme.role(Role::Text))];
    write(buf, area, 0, &heading);
    if area.height < 8 {
        for (row, line) in lines(app, pattern).iter().skip(1).enumerate() {
            write(buf, Rect { height: area.height, ..area }, row as u16 + 1, line);
        }
        return;
    }
    let below = Rect { y: area.y + 1, height: 6, width: loupe::COLUMNS.min(area.width), ..area };
    loupe::draw(app, below, buf);
    let side = Rect { x: area.x + loupe::COLUMNS, width: area.width.saturating_sub(loupe::COLUMNS), ..below };
    for (row, (name, value)) in numbers(app).iter().enumerate() {
        write(
            buf,
            side,
            row as u16,
            &[(format!("{name} "), theme.role(Role::Dim)), (value.clone(), theme.role(Role::Text))],
        );
    }
    write(buf, area, 7, &group(app, pattern));
    if area.height > 8 {
        write(buf, area, 8, &action(app));
    }
}

fn overlap(app: &App) -> String {
    let matrix = app.matrix(Metric::Overlap);
    let own = |l| matrix.is_some_and(|m| m.is_own(l));
    let (row, column) = (app.cursor.row, app.cursor.column);
    if matrix.is_some() && row != column && !(own(row) && own(column)) {
        let layer = if own(row) { column } else { row };
        return format!("{} has no set of its own in the recording", app.label(layer));
    }
    matrix.and_then(|m| m.estimate(row, column)).map_or_else(
        || "overlap –".into(),
        |e| format!("overlap {:.3} {}", e.value, short_spread(e.se, app.theme.ascii)),
    )
}

/// Returns a spread with three decimals.
fn short_spread(se: Option<f64>, ascii: bool) -> String {
    let sign = if ascii { "+/-" } else { "±" };
    se.map_or_else(|| format!("{sign}–"), |se| format!("{sign}{se:.3}"))
}

/// Returns the short numbers beside the loupe.
fn numbers(app: &App) -> Vec<(&'static str, String)> {
    let (row, column) = (app.cursor.row, app.cursor.column);
    let mut found = Vec::new();
    if let Some(value) = app.matrix(Metric::Jaccard).and_then(|m| m.get(row, column)) {
        found.push(("J  ", format!("{value:.3}")));
    }
    if let Some(matrix) = app.matrix(Metric::Overlap) {
        if let Some(chance) = matrix.chance {
            found.push(("rnd", format!("{chance:.3}")));
        }
        found.push(("n  ", format!("{}", matrix.counted)));
    }
    let (coverage, measured) = app.coverage();
    if let Some(estimate) = coverage.get(row).copied().flatten() {
        found.push(("cov", format!("{:.3}{}", estimate.value, if measured { "●" } else { "≈" })));
    }
    if let Some(floor) = floor(app) {
        found.push(("fl ", format!("{floor:.3}")));
    }
    found
}

fn lines(app: &App, pattern: Pattern) -> Vec<Line> {
    let theme = app.theme;
    let (text, dim) = (theme.role(Role::Text), theme.role(Role::Dim));
    let k = app.topk().map_or_else(String::new, |k| {
        let both = app.matrix(Metric::Overlap).and_then(|m| m.get(app.cursor.row, app.cursor.column));
        both.map_or_else(String::new, |o| format!("  {:.0} of {k} keys", o * k as f64))
    });
    let mut lines = vec![vec![(overlap(app), text), (k, dim)]];
    let mut second = Line::new();
    for (name, value) in numbers(app) {
        match name.trim() {
            "J" => second.extend([("Jaccard ".into(), dim), (value, text)]),
            "rnd" => second.extend([("  chance ".into(), dim), (value, text)]),
            "n" => second.push((format!("  {value} queries"), dim)),
            _ => {}
        }
    }
    lines.push(second);
    lines.push(coverage(app, pattern));
    lines.push(group(app, pattern));
    if let Some(floor) = floor(app) {
        lines.push(vec![
            ("floor ".into(), dim),
            (format!("{floor:.3} nats"), text),
            (" of KL, for any one indexer".into(), dim),
        ]);
    }
    lines.push(action(app));
    lines
}

/// Returns the coverage of the row layer: measured under this pattern, and what the recording predicted.
fn coverage(app: &App, pattern: Pattern) -> Line {
    let theme = app.theme;
    let row = app.cursor.row;
    let mut line = vec![("coverage ".to_owned(), theme.role(Role::Dim))];
    if pattern.is_full(row) {
        line.push(("own indexer".into(), theme.role(Role::Text)));
        return line;
    }
    let (layers, measured) = app.coverage();
    match layers.get(row).copied().flatten() {
        None if app.indexers == Indexers::Trained && app.current().is_none() => {
            line.push(("not measured yet".into(), theme.role(Role::Dim)));
        }
        None => line.push(("no indexer of its own to tell".into(), theme.role(Role::Dim))),
        Some(e) if measured => {
            line.push((format!("{:.3} {} ", e.value, short_spread(e.se, theme.ascii)), theme.role(Role::Text)));
            line.push(("● ".into(), theme.role(Role::Good)));
            let before = app.matrix(Metric::Overlap).filter(|m| m.is_own(row) && m.is_own(pattern.source(row)));
            if let Some(value) = before.and_then(|m| m.get(row, pattern.source(row))) {
                line.push((format!("recorded {value:.3}"), theme.role(Role::Dim)));
            }
        }
        Some(e) => line.push((format!("{:.3} ≈ from the recording", e.value), theme.role(Role::Dim))),
    }
    line
}

/// Returns the group of the row layer.
fn group_of(app: &App, pattern: Pattern) -> Option<Group> {
    let source = pattern.source(app.cursor.row);
    pattern.groups().into_iter().find(|g| g.source == source)
}

/// Returns what no single indexer could lower in the group's KL, where a training has measured it.
fn floor(app: &App) -> Option<f64> {
    let group = group_of(app, app.pattern()?)?;
    app.floor(group.source, group.end).filter(|_| group.end > group.source + 1)
}

fn group(app: &App, pattern: Pattern) -> Line {
    let Some(group) = group_of(app, pattern) else { return Line::new() };
    let (layers, measured) = app.coverage();
    let weakest = (group.source..group.end)
        .filter_map(|l| Some((l, layers.get(l).copied().flatten()?.value)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let shared = group.end - group.source - 1;
    let mut text = format!("group {}–{}  F+{shared}S", app.label(group.source), app.label(group.end - 1));
    if let (Some((layer, value)), true) = (weakest, shared > 0) {
        let _ = write!(text, "  weakest {}{value:.2} {}", if measured { "" } else { "≈" }, app.label(layer));
    }
    vec![(text, app.theme.role(Role::Dim))]
}

fn action(app: &App) -> Line {
    let theme = app.theme;
    match cannot_toggle(app) {
        None => vec![("Space ".into(), theme.role(Role::Accent)), (toggle(app), theme.role(Role::Good))],
        Some(why) => vec![(why, theme.role(Role::Dim))],
    }
}
