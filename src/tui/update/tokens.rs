//! Walking through the queries of a recording.

use crate::tui::action::Action;
use crate::tui::app::{App, Cursor, Tone};
use crate::tui::format;
use crate::tui::screens::tokens::text;

/// Queries that PageUp and PageDown go over.
const PAGE: usize = 32;

/// What the prompt of the screen asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// This query.
    Query(usize),
    /// The next place of this text.
    Text(String),
}

/// Goes to what was asked for.
pub fn show(app: &mut App, sought: Sought) {
    match sought {
        Sought::Query(query) => go(app, query),
        Sought::Text(needle) => {
            app.tokens.needle = needle;
            find(app);
        }
    }
}

/// Runs an action of the Tokens screen.
pub fn run(app: &mut App, action: Action) {
    let (Some(query), Some(layers)) = (app.query(), app.trace.as_ref().map(|t| t.selections.len())) else { return };
    let Cursor { row, column } = app.cursor;
    let last = layers - 1;
    match action {
        Action::QueryBefore => go(app, query.saturating_sub(1)),
        Action::QueryAfter => go(app, query + 1),
        Action::QueryPageUp => go(app, query.saturating_sub(PAGE)),
        Action::QueryPageDown => go(app, query + PAGE),
        Action::QueryFirst => go(app, 0),
        Action::QueryLast => go(app, usize::MAX),
        Action::QueryDifferent => different(app),
        Action::FindNext => find(app),
        Action::TextUp => scroll_back(app),
        Action::TextDown => app.tokens.back = app.tokens.back.saturating_sub(1),
        Action::OnlyDifferences => {
            app.tokens.only_differences = !app.tokens.only_differences;
            app.tokens.back = 0;
        }
        Action::BeforeA => pair(app, row.saturating_sub(1), column),
        Action::AfterA => pair(app, (row + 1).min(last), column),
        Action::BeforeB => pair(app, row, column.saturating_sub(1)),
        Action::AfterB => pair(app, row, (column + 1).min(last)),
        Action::SwapLayers => pair(app, column, row),
        _ => {}
    }
}

/// Scrolls the text back by a line while that shows more of it.
fn scroll_back(app: &mut App) {
    let Some(body) = app.layout().brief else { return };
    let back = app.tokens.back;
    if text(app, body, back + 1) != text(app, body, back) {
        app.tokens.back = back + 1;
    }
}

/// Looks at a query.
fn go(app: &mut App, query: usize) {
    let last = app.trace.as_ref().map_or(0, |t| t.queries.len().saturating_sub(1));
    app.tokens.query = Some(query.min(last));
    app.tokens.back = 0;
    app.tokens.rank = None;
}

/// Looks for the next place of the text that was looked for last.
fn find(app: &mut App) {
    let needle = app.tokens.needle.clone();
    match app.find_text(&needle) {
        Some(query) => go(app, query),
        None => app.say(Tone::Warn, format!("'{needle}' ends with no recorded query")),
    }
}

fn pair(app: &mut App, row: usize, column: usize) {
    app.cursor = Cursor { row, column };
    app.tokens.back = 0;
    app.tokens.rank = None;
}

fn different(app: &mut App) {
    let rank = app.tokens.rank.map_or(0, |rank| rank + 1);
    let Some((query, compared)) = app.least_shared(rank) else {
        app.say(Tone::Warn, "no recorded query sees more keys than a layer selects, so none can differ");
        return;
    };
    go(app, query);
    app.tokens.rank = Some(rank);
    let place = rank % compared + 1;
    app.say(
        Tone::Info,
        format!("number {place} of {} queries compared, the least shared first", format::count(compared)),
    );
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
