//! Which patterns can be plotted against their Δloss, and where.

use std::collections::HashSet;

use super::Axes;
use crate::analysis::correlation::{Correlation, stratified};
use crate::analysis::{Metric, coverage, pareto};
use crate::domain::{Delta, Pattern};
use crate::tui::app::App;

/// A pattern whose Δloss was measured, and what it is plotted against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dot {
    /// The pattern.
    pub pattern: Pattern,
    /// Its oldest entry of the history; `None` where only the search measured it.
    pub entry: Option<usize>,
    /// What it is plotted against, in the unit of the axis.
    pub x: f64,
    /// Δloss over eligible targets, nats.
    pub delta: Delta,
}

/// Returns the dots of the History screen, each pattern once: those of the history, then those of the last search.
///
/// Only what was measured: a pattern without Δloss, or without the speed that is plotted, has no dot.
pub fn dots(app: &App) -> Vec<Dot> {
    let Some(history) = &app.history else { return Vec::new() };
    let mut seen = HashSet::new();
    let nodes = history.nodes().iter().enumerate().filter(|(_, node)| seen.insert(node.pattern));
    let mut dots = nodes
        .filter_map(|(entry, node)| {
            let delta = app.delta(node.pattern)?;
            Some(Dot { pattern: node.pattern, entry: Some(entry), x: place(app, node.pattern)?, delta })
        })
        .collect::<Vec<_>>();
    // Of what a search accepted nothing but the loss is measured.
    let flips = app.search_record().filter(|r| r.start.len() == history.pattern().len());
    let searched = flips
        .into_iter()
        .flat_map(|record| (1..=record.order.len()).map(|flips| record.after(flips)).chain([record.pattern]))
        .filter(|pattern| !dots.iter().any(|d| d.pattern == *pattern));
    let mut once = HashSet::new();
    let searched: Vec<Pattern> = searched.filter(|pattern| once.insert(*pattern)).collect();
    for (pattern, delta) in searched.into_iter().filter_map(|pattern| Some((pattern, app.delta(pattern)?))) {
        let axes = app.screens.history.axes;
        if let Some(x) = place(app, pattern).filter(|_| axes == Axes::Full || axes.is_lost()) {
            dots.push(Dot { pattern, entry: None, x, delta });
        }
    }
    dots
}

fn place(app: &App, pattern: Pattern) -> Option<f64> {
    let speed = |phase: &str| {
        let speed = app.known.results.get(&pattern)?.speed.iter().find(|s| s.phase == phase)?;
        Some(app.faster(speed))
    };
    match app.screens.history.axes {
        Axes::Prefill => speed("prefill"),
        Axes::Decode => speed("decode"),
        Axes::Full => Some(pattern.full_count() as f64),
        Axes::Lost => {
            let matrix = app.matrix(Metric::Overlap).filter(|m| m.layers == pattern.len())?;
            let covered = coverage::predicted(matrix, pattern);
            lost(app, pattern, |l| covered[l].map(|e| e.value))
        }
        Axes::MassLost | Axes::CosineLost => {
            let kind = app.screens.history.axes.affinity()?;
            let (_, affinity) = app.known.affinities.iter().find(|(k, a)| *k == kind && a.layers == pattern.len())?;
            lost(app, pattern, |l| Some(affinity.get(l, pattern.source(l))))
        }
    }
}

/// Returns what `pattern` gives up, Σ (1 − what is kept) over the layers that it shares and the reference does not;
/// `None` where that is not known of all of them, and for the reference itself.
fn lost(app: &App, pattern: Pattern, kept: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    let reference = app.reference().filter(|r| *r != pattern)?;
    let shared = (0..pattern.len()).filter(|&l| !pattern.is_full(l) && reference.is_full(l));
    shared.map(|l| kept(l).map(|kept| 1.0 - kept)).sum()
}

/// Returns the indices of the dots that no other beats, and of those that none beats by more than two paired standard
/// errors; empty where neither direction of the axis is better.
pub fn frontier(app: &App, dots: &[Dot]) -> (Vec<usize>, Vec<usize>) {
    let gain = |dot: &Dot| match app.screens.history.axes {
        Axes::Prefill | Axes::Decode => Some(dot.x),
        Axes::Full => Some(-dot.x),
        _ => None,
    };
    let points: Option<Vec<(f64, f64)>> = dots.iter().map(|d| Some((gain(d)?, d.delta.value))).collect();
    let Some(points) = points else { return (Vec::new(), Vec::new()) };
    let evaluation = |i: usize| app.known.results.get(&dots[i].pattern)?.evaluation.as_ref();
    let noise = |i: usize, j: usize| {
        let paired = evaluation(i).zip(evaluation(j)).and_then(|(a, b)| a.minus(b)?.se);
        2.0 * paired.unwrap_or_else(|| dots[i].delta.apart(&dots[j].delta))
    };
    (pareto::frontier(&points), pareto::band(&points, noise))
}

/// Returns how well what is plotted ranks Δloss among patterns of as many Full layers, where that is the question.
pub fn correlation(app: &App, dots: &[Dot]) -> Option<Correlation> {
    let points: Vec<_> = dots.iter().map(|d| (d.pattern.full_count(), d.x, d.delta.value)).collect();
    app.screens.history.axes.is_lost().then(|| stratified(&points)).flatten()
}
