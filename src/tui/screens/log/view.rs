//! The Log screen: what happened so far, the newest at the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::tui::app::{App, Tone};
use crate::tui::format;
use crate::tui::theme::Role;
use crate::tui::widgets::write;

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let messages = app.screens.log.messages();
    let rows = body.height as usize;
    let last = messages.len().saturating_sub(app.screens.log.back);
    if messages.is_empty() {
        write(buf, body, body.height / 2, &[(" nothing has happened yet".into(), app.theme.role(Role::Dim))]);
    }
    for (row, message) in messages.iter().take(last).skip(last.saturating_sub(rows)).enumerate() {
        let role = match message.tone {
            Tone::Info => Role::Text,
            Tone::Warn => Role::Warn,
            Tone::Bad => Role::Bad,
        };
        let when = format!(" {:>7}  ", format::clock(message.at.as_secs_f64()));
        let text = format::fit(&message.text, (body.width as usize).saturating_sub(11));
        write(buf, body, row as u16, &[(when, app.theme.role(Role::Dim)), (text, app.theme.role(role))]);
    }
}
