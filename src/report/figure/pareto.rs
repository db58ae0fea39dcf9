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
    let line = best.iter().map(|&i| plot.at(dots[i].x, dots[i].delta.value)).collect();
    scene.path(line, Ink::Accent, 0.8);
    for (i, dot) in dots.iter().enumerate() {
        let (ink, best) = if best.contains(&i) { (Ink::Accent, true) } else { (Ink::Other, false) };
        plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.se, ink, best);
    }
    Ok(scene)
}

pub(super) fn csv(report: &Report) -> Result<String, ReportError> {
    Ok(dots_csv(&dots(report)?, "prefill_ratio"))
}

pub(super) fn caption() -> String {
    "Δloss against the measured prefill time of the reference over that of the pattern (this program's own runtime, which \
     does not predict a serving engine's). The line joins the patterns that no other beats."
        .to_owned()
}
