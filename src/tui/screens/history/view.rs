//! The History screen: Δloss plotted against speed, two patterns side by side, and the tree of what was tried.
//!
//! ```text
//! S, M, L  plot │ the entry against B / entries, the newest first / the entry's pattern
//! XS       entries
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Axes, entries, plotted, versus};
use crate::domain::Origin;
use crate::engine::Capability;
use crate::tui::app::App;
use crate::tui::refuse::lack;
use crate::tui::theme::Role;
use crate::tui::widgets::plot::{self, Mark, Plot};
use crate::tui::widgets::{frame, wrapped, write};
use crate::tui::{format, widgets};

/// Columns of the panel beside the plot.
const PANEL: u16 = 38;

/// The parts of the screen.
struct Areas {
    plot: Option<Rect>,
    panel: Option<Rect>,
    list: Rect,
    pattern: Option<Rect>,
}

fn areas(body: Rect) -> Areas {
    if body.height < 14 || body.width < 60 {
        return Areas { plot: None, panel: None, list: body, pattern: None };
    }
    let upper = (body.height * 3 / 5).clamp(9, 28);
    let panel = if body.width >= PANEL + 36 { PANEL.max(body.width / 4).min(60) } else { 0 };
    let top = Rect { height: upper, ..body };
    let left = body.width - panel;
    Areas {
        plot: Some(Rect { width: left, ..top }),
        panel: (panel > 0).then(|| Rect { x: body.x + left, width: panel, ..top }),
        list: Rect { y: body.y + upper, height: body.height - upper - 1, ..body },
        pattern: Some(Rect { y: body.bottom() - 1, height: 1, ..body }),
    }
}

/// Returns where the entries are listed.
pub fn list_area(body: Rect) -> Rect {
    areas(body).list
}

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let areas = areas(body);
    if let Some(area) = areas.plot {
        plot(app, area, buf);
    }
    if let Some(area) = areas.panel {
        versus::draw(app, area, buf);
    }
    entries::draw(app, areas.list, buf);
    if let (Some(area), Some(pattern)) = (areas.pattern, app.entry_pattern()) {
        let area = Rect { x: area.x + 1, width: area.width.saturating_sub(1), ..area };
        write(buf, area, 0, &widgets::letters(pattern, app.theme));
    }
}

fn plot(app: &App, area: Rect, buf: &mut Buffer) {
    let dots = plotted::dots(app);
    let (line, best) = plotted::frontier(app, &dots);
    let (axes, theme) = (app.screens.history.axes, app.theme);
    let entries = app.history.as_ref().map_or(0, |h| h.nodes().len());
    let found = match plotted::correlation(app, &dots) {
        Some(c) => {
            let interval = c.interval.map_or_else(String::new, |(low, high)| format!(" ({low:+.2} to {high:+.2})"));
            format!("Spearman's ρ {:+.2}{interval}, {} patterns, by Full count", c.rho, c.n).replace('-', "−")
        }
        None if axes.is_lost() => format!("{} patterns, too few per Full count", dots.len()),
        None => {
            let searched = dots.iter().filter(|d| d.entry.is_none()).count();
            let also = if searched > 0 { format!(" ({searched} · by the search)") } else { String::new() };
            format!("{} measured{also}, {} not clearly beaten", dots.len(), best.len())
        }
    };
    let inner = frame(buf, area, &format!("Δloss against {}", axes.name()), theme);
    write(buf, inner, 0, &[(format::fit(&found, inner.width as usize), theme.role(Role::Dim))]);
    let inner = Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner };
    if dots.is_empty() {
        let needed = match axes {
            Axes::Prefill | Axes::Decode => Some(Capability::Timed),
            _ => axes.affinity().map(|_| Capability::Affinity),
        };
        let lacking = needed.and_then(|needed| lack(app, needed));
        let why = match (axes.affinity(), axes, &app.trace) {
            (Some(kind), ..) if !app.known.affinities.iter().any(|(k, _)| *k == kind) => {
                lacking.as_deref().unwrap_or("it is being measured, or needs a model")
            }
            (_, Axes::Lost, None) => "overlap needs a recording",
            (_, Axes::Prefill | Axes::Decode, _) => {
                lacking.as_deref().unwrap_or("no pattern's loss and speed are both measured yet")
            }
            _ => "no pattern's loss is measured yet",
        };
        let text = format!("{why} ({entries} in the history)");
        for (row, line) in wrapped(&text, inner.width as usize).into_iter().enumerate() {
            write(buf, inner, inner.height / 3 + row as u16, &[(line, theme.role(Role::Dim))]);
        }
        return;
    }
    let current = app.history.as_ref().map_or(0, crate::tui::history::History::current);
    let here = app.pattern();
    let mut marks: Vec<(u8, Mark)> = dots
        .iter()
        .enumerate()
        .map(|(i, dot)| {
            let imported = app
                .known
                .results
                .get(&dot.pattern)
                .and_then(|r| r.evaluation.as_ref())
                .is_some_and(|e| e.origin == Origin::Imported);
            let name = app.name_of(dot.pattern);
            let (rank, glyph, role, label) = match () {
                () if Some(dot.pattern) == here => (4, '◆', Role::Accent, format!("now #{current}")),
                () if Some(dot.pattern) == app.pinned => {
                    (3, '▲', Role::Second, dot.entry.map_or_else(|| "B".to_owned(), |entry| format!("B #{entry}")))
                }
                () if name.is_some() => (2, '■', Role::Good, name.unwrap_or_default().to_owned()),
                () if best.contains(&i) => (1, if imported { '○' } else { '●' }, Role::Good, String::new()),
                () if dot.entry.is_none() => (0, '·', Role::Text, String::new()),
                () => (0, if imported { '○' } else { '•' }, Role::Dim, String::new()),
            };
            (rank, Mark { x: dot.x, y: dot.delta.value, se: dot.delta.spread().value(), glyph, role, label })
        })
        .collect();
    marks.sort_by_key(|(rank, _)| *rank);
    let chosen = app.entry_pattern().filter(|p| Some(*p) != here);
    for dot in dots.iter().filter(|d| Some(d.pattern) == chosen) {
        let label = format!("#{}", app.entry());
        marks.push((5, Mark { x: dot.x, y: dot.delta.value, se: None, glyph: '◇', role: Role::Text, label }));
    }
    let marks: Vec<Mark> = marks.into_iter().map(|(_, mark)| mark).collect();
    let line: Vec<(f64, f64)> = line.iter().map(|&i| (dots[i].x, dots[i].delta.value)).collect();
    let across: fn(f64) -> String = match axes {
        Axes::Prefill | Axes::Decode => |x| format!("{x:.2}×"),
        Axes::Full => |x| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() },
        _ => |x| format!("{x:.2}"),
    };
    // Better is to the right, whatever is plotted.
    let falling = axes == Axes::Full;
    plot::draw(
        Plot { marks: &marks, line: &line, level: None, falling, across, upwards: format::delta },
        inner,
        theme,
        buf,
    );
}
