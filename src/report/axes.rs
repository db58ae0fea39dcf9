//! Axes of plots: round steps, scales, frames.

use super::palette::Ink;
use super::scene::{Anchor, Scene};

/// Size of labels, points.
pub(super) const LABEL: f64 = 7.0;

/// One axis: the values that it spans and its label.
pub(super) struct Axis {
    pub label: String,
    pub low: f64,
    pub high: f64,
    /// Whether only whole numbers are marked.
    pub whole: bool,
}

impl Axis {
    /// Returns an axis that spans `values` and a little more.
    pub fn over(label: impl Into<String>, values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let room = if high > low { (high - low) * 0.06 } else { low.abs().max(1.0) * 0.1 };
        Self { label: label.into(), low: low - room, high: high + room, whole: false }
    }

    /// Marks whole numbers only.
    pub fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// Returns at most `most` round values within the axis.
    fn marks(&self, most: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / most as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(power);
        let step = if self.whole { step.max(1.0).round() } else { step };
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }

    fn print(value: f64, marks: &[f64]) -> String {
        let step = marks.windows(2).map(|w| w[1] - w[0]).fold(1.0, f64::min);
        let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        let text = format!("{value:.decimals$}");
        if text.trim_start_matches(['-', '0', '.']).is_empty() { "0".to_owned() } else { text.replace('-', "−") }
    }
}

/// A frame with two axes inside a scene.
pub(super) struct Plot {
    x: Axis,
    y: Axis,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Plot {
    /// Draws the frame into all of `scene`.
    pub fn draw(scene: &mut Scene, x: Axis, y: Axis) -> Self {
        let (width, height) = scene.size();
        let plot = Self { x, y, left: 42.0, top: 8.0, right: width - 8.0, bottom: height - 28.0 };
        let marks = plot.y.marks(5);
        for &value in &marks {
            let at = plot.at(plot.x.low, value).1;
            scene.line((plot.left, at), (plot.right, at), Ink::Grid, 0.5);
            let text = Axis::print(value, &marks);
            scene.text((plot.left - 4.0, at + 2.5), text, Ink::Dim, LABEL, Anchor::End);
        }
        let marks = plot.x.marks(if width < 260.0 { 5 } else { 8 });
        for &value in &marks {
            let at = plot.at(value, plot.y.low).0;
            scene.line((at, plot.bottom), (at, plot.bottom + 3.0), Ink::Dim, 0.6);
            scene.text((at, plot.bottom + 11.0), Axis::print(value, &marks), Ink::Dim, LABEL, Anchor::Middle);
        }
        scene.line((plot.left, plot.bottom), (plot.right, plot.bottom), Ink::Dim, 0.8);
        scene.line((plot.left, plot.top), (plot.left, plot.bottom), Ink::Dim, 0.8);
        let middle = f64::midpoint(plot.left, plot.right);
        scene.text((middle, height - 5.0), &plot.x.label, Ink::Dim, LABEL, Anchor::Middle);
        scene.upright((9.0, f64::midpoint(plot.top, plot.bottom)), &plot.y.label, LABEL);
        plot
    }

    /// Returns where a value stands.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let share = |v: f64, axis: &Axis| (v - axis.low) / (axis.high - axis.low);
        (
            self.left + share(x, &self.x) * (self.right - self.left),
            self.bottom - share(y, &self.y) * (self.bottom - self.top),
        )
    }

    /// Draws a line at y = 0 where the axis has it.
    pub fn zero(&self, scene: &mut Scene) {
        if self.y.low < 0.0 && self.y.high > 0.0 {
            let at = self.at(self.x.low, 0.0).1;
            scene.dashes((self.left, at), (self.right, at), Ink::Dim);
        }
    }

    /// Draws a point with its spread upwards and downwards.
    pub fn point(&self, scene: &mut Scene, (x, y): (f64, f64), se: Option<f64>, ink: Ink, filled: bool) {
        if let Some(se) = se {
            scene.line(self.at(x, y - se), self.at(x, y + se), ink, 0.7);
        }
        scene.circle(self.at(x, y), 2.2, ink, filled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_within_the_axis() {
        let axis = Axis::over("x", [0.0, 0.21].into_iter());
        assert_eq!(
            axis.marks(5).iter().map(|v| Axis::print(*v, &axis.marks(5))).collect::<Vec<_>>(),
            ["0.00", "0.05", "0.10", "0.15", "0.20"].map(|t| if t == "0.00" { "0" } else { t })
        );
        let whole = Axis::over("F", [3.0, 12.0].into_iter()).whole();
        assert_eq!(whole.marks(8), [4.0, 6.0, 8.0, 10.0, 12.0]);
        let one = Axis::over("one value", [1.0].into_iter());
        assert!(one.low < 1.0 && one.high > 1.0 && !one.marks(5).is_empty());
    }
}
