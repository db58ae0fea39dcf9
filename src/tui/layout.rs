//! Where everything is drawn: a pure function of the terminal's size, the number of layers and what is wanted.

use ratatui::layout::Rect;

mod cells;
mod stack;

pub use cells::Cell;
use stack::stack;

/// Columns left of the map: two-digit label, pointer, F mark, space.
pub const GUTTER: u16 = 5;
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
    pub ruler: Option<Rect>,
    /// The row below with coverage bars.
    pub coverage: Option<Rect>,
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
    /// The matrix without its margin of [`GUTTER`] columns.
    pub matrix: Option<Rect>,
    /// The ribbon, under the strip's columns.
    pub ribbon: Option<Rect>,
    /// The line that says what is drawn.
    pub caption: Option<Rect>,
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
        let axis = self.axis.map(|a| [Some(a.strip), a.ruler, a.coverage]);
        let map = self.map.map(|m| [m.matrix, m.ribbon, m.caption]);
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

/// Places ruler, strip and coverage at the top of `area` and returns what is left below.
fn place_axis(plan: &mut Layout, area: Rect, x: u16, cell: u16, layers: usize, rows: u16) -> Rect {
    let width = (layers as u16 * cell).min((area.right().saturating_sub(x)) / cell * cell);
    let line = |y: u16| Rect::new(x, area.y + y, width, 1);
    let ruler = (rows >= 3).then(|| line(0));
    let top = u16::from(ruler.is_some());
    plan.axis = Some(Axis { strip: line(top), ruler, coverage: (rows >= 2).then(|| line(top + 1)), cell });
    Rect { y: area.y + rows, height: area.height - rows, ..area }
}

/// Returns the rows that a ribbon of all distances needs.
fn ribbon_rows(layers: usize) -> u16 {
    (layers.saturating_sub(1)).div_ceil(2).max(1) as u16
}

/// 60 to 99 columns: the strip over the whole width; below it the ribbon over the panels, or the matrix beside them.
fn small(plan: &mut Layout, body: Rect, layers: usize, wish: Wish) {
    let rows = if body.height >= 17 { 3 } else { 2 };
    let room = (body.width.saturating_sub(38 + GUTTER), body.height - rows - 1);
    let fitting = Cell::fit(layers, room.0, room.1);
    let matrix = match wish.view {
        Wanted::Best => !fitting.is_pooled(),
        Wanted::Only(view) => view == MapView::Matrix,
    };
    if matrix {
        let cell = fitting.zoomed(wish.zoom);
        let (w, h) = cell.size(layers, room.0, room.1);
        let (x, step) = cell.columns().map_or((1, 1), |columns| (GUTTER, columns));
        let whole = Rect { width: if cell.is_pooled() { body.width } else { GUTTER + w }, ..body };
        let below = place_axis(plan, whole, x, step, layers, rows);
        let caption = Rect::new(0, below.y + h, GUTTER + room.0, 1);
        let area = Rect::new(GUTTER, below.y, w, h);
        plan.map = Some(Map { view: MapView::Matrix, cell, matrix: Some(area), ribbon: None, caption: Some(caption) });
        let left = GUTTER + room.0 + 1;
        let side = Rect { x: left, width: body.width - left, ..below };
        stack(plan, side, &[Pane::Pair, Pane::Quality], &[Pane::Quality, Pane::Pair]);
        return;
    }
    let cell = ((body.width - 2) / layers.min(body.width as usize) as u16).clamp(1, 6) + wish.zoom.clamp(0, 6) as u16;
    let below = place_axis(plan, body, 1, cell, layers, rows);
    // Two lines (caption and rule), eight for the panels; the ribbon has the rest as far as it can use it.
    let height = below.height.saturating_sub(2 + 8).clamp(1, ribbon_rows(layers));
    let strip = plan.axis.map_or(below, |a| a.strip);
    let ribbon = Rect::new(strip.x, below.y, strip.width, height);
    let line = |y| Rect::new(0, y, body.width, 1);
    plan.map = Some(Map {
        view: MapView::Ribbon,
        cell: Cell::Half,
        matrix: None,
        ribbon: Some(ribbon),
        caption: Some(line(ribbon.bottom())),
    });
    plan.rule = Some(line(ribbon.bottom() + 1));
    let y = ribbon.bottom() + 2;
    let rest = Rect::new(0, y, body.width, body.bottom() - y);
    let middle = body.width / 2 - 1;
    stack(plan, Rect { width: middle, ..rest }, &[Pane::Pair], &[Pane::Pair]);
    let right = Rect { x: middle + 1, width: body.width - middle - 1, ..rest };
    stack(plan, right, &[Pane::Quality], &[Pane::Quality]);
}

