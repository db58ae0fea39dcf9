//! Header, message, hints, and what stands where nothing else can.

use std::fmt::Write;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::{Window, clear, wrapped, write, write_right};
use crate::tui::action::{Action, named, shown};
use crate::tui::app::{App, Engine, Indexers, Tone};
use crate::tui::format;
use crate::tui::keys;
use crate::tui::layout::Layout;
use crate::tui::screens::Screen;
use crate::tui::shown::loss;
use crate::tui::theme::Role;

type Line = Vec<(String, Style)>;

/// Fills a line with the header's colours.
fn fill(app: &App, area: Rect, buf: &mut Buffer) -> Style {
    let style = app.theme.role(Role::Header);
    buf.set_style(area.intersection(buf.area), style);
    style
}

/// What the first line begins with, where there is room for it.
const NAME: &str = " indexscope";

/// Returns what the first line begins with, and what it ends with: together with the name of the screen they fit into
/// so many columns, unless nothing does.
fn ends(app: &App, width: u16) -> (&'static str, String) {
    let wide = width >= 100;
    let tabs: usize = Screen::ALL
        .iter()
        .map(|screen| tab(app, width, *screen))
        .filter(|t| !t.is_empty())
        .map(|t| t.chars().count() + 2)
        .sum();
    let fits = |name: &str, right: &str| name.len() + tabs + right.chars().count() < width as usize;
    let (long, short) = (running(app, wide), running(app, true));
    match () {
        () if fits(NAME, &long) => (NAME, long),
        () if fits("", &long) => ("", long),
        () => ("", short),
    }
}

/// Returns how a screen is named in the first line: its number alone where there is no room for all names; nothing
/// where there is not even room for numbers.
fn tab(app: &App, width: u16, screen: Screen) -> String {
    let spec = screen.spec();
    match width {
        _ if screen == app.screen || width >= 140 => format!("{} {}", spec.key, spec.name),
        100.. => spec.key.to_owned(),
        _ => String::new(),
    }
}

/// Returns where screens are named in the first line.
pub fn tabs(app: &App, area: Rect) -> Vec<(Rect, Screen)> {
    let named = Screen::ALL.iter().copied().filter(|s| !tab(app, area.width, *s).is_empty());
    let place = |x: &mut u16, screen: Screen| {
        let width = tab(app, area.width, screen).chars().count() as u16 + 2;
        let tab = Rect { x: *x, width, ..area };
        *x += width;
        Some((tab.intersection(area), screen))
    };
    named.scan(area.x + ends(app, area.width).0.len() as u16, place).collect()
}

/// Draws the first line: what is looked at, and what is running.
pub fn header(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some(area) = layout.header else { return };
    let style = fill(app, area, buf);
    let accent = Style { fg: app.theme.role(Role::Accent).fg, ..style };
    let (name, right) = ends(app, area.width);
    let taken = right.chars().count();
    let mut parts = vec![app.title.clone()];
    if let Some(model) = &app.model {
        parts.push(format!("{}L k{}", model.constraints.sites.layers(), model.index_topk));
        if area.width >= 100 {
            let memory =
                app.memory.map_or_else(String::new, |(free, total)| format!(" {}", format::memory(free, total)));
            parts.push(format!("ctx {} · {} · {}{memory}", format::count(model.context), model.dtype, model.device));
        }
    } else if let Some(trace) = &app.trace {
        parts.push(format!("{}L k{}", trace.meta.layers, trace.meta.index_topk));
    }
    let mouse = if app.mouse.is_some() { " │ mouse, M off" } else { "" };
    let mut text = format!("{mouse} │ {}", parts.join(" "));
    if let Some(history) = &app.history {
        let star = if app.session.unsaved { "*" } else { "" };
        let _ = write!(text, " │ #{}{star}", history.current());
    }
    if app.indexers == Indexers::Trained && matches!(app.screen, Screen::Overlap | Screen::Train) {
        text.push_str(" │ trained");
    }
    if app.is_random() {
        text.push_str(" │ random tokens");
    }
    if !layout.hidden.is_empty() {
        let _ = write!(text, " │ {} hidden", layout.hidden.len());
    }
    let room = (area.width as usize).saturating_sub(taken + 2);
    let bold = style.add_modifier(Modifier::BOLD);
    let mut line: Line = vec![(name.to_owned(), bold)];
    line.extend(tabs(app, area).into_iter().map(|(_, screen)| {
        let shown = if screen == app.screen { accent.add_modifier(Modifier::BOLD) } else { style };
        (format!("  {}", tab(app, area.width, screen)), shown)
    }));
    let used: usize = line.iter().map(|(t, _)| t.chars().count()).sum();
    line.push((format::fit(&text, room.saturating_sub(used)), style));
    write(buf, Rect { width: area.width.saturating_sub(taken as u16), ..area }, 0, &line);
    write_right(buf, area, 0, &[(right, accent)]);
}

