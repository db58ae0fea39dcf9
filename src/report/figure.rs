//! The figures, each with the numbers behind it as CSV.

mod overlap;
mod pareto;
mod scatter;
mod trajectory;

use super::axes::{Axis, Plot};
use super::scene::Scene;
use super::{Report, ReportError};
use crate::domain::{Delta, Pattern};

/// What can be drawn of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Figure {
    /// Overlap of every two layers' index sets.
    Overlap,
    /// Δ against the number of Full layers, with the flip orders of searches.
    Trajectory,
    /// Δ against measured prefill speed, with the patterns that no other beats.
    Pareto,
    /// Δ against the overlap that a pattern gives up, with Spearman's ρ.
    Scatter,
}

/// A measured pattern and where it is plotted.
#[derive(Clone, Copy)]
struct Dot {
    pattern: Pattern,
    x: f64,
    delta: Delta,
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
            Self::Overlap => overlap::draw(report, width),
            Self::Trajectory => trajectory::draw(report, width),
            Self::Pareto => pareto::draw(report, width),
            Self::Scatter => scatter::draw(report, width),
        }
    }

    /// Returns the numbers that the figure shows, as CSV.
    ///
    /// # Errors
    /// [`ReportError::Empty`] as for drawing.
    pub fn csv(self, report: &Report) -> Result<String, ReportError> {
        match self {
            Self::Overlap => overlap::csv(report),
            Self::Trajectory => trajectory::csv(report),
            Self::Pareto => pareto::csv(report),
            Self::Scatter => scatter::csv(report),
        }
    }

    /// Returns a sentence that says what is seen.
    pub fn caption(self, report: &Report) -> String {
        match self {
            Self::Overlap => overlap::caption(report),
            Self::Trajectory => trajectory::caption(report),
            Self::Pareto => pareto::caption(),
            Self::Scatter => scatter::caption(report),
        }
    }

    fn empty(self, reason: &'static str) -> ReportError {
        ReportError::Empty { figure: self.name(), reason }
    }

    /// Returns the dots of a figure, or that there are none.
    fn some(self, dots: Vec<Dot>) -> Result<Vec<Dot>, ReportError> {
        if dots.is_empty() { Err(self.empty("no pattern of its history has such a measurement")) } else { Ok(dots) }
    }
}

/// Returns the measured patterns of the history, each once, where `place` puts them.
fn history(report: &Report, place: impl Fn(usize) -> Option<f64>) -> Vec<Dot> {
    let mut dots: Vec<Dot> = Vec::new();
    for (i, step) in report.session.history.iter().enumerate() {
        let Some(delta) = step.evaluation.as_ref().and_then(|e| e.delta) else { continue };
        if let Some(x) = place(i)
            && !dots.iter().any(|dot| dot.pattern == step.pattern)
        {
            dots.push(Dot { pattern: step.pattern, x, delta });
        }
    }
    dots
}

/// Draws the axes around dots.
fn plot(dots: &[Dot], title: String, width: f64, axis: impl FnOnce(Vec<f64>) -> Axis) -> (Scene, Plot) {
    let mut scene = Scene::new(width, width * 0.68, title);
    let spread = dots.iter().flat_map(|dot| {
        let se = dot.delta.spread().value().unwrap_or(0.0);
        [dot.delta.value - se, dot.delta.value + se, 0.0]
    });
    let y = Axis::over("Δloss, nats/token", spread);
    let plot = Plot::draw(&mut scene, axis(dots.iter().map(|dot| dot.x).collect()), y);
    plot.zero(&mut scene);
    (scene, plot)
}

/// Returns dots as CSV, `x` naming what they are plotted against.
fn dots_csv(dots: &[Dot], x: &str) -> String {
    let row = |dot: &Dot| {
        let (full, d) = (dot.pattern.full_count(), dot.delta);
        let (blocks, n) = (number(d.se_blocks), d.n);
        format!("{},{full},{},{},{},{n},{blocks},{}\n", dot.pattern, dot.x, d.value, number(d.se), d.clusters)
    };
    format!("pattern,full,{x},delta_nats,delta_se,delta_n,delta_se_blocks,clusters\n")
        + &dots.iter().map(row).collect::<String>()
}

/// Returns a number of a CSV file, nothing where it is not known.
fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}
