//! The line that says what the map shows, with the scale of its colours.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Window, heatmap, strip, write, write_right};
use crate::domain::Pattern;
use crate::tui::app::{App, Indexers};
use crate::tui::layout::{Cell, Layout, MapView};
use crate::tui::screens::overlap::Measure;
use crate::tui::theme::{Role, Shade};

/// Draws the caption.
pub fn draw(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some(map) = layout.map else { return };
    let area = map.caption;
    let theme = app.theme;
    let Some(matrix) = app.matrix(app.screens.overlap.measure.metric()) else { return };
    let what = match (map.view, app.screens.overlap.measure) {
        (MapView::Ribbon, measure) => format!("{} with l−d, d=1 (top) …", measure.name()),
        (_, Measure::Overlap) => "overlap |A∩B|/k".to_owned(),
        (_, Measure::Jaccard) => "Jaccard |A∩B|/|A∪B|".to_owned(),
        (_, Measure::AboveChance) => "overlap above chance".to_owned(),
    };
    let what =
        if theme.ascii { what.replace("|A∩B|/k", "|A and B|/k").replace("|A∩B|/|A∪B|", "and/or") } else { what };
    let pooled = match map.cell {
        Cell::Pooled(k) if map.view != MapView::Ribbon => format!(", {k} rows a pixel"),
        _ => String::new(),
    };
    let part = part(app, layout).map_or_else(String::new, |part| format!("{part} · "));
    // What is not seen is said before all else.
    let wide = area.width >= if part.is_empty() { 48 } else { 84 };
    let what = if wide { what } else { app.screens.overlap.measure.name().to_owned() };
    // The recording is of the indexers that the model was opened with, whoever's numbers stand beside it.
    let whose = if app.indexers == Indexers::Trained { ", before" } else { "" };
    let text = format!("{part}{what}{pooled}{whose}, {} queries", matrix.counted);
    let scale = scale(app, matrix.chance, wide);
    let width: usize = scale.iter().map(|(t, _)| t.chars().count()).sum();
    let narrow = Rect { width: area.width.saturating_sub(width as u16 + 1), ..area };
    let text = crate::tui::format::fit(&text, narrow.width as usize);
    write(buf, narrow, 0, &[(text, theme.role(Role::Dim))]);
    write_right(buf, area, 0, &scale);
}

/// Says which layers are seen where the map does not show all of them.
fn part(app: &App, layout: &Layout) -> Option<String> {
    let total = app.pattern().map_or(0, Pattern::len);
    let named = |what: &str, seen: Window| {
        let (first, last) = (seen.first, (seen.first + seen.count).saturating_sub(1));
        (seen.count < total).then(|| format!("{what} {first}–{last} of {total}"))
    };
    let columns = named("layers", strip::window(app, layout));
    let rows = layout.map.and_then(|m| named("rows", heatmap::windows(app, layout, m.cell, m.matrix?).0));
    let parts: Vec<String> = columns.into_iter().chain(rows).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Returns the scale from 0 to 1 with a tick where chance is.
fn scale(app: &App, chance: Option<f64>, wide: bool) -> Vec<(String, Style)> {
    let columns = if wide { 16 } else { 8 };
    let theme = app.theme;
    let tick = match app.screens.overlap.measure {
        Measure::AboveChance => None,
        _ => chance,
    };
    let mut pieces = vec![("0 ".to_owned(), theme.role(Role::Dim))];
    for i in 0..columns {
        let value = (i as f64 + 0.5) / columns as f64;
        let here = tick.is_some_and(|c| (c * columns as f64) as usize == i);
        let mut cell = ratatui::buffer::Cell::default();
        theme.paint(&mut cell, Shade::of(Some(value)));
        let glyph = if here { "┊".to_owned() } else { cell.symbol().to_owned() };
        let style = if here { theme.on_shade(Shade::of(Some(value))) } else { cell.style() };
        pieces.push((glyph, style));
    }
    let end = tick.map_or_else(|| " 1".to_owned(), |c| format!(" 1 ┊{}{c:.2}", if wide { "chance " } else { "" }));
    pieces.push((end, theme.role(Role::Dim)));
    pieces
}
