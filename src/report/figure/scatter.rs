//! Loss against the overlap that a pattern gives up.

use super::{Dot, Figure, dots_csv, history, overlap, plot};
use crate::analysis::correlation::{Correlation, stratified};
use crate::analysis::coverage;
use crate::domain::{OverlapMatrix, Pattern};
use crate::report::axes::{Axis, LABEL};
use crate::report::palette::Ink;
use crate::report::scene::{Anchor, Scene};
use crate::report::{Report, ReportError};

/// Returns the patterns of the history, then those along searches on the same text, each once, without the reference.
fn dots(report: &Report) -> Result<Vec<Dot>, ReportError> {
    let matrix = overlap::matrix(report, Figure::Scatter)?;
    let session = &report.session;
    let own = own_layers(report, matrix);
    let given_up = |pattern| given_up(matrix, &own, pattern);
    let mut dots = history(report, |i| given_up(session.history[i].pattern));
    for record in session.searches.iter().filter(|record| record.calibration == session.calibration) {
        for (i, flip) in record.order.iter().enumerate() {
            let pattern = record.after(i + 1);
            if let Some(x) = given_up(pattern).filter(|_| !dots.iter().any(|dot| dot.pattern == pattern)) {
                dots.push(Dot { pattern, x, delta: flip.delta });
            }
        }
    }
    Figure::Scatter.some(dots)
}

/// Returns which layers have an indexer, as far as the session tells: those that ran it in the recording or in a pattern.
fn own_layers(report: &Report, matrix: &OverlapMatrix) -> Vec<bool> {
    let session = &report.session;
    let started = session.searches.iter().map(|record| record.start);
    let patterns: Vec<Pattern> = session.history.iter().map(|step| step.pattern).chain(started).collect();
    let has = |l: usize| matrix.is_own(l) || patterns.iter().any(|pattern| l < pattern.len() && pattern.is_full(l));
    (0..matrix.layers).map(has).collect()
}

/// Returns Σ (1 − overlap with the serving layer) over the Shared layers that have an indexer of their own; `None`
/// without such layers, and where the set of one is not known.
fn given_up(matrix: &OverlapMatrix, own: &[bool], pattern: Pattern) -> Option<f64> {
    if matrix.layers != pattern.len() {
        return None;
    }
    let covered = coverage::predicted(matrix, pattern);
    let mut shared = (0..pattern.len()).filter(|&l| !pattern.is_full(l) && own[l]).peekable();
    shared.peek()?;
    shared.map(|l| covered[l].map(|e| 1.0 - e.value)).sum()
}

fn correlation(dots: &[Dot]) -> Option<Correlation> {
    stratified(&dots.iter().map(|dot| (dot.pattern.full_count(), dot.x, dot.delta.value)).collect::<Vec<_>>())
}

pub(super) fn draw(report: &Report, width: f64) -> Result<Scene, ReportError> {
    let dots = dots(report)?;
    let title = format!("Loss against overlap given up by {} patterns", dots.len());
    let axis = |x: Vec<f64>| Axis::over("overlap given up (predicted)", x.into_iter());
    let (mut scene, plot) = plot(&dots, title, width, axis);
    for dot in &dots {
        plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.spread().value(), Ink::Accent, true);
    }
    if let Some(c) = correlation(&dots) {
        scene.text((48.0, 16.0), format!("ρ = {:.2}, n = {}", c.rho, c.n), Ink::Text, LABEL, Anchor::Start);
    }
    Ok(scene)
}

pub(super) fn csv(report: &Report) -> Result<String, ReportError> {
    Ok(dots_csv(&dots(report)?, "overlap_given_up"))
}

pub(super) fn caption(report: &Report) -> String {
    let rho = correlation(&dots(report).unwrap_or_default());
    let rho = rho.map_or("too few patterns for a correlation".to_owned(), |c| {
        let interval = c.interval.map_or(String::new(), |(a, b)| format!(", 95 % interval {a:.2} to {b:.2}"));
        format!(
            "Spearman's ρ = {:.2} over {} patterns, ranked among those of as many Full layers{interval}",
            c.rho, c.n
        )
    });
    format!(
        "Δloss against the overlap that a pattern gives up, Σ (1 − overlap with the serving layer) over the layers that it \
         shares and the reference does not, predicted from the recording: {rho}."
    )
}