/// Returns what is running: a spinner, a job, its share and the seconds left.
fn running(app: &App, long: bool) -> String {
    let kept = match app.pattern() {
        Some(p) if !long => {
            format!(
                "{}F {}  ",
                p.full_count(),
                format::percent(p.full_count() as f64 / p.len() as f64).replace(' ', "")
            )
        }
        _ => String::new(),
    };
    let state = match (&app.engine, app.progress) {
        (_, Some(progress)) => {
            let eta = progress.eta.map_or_else(String::new, |s| format!(" {}", format::clock(s)));
            format!("{} {} {:.0}%{eta}", spinner(app), App::job_name(progress.job), progress.share * 100.0)
        }
        (Engine::Ready, None) if app.is_searching() => searching(app),
        (Engine::Ready, None) if app.is_training() => training(app),
        (Engine::Loading, None) => format!("{} loading", spinner(app)),
        (Engine::Absent, None) => "no model".to_owned(),
        (Engine::Failed(_), None) => "✗ no engine".to_owned(),
        (Engine::Ready, None) if app.due.is_some() => "…".to_owned(),
        (Engine::Ready, None) if app.awaited => format!("{} measuring", spinner(app)),
        (Engine::Ready, None) => "● ready".to_owned(),
    };
    format!("{kept}{state} ")
}

/// Returns how far the search has come.
fn searching(app: &App) -> String {
    let progress = app.screens.search.progress.as_ref();
    let steps = progress.map_or_else(String::new, |p| format!(" {}/{}", p.steps.0, p.steps.1));
    let eta = progress.and_then(|p| p.eta).map_or_else(String::new, |eta| format!(" {}", format::range(eta)));
    format!("{} search{steps}{eta}", spinner(app))
}

/// Returns how far the training has come.
fn training(app: &App) -> String {
    let progress = app.screens.train.progress.as_ref();
    let all = progress.map_or(0, |p| p.settings.all_steps());
    let eta = progress.and_then(|p| p.eta).map_or_else(String::new, |s| format!(" {}", format::clock(s)));
    format!("{} training {}/{all}{eta}", spinner(app), app.screens.train.done())
}

/// Returns the spinner's glyph at this time.
fn spinner(app: &App) -> char {
    let step = (app.now.as_millis() / 125) as usize;
    let glyphs: &[char] = if app.theme.ascii {
        &['|', '/', '-', '\\']
    } else {
        &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧']
    };
    glyphs[step % glyphs.len()]
}

/// Draws the line that says what happened.
pub fn message(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some(area) = layout.message else { return };
    let role = match app.message.tone {
        Tone::Info => Role::Dim,
        Tone::Warn => Role::Warn,
        Tone::Bad => Role::Bad,
    };
    let text = format::fit(&app.message.text, (area.width as usize).saturating_sub(2));
    write(buf, area, 0, &[(format!(" {text}"), app.theme.role(role))]);
}

/// Most rows of a notice.
const NOTICE: usize = 4;

/// Draws the newest notice over the rows above the message, until Esc answers it.
pub fn notice(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some(notice) = app.notices.last() else { return };
    let screen = buf.area;
    let more = app.notices.len() - 1;
    let more = if more > 0 { format!(" ({more} more)") } else { String::new() };
    let text = format!("{} · Esc{more}", notice.text);
    let lines = wrapped(&text, (screen.width as usize).saturating_sub(4).max(1));
    let lines = &lines[..lines.len().min(NOTICE).min(screen.height as usize)];
    let below = layout.message.or(layout.hints).map_or(screen.bottom(), |line| line.y);
    let area = Rect { y: below.saturating_sub(lines.len() as u16), height: lines.len() as u16, ..screen };
    let role = if notice.tone == Tone::Bad { Role::Bad } else { Role::Warn };
    let style = app.theme.role(role).add_modifier(Modifier::REVERSED);
    clear(buf, area);
    for (row, line) in lines.iter().enumerate() {
        let mark = if row == 0 { "▲" } else { " " };
        let text = format!(" {mark} {line:<width$}", width = (screen.width as usize).saturating_sub(3));
        write(buf, area, row as u16, &[(text, style)]);
    }
}

/// Draws the last line: what keys would do now.
pub fn hints(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some(area) = layout.hints else { return };
    let style = fill(app, area, buf);
    let key = Style { fg: app.theme.role(Role::Accent).fg, ..style }.add_modifier(Modifier::BOLD);
    for (place, action) in hint_places(app, area) {
        let (keys, what) = hint(app, action);
        write(buf, place, 0, &[(keys, key), (what, style)]);
    }
}

