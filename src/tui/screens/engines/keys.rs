//! What can be done on the Engines screen.

use super::update;
use crate::tui::action::actions;
use crate::tui::app::App;

actions! { ACTIONS:
    "engine-up" ["Up" "k"] "Look at the engine above" 1 |_| "engine".into(), no_target => |app| update::step(app, -1);
    "engine-down" ["Down" "j"] "Look at the engine below" 0 |_| "engine".into(), no_target => |app| update::step(app, 1);
    "stages" ["s"] "Split the layers over pipeline stages, such as 14,6x8,16" 2 |_| "stages".into(), no_target => update::ask_stages;
}

/// Refuses without the config of a model.
pub fn no_target(app: &App) -> Option<String> {
    app.target.is_none().then(|| "no model is open whose config engines could read".into())
}
