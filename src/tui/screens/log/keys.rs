//! What can be done on the Log screen.

use crate::tui::action::{actions, never};
use crate::tui::app::App;
use crate::tui::msg::Effect;

actions! { ACTIONS:
    "log-up" ["Up" "k"] "Go back to older messages" 1 |_| "older".into(), never => |app| scroll(app, -1);
    "log-down" ["Down" "j"] "Go on to newer messages" 0 |_| "newer".into(), never => |app| scroll(app, 1);
    "log-page-up" ["PageUp"] "Go ten messages back" 0 |_| "ten back".into(), never => |app| scroll(app, -10);
    "log-page-down" ["PageDown"] "Go ten messages on" 0 |_| "ten on".into(), never => |app| scroll(app, 10);
    "log-follow" ["F" "End"] "Go to the newest message and follow" 2 |_| "follow".into(), never => |app| scroll(app, isize::MAX);
}

fn scroll(app: &mut App, by: isize) -> Vec<Effect> {
    app.screens.log.scroll(by);
    Vec::new()
}
