//! Loss against measured speed.

use super::{Dot, Figure, dots_csv, history, plot};
use crate::analysis::pareto;
use crate::report::axes::Axis;
use crate::report::palette::Ink;
use crate::report::scene::Scene;
use crate::report::{Report, ReportError};

fn dots(report: &Report) -> Result<Vec<Dot>, ReportError> {
    let prefill = |i: usize| report.session.history[i].speed.iter().find(|s| s.phase == "prefill");
    Figure::Pareto.some(history(report, |i| prefill(i).map(|s| s.ratio.median)))
}

pub(super) fn draw(report: &Report, width: f64) -> Result<Scene, ReportError> {
    let dots = dots(report)?;
    let context = report.session.history.iter().flat_map(|step| &step.speed).find(|s| s.phase == "prefill");
    let context = context.map_or(String::new(), |s| format!(" at {} tokens", s.context));
    let label = format!("prefill speed against the reference{context}, ×");
    let title = format!("Loss against speed of {} patterns", dots.len());
    let (mut scene, plot) = plot(&dots, title, width, |x| Axis::over(label, x.into_iter()));
    let best = pareto::frontier(&dots.iter().map(|dot| (dot.x, dot.delta.value)).collect::<Vec<_>>());
    let noise = |i: usize, j: usize| 2.0 * apart(report, dots[i], dots[j]);
    let band = pareto::band(&dots.iter().map(|dot| (dot.x, dot.delta.value)).collect::<Vec<_>>(), noise);
    let line = best.iter().map(|&i| plot.at(dots[i].x, dots[i].delta.value)).collect();
    scene.path(line, Ink::Accent, 0.8);
    for (i, dot) in dots.iter().enumerate() {
        let (ink, best) = if band.contains(&i) { (Ink::Accent, true) } else { (Ink::Other, false) };
        plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.spread().value(), ink, best);
    }
    Ok(scene)
}

/// Returns the standard error of the difference of two patterns, paired where both were measured on the same text.
fn apart(report: &Report, a: Dot, b: Dot) -> f64 {
    let history = &report.session.history;
    let of = |dot: Dot| history.iter().find(|step| step.pattern == dot.pattern)?.evaluation.as_ref();
    of(a).zip(of(b)).and_then(|(a, b)| a.minus(b)?.se).unwrap_or_else(|| a.delta.apart(&b.delta))
}

pub(super) fn csv(report: &Report) -> Result<String, ReportError> {
    Ok(dots_csv(&dots(report)?, "prefill_ratio"))
}

pub(super) fn caption() -> String {
    "Δloss against the measured prefill time of the reference over that of the pattern (this program's own runtime, which \
     does not predict a serving engine's). The line joins the patterns that no other beats; full marks \
     are those that none beats by more than two paired standard errors."
        .to_owned()
}
