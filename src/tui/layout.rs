//! Where everything is drawn: a pure function of the terminal's size, the number of layers and what is wanted.

use ratatui::layout::Rect;

mod cells;
mod stack;

pub use cells::Cell;
use stack::stack;

/// Columns left of the map: label, pointer, F mark.
const GUTTER: u16 = 5;
/// The same where every column counts: the label alone.
const NARROW_GUTTER: u16 = 2;
/// Fewest columns in which the panels can be read.
const PANEL: u16 = 36;

/// A part of the screen that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// The pair of layers under the cursor.
    Pair,
    /// The neighbourhood of the cursor in numbers.
    Loupe,
    /// Loss and speed.
    Quality,
    /// The groups that Full layers serve.
    Groups,
    /// Loss by position.
    Positions,
    /// The patterns tried.
    History,
}

/// Which map is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever fits best.
    #[default]
    Best,
    /// This one.
    Only(MapView),
}

/// Which map is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapView {
    /// Every layer against every layer.
    Matrix,
    /// Every layer against those shortly before it.
    Ribbon,
    /// Both.
    Both,
}

impl MapView {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matrix => "matrix",
            Self::Ribbon => "ribbon",
            Self::Both => "both",
        }
    }
}

/// What a person wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Which map.
    pub view: Wanted,
    /// Steps larger (above 0) or smaller than what fits.
    pub zoom: i8,
    /// Whether the map has the whole screen.
    pub maximised: bool,
}

/// How large the terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Two lines of text.
    Tiny,
    /// Strip and three numbers.
    ExtraSmall,
    /// 80×24.
    Small,
    /// 120×40.
    Medium,
    /// 200×60.
    Large,
}

/// The strip of letters: where it begins, and how much of it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The letters' row, as wide as the layers that are seen.
    pub strip: Rect,
    /// The row above with layer numbers.
    pub ruler: Rect,
    /// The row below with coverage bars.
    pub coverage: Rect,
    /// Columns per layer.
    pub cell: u16,
}

/// The maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Which are drawn.
    pub view: MapView,
    /// How large one layer is in the matrix.
    pub cell: Cell,
    /// The matrix without its margin, which is all that lies left of it.
    pub matrix: Option<Rect>,
    /// The ribbon, under the strip's columns.
    pub ribbon: Option<Rect>,
    /// The line that says what is drawn, with the scale of its colours.
    pub caption: Rect,
}

/// Where everything is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How large the terminal is.
    pub class: Class,
    /// The first line.
    pub header: Option<Rect>,
    /// The strip.
    pub axis: Option<Axis>,
    /// The maps.
    pub map: Option<Map>,
    /// The panels.
    pub panes: Vec<(Pane, Rect)>,
    /// The panels that found no room.
    pub hidden: Vec<Pane>,
    /// A line between map and panels.
    pub rule: Option<Rect>,
    /// The line that says what happened.
    pub message: Option<Rect>,
    /// The last line.
    pub hints: Option<Rect>,
    /// What remains where there is room for text alone.
    pub brief: Option<Rect>,
}

impl Layout {
    /// Returns the view that comes after the one that is drawn.
    pub fn next_view(&self) -> MapView {
        match self.map.map(|m| m.view) {
            Some(MapView::Matrix) => MapView::Ribbon,
            Some(MapView::Ribbon) if self.class >= Class::Medium => MapView::Both,
            _ => MapView::Matrix,
        }
    }

    /// Returns every area.
    #[cfg(test)]
    pub fn areas(&self) -> Vec<Rect> {
        let axis = self.axis.map(|a| [a.strip, a.ruler, a.coverage].map(Some));
        let map = self.map.map(|m| [m.matrix, m.ribbon, Some(m.caption)]);
        [self.header, self.rule, self.message, self.hints, self.brief]
            .into_iter()
            .chain(axis.into_iter().flatten())
            .chain(map.into_iter().flatten())
            .flatten()
            .chain(self.panes.iter().map(|(_, area)| *area))
            .collect()
    }
}

/// Returns where everything goes on a terminal of `width`×`height` for a model of `layers` layers.
pub fn layout(width: u16, height: u16, layers: usize, wish: Wish) -> Layout {
    let class = match (width, height) {
        (w, h) if w < 30 || h < 8 => Class::Tiny,
        (w, h) if w < 60 || h < 15 => Class::ExtraSmall,
        (w, h) if w >= 160 && h >= 50 => Class::Large,
        (w, h) if w >= 100 && h >= 30 => Class::Medium,
        _ => Class::Small,
    };
    let row = |y: u16| Rect::new(0, y, width, 1);
    let mut plan = Layout {
        class,
        header: None,
        axis: None,
        map: None,
        panes: Vec::new(),
        hidden: Vec::new(),
        rule: None,
        message: None,
        hints: None,
        brief: None,
    };
    if class == Class::Tiny {
        plan.brief = Some(Rect::new(0, 0, width, height));
        return plan;
    }
    plan.hints = Some(row(height - 1));
    plan.message = Some(row(height - 2));
    let maximised = wish.maximised && class > Class::ExtraSmall && layers > 0;
    if !maximised {
        plan.header = Some(row(0));
    }
    let body = if maximised {
        plan.message = None;
        Rect::new(0, 0, width, height - 1)
    } else {
        Rect::new(0, 1, width, height - 3)
    };
    match class {
        _ if layers == 0 || class == Class::ExtraSmall => plan.brief = Some(body),
        _ if maximised => alone(&mut plan, body, layers, wish),
        Class::Small => small(&mut plan, body, layers, wish),
        _ => wide(&mut plan, body, layers, wish),
    }
    plan
}

