//! Dots over two axes, one cell fine, with a line of the best ones and labels that hide nothing.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::write;
use crate::tui::theme::{Role, Theme};

/// Columns left of the plot: a number and the axis.
const MARGIN: u16 = 9;

/// A dot.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Where it is, across.
    pub x: f64,
    /// Where it is, upwards.
    pub y: f64,
    /// Standard error of `y`, drawn as a line.
    pub se: Option<f64>,
    /// How it is drawn.
    pub glyph: char,
    /// What it is.
    pub role: Role,
    /// What stands beside it where there is room; may be empty.
    pub label: String,
}

/// What is plotted.
#[derive(Clone, Copy, Debug)]
pub struct Plot<'a> {
    /// The dots; later ones hide earlier ones.
    pub marks: &'a [Mark],
    /// Points that a dotted line joins, from left to right.
    pub line: &'a [(f64, f64)],
    /// A level that is drawn across, with its name.
    pub level: Option<(f64, &'a str)>,
    /// Whether the numbers grow to the left.
    pub falling: bool,
    /// Writes a number of the axis across.
    pub across: fn(f64) -> String,
    /// Writes a number of the axis upwards.
    pub upwards: fn(f64) -> String,
}

/// A range of numbers on so many cells.
#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f64,
    high: f64,
    cells: u16,
}

impl Scale {
    /// Returns a scale that shows all values with some air around them.
    fn of(values: impl Iterator<Item = f64>, cells: u16) -> Option<Self> {
        let (low, high) = values
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return None;
        }
        // One value alone is shown against a tenth of itself, or a hundredth, not against noise.
        let air = if high > low { (high - low) * 0.06 } else { (low.abs() * 0.1).max(0.01) };
        Some(Self { low: low - air, high: high + air, cells: cells.max(1) })
    }

    /// Returns the cell of a value, from the low end.
    fn cell(self, value: f64) -> u16 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (share * f64::from(self.cells - 1)).round() as u16
    }

    /// Returns round numbers at which the axis is labelled, about one in every `every` cells.
    fn ticks(self, every: u16) -> Vec<f64> {
        let wanted = (self.high - self.low) / f64::from((self.cells / every).max(1));
        let power = 10f64.powf(wanted.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= wanted).unwrap_or(wanted);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last.min(first + 200)).map(|i| i as f64 * step).collect()
    }
}

/// Draws a plot; nothing where there is no dot or no room.
pub fn draw(plot: Plot, area: Rect, theme: Theme, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.width < MARGIN + 8 || area.height < 4 {
        return;
    }
    let field = Rect { x: area.x + MARGIN, width: area.width - MARGIN, height: area.height - 1, ..area };
    let level = plot.level.map(|(y, _)| y);
    let heights = plot.marks.iter().map(|m| m.y).chain(level).chain((!plot.marks.is_empty()).then_some(0.0));
    let (Some(x), Some(y)) = (Scale::of(plot.marks.iter().map(|m| m.x), field.width), Scale::of(heights, field.height))
    else {
        return;
    };
    let frame = Frame { field, x, y, falling: plot.falling };
    axes(plot, frame, area, theme, buf);
    let level = plot.level.map(|(at, name)| (Rect { y: field.bottom() - 1 - y.cell(at), height: 1, ..field }, name));
    if let Some((line, _)) = level {
        write(buf, line, 0, &[("┄".repeat(field.width as usize), theme.role(Role::Dim))]);
    }
    joined(plot.line, frame, theme, buf);
    for mark in plot.marks {
        let (column, _) = frame.place(mark.x, mark.y);
        let ends = mark.se.map(|se| (frame.place(mark.x, mark.y + se).1, frame.place(mark.x, mark.y - se).1));
        for row in ends.into_iter().flat_map(|(top, bottom)| top..=bottom) {
            put(buf, (column, row), '│', Role::Border, theme);
        }
    }
    if let Some((line, name)) = level {
        write(buf, Rect { x: line.x + 1, ..line }, 0, &[(format!(" {name} "), theme.role(Role::Text))]);
    }
    for mark in plot.marks {
        put(buf, frame.place(mark.x, mark.y), mark.glyph, mark.role, theme);
    }
    for mark in plot.marks.iter().rev().filter(|m| !m.label.is_empty()) {
        label(mark, frame, theme, buf);
    }
}

/// Where values lie on the screen.
#[derive(Clone, Copy)]
struct Frame {
    field: Rect,
    x: Scale,
    y: Scale,
    falling: bool,
}

