//! Walking through the queries of a recording.

use super::view::text;
use crate::tui::app::{App, Cursor, Tone};
use crate::tui::format;
use crate::tui::msg::Effect;

/// What the prompt of the screen asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// This query.
    Query(usize),
    /// The next place of this text.
    Text(String),
}

/// Goes to what was asked for.
pub fn show(app: &mut App, sought: Sought) -> Vec<Effect> {
    match sought {
        Sought::Query(query) => {
            go(app, query);
            Vec::new()
        }
        Sought::Text(needle) => {
            app.screens.tokens.needle = needle;
            find(app)
        }
    }
}

/// Goes so many queries on, or back for negative numbers.
pub fn walk(app: &mut App, by: isize) -> Vec<Effect> {
    if let Some(query) = app.query() {
        go(app, query.saturating_add_signed(by));
    }
    Vec::new()
}

/// Takes layers that are so many further on: for the one that needs indices, and for the one that would lend them.
pub fn pair(app: &mut App, row: isize, column: isize) -> Vec<Effect> {
    let last = app.trace.as_ref().map_or(0, |t| t.selections.len().saturating_sub(1));
    let on = |at: usize, by: isize| at.saturating_add_signed(by).min(last);
    let cursor = Cursor { row: on(app.cursor.row, row), column: on(app.cursor.column, column) };
    look_at(app, cursor)
}

/// Lets the two layers change places.
pub fn swap(app: &mut App) -> Vec<Effect> {
    let Cursor { row, column } = app.cursor;
    look_at(app, Cursor { row: column, column: row })
}

fn look_at(app: &mut App, cursor: Cursor) -> Vec<Effect> {
    app.cursor = cursor;
    app.screens.tokens.back = 0;
    app.screens.tokens.rank = None;
    Vec::new()
}

/// Shows only tokens that one of the two selects, or all.
pub fn toggle_differences(app: &mut App) -> Vec<Effect> {
    let state = &mut app.screens.tokens;
    state.only_differences = !state.only_differences;
    state.back = 0;
    Vec::new()
}

/// Scrolls the text back by a line while that shows more of it.
pub fn scroll_back(app: &mut App) -> Vec<Effect> {
    let Some(body) = app.layout().brief else { return Vec::new() };
    let back = app.screens.tokens.back;
    if text(app, body, back + 1) != text(app, body, back) {
        app.screens.tokens.back = back + 1;
    }
    Vec::new()
}

/// Scrolls the text on by a line.
pub fn scroll_on(app: &mut App) -> Vec<Effect> {
    app.screens.tokens.back = app.screens.tokens.back.saturating_sub(1);
    Vec::new()
}

/// Looks at a query.
fn go(app: &mut App, query: usize) {
    let last = app.trace.as_ref().map_or(0, |t| t.queries.len().saturating_sub(1));
    app.screens.tokens.query = Some(query.min(last));
    app.screens.tokens.back = 0;
    app.screens.tokens.rank = None;
}

/// Looks for the next place of the text that was looked for last.
pub fn find(app: &mut App) -> Vec<Effect> {
    let needle = app.screens.tokens.needle.clone();
    match app.find_text(&needle) {
        Some(query) => go(app, query),
        None => app.say(Tone::Warn, format!("'{needle}' ends with no recorded query")),
    }
    Vec::new()
}

/// Goes to the query of which the two layers share least, then to the next.
pub fn different(app: &mut App) -> Vec<Effect> {
    let rank = app.screens.tokens.rank.map_or(0, |rank| rank + 1);
    let Some((query, compared)) = app.least_shared(rank) else {
        app.say(Tone::Warn, "no recorded query sees more keys than a layer selects, so none can differ");
        return Vec::new();
    };
    go(app, query);
    app.screens.tokens.rank = Some(rank);
    let place = rank % compared + 1;
    app.say(
        Tone::Info,
        format!("number {place} of {} queries compared, the least shared first", format::count(compared)),
    );
    Vec::new()
}

/// Returns the query that a position means, or the text to find.
pub fn sought(app: &App, text: &str) -> Result<Sought, String> {
    let here = app.pair_sets().map_or(0, |sets| sets.query.sequence as usize);
    let place = match text.split_once(':') {
        Some((sequence, position)) => sequence.parse().ok().zip(position.parse().ok()),
        None => text.parse().ok().map(|position| (here, position)),
    };
    match place {
        Some((sequence, position)) => {
            let query = app.query_at(sequence, position).map(Sought::Query);
            query.ok_or_else(|| format!("no query of sequence {sequence} from position {position} on was recorded"))
        }
        None if app.find_text(text).is_some() => Ok(Sought::Text(text.to_owned())),
        None => Err(format!("'{text}' ends with no recorded query")),
    }
}
