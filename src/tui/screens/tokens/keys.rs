//! What can be done on the Tokens screen.

use super::update;
use crate::tui::action::actions;
use crate::tui::app::{App, Question};
use crate::tui::refuse::no_recording;
use crate::tui::update::overlay::ask;

/// Queries that PageUp and PageDown go over.
const PAGE: isize = 32;

actions! { ACTIONS:
    "query-before" ["Left" "h"] "Go to the query before" 1 |_| "query".into(), no_recording => |app| update::walk(app, -1);
    "query-after" ["Right" "l"] "Go to the next query" 0 |_| "query".into(), no_recording => |app| update::walk(app, 1);
    "query-page-up" ["PageUp"] "Go 32 queries back" 0 |_| "32 back".into(), no_recording => |app| update::walk(app, -PAGE);
    "query-page-down" ["PageDown"] "Go 32 queries on" 0 |_| "32 on".into(), no_recording => |app| update::walk(app, PAGE);
    "query-first" ["Home"] "Go to the first query" 0 |_| "first".into(), no_recording => |app| update::walk(app, isize::MIN);
    "query-last" ["End"] "Go to the last query" 0 |_| "last".into(), no_recording => |app| update::walk(app, isize::MAX);
    "query-different" ["m"] "Go to the query of which the two share least, then to the next" 2 |_| "most different".into(), no_recording => update::different;
    "find-token" ["/"] "Go to a position such as 611 or 3:611, or find text" 6 |_| "find".into(), no_recording => |app| ask(app, Question::Token, "");
    "find-next" ["n"] "Find the text again" 0 |_| "find again".into(), no_needle => update::find;
    "before-a" ["["] "Take the layer before as the one that needs indices" 3 |_| "needing".into(), no_recording => |app| update::pair(app, -1, 0);
    "after-a" ["]"] "Take the next layer as the one that needs indices" 0 |_| "needing".into(), no_recording => |app| update::pair(app, 1, 0);
    "before-b" ["{"] "Take the layer before as the one that lends" 4 |_| "lending".into(), no_recording => |app| update::pair(app, 0, -1);
    "after-b" ["}"] "Take the next layer as the one that lends" 0 |_| "lending".into(), no_recording => |app| update::pair(app, 0, 1);
    "swap-layers" ["Tab"] "Let the two layers change places" 7 |_| "swap".into(), no_recording => update::swap;
    "only-differences" ["d"] "Show only tokens that one of the two selects, or all" 5 only_differences, no_recording => update::toggle_differences;
    "text-up" ["Up" "k"] "Scroll the text back" 0 |_| "scroll".into(), no_recording => update::scroll_back;
    "text-down" ["Down" "j"] "Scroll the text on" 0 |_| "scroll".into(), no_recording => update::scroll_on;
}

/// Says which tokens are shown next.
pub fn only_differences(app: &App) -> String {
    if app.screens.tokens.only_differences { "all tokens" } else { "differences" }.into()
}

/// Refuses before any text was looked for.
pub fn no_needle(app: &App) -> Option<String> {
    app.screens.tokens.needle.is_empty().then(|| "no text was looked for yet; '/' asks for one".into())
}
