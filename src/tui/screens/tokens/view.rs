//! The Tokens screen: which keys two layers select for one query.
//!
//! ```text
//! the query and what the two share
//! both sets along the whole context
//! the text up to the query, selected tokens marked / what the marks mean
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::density::density;
use super::text::{brackets, lines, style};
use super::{Chosen, PairSets};
use crate::domain::SelectionUnit;
use crate::tui::app::App;
use crate::tui::format;
use crate::tui::theme::Role;
use crate::tui::widgets::{status, write, write_right};

type Line = Vec<(String, Style)>;

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let Some(sets) = app.pair_sets() else {
        status::waiting(app, body, buf);
        return;
    };
    let theme = app.theme;
    write(buf, body, 0, &heading(app, &sets));
    let position = sets.query.position as usize;
    let label = |layer: usize| format!(" {:<4}", app.label(layer));
    let end = format!(" {} ", format::count(position));
    let width = (body.width as usize).saturating_sub(label(0).len() + end.chars().count() + 2);
    let pair = [(app.cursor.row, sets.a, Chosen::OnlyA), (app.cursor.column, sets.b, Chosen::OnlyB)];
    for (row, (layer, set, chosen)) in pair.into_iter().enumerate() {
        let marks = density(set, sets.unit.visible(position), width, theme.ascii);
        let (dim, accent) = (theme.role(Role::Dim), style(theme, chosen));
        write(
            buf,
            body,
            1 + row as u16,
            &[(label(layer), accent), ("0 ".into(), dim), (marks, accent), (end.clone(), dim)],
        );
    }
    for (row, line) in text(app, body, app.screens.tokens.back).iter().enumerate() {
        write(buf, text_area(body), row as u16, line);
    }
    let legend = Rect { y: body.bottom().saturating_sub(1), height: 1, ..body };
    write(buf, legend, 0, &meaning(app, &sets));
    if app.texts.is_empty() {
        write_right(buf, legend, 0, &[("ids: no tokenizer is open ".into(), theme.role(Role::Dim))]);
    }
}

fn text_area(body: Rect) -> Rect {
    let (width, height) = (body.width.saturating_sub(2), body.height.saturating_sub(6));
    Rect { x: body.x + 1, y: body.y + 4, width, height }
}

/// Returns the lines of the text that are seen after so many were scrolled back.
pub fn text(app: &App, body: Rect, back: usize) -> Vec<Line> {
    let area = text_area(body);
    let sets = app.pair_sets();
    sets.map_or_else(Vec::new, |sets| lines(app, &sets, area.width as usize, area.height as usize, back))
}

/// Returns which query is looked at, and what the two layers share.
fn heading(app: &App, sets: &PairSets) -> Line {
    let theme = app.theme;
    let (row, column) = (app.cursor.row, app.cursor.column);
    let trace = app.trace.as_ref().expect("sets come from a recording");
    let borrowed = |layer: usize| {
        let pattern = trace.meta.pattern;
        if pattern.is_full(layer) {
            String::new()
        } else {
            format!(" (recorded with {}'s)", app.label(pattern.source(layer)))
        }
    };
    let k = trace.meta.index_topk;
    let place = match (&trace.tokens.len(), sets.query.position) {
        (1, position) => format!(" query {}", format::count(position as usize)),
        (_, position) => format!(" query {}:{}", sets.query.sequence, format::count(position as usize)),
    };
    let recorded =
        format!(", {} of {} recorded", format::count(app.query().unwrap_or(0) + 1), format::count(trace.queries.len()));
    let (shared, selected) = (sets.shared(), sets.a.len());
    let share = if trace.meta.topk().counts(sets.query.position as usize) {
        let of = match (trace.meta.unit, trace.meta.groups) {
            (SelectionUnit::Token, 1) => String::new(),
            (unit, 1) => format!(" {}", unit.plural()),
            (unit, groups) => format!(" {} (group 0 of {groups})", unit.plural()),
        };
        format!("   share {shared} of {selected}{of} = {:.3}", shared as f64 / selected.max(1) as f64)
    } else {
        // Every layer selects all there is.
        format!(
            "   sees {} {}, at most k = {k}: no layer can differ",
            trace.meta.visible(sets.query),
            trace.meta.unit.plural()
        )
    };
    vec![
        (place, theme.role(Role::Text)),
        (recorded, theme.role(Role::Dim)),
        (format!("   {}", app.label(row)), style(theme, Chosen::OnlyA)),
        (borrowed(row), theme.role(Role::Dim)),
        (" needs, ".into(), theme.role(Role::Dim)),
        (app.label(column), style(theme, Chosen::OnlyB)),
        (borrowed(column), theme.role(Role::Dim)),
        (" lends".into(), theme.role(Role::Dim)),
        (share, theme.role(Role::Text)),
    ]
}

/// Returns what the marks mean, with their numbers.
fn meaning(app: &App, sets: &PairSets) -> Line {
    let shared = sets.shared();
    let (row, column) = (app.cursor.row, app.cursor.column);
    let entry = |chosen: Chosen, name: String, count: usize| {
        let (open, close) = brackets(app.theme, chosen);
        (format!(" {open}{name}{close} {count}  "), style(app.theme, chosen))
    };
    vec![
        entry(Chosen::Both, "both".into(), shared),
        entry(Chosen::OnlyA, format!("only {}", app.label(row)), sets.a.len() - shared),
        entry(Chosen::OnlyB, format!("only {}", app.label(column)), sets.b.len() - shared),
        (" ▶ query".into(), app.theme.role(Role::Text)),
        (
            if app.screens.tokens.only_differences { "   only differences" } else { "" }.into(),
            app.theme.role(Role::Dim),
        ),
    ]
}
