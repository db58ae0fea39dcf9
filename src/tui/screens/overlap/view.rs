//! The Overlap screen: strip, maps, the pair under the cursor, quality and speed.
//!
//! ```text
//! S  header / ruler / strip / coverage / ribbon / caption / rule / pair+loupe │ quality / message / hints
//! M  header / strip / matrix (and ribbon) │ pair, loupe, quality, history / message / hints
//! L  as M, with two columns of panels: pair, loupe, groups │ quality, positions, history
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::tui::app::App;
use crate::tui::layout::{Class, Layout, Pane};
use crate::tui::theme::Role;
use crate::tui::widgets::{caption, frame, heatmap, lists, loupe, pair, quality, ribbon, status, strip, write};

/// Draws the screen.
pub fn draw(app: &App, layout: &Layout, buf: &mut Buffer) {
    strip::draw(app, layout, buf);
    heatmap::draw(app, layout, buf);
    ribbon::draw(app, layout, buf);
    caption::draw(app, layout, buf);
    if let Some(rule) = layout.rule {
        write(buf, rule, 0, &[("─".repeat(rule.width as usize), app.theme.role(Role::Border))]);
    }
    for (pane, area) in &layout.panes {
        draw_pane(app, layout, *pane, *area, buf);
    }
    if let Some(area) = layout.brief {
        status::brief(app, area, buf);
    }
}

fn draw_pane(app: &App, layout: &Layout, pane: Pane, area: Rect, buf: &mut Buffer) {
    let framed = layout.class >= Class::Medium;
    match pane {
        Pane::Pair if framed => pair::draw(app, area, buf),
        Pane::Pair => {
            let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
            pair::draw_small(app, inner, buf);
        }
        Pane::Loupe => {
            let inner = frame(buf, area, "Loupe ×100", app.theme);
            let spare = inner.width.saturating_sub(loupe::COLUMNS) / 2;
            loupe::draw(app, Rect { x: inner.x + spare, width: inner.width - spare, ..inner }, buf);
        }
        Pane::Quality if framed => quality::draw(app, area, true, buf),
        Pane::Quality => {
            for row in 0..area.height {
                write(buf, Rect { width: 1, ..area }, row, &[("│".into(), app.theme.role(Role::Border))]);
            }
            let inner = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..area };
            quality::draw(app, inner, false, buf);
        }
        Pane::Groups => lists::groups(app, area, buf),
        Pane::Positions => lists::positions(app, area, buf),
        Pane::History => lists::history(app, area, buf),
    }
}
