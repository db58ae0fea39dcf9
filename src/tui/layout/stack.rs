//! Panels one above the other.

use ratatui::layout::Rect;

use super::{Class, Layout, Pane};

/// Returns the fewest rows of a pane, and those with which it is content; frames included from medium size on.
fn rows(pane: Pane, class: Class) -> (u16, u16) {
    match (pane, class) {
        (Pane::Pair | Pane::Quality, Class::Small) => (3, 9),
        (Pane::Pair, _) => (5, 8),
        (Pane::Quality, _) => (8, 12),
        (Pane::Loupe, _) => (8, 8),
        (Pane::Positions, _) => (5, 9),
        (Pane::Groups | Pane::History, _) => (4, u16::MAX),
    }
}

/// Stacks `panes` in this order into `area`; those that come last in `priority` are hidden first.
pub fn stack(plan: &mut Layout, area: Rect, panes: &[Pane], priority: &[Pane]) {
    let mut kept: Vec<Pane> = Vec::new();
    let mut least = 0;
    for &pane in priority.iter().filter(|p| panes.contains(p)) {
        let (min, _) = rows(pane, plan.class);
        if least + min <= area.height {
            least += min;
            kept.push(pane);
        } else {
            plan.hidden.push(pane);
        }
    }
    let mut spare = area.height - least;
    let mut y = area.y;
    let shown: Vec<Pane> = panes.iter().copied().filter(|p| kept.contains(p)).collect();
    // Rows are granted by priority, so that growing lists take only what the others leave.
    let mut heights: Vec<(Pane, u16)> = Vec::new();
    for &pane in &kept {
        let (min, content) = rows(pane, plan.class);
        let more = spare.min(content - min);
        spare -= more;
        heights.push((pane, min + more));
    }
    for pane in shown {
        let height = heights.iter().find(|(p, _)| *p == pane).map_or(0, |(_, h)| *h);
        plan.panes.push((pane, Rect { y, height, ..area }));
        y += height;
    }
}
