//! The figures, each with the numbers behind it as CSV.

use std::fmt::Write as _;

use super::axes::{Axis, LABEL, Plot};
use super::palette::{Ink, viridis};
use super::scene::{Anchor, Scene};
use super::{Report, ReportError};
use crate::analysis::correlation::spearman;
use crate::analysis::{OverlapMatrix, coverage, pareto};
use crate::domain::{Estimate, Pattern};

/// What can be drawn of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Figure {
    /// Overlap of every two layers' index sets.
    Overlap,
    /// Δ against the number of Full layers.
    Trajectory,
    /// Δ against measured prefill speed, with the patterns that no other beats.
    Pareto,
    /// Δ against the overlap that a pattern gives up, with Spearman's ρ.
    Scatter,
}

/// A measured pattern and where it is plotted.
struct Dot {
    pattern: Pattern,
    x: f64,
    delta: Estimate,
}

impl Figure {
    /// Every figure.
    pub const ALL: [Self; 4] = [Self::Overlap, Self::Trajectory, Self::Pareto, Self::Scatter];

    /// Returns the name as given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Trajectory => "trajectory",
            Self::Pareto => "pareto",
            Self::Scatter => "scatter",
        }
    }

    /// Draws the figure, `width` points wide.
    ///
    /// # Errors
    /// [`ReportError::Empty`] where the session does not hold what it shows.
    pub fn draw(self, report: &Report, width: f64) -> Result<Scene, ReportError> {
        match self {
            Self::Overlap => Ok(heatmap(self.matrix(report)?, width)),
            Self::Trajectory => Ok(self.trajectory(&self.dots(report)?, width)),
            Self::Pareto => Ok(self.pareto(&self.dots(report)?, report, width)),
            Self::Scatter => Ok(self.scatter(&self.dots(report)?, width)),
        }
    }

    /// Returns the numbers that the figure shows, as CSV.
    ///
    /// # Errors
    /// [`ReportError::Empty`] as for drawing.
    pub fn csv(self, report: &Report) -> Result<String, ReportError> {
        if self == Self::Overlap {
            return Ok(matrix_csv(self.matrix(report)?));
        }
        let x = match self {
            Self::Trajectory => "full_layers",
            Self::Pareto => "prefill_ratio",
            _ => "overlap_given_up",
        };
        let mut text = format!("pattern,full,{x},delta_nats,delta_se,delta_n\n");
        for dot in self.dots(report)? {
            let se = dot.delta.se.map_or(String::new(), |se| se.to_string());
            let (full, delta) = (dot.pattern.full_count(), dot.delta);
            let _ = writeln!(text, "{},{full},{},{},{se},{}", dot.pattern, dot.x, delta.value, delta.n);
        }
        Ok(text)
    }

    /// Returns a sentence that says what is seen.
    pub fn caption(self, report: &Report) -> String {
        match self {
            Self::Overlap => report.overlap.as_ref().map_or(String::new(), |m| {
                let chance = m.chance.map_or("not defined".to_owned(), |c| format!("{c:.3}"));
                format!(
                    "Overlap |A∩B|/k of every two layers' index sets, mean over {} of {} recorded queries (those that see \
                     more than k keys); two random sets would share {chance}. Overlap explains, loss decides: nothing is \
                     ranked by it.",
                    m.counted, m.queries
                )
            }),
            Self::Trajectory => {
                "Δloss against the reference pattern over eligible targets, by the number of Full layers; bars are one \
                 standard error. Every measured pattern of the history."
                    .to_owned()
            }
            Self::Pareto => {
                "Δloss against the measured prefill time of the reference over that of the pattern (this program's own \
                 runtime, which does not predict a serving engine's). The line joins the patterns that no other beats."
                    .to_owned()
            }
            Self::Scatter => {
                let pairs = self.dots(report).unwrap_or_default();
                let pairs: Vec<(f64, f64)> = pairs.iter().map(|dot| (dot.x, dot.delta.value)).collect();
                let rho = spearman(&pairs).map_or("too few patterns for a correlation".to_owned(), |c| {
                    let interval = c.interval.map_or(String::new(), |(a, b)| format!(", 95 % interval {a:.2} to {b:.2}"));
                    format!("Spearman's ρ = {:.2} over {} patterns{interval}", c.rho, c.n)
                });
                format!(
                    "Δloss against the overlap that a pattern gives up, Σ (1 − overlap with the serving layer) over its \
                     Shared layers, predicted from the recording: {rho}."
                )
            }
        }
    }

    fn empty(self, reason: &'static str) -> ReportError {
        ReportError::Empty { figure: self.name(), reason }
    }

    fn matrix(self, report: &Report) -> Result<&OverlapMatrix, ReportError> {
        report.overlap.as_ref().ok_or_else(|| self.empty("a session holds no recording"))
    }

    /// Returns the measured patterns of the history, each once, where the figure puts them.
    fn dots(self, report: &Report) -> Result<Vec<Dot>, ReportError> {
        if self == Self::Scatter {
            self.matrix(report)?;
        }
        let mut dots: Vec<Dot> = Vec::new();
        for step in &report.session.history {
            let Some(delta) = step.evaluation.as_ref().and_then(|e| e.delta) else { continue };
            let x = match self {
                Self::Pareto => step.speed.iter().find(|s| s.phase == "prefill").map(|s| s.ratio.median),
                Self::Scatter => report.overlap.as_ref().and_then(|m| given_up(m, step.pattern)),
                _ => Some(step.pattern.full_count() as f64),
            };
            if let Some(x) = x
                && !dots.iter().any(|dot| dot.pattern == step.pattern)
            {
                dots.push(Dot { pattern: step.pattern, x, delta });
            }
        }
        if dots.is_empty() { Err(self.empty("no pattern of its history has such a measurement")) } else { Ok(dots) }
    }

    fn plot(self, dots: &[Dot], label: &str, width: f64) -> (Scene, Plot) {
        let mut scene = Scene::new(width, width * 0.68, format!("{} of {} patterns", self.name(), dots.len()));
        let spread = dots.iter().flat_map(|dot| {
            let se = dot.delta.se.unwrap_or(0.0);
            [dot.delta.value - se, dot.delta.value + se, 0.0]
        });
        let x = Axis::over(label, dots.iter().map(|dot| dot.x));
        let x = if self == Self::Trajectory { x.whole() } else { x };
        let plot = Plot::draw(&mut scene, x, Axis::over("Δloss, nats/token", spread));
        plot.zero(&mut scene);
        (scene, plot)
    }

    fn trajectory(self, dots: &[Dot], width: f64) -> Scene {
        let (mut scene, plot) = self.plot(dots, "Full layers", width);
        for dot in dots {
            plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.se, Ink::Accent, true);
        }
        scene
    }

    fn pareto(self, dots: &[Dot], report: &Report, width: f64) -> Scene {
        let context = report.session.history.iter().flat_map(|step| &step.speed).find(|s| s.phase == "prefill");
        let context = context.map_or(String::new(), |s| format!(" at {} tokens", s.context));
        let (mut scene, plot) = self.plot(dots, &format!("prefill speed against the reference{context}, ×"), width);
        let best = pareto::frontier(&dots.iter().map(|dot| (dot.x, dot.delta.value)).collect::<Vec<_>>());
        let line = best.iter().map(|&i| plot.at(dots[i].x, dots[i].delta.value)).collect();
        scene.path(line, Ink::Accent, 0.8);
        for (i, dot) in dots.iter().enumerate() {
            let (ink, best) = if best.contains(&i) { (Ink::Accent, true) } else { (Ink::Other, false) };
            plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.se, ink, best);
        }
        scene
    }

    fn scatter(self, dots: &[Dot], width: f64) -> Scene {
        let (mut scene, plot) = self.plot(dots, "overlap given up (predicted)", width);
        for dot in dots {
            plot.point(&mut scene, (dot.x, dot.delta.value), dot.delta.se, Ink::Accent, true);
        }
        let pairs: Vec<(f64, f64)> = dots.iter().map(|dot| (dot.x, dot.delta.value)).collect();
        if let Some(c) = spearman(&pairs) {
            scene.text((48.0, 16.0), format!("ρ = {:.2}, n = {}", c.rho, c.n), Ink::Text, LABEL, Anchor::Start);
        }
        scene
    }
}

