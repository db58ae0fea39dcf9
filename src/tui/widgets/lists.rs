//! Groups, loss by position, and the patterns tried, one per line.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Window, bars, frame, write};
use crate::tui::app::App;
use crate::tui::format;
use crate::tui::shown;
use crate::tui::theme::Role;

/// Draws the groups around that of the cursor, each with its weakest coverage.
pub fn groups(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(pattern) = app.pattern() else { return };
    let groups = pattern.groups();
    let (coverage, measured) = app.coverage();
    let mark = if measured { "●" } else { "≈" };
    let inner = frame(buf, area, &format!("Groups {}   weakest coverage {mark}", groups.len()), app.theme);
    let here = groups.iter().position(|g| g.source == pattern.source(app.cursor.row)).unwrap_or(0);
    let seen = Window::around(here, inner.height as usize, groups.len());
    for (row, at) in (seen.first..seen.first + seen.count).enumerate() {
        let group = groups[at];
        let role = app.theme.role(if at == here { Role::Text } else { Role::Dim });
        let name = format!("{:>3}–{:<3} F+{}S", group.source, group.end - 1, group.end - group.source - 1);
        let mut line = vec![(format!("{}{name:<14}", if at == here { "▸" } else { " " }), role)];
        let weakest = (group.source + 1..group.end)
            .filter_map(|l| coverage.get(l).copied().flatten().map(|e| e.value))
            .min_by(f64::total_cmp);
        if let Some(value) = weakest {
            line.push((format!("{value:.2} "), role));
            line.extend(bars::meter(value, (inner.width as usize).saturating_sub(20).min(40), app.theme));
        }
        write(buf, inner, row as u16, &line);
    }
}

/// Draws loss and Δ by position.
pub fn positions(app: &App, area: Rect, buf: &mut Buffer) {
    let inner = frame(buf, area, "Loss by position", app.theme);
    let (fresh, evaluation) = shown::loss(app);
    let (dim, style) = (app.theme.role(Role::Dim), app.theme.role(fresh.role()));
    let Some(evaluation) = evaluation else {
        write(buf, inner, 0, &[("not measured yet".into(), dim)]);
        return;
    };
    write(buf, inner, 0, &[("position        targets    loss     Δloss".into(), dim)]);
    for (row, bucket) in evaluation.by_position.iter().enumerate() {
        let delta = bucket.delta.map_or_else(|| "–".to_owned(), format::delta);
        let range = format!("{}–{}", bucket.from, bucket.to);
        let text =
            format!("{range:<13} {:>9}  {:>7}  {delta:>8}", format::count(bucket.targets), format::loss(bucket.loss));
        write(buf, inner, row as u16 + 1, &[(text, style)]);
    }
    if let Some(worst) = evaluation.worst_sequence {
        let text = format!("worst sequence {}: Δ {} nats", worst.index, format::delta(worst.delta));
        write(buf, inner, evaluation.by_position.len() as u16 + 1, &[(text, style)]);
    }
}

/// Draws the patterns tried, the newest first.
pub fn history(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(history) = &app.history else { return };
    let inner = frame(buf, area, "History   u undo  Ctrl-R redo", app.theme);
    let count = history.nodes().len();
    let seen = Window::around(count - 1 - history.current(), inner.height as usize, count);
    for row in 0..seen.count {
        let at = count - 1 - (seen.first + row);
        let node = &history.nodes()[at];
        let current = at == history.current();
        let role = app.theme.role(if current { Role::Text } else { Role::Dim });
        let results = app.results_of(node.pattern);
        let delta =
            results.and_then(|r| r.evaluation.as_ref()?.delta).map_or_else(|| "–".into(), |d| format::delta(d.value));
        let speed =
            results.and_then(|r| r.speed.first()).map_or_else(String::new, |s| format!("{:.2}×", app.faster(s)));
        let numbers = format!("{:>3}F {delta:>8} {speed:>6}", node.pattern.full_count());
        let room = (inner.width as usize).saturating_sub(numbers.chars().count() + 7);
        let short = node.change.replace("Full → Shared", "F→S").replace("Shared → Full", "S→F");
        let change = format::fit(&short, room);
        let text = format!("{}{at:>3}  {change:<room$} {numbers}", if current { "▸" } else { " " });
        write(buf, inner, row as u16, &[(text, role)]);
    }
}
