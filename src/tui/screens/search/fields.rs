//! The settings of a search, one per line.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::update::evaluations;
use super::{Field, Form};
use crate::domain::{Constraints, Goal};
use crate::tui::app::App;
use crate::tui::format;
use crate::tui::theme::Role;
use crate::tui::widgets::{wrapped, write};

/// Columns of the names.
const NAMES: u16 = 25;

/// Draws the lines, with the chosen one marked; returns where its text cursor is, if it is typed.
pub fn fields(app: &App, form: &Form, chosen: Option<Field>, area: Rect, buf: &mut Buffer) -> Option<(u16, u16)> {
    let theme = app.theme;
    let mut cursor = None;
    for (row, field) in form.fields().into_iter().enumerate() {
        let row = row as u16;
        let here = chosen == Some(field);
        let pointer = if here { "▸ " } else { "  " };
        let name = format!("{pointer}{:<width$}", field.name(), width = NAMES as usize - 2);
        let value = form.value(field);
        let text = match (here, field.is_typed()) {
            (true, false) => format!("← {value} →"),
            (false, true) if value.is_empty() => "–".to_owned(),
            _ => value,
        };
        let role = theme.role(match form.input(field) {
            Some(input) if here && input.is_selected() => Role::Cursor,
            _ if here => Role::Accent,
            _ => Role::Text,
        });
        write(buf, area, row, &[(name, theme.role(if here { Role::Text } else { Role::Dim })), (text, role)]);
        if let Some(input) = form.input(field).filter(|_| here && row < area.height) {
            cursor = Some((area.x + NAMES + input.cursor() as u16, area.y + row));
        }
    }
    let below = form.fields().len() as u16 + 1;
    let (text, role) = match app.constraints().map(|c| verdict(app, form, c)) {
        Some(Ok(text)) => (text, Role::Good),
        Some(Err(why)) => (why, Role::Warn),
        None => return cursor,
    };
    for (row, line) in wrapped(&text, area.width as usize).into_iter().enumerate() {
        write(buf, area, below + row as u16, &[(line, theme.role(role))]);
    }
    cursor
}

/// Says what the settings come to, and what the paper's greedy would cost for it.
fn verdict(app: &App, form: &Form, constraints: Constraints) -> Result<String, String> {
    let layers = constraints.len();
    let settings = form.settings(layers)?;
    let reference = constraints.reference().map_err(|e| e.to_string())?;
    let start = reference.full_count() - settings.lock_shared.iter().filter(|&l| reference.is_full(l)).count();
    // What is locked Shared has no indexer to save.
    let shipped = match constraints.locked_shared.len() {
        0 => String::new(),
        locked => format!("{} Full of {layers} as shipped, {locked} have no indexer. ", layers - locked),
    };
    let goal = match settings.goal {
        Goal::Keep(full) => format!("{start} → {} of {layers} Full", full.min(start)),
        Goal::MaxDelta(most) => format!("{start} of {layers} Full → as few as Δloss ≤ {most} allows"),
    };
    let greedy = evaluations(&settings, constraints).map_or_else(String::new, |evaluations| {
        let hours = app.pace().map_or_else(String::new, |each| {
            format!(", about {} at the pace of the last evaluation", format::clock(each * evaluations as f64))
        });
        let most = if matches!(settings.goal, Goal::MaxDelta(_)) { "at most " } else { "" };
        format!(" The paper's greedy would need {most}{evaluations} evaluations of {layers} layers{hours}.")
    });
    Ok(format!("{shipped}{goal}.{greedy}"))
}
