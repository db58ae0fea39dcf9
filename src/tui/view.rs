//! Draws the state; changes nothing.

use ratatui::Frame;
use ratatui::buffer::Buffer;

use super::app::App;
use super::screens::overlap;
use super::theme::plain;
use super::widgets::overlay;

/// Draws everything into a frame.
pub fn view(app: &App, frame: &mut Frame) {
    if let Some(position) = render(app, frame.buffer_mut()) {
        frame.set_cursor_position(position);
    }
}

/// Draws everything into a buffer; returns where the text cursor is, if there is one.
pub fn render(app: &App, buf: &mut Buffer) -> Option<(u16, u16)> {
    overlap::draw(app, &app.layout(), buf);
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
