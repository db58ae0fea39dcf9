//! Loss along the number of Full layers: measured patterns, and the flip orders of searches.

use std::fmt::Write as _;

use super::{Dot, Figure, history, number, plot};
use crate::domain::{Flip, Pattern, SearchRecord};
use crate::report::axes::{Axis, LABEL};
use crate::report::number::grouped;
use crate::report::palette::Ink;
use crate::report::scene::{Anchor, Scene};
use crate::report::{Report, ReportError};

/// A search as a line: its name and its points.
struct Curve<'a> {
    name: String,
    record: &'a SearchRecord,
    points: Vec<Point<'a>>,
}

/// A pattern that a search accepted: after a flip, or its result where no flip led there.
struct Point<'a> {
    dot: Dot,
    flip: Option<&'a Flip>,
}

/// Returns the searches that measured something.
fn curves(report: &Report) -> Vec<Curve<'_>> {
    let curve = |record| {
        let points = points(record);
        let last = points.last()?;
        let (kept, targets) = (last.dot.pattern.full_count(), grouped(last.dot.delta.n));
        let name = format!("{} to {kept} Full, {targets} targets", record.settings.method);
        Some(Curve { name, record, points })
    };
    report.session.searches.iter().filter_map(curve).collect()
}

fn points(record: &SearchRecord) -> Vec<Point<'_>> {
    let dot = |pattern: Pattern, delta| Dot { pattern, x: pattern.full_count() as f64, delta };
    let flips = record.order.iter().enumerate();
    let mut points: Vec<Point<'_>> =
        flips.map(|(i, flip)| Point { dot: dot(record.after(i + 1), flip.delta), flip: Some(flip) }).collect();
    if let Some(delta) = record.delta.filter(|_| points.iter().all(|p| p.dot.pattern != record.pattern)) {
        points.push(Point { dot: dot(record.pattern, delta), flip: None });
    }
    points
}

/// Returns where a search began, where its Δ is known: at the reference, unless it held layers Shared.
fn start(record: &SearchRecord) -> Option<(f64, f64)> {
    let known = record.settings.lock_shared.is_empty() && !record.order.is_empty();
    known.then(|| (record.start.full_count() as f64, 0.0))
}

fn measured(report: &Report) -> Vec<Dot> {
    history(report, |i| Some(report.session.history[i].pattern.full_count() as f64))
}

pub(super) fn draw(report: &Report, width: f64) -> Result<Scene, ReportError> {
    let (measured, curves) = (measured(report), curves(report));
    let along = |curve: &Curve<'_>| curve.points.iter().map(|point| point.dot).collect::<Vec<_>>();
    let all = Figure::Trajectory.some(measured.iter().copied().chain(curves.iter().flat_map(along)).collect())?;
    let title = format!("Loss of {} patterns by their number of Full layers", all.len());
    let (mut scene, plot) = plot(&all, title, width, |x| Axis::over("Full layers", x.into_iter()).whole());
    for (i, curve) in curves.iter().enumerate() {
        let ink = Ink::Curve(i);
        let places = curve.points.iter().map(|point| (point.dot.x, point.dot.delta.value));
        let line = start(curve.record).into_iter().chain(places).map(|(x, y)| plot.at(x, y)).collect();
        scene.path(line, ink, 0.8);
        for Point { dot, flip } in &curve.points {
            let sure = flip.is_none_or(|flip| !flip.within_noise);
            plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.spread().value(), ink, sure);
        }
        let at = (width - 10.0, 14.0 + i as f64 * (LABEL + 2.0));
        scene.text(at, curve.name.as_str(), ink, LABEL, Anchor::End);
    }
    for dot in measured {
        plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.spread().value(), Ink::Accent, true);
    }
    Ok(scene)
}

pub(super) fn csv(report: &Report) -> Result<String, ReportError> {
    let mut rows = String::new();
    let place = |dot: &Dot| {
        let d = dot.delta;
        let (blocks, n) = (number(d.se_blocks), d.n);
        format!("{},{},{},{},{n},{blocks},{}", dot.pattern, dot.x, d.value, number(d.se), d.clusters)
    };
    for dot in measured(report) {
        let _ = writeln!(rows, "history,,,{},,,", place(&dot));
    }
    for (i, curve) in curves(report).iter().enumerate() {
        for (n, point) in curve.points.iter().enumerate() {
            let layer = point.flip.map_or(String::new(), |flip| flip.layer.to_string());
            let step = point.flip.map_or(",,".to_owned(), |flip| {
                format!("{},{},{}", flip.step.value, number(flip.step.se), flip.within_noise)
            });
            let series = format!("search {} {}", i + 1, curve.record.settings.method);
            let _ = writeln!(rows, "{series},{},{layer},{},{step}", n + 1, place(&point.dot));
        }
    }
    if rows.is_empty() {
        return Err(Figure::Trajectory.empty("nothing of it was measured"));
    }
    let head = "series,step,layer,pattern,full_layers,delta_nats,delta_se,delta_n,delta_se_blocks,clusters,step_nats,step_se,within_noise\n";
    Ok(head.to_owned() + &rows)
}

pub(super) fn caption(report: &Report) -> String {
    let mut text =
        "Δloss against the reference pattern over eligible targets, by the number of Full layers; bars are one \
                    standard error. Dots: the measured patterns of the history."
            .to_owned();
    if !curves(report).is_empty() {
        text += " Lines: the flip orders of searches, each judged on the text that it searched on; hollow where the flip's \
                 own difference is within two standard errors of nothing.";
    }
    text
}
