//! Lists, prompts and texts that lie over the screen.

use std::path::PathBuf;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Window, clear, frame, wrapped, write, write_right};
use crate::tui::action::{keys_text, shown};
use crate::tui::app::{App, LongWork, Overlay, Question};
use crate::tui::format;
use crate::tui::input::Input;
use crate::tui::keys;
use crate::tui::screens::search::{Form, fields};
use crate::tui::screens::tokens::update::Sought;
use crate::tui::theme::Role;
use crate::tui::update::overlay::{Answer, Listed, chosen_actions, chosen_sessions, verdict};

/// Draws whatever lies over the screen; returns where the text cursor is, if there is one.
pub fn draw(app: &App, screen: Rect, buf: &mut Buffer) -> Option<(u16, u16)> {
    match &app.overlay {
        Overlay::None => None,
        Overlay::Actions { help, query, chosen } => Some(actions(app, screen, *help, query, *chosen, buf)),
        Overlay::Export => {
            export(app, screen, buf);
            None
        }
        Overlay::Prompt(question, input) => Some(prompt(app, screen, *question, input, buf)),
        Overlay::Sessions { query, paths, chosen } => Some(sessions(app, screen, query, paths, *chosen, buf)),
        Overlay::Search(form) => search(app, screen, form, buf),
        Overlay::Confirm(work, doubts) => {
            confirm(app, screen, *work, doubts, buf);
            None
        }
        Overlay::Text { title, body, scroll } => {
            text(app, screen, title, body, *scroll, buf);
            None
        }
    }
}

/// Opens a box in the middle of the screen and returns its inside.
fn open(app: &App, screen: Rect, width: u16, height: u16, title: &str, buf: &mut Buffer) -> Rect {
    let (width, height) = (width.min(screen.width), height.min(screen.height));
    let area = Rect::new((screen.width - width) / 2, (screen.height - height) / 2, width, height);
    clear(buf, area);
    frame(buf, area, title, app.theme)
}

/// Draws the line that is typed; returns where its cursor is.
fn typed(app: &App, inner: Rect, input: &Input, buf: &mut Buffer) -> (u16, u16) {
    let room = inner.width.saturating_sub(3) as usize;
    let skip = input.cursor().saturating_sub(room);
    let seen: String = input.text().chars().skip(skip).take(room).collect();
    let role = if input.is_selected() { Role::Cursor } else { Role::Text };
    write(buf, inner, 0, &[("› ".into(), app.theme.role(Role::Accent)), (seen, app.theme.role(role))]);
    (inner.x + 2 + (input.cursor() - skip) as u16, inner.y)
}

fn actions(app: &App, screen: Rect, help: bool, query: &Input, chosen: usize, buf: &mut Buffer) -> (u16, u16) {
    let Listed { rows: found, all } = chosen_actions(app, query, help);
    let title =
        if help { "Keys · type to filter, Enter runs, Esc closes" } else { "Commands · Enter runs, Esc closes" };
    let height = if help { screen.height.saturating_sub(2) } else { 16 };
    let inner = open(app, screen, 76, height, title, buf);
    let cursor = typed(app, inner, query, buf);
    let theme = app.theme;
    write_right(buf, inner, 0, &[(format!("{} of {all}", found.len()), theme.role(Role::Dim))]);
    let list = Rect { y: inner.y + 2, height: inner.height.saturating_sub(2), ..inner };
    let seen = Window::around(chosen, list.height as usize, found.len());
    for row in 0..seen.count {
        let at = seen.first + row;
        let (action, title) = &found[at];
        let refused = (action.refusal)(app).is_some();
        let role = match (at == chosen, refused) {
            (true, _) => Role::Cursor,
            (false, true) => Role::Dim,
            (false, false) => Role::Text,
        };
        let keys = format!(" {:<16}", keys_text(action));
        let room = (list.width as usize).saturating_sub(18);
        let doc = format!("{:<room$}", format::fit(action.doc, room));
        let key_role = if at == chosen { Role::Cursor } else { Role::Accent };
        write(buf, list, row as u16, &[(keys, theme.role(key_role)), (doc, theme.role(role))]);
        // Headings stand at the right, where they change.
        let before = at.checked_sub(1).map(|b| &found[b].1);
        if before != Some(title) && at != chosen && action.doc.chars().count() + 20 < room {
            write_right(buf, list, row as u16, &[(title.clone(), theme.role(Role::Dim))]);
        }
    }
    cursor
}

