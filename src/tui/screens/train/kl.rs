//! KL of the trained layers: over the steps, and at both ends of the stage.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::domain::{TrainingProgress, TrainingStep};
use crate::tui::app::App;
use crate::tui::format;
use crate::tui::theme::{Role, Shade};
use crate::tui::widgets::{frame, write};

/// Columns of a layer's name beside its strip.
const NAME: u16 = 5;
/// Most steps over which a KL is averaged.
const SPAN: usize = 10;
/// Rows of a layer's strip from which on the uppermost stays free.
const APART: usize = 4;

/// Returns the mean KL of each trained layer over every column's share of the steps; `None` where it has none yet.
fn columns(steps: &[TrainingStep], all: u64, width: usize) -> Vec<Option<Vec<f64>>> {
    let mut columns: Vec<(usize, Vec<f64>)> = vec![(0, Vec::new()); width];
    let at = |step: &TrainingStep| ((step.done.saturating_sub(1)) as f64 / all.max(1) as f64 * width as f64) as usize;
    for step in steps {
        let Some((n, sum)) = columns.get_mut(at(step)) else { continue };
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
///
/// Where there are more rows than layers, each layer has several, and the column is as high as its KL.
pub fn strip(app: &App, progress: &TrainingProgress, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let largest =
        app.screens.train.steps.iter().flat_map(|s| &s.kl).copied().filter(|kl| kl.is_finite()).fold(0.0, f64::max);
    let title = format!("KL per layer over steps, 0 to {largest:.2} nats per query row");
    let short = "KL per layer over steps";
    let inner = frame(buf, area, if area.width as usize >= title.chars().count() + 6 { &title } else { short }, theme);
    let width = inner.width.saturating_sub(NAME) as usize;
    let columns = columns(&app.screens.train.steps, progress.settings.all_steps(), width);
    let (layers, height) = (progress.layers.len(), inner.height as usize);
    let strips = layers.min(height);
    for strip in 0..strips {
        // Where there are more layers than rows, some share one: the first of them is named.
        let (from, to) = (strip * layers / strips, (strip + 1) * layers / strips);
        let (top, end) = (strip * height / strips, (strip + 1) * height / strips);
        let name = format!("L{:<3} ", progress.layers[from]);
        write(buf, inner, end as u16 - 1, &[(name, theme.role(Role::Dim))]);
        let rows = end - top - usize::from(end - top >= APART);
        for (x, column) in columns.iter().enumerate() {
            let Some(group) = column.as_ref().and_then(|kl| kl.get(from..to)) else { continue };
            let value = group.iter().sum::<f64>() / group.len() as f64 / largest.max(f64::MIN_POSITIVE);
            let high = ((value * rows as f64).ceil() as usize).clamp(1, rows);
            for row in end - high..end {
                if let Some(cell) = buf.cell_mut((inner.x + NAME + x as u16, inner.y + row as u16)) {
                    theme.paint(cell, Shade::of(Some(value)));
                }
            }
        }
    }
}

/// Draws each layer's KL at the beginning and the end of this stage so far, and the floor that no indexer could go below.
///
/// The two stages are not compared: the sparse one measures over the selected keys only.
pub fn layers(app: &App, progress: &TrainingProgress, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let sparse = app.screens.train.steps.last().is_some_and(|s| s.sparse);
    let steps: Vec<&TrainingStep> = app.screens.train.steps.iter().filter(|s| s.sparse == sparse).collect();
    let span = SPAN.min(steps.len());
    let stage = if sparse { "Sparse" } else { "Warm-up" };
    let inner = frame(buf, area, &format!("{stage} KL: first {span}, last {span}, floor"), theme);
    let mean = |steps: &[&TrainingStep], of: fn(&TrainingStep) -> &Vec<f64>, at: usize| {
        let values: Vec<f64> = steps.iter().filter_map(|s| of(s).get(at).copied()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
    // A training that was put aside by an earlier version has no steps of before.
    let began = if sparse { progress.settings.steps + 1 } else { 1 };
    let first = if steps.first().is_some_and(|s| s.done == began) { &steps[..span] } else { &[] };
    let last = &steps[steps.len() - span..];
    for (row, layer) in progress.layers.iter().enumerate().take(inner.height as usize) {
        let before = mean(first, |s| &s.kl, row);
        let (now, floor) = (mean(last, |s| &s.kl, row), mean(last, |s| &s.floor, row));
        let text = format!("L{layer:<4} {:>7} {:>7} {:>7}", number(before), number(now), number(floor));
        let role = if before.is_none_or(|before| now < Some(before)) { Role::Text } else { Role::Dim };
        write(buf, inner, row as u16, &[(format::fit(&text, inner.width as usize), theme.role(role))]);
    }
}