/// 100 columns and more: the maps on the left under the strip, one or two columns of panels on the right.
fn wide(plan: &mut Layout, body: Rect, layers: usize, wish: Wish) {
    let large = plan.class == Class::Large;
    let rows = body.height - 4;
    let columns = |panels: u16| body.width - GUTTER - panels;
    // Panels are as wide as their lines wish, unless the map could then not show every layer on its own.
    let wishes = if large { [2 * 50, 2 * 44] } else { [50, PANEL + 1] };
    let free = columns(wishes[0]);
    let shown = !Cell::fit(layers, free, rows).is_pooled() && layers <= free as usize;
    let room = (columns(wishes[usize::from(!shown)]), rows);
    let used = maps(plan, body, layers, wish, room);
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

/// The map with the whole screen: no header, no message, the strip only where rows are left over.
fn alone(plan: &mut Layout, body: Rect, layers: usize, wish: Wish) {
    let room = (body.width - GUTTER, body.height);
    let fit = Cell::fit(layers, room.0, room.1).zoomed(wish.zoom);
    let spare = body.height - fit.size(layers, room.0, room.1).1;
    if spare >= 4 || fit.is_pooled() || wish.view == Wanted::Only(MapView::Ribbon) {
        maps(plan, body, layers, wish, (room.0, body.height - 4));
    } else {
        let (w, h) = fit.size(layers, room.0, room.1);
        let matrix = Some(Rect::new(GUTTER, body.y, w, h));
        plan.map = Some(Map { view: MapView::Matrix, cell: fit, matrix, ribbon: None, caption: None });
    }
}

/// Places strip, matrix, ribbon and caption into `room` columns and rows; returns the columns used.
fn maps(plan: &mut Layout, body: Rect, layers: usize, wish: Wish, room: (u16, u16)) -> u16 {
    let fitting = Cell::fit(layers, room.0, room.1);
    let view = match wish.view {
        Wanted::Best if fitting.is_pooled() => MapView::Both,
        Wanted::Best => MapView::Matrix,
        Wanted::Only(view) => view,
    };
    // With both, the ribbon keeps at least six rows.
    let rows = if view == MapView::Both { room.1.saturating_sub(6) } else { room.1 };
    let cell = Cell::fit(layers, room.0, rows).zoomed(wish.zoom);
    let step = match (view, cell.columns()) {
        (MapView::Matrix | MapView::Both, Some(columns)) => columns,
        (MapView::Matrix | MapView::Both, None) => 1,
        (MapView::Ribbon, _) => (room.0 / layers.min(room.0 as usize) as u16).clamp(1, 6),
    };
    let below = place_axis(plan, Rect { width: GUTTER + room.0, ..body }, GUTTER, step, layers, 3);
    let strip = plan.axis.map_or(below, |a| a.strip);
    let (w, h) = cell.size(layers, room.0, rows);
    let matrix = (view != MapView::Ribbon).then(|| Rect::new(GUTTER, below.y, w, h));
    let top = matrix.map_or(below.y, Rect::bottom);
    let left = (below.bottom() - top).saturating_sub(1);
    // What the matrix leaves free shows the ribbon too, if that is worth it.
    let wanted = view != MapView::Matrix || (wish.view == Wanted::Best && left >= 5);
    let ribbon = (wanted && left > 0)
        .then(|| Rect::new(strip.x, top + 1, strip.width, (left - 1).min(ribbon_rows(layers)).max(1)))
        .map(|r| if matrix.is_none() { Rect { y: top, ..r } } else { r })
        .filter(|r| r.bottom() <= below.bottom());
    let used = strip.width.max(matrix.map_or(0, |m| m.width)).max(64).min(room.0);
    let line = |y: u16| Rect::new(GUTTER, y, used, 1);
    // The caption stands between the two, or under the only one.
    let caption = matrix.map_or_else(|| ribbon.map_or(top, Rect::bottom), Rect::bottom);
    let view = match (matrix, ribbon) {
        (Some(_), Some(_)) => MapView::Both,
        (Some(_), None) => MapView::Matrix,
        _ => MapView::Ribbon,
    };
    let caption = (caption < below.bottom()).then(|| line(caption));
    plan.map = Some(Map { view, cell, matrix, ribbon, caption });
    used
}

#[cfg(test)]
mod tests;