fn export(app: &App, screen: Rect, buf: &mut Buffer) {
    let height = keys::EXPORT.len() as u16 + 2;
    let area = Rect { y: screen.height.saturating_sub(height + 1), height, width: screen.width.min(54), x: screen.x };
    let area = area.intersection(screen);
    clear(buf, area);
    let inner = frame(buf, area, "Export for … · Esc closes", app.theme);
    for (row, action) in keys::EXPORT.iter().enumerate() {
        let key = (format!(" {}  ", shown(action.keys[0])), app.theme.role(Role::Accent));
        write(buf, inner, row as u16, &[key, (action.doc.to_owned(), app.theme.role(Role::Text))]);
    }
}

fn prompt(app: &App, screen: Rect, question: Question, input: &Input, buf: &mut Buffer) -> (u16, u16) {
    let title = match question {
        Question::EveryN => "Make every N-th layer Full",
        Question::Pattern => "Pattern",
        Question::GoTo => "Go to layer",
        Question::Token => "Go to a position, or find text",
        Question::Recording => "Compare with the recording in (a trace file)",
        Question::SaveAs => "Save as (path of a .toml file)",
        Question::Name => "Name of the pattern",
        Question::Training => "Steps of warm-up + sparse stage, rate, served or own",
        Question::KeepTrained => "Write the trained indexers to (a .safetensors file)",
        Question::Stages => "Layers per pipeline stage, such as 14,6x8,16; empty for one stage",
    };
    let width = if question == Question::Pattern { screen.width } else { 64 };
    let inner = open(app, screen, width, 5, title, buf);
    let cursor = typed(app, inner, input, buf);
    let (text, role) = match verdict(app, question, input.text()) {
        Ok(Answer::Pattern(pattern, _)) => {
            (format!("{}/{} Full  {pattern}", pattern.full_count(), pattern.len()), Role::Good)
        }
        Ok(Answer::File { source, .. }) => (format!("reads {source}"), Role::Good),
        Ok(Answer::Recording(path)) => (format!("reads {}", path.display()), Role::Good),
        Ok(Answer::Pair(pair)) => (format!("{} with {}", app.label(pair.row), app.label(pair.column)), Role::Good),
        Ok(Answer::Token(Sought::Query(query))) => (format!("query {} of the recording", query + 1), Role::Good),
        Ok(Answer::Token(Sought::Text(_))) => {
            ("Enter goes to the next place; 'n' to the one after".to_owned(), Role::Good)
        }
        Ok(Answer::Path(path) | Answer::Keep(path)) => (format!("writes {}", path.display()), Role::Good),
        Ok(Answer::Stages(None)) => ("one stage".to_owned(), Role::Good),
        Ok(Answer::Stages(Some(stages))) => {
            let shared = app.pattern().map_or_else(Vec::new, |p| stages.shared_heads(p));
            let role = if shared.is_empty() { Role::Good } else { Role::Warn };
            let heads: Vec<String> = shared.iter().map(|l| format!("L{l}")).collect();
            let heads =
                if heads.is_empty() { String::new() } else { format!("; first layers Shared: {}", heads.join(" ")) };
            (format!("{} stages{heads}", stages.sizes().len()), role)
        }
        Ok(Answer::Training(plan)) => (format!("the next training: {plan}"), Role::Good),
        Ok(Answer::Name(pattern, name)) if name.is_empty() => (format!("{pattern} without a name"), Role::Good),
        Ok(Answer::Name(pattern, name)) => (format!("{pattern} = {name}"), Role::Good),
        Err(why) => (why, Role::Warn),
    };
    write(buf, inner, 1, &[(format::fit(&text, inner.width as usize), app.theme.role(role))]);
    let typing = if input.is_selected() { "typing replaces it   " } else { "" };
    write(buf, inner, 2, &[(format!("{typing}Enter accepts   Esc closes"), app.theme.role(Role::Dim))]);
    cursor
}

