//! What is done on the Engines screen.

use crate::tui::app::{App, Question};
use crate::tui::msg::Effect;
use crate::tui::update::overlay::ask;

/// Looks at the engine so many lines further down.
pub fn step(app: &mut App, by: isize) -> Vec<Effect> {
    let count = app.simulation().and_then(Result::ok).map_or(0, |s| s.engines.len());
    let chosen = &mut app.screens.engines.chosen;
    *chosen = chosen.saturating_add_signed(by).min(count.saturating_sub(1));
    Vec::new()
}

/// Asks for the split over pipeline stages.
pub fn ask_stages(app: &mut App) -> Vec<Effect> {
    let now = app.screens.engines.stages.as_ref().map_or_else(String::new, ToString::to_string);
    ask(app, Question::Stages, &now)
}