/// Returns Σ (1 − overlap with the serving layer) over Shared layers; `None` where a set was borrowed in the recording.
fn given_up(matrix: &OverlapMatrix, pattern: Pattern) -> Option<f64> {
    if matrix.layers != pattern.len() {
        return None;
    }
    coverage::predicted(matrix, pattern).into_iter().map(|covered| covered.map(|e| 1.0 - e.value)).sum()
}

/// Draws the matrix with its colour bar, rows from top to bottom.
fn heatmap(matrix: &OverlapMatrix, width: f64) -> Scene {
    let (left, top, bar) = (31.0, 6.0, 44.0);
    let side = width - left - bar;
    let mut scene = Scene::new(width, top + side + 24.0, format!("Overlap of {} layers", matrix.layers));
    let cell = side / matrix.layers as f64;
    // One shape per colour, so that 78 layers stay a small file.
    let mut shades: Vec<Vec<(f64, f64)>> = vec![Vec::new(); 64];
    for i in 0..matrix.layers {
        for j in 0..matrix.layers {
            let value = matrix.get(i, j).unwrap_or(0.0);
            let shade = ((value * 64.0) as usize).min(63);
            shades[shade].push((left + j as f64 * cell, top + i as f64 * cell));
        }
    }
    for (shade, at) in shades.into_iter().enumerate().filter(|(_, at)| !at.is_empty()) {
        scene.squares(at, (cell, cell), Ink::Data(viridis(shade as f64 / 63.0)));
    }
    let step = [1, 2, 5, 10, 20].into_iter().find(|s| matrix.layers / s <= 12).unwrap_or(20);
    for layer in (0..matrix.layers).step_by(step) {
        let middle = (layer as f64 + 0.5) * cell;
        scene.text((left - 3.0, top + middle + 2.5), layer.to_string(), Ink::Dim, LABEL, Anchor::End);
        scene.text((left + middle, top + side + 9.0), layer.to_string(), Ink::Dim, LABEL, Anchor::Middle);
    }
    scene.text((left + side / 2.0, top + side + 19.0), "layer that lends its set", Ink::Dim, LABEL, Anchor::Middle);
    scene.upright((9.0, top + side / 2.0), "layer that needs indices", LABEL);
    let x = left + side + 6.0;
    for shade in 0..64 {
        let y = top + side * (1.0 - f64::from(shade + 1) / 64.0);
        scene.squares(vec![(x, y)], (7.0, side / 64.0 + 0.2), Ink::Data(viridis(f64::from(shade) / 63.0)));
    }
    for mark in [0.0, 0.5, 1.0] {
        let y = top + side * (1.0 - mark);
        scene.text((x + 9.0, y + 2.5), format!("{mark}"), Ink::Dim, LABEL, Anchor::Start);
    }
    if let Some(chance) = matrix.chance {
        let y = top + side * (1.0 - chance);
        scene.line((x - 2.0, y), (x + 9.0, y), Ink::Text, 0.8);
        scene.text((x + 10.0, y + 2.5), "chance", Ink::Text, LABEL - 1.0, Anchor::Start);
    }
    scene
}

fn matrix_csv(m: &OverlapMatrix) -> String {
    let mut text = format!("row,column,{},se,queries\n", m.metric);
    for i in 0..m.layers {
        for j in 0..m.layers {
            if let Some(e) = m.estimate(i, j) {
                let se = e.se.map_or(String::new(), |se| se.to_string());
                let _ = writeln!(text, "{i},{j},{},{se},{}", e.value, e.n);
            }
        }
    }
    text
}
