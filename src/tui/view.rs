//! Draws the state; changes nothing.

use ratatui::Frame;
use ratatui::buffer::Buffer;

use super::app::App;
use super::layout::Class;
use super::screens::Needs;
use super::theme::plain;
use super::widgets::{overlay, status};

/// Draws everything into a frame.
pub fn view(app: &App, frame: &mut Frame) {
    if let Some(position) = render(app, frame.buffer_mut()) {
        frame.set_cursor_position(position);
    }
}

/// Draws everything into a buffer; returns where the text cursor is, if there is one.
pub fn render(app: &App, buf: &mut Buffer) -> Option<(u16, u16)> {
    let layout = app.layout();
    status::header(app, &layout, buf);
    let spec = app.screen.spec();
    match layout.brief {
        Some(body) if spec.needs == Needs::Pattern && (layout.class == Class::Tiny || app.history.is_none()) => {
            status::brief(app, body, buf);
        }
        body => (spec.draw)(app, &layout, body.unwrap_or_default(), buf),
    }
    status::message(app, &layout, buf);
    status::notice(app, &layout, buf);
    status::hints(app, &layout, buf);
    let cursor = overlay::draw(app, buf.area, buf);
    if app.theme.ascii {
        for cell in &mut buf.content {
            if !cell.symbol().is_ascii() {
                let glyph = cell.symbol().chars().next().map_or(' ', plain);
                cell.set_char(glyph);
            }
        }
    }
    cursor
}
