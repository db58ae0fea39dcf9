//! The Engines screen: which layers would run their indexer in each serving engine, and what to know about it.
//!
//! ```text
//! pattern, stages / one strip per engine / what is to be known of the chosen one
//! ```

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::domain::{LayerSet, Pattern};
use crate::interop::{Mark, Simulation, Strip};
use crate::tui::app::App;
use crate::tui::format;
use crate::tui::theme::Role;
use crate::tui::widgets::{Window, frame, wrapped, write};

type Line = Vec<(String, Style)>;

/// Draws the screen into what header, message and hints leave.
pub fn draw(app: &App, body: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let (Some(pattern), Some(stages)) = (app.pattern(), app.stages()) else { return };
    let inner = Rect { x: body.x + 1, width: body.width.saturating_sub(2), ..body };
    let simulation = match app.simulation() {
        Some(Ok(simulation)) => simulation,
        Some(Err(why)) => return says(app, why, inner, buf),
        None => {
            let why = "What engines make of a pattern depends on the model's config.json, and no model is open here: \
                       'indexscope MODEL' opens one, 'indexscope simulate config.json' needs no weights.";
            return says(app, why, inner, buf);
        }
    };
    let heads = stages.heads();
    let one = stages.sizes().len() == 1;
    let split = if one { "one stage".to_owned() } else { format!("stages {stages}") };
    let title = format!(
        "{}/{} Full, {split}; written to config.json, as each engine reads it",
        pattern.full_count(),
        pattern.len()
    );
    write(buf, inner, 0, &[(format::fit(&title, inner.width as usize), theme.role(Role::Text))]);
    let names = simulation.engines.iter().map(|s| name(s).chars().count()).max().unwrap_or(0);
    // Name, strip and number of Full layers share a line where they fit, else the strip has its own.
    let tall = names + pattern.len() + 10 > inner.width as usize;
    let per_engine = 1 + usize::from(tall);
    let indent = (inner.width as usize).saturating_sub(pattern.len()).min(2) as u16;
    let detail = (inner.height / 3).clamp(4, 14);
    let list = Rect { y: inner.y + 2, height: inner.height.saturating_sub(detail + 2), ..inner };
    if !one {
        let x = if tall { indent as usize } else { names + 4 };
        let line: String = (0..pattern.len()).map(|l| if heads.contains(l) && l > 0 { '┊' } else { ' ' }).collect();
        write(buf, inner, 1, &[(format!("{}{line}", " ".repeat(x)), theme.role(Role::Dim))]);
    }
    let seen = Window::around(app.screens.engines.chosen, list.height as usize / per_engine, simulation.engines.len());
    for row in 0..seen.count {
        let at = seen.first + row;
        let strip = &simulation.engines[at];
        let chosen = at == app.screens.engines.chosen;
        let y = (row * per_engine) as u16;
        let label = format!("{} {:<names$}", if chosen { "▸" } else { " " }, name(strip));
        let label = (label, theme.role(if chosen { Role::Accent } else { Role::Text }));
        let (letters, tail) = (letters(app, strip, pattern, heads), tail(app, strip, pattern));
        if tall {
            write(buf, list, y, &[label, ("  ".into(), Style::default()), tail]);
            write(buf, Rect { x: list.x + indent, width: list.width.saturating_sub(indent), ..list }, y + 1, &letters);
        } else {
            let mut line = vec![label, ("  ".into(), Style::default())];
            line.extend(letters);
            line.extend([("  ".into(), Style::default()), tail]);
            write(buf, list, y, &line);
        }
    }
    let area = Rect { y: body.bottom().saturating_sub(detail), height: detail, ..body };
    if let Some(strip) = simulation.engines.get(app.screens.engines.chosen) {
        known(app, simulation, strip, area, buf);
    }
}

fn says(app: &App, text: &str, area: Rect, buf: &mut Buffer) {
    for (row, line) in wrapped(text, area.width.min(100) as usize).into_iter().enumerate() {
        write(buf, area, 1 + row as u16, &[(line, app.theme.role(Role::Text))]);
    }
}

/// Returns an engine with its version; `?` marks what was not read in a release.
fn name(strip: &Strip) -> String {
    format!("{} {}{}", strip.engine, strip.version, if strip.verified { "" } else { " ?" })
}

/// Returns the letters of a strip: those that differ from the pattern stand out.
fn letters(app: &App, strip: &Strip, pattern: Pattern, heads: LayerSet) -> Line {
    let theme = app.theme;
    let letter = |(layer, mark): (usize, &Mark)| {
        let wanted = if pattern.is_full(layer) { Mark::Full } else { Mark::Shared };
        let role = match mark {
            // A Shared first layer of a stage has nobody on its own device to take indices from.
            _ if *mark != wanted => Role::Bad,
            Mark::Shared if heads.contains(layer) => Role::Warn,
            Mark::Full => Role::Full,
            _ => Role::Shared,
        };
        (mark.letter().to_string(), theme.role(role))
    };
    strip.marks.iter().enumerate().take(pattern.len()).map(letter).collect()
}

/// Returns what an engine's strip comes to.
fn tail(app: &App, strip: &Strip, pattern: Pattern) -> (String, Style) {
    let wanted: Vec<Mark> =
        (0..pattern.len()).map(|l| if pattern.is_full(l) { Mark::Full } else { Mark::Shared }).collect();
    let (text, role) = match (strip.end(), strip.marks.is_empty(), strip.differences(&wanted).len()) {
        (Some(failure), ..) => (format!("✗ {}", failure.error), Role::Bad),
        (None, true, _) => ("not known".to_owned(), Role::Dim),
        (None, false, 0) => (format!("{} F ●", strip.full()), Role::Good),
        (None, false, n) => (format!("{} F, {n} differ", strip.full()), Role::Bad),
    };
    let warned = match strip.warnings.len() {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        n => format!(", {n} warnings"),
    };
    (format!("{text}{warned}"), app.theme.role(role))
}

/// Draws what is to be known of one engine, and of the config whatever the engine.
fn known(app: &App, simulation: &Simulation, strip: &Strip, area: Rect, buf: &mut Buffer) {
    let theme = app.theme;
    let read = if strip.verified { "read in its release" } else { "not read in a release" };
    let inner = frame(buf, area, &format!("{} {}, {read}", strip.engine, strip.version), theme);
    let mut texts = vec![(format!("{} ({})", strip.rule, strip.source), Role::Text)];
    if let Some(failure) = strip.end() {
        texts.push((format!("{} {}: {}", failure.error, failure.when, failure.reason), Role::Bad));
    }
    texts.extend(strip.warnings.iter().map(|w| (format!("{}: {}", w.what, w.advice), Role::Warn)));
    texts.extend(simulation.warnings.iter().map(|w| (format!("any engine: {}: {}", w.what, w.advice), Role::Dim)));
    let lines = texts
        .iter()
        .flat_map(|(text, role)| wrapped(text, inner.width as usize).into_iter().map(move |line| (line, *role)));
    for (row, (line, role)) in lines.enumerate().take(inner.height as usize) {
        write(buf, inner, row as u16, &[(line, theme.role(role))]);
    }
}