/// Returns a hint: its keys, and what they would do now.
fn hint(app: &App, action: &Action) -> (String, String) {
    let keys = match (action.id, action.keys[0]) {
        ("left", _) => "←↑↓→",
        ("cut-fewer", _) => "←→",
        (_, "Up") => "↑↓",
        (_, key) => shown(key),
    };
    (format!(" {keys}"), format!(" {} ", (action.hint)(app)))
}

/// Returns where the hints stand: the most useful ones from the left as far as there is room, palette and help at the
/// right always.
pub fn hint_places(app: &App, area: Rect) -> Vec<(Rect, &'static Action)> {
    let width = |action: &Action| {
        let (keys, what) = hint(app, action);
        (keys.chars().count() + what.chars().count()) as u16
    };
    let pinned: Vec<&Action> = ["palette", "help"].into_iter().filter_map(named).collect();
    let mut right = area.right().saturating_sub(pinned.iter().map(|action| width(action)).sum()).max(area.x);
    let mut room = right.saturating_sub(area.x + 1);
    let all = app.screen.spec().actions.iter().chain(keys::SCREEN);
    let mut actions: Vec<&Action> = all.filter(|action| action.rank > 0).collect();
    actions.sort_by_key(|action| action.rank);
    let mut places = Vec::new();
    let mut x = area.x;
    for action in actions.into_iter().filter(|action| (action.refusal)(app).is_none()) {
        let width = width(action);
        if let Some(rest) = room.checked_sub(width) {
            room = rest;
            places.push((Rect { x, width, ..area }, action));
            x += width;
        }
    }
    for action in pinned {
        let width = width(action);
        places.push((Rect { x: right, width, ..area }.intersection(area), action));
        right += width;
    }
    places
}

/// Says in place of a map why there is none yet.
pub fn waiting(app: &App, area: Rect, buf: &mut Buffer) {
    let text = match (&app.engine, app.progress) {
        _ if app.trace.is_some() => "comparing the index sets …".to_owned(),
        (_, Some(p)) => format!("{} … {:.0} %", App::job_name(p.job), p.share * 100.0),
        (Engine::Absent, _) => "no recording: 'indexscope record MODEL' makes one".to_owned(),
        (Engine::Failed(why), _) => why.clone(),
        _ => "recording the index sets …".to_owned(),
    };
    let row = area.height / 2;
    let text = format::fit(&text, area.width as usize);
    write(buf, area, row, &[(text, app.theme.role(Role::Dim))]);
}

/// Draws what remains where there is room for text alone: too small, or nothing known yet.
pub fn brief(app: &App, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let Some(pattern) = app.pattern() else {
        let text = match &app.engine {
            Engine::Failed(why) => format!("{}: {why}", app.title),
            Engine::Absent => "nothing is open; 'o' opens a session".to_owned(),
            _ => {
                let share = app.progress.map_or_else(String::new, |p| format!(" {:.0} %", p.share * 100.0));
                format!("{} loading {}{share}", spinner(app), app.title)
            }
        };
        write(buf, area, area.height / 2, &[(format!(" {text}"), theme.role(Role::Text))]);
        return;
    };
    let width = area.width as usize;
    let (fresh, evaluation) = loss(app);
    let delta = evaluation.and_then(|e| e.delta).map_or_else(
        || "Δ –".to_owned(),
        |d| {
            let mark = if app.is_random() { "≠ text: random tokens" } else { fresh.mark() };
            format!("Δ {} {} {mark}", format::delta(d.value), format::spread(d.spread(), theme.ascii))
        },
    );
    let letters: Vec<char> = pattern.to_string().chars().collect();
    let rows = area.height.saturating_sub(1) as usize;
    let lines = letters.len().div_ceil(width.max(1)).min(rows.saturating_sub(2).max(1));
    let seen = Window::around(app.cursor.row, lines * width, letters.len());
    for line in 0..lines.min(area.height as usize) {
        let pieces: Line = (0..width)
            .filter_map(|x| {
                let layer = seen.first + line * width + x;
                let letter = letters.get(layer).filter(|_| layer < seen.first + seen.count)?;
                let role = match letter {
                    _ if layer == app.cursor.row => Role::Cursor,
                    'F' => Role::Full,
                    _ => Role::Shared,
                };
                Some((letter.to_string(), theme.role(role)))
            })
            .collect();
        write(buf, area, line as u16, &pieces);
    }
    let kept = format!("{}/{} Full", pattern.full_count(), pattern.len());
    let speed = crate::tui::shown::speed(app);
    let ratio =
        speed.1.first().map_or_else(String::new, |s| format!("{} {:.2}× {}", s.phase, app.faster(s), speed.0.mark()));
    let numbers =
        [delta, kept, ratio, format!("{} {}", app.label(app.cursor.row), pattern.role(app.cursor.row).letter())];
    for (row, text) in numbers.into_iter().enumerate() {
        write(buf, area, (lines + row) as u16, &[(format::fit(&text, width), theme.role(Role::Text))]);
    }
}