fn search(app: &App, screen: Rect, settings: &Form, buf: &mut Buffer) -> Option<(u16, u16)> {
    let inner = open(app, screen, 84, 18, "Search · ↑↓ line, ←→ or type, Enter starts, Esc closes", buf);
    let foot = Rect { y: inner.bottom().saturating_sub(1), height: inner.height.min(1), ..inner };
    let above = Rect { height: inner.height.saturating_sub(2), ..inner };
    let cursor = fields(app, settings, Some(settings.field), above, buf);
    let doc = format::fit(settings.field.doc(), inner.width as usize);
    write(buf, foot, 0, &[(doc, app.theme.role(Role::Dim))]);
    cursor
}

fn confirm(app: &App, screen: Rect, work: LongWork, doubts: &[String], buf: &mut Buffer) {
    let what = if work == LongWork::Search { "search" } else { "training" };
    let width = screen.width.saturating_sub(4).min(76);
    let rows: Vec<String> = doubts.iter().flat_map(|d| wrapped(d, width.saturating_sub(4).max(1) as usize)).collect();
    let inner = open(app, screen, width, rows.len() as u16 + 4, &format!("Start this {what}?"), buf);
    for (row, line) in rows.iter().enumerate().take(inner.height.saturating_sub(1) as usize) {
        write(buf, inner, row as u16, &[(line.clone(), app.theme.role(Role::Warn))]);
    }
    let foot = inner.height.saturating_sub(1);
    write(buf, inner, foot, &[("Enter starts it   Esc does not".into(), app.theme.role(Role::Text))]);
}

fn sessions(app: &App, screen: Rect, query: &Input, paths: &[PathBuf], chosen: usize, buf: &mut Buffer) -> (u16, u16) {
    let found = chosen_sessions(query, paths);
    let inner = open(app, screen, 72, 14, "Open a session · type a name or a path, Enter opens", buf);
    let cursor = typed(app, inner, query, buf);
    let list = Rect { y: inner.y + 2, height: inner.height.saturating_sub(2), ..inner };
    if found.is_empty() {
        let text = if query.text().is_empty() { "there are no sessions yet; 'w' saves one" } else { "opens this path" };
        write(buf, list, 0, &[(text.into(), app.theme.role(Role::Dim))]);
    }
    let seen = Window::around(chosen, list.height as usize, found.len());
    for row in 0..seen.count {
        let at = seen.first + row;
        let role = app.theme.role(if at == chosen { Role::Cursor } else { Role::Text });
        let text = format::fit(&found[at].display().to_string(), list.width as usize);
        write(buf, list, row as u16, &[(text, role)]);
    }
    cursor
}

fn text(app: &App, screen: Rect, title: &str, body: &str, scroll: usize, buf: &mut Buffer) {
    let width = (screen.width.saturating_sub(4)).min(110);
    let columns = width.saturating_sub(4).max(1) as usize;
    // Long lines go on in the next row, words without spaces (patterns, arguments) too; nothing is cut.
    let rows: Vec<String> = body
        .lines()
        .flat_map(|line| wrapped(line, columns))
        .flat_map(|line| {
            let chars: Vec<char> = line.chars().collect();
            let parts: Vec<String> = chars.chunks(columns).map(|c| c.iter().collect()).collect();
            if parts.is_empty() { vec![String::new()] } else { parts }
        })
        .collect();
    let height = (rows.len() as u16 + 4).min(screen.height);
    let inner = open(app, screen, width, height, title, buf);
    let seen = inner.height.saturating_sub(2) as usize;
    let first = scroll.min(rows.len().saturating_sub(seen));
    for (row, line) in rows.iter().skip(first).take(seen).enumerate() {
        write(buf, inner, row as u16, &[(line.clone(), app.theme.role(Role::Text))]);
    }
    let foot = inner.height.saturating_sub(1);
    write(buf, inner, foot, &[("↑↓ scroll   Esc closes".into(), app.theme.role(Role::Dim))]);
}