/// Returns the columns left of a map of `layers` layers in `width` columns.
fn gutter(layers: usize, width: u16) -> u16 {
    let fits = |gutter: u16| layers + gutter as usize <= width as usize;
    if !fits(GUTTER) && fits(NARROW_GUTTER) { NARROW_GUTTER } else { GUTTER }
}

/// Rows of ruler, strip and coverage.
const AXIS: u16 = 3;

/// Places ruler, strip and coverage at the top of `area`, the strip from column `x` on; returns what is left below.
fn place_axis(plan: &mut Layout, area: Rect, x: u16, cell: u16, layers: usize) -> Rect {
    let width = (layers as u16 * cell).min((area.right().saturating_sub(x)) / cell * cell);
    let line = |y: u16| Rect::new(x, area.y + y, width, 1);
    plan.axis = Some(Axis { strip: line(1), ruler: line(0), coverage: line(2), cell });
    Rect { y: area.y + AXIS, height: area.height - AXIS, ..area }
}

/// Returns the rows that a ribbon of all distances needs.
fn ribbon_rows(layers: usize) -> u16 {
    (layers.saturating_sub(1)).div_ceil(2).max(1) as u16
}

/// 60 to 99 columns: the strip at the top; below it the matrix beside the panels where it fits there, else a map of the
/// whole width over the panels.
fn small(plan: &mut Layout, body: Rect, layers: usize, wish: Wish) {
    let room = (body.width.saturating_sub(38 + GUTTER), body.height - AXIS - 1);
    let fitting = Cell::fit(layers, room.0, room.1);
    let beside = !fitting.is_pooled() && layers <= room.0 as usize;
    let matrix = match wish.view {
        Wanted::Best => beside,
        Wanted::Only(view) => view == MapView::Matrix,
    };
    if matrix && beside {
        let cell = fitting.zoomed(wish.zoom, room.0, room.1);
        let (w, h) = cell.size(layers, room.0, room.1);
        let below = place_axis(plan, Rect { width: GUTTER + w, ..body }, GUTTER, cell.columns(), layers);
        let caption = Rect::new(0, below.y + h, GUTTER + room.0, 1);
        let area = Rect::new(GUTTER, below.y, w, h);
        plan.map = Some(Map { view: MapView::Matrix, cell, matrix: Some(area), ribbon: None, caption });
        let left = GUTTER + room.0 + 1;
        let side = Rect { x: left, width: body.width - left, y: below.y, height: below.height };
        stack(plan, side, &[Pane::Pair, Pane::Quality], &[Pane::Quality, Pane::Pair]);
        return;
    }
    // Two lines (caption and rule), eight for the panels; the map has the rest as far as it can use it.
    let rows = (body.height - AXIS).saturating_sub(2 + 8);
    let (map, y) = if matrix {
        let x = gutter(layers, body.width);
        let (width, rows) = (body.width - x, rows.max(2));
        let cell = Cell::fit(layers, width, rows).zoomed(wish.zoom, width, rows);
        let (w, h) = cell.size(layers, width, rows);
        let below = place_axis(plan, Rect { width: x + w, ..body }, x, cell.columns(), layers);
        let area = Rect::new(x, below.y, w, h);
        let caption = Rect::new(0, area.bottom(), body.width, 1);
        (Map { view: MapView::Matrix, cell, matrix: Some(area), ribbon: None, caption }, area.bottom() + 1)
    } else {
        let cell =
            ((body.width - 2) / layers.min(body.width as usize) as u16).clamp(1, 6) + wish.zoom.clamp(0, 6) as u16;
        let below = place_axis(plan, body, 1, cell, layers);
        let strip = plan.axis.map_or(below, |a| a.strip);
        let ribbon = Rect::new(strip.x, below.y, strip.width, rows.clamp(1, ribbon_rows(layers)));
        let caption = Rect::new(0, ribbon.bottom(), body.width, 1);
        let view = MapView::Ribbon;
        (Map { view, cell: Cell::Half, matrix: None, ribbon: Some(ribbon), caption }, ribbon.bottom() + 1)
    };
    plan.map = Some(map);
    plan.rule = Some(Rect::new(0, y, body.width, 1));
    let rest = Rect::new(0, y + 1, body.width, body.bottom() - y - 1);
    let middle = body.width / 2 - 1;
    stack(plan, Rect { width: middle, ..rest }, &[Pane::Pair], &[Pane::Pair]);
    let right = Rect { x: middle + 1, width: body.width - middle - 1, ..rest };
    stack(plan, right, &[Pane::Quality], &[Pane::Quality]);
}