impl Frame {
    fn place(self, x: f64, y: f64) -> (u16, u16) {
        let across = self.x.cell(x);
        let across = if self.falling { self.field.width - 1 - across } else { across };
        (self.field.x + across, self.field.bottom() - 1 - self.y.cell(y))
    }
}

fn put(buf: &mut Buffer, (x, y): (u16, u16), glyph: char, role: Role, theme: Theme) {
    if let Some(cell) = buf.cell_mut((x, y)) {
        cell.reset();
        cell.set_char(glyph).set_style(theme.role(role));
    }
}

fn axes(plot: Plot, frame: Frame, area: Rect, theme: Theme, buf: &mut Buffer) {
    let (field, dim) = (frame.field, theme.role(Role::Dim));
    let side = Rect { width: MARGIN, ..area };
    for row in 0..field.height {
        write(buf, side, row, &[(format!("{:>width$}", "│", width = MARGIN as usize), theme.role(Role::Border))]);
    }
    let mut last = String::new();
    for value in frame.y.ticks(3) {
        let row = field.height - 1 - frame.y.cell(value);
        let text = format!("{:>7} ┤", (plot.upwards)(value));
        if text != last {
            write(buf, side, row, &[(text.clone(), dim)]);
        }
        last = text;
    }
    let line = Rect { y: area.bottom() - 1, height: 1, ..area };
    let (mut free, mut last) = (line.x, String::new());
    let mut ticks: Vec<(u16, f64)> =
        frame.x.ticks(12).into_iter().map(|value| (frame.place(value, 0.0).0, value)).collect();
    ticks.sort_by_key(|(column, _)| *column);
    for (column, value) in ticks {
        let text = (plot.across)(value);
        let width = text.chars().count() as u16;
        let x = column.saturating_sub(width / 2);
        // Steps finer than what is written would be written twice.
        if x >= free && x + width <= line.right() && text != last {
            write(buf, Rect { x, width, ..line }, 0, &[(text.clone(), dim)]);
            (free, last) = (x + width + 1, text);
        }
    }
}

/// Dots a line through points, in cells where nothing is yet.
fn joined(points: &[(f64, f64)], frame: Frame, theme: Theme, buf: &mut Buffer) {
    for pair in points.windows(2) {
        let (a, b) = (frame.place(pair[0].0, pair[0].1), frame.place(pair[1].0, pair[1].1));
        let steps = a.0.abs_diff(b.0).max(a.1.abs_diff(b.1)).max(1);
        for step in (0..=steps).step_by(2) {
            let share = f64::from(step) / f64::from(steps);
            let between = |a: u16, b: u16| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u16;
            put(buf, (between(a.0, b.0), between(a.1, b.1)), '·', Role::Border, theme);
        }
    }
}

/// Writes a label right or left of its mark, a row above or below if need be, where it hides nothing.
fn label(mark: &Mark, frame: Frame, theme: Theme, buf: &mut Buffer) {
    let (x, y) = frame.place(mark.x, mark.y);
    let width = mark.label.chars().count() as u16;
    let field = frame.field;
    let free = |x: u16, y: u16, buf: &Buffer| {
        let inside = x >= field.x && x + width <= field.right() && y >= field.y && y < field.bottom();
        let blank = |x| buf.cell((x, y)).is_some_and(|c| matches!(c.symbol(), " " | "·" | "┄"));
        inside && (x..x + width).all(blank)
    };
    let spots = [0, -1, 1].into_iter().flat_map(|dy: i16| {
        let y = y.saturating_add_signed(dy);
        [(x + 2, y), (x.saturating_sub(width + 1), y)]
    });
    if let Some((x, y)) = spots.into_iter().find(|(x, y)| free(*x, *y, buf)) {
        write(buf, Rect::new(x, y, width, 1), 0, &[(mark.label.clone(), theme.role(mark.role))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::of([1.0, 1.37].into_iter(), 60).unwrap();
        let ticks = scale.ticks(12);
        assert!((2..=6).contains(&ticks.len()), "{ticks:?}");
        assert!(ticks.iter().all(|t| (t * 100.0 - (t * 100.0).round()).abs() < 1e-9), "{ticks:?}");
        assert_eq!((scale.cell(1.0) > 0, scale.cell(1.37) < 59, scale.cell(99.0)), (true, true, 59));
        let one = Scale::of([2.0, 2.0].into_iter(), 10).unwrap();
        assert!(one.low < 2.0 && one.high > 2.0);
        let zero = Scale::of([0.0].into_iter(), 10).unwrap();
        assert_eq!((zero.low, zero.high), (-0.01, 0.01), "a lone zero is not magnified");
        assert!(Scale::of([f64::NAN].into_iter(), 10).is_none());
    }
}