/// 100 columns and more: the maps on the left under the strip, one or two columns of panels on the right.
fn wide(plan: &mut Layout, body: Rect, layers: usize, wish: Wish) {
    let large = plan.class == Class::Large;
    let rows = body.height - AXIS - 1;
    let columns = |panels: u16| body.width - GUTTER - panels;
    // Panels are as wide as their lines wish, unless the map could then not show every layer on its own.
    let wishes = if large { [2 * 50, 2 * 44] } else { [50, PANEL + 1] };
    let free = columns(wishes[0]);
    let shown = !Cell::fit(layers, free, rows).is_pooled() && layers <= free as usize;
    let width = columns(wishes[usize::from(!shown)]);
    let used = maps(plan, body, layers, wish, (GUTTER, width, rows));
    let x = GUTTER + used + 1;
    let side = Rect { x, width: body.width - x, ..body };
    let order = [Pane::Quality, Pane::Pair, Pane::Loupe, Pane::Positions, Pane::History, Pane::Groups];
    if large {
        let half = side.width / 2;
        let left = Rect { width: half, ..side };
        stack(plan, left, &[Pane::Pair, Pane::Loupe, Pane::Groups], &order);
        let right = Rect { x: x + half, width: side.width - half, ..side };
        stack(plan, right, &[Pane::Quality, Pane::Positions, Pane::History], &order);
    } else {
        stack(plan, side, &[Pane::Pair, Pane::Loupe, Pane::Quality, Pane::History], &order);
    }
}

/// The map with the whole screen: no header, no message.
fn alone(plan: &mut Layout, body: Rect, layers: usize, wish: Wish) {
    let x = gutter(layers, body.width);
    maps(plan, body, layers, wish, (x, body.width - x, body.height - AXIS - 1));
}

/// Places strip, matrix, ribbon and caption into so many columns and rows from a column on; returns the columns used.
fn maps(plan: &mut Layout, body: Rect, layers: usize, wish: Wish, (x, width, height): (u16, u16, u16)) -> u16 {
    let fitting = Cell::fit(layers, width, height);
    // One layer per half row is worth a look at a part of the rows; `wish.maximised` asks for just that.
    let part = fitting.is_pooled() && wish.maximised && layers <= width as usize && 3 * layers <= 8 * height as usize;
    let view = match wish.view {
        Wanted::Best if part => MapView::Matrix,
        Wanted::Best if fitting.is_pooled() => MapView::Both,
        Wanted::Best => MapView::Matrix,
        Wanted::Only(view) => view,
    };
    // With both, the ribbon keeps at least six rows.
    let rows = if view == MapView::Both { height.saturating_sub(6).max(1) } else { height };
    let fitting = if part && view == MapView::Matrix { Cell::Half } else { Cell::fit(layers, width, rows) };
    let cell = fitting.zoomed(wish.zoom, width, rows);
    let step = match view {
        MapView::Matrix | MapView::Both => cell.columns(),
        MapView::Ribbon => (width / layers.min(width as usize) as u16).clamp(1, 6),
    };
    let below = place_axis(plan, Rect { width: x + width, ..body }, x, step, layers);
    let strip = plan.axis.map_or(below, |a| a.strip);
    let (w, h) = cell.size(layers, width, rows);
    let matrix = (view != MapView::Ribbon).then(|| Rect::new(x, below.y, w, h));
    let top = matrix.map_or(below.y, Rect::bottom);
    // The caption stands between the two, or under the only one.
    let left = (below.bottom() - top).saturating_sub(1);
    // What the matrix leaves free shows the ribbon too, if that is worth it.
    let wanted = view != MapView::Matrix || (wish.view == Wanted::Best && left >= 5);
    let distances = left.min(ribbon_rows(layers));
    let ribbon = (wanted && distances > 0)
        .then(|| Rect::new(strip.x, top + u16::from(matrix.is_some()), strip.width, distances));
    let used = strip.width.max(64).min(width);
    let caption = matrix.or(ribbon).map_or(top, Rect::bottom);
    let view = match (matrix, ribbon) {
        (Some(_), Some(_)) => MapView::Both,
        (Some(_), None) => MapView::Matrix,
        _ => MapView::Ribbon,
    };
    plan.map = Some(Map { view, cell, matrix, ribbon, caption: Rect::new(x, caption, used, 1) });
    used
}

#[cfg(test)]
mod tests;
