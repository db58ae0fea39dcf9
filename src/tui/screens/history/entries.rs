//! The tree of patterns that were tried, one per line, with what was measured.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::tui::app::App;
use crate::tui::format;
use crate::tui::history::History;
use crate::tui::theme::Role;
use crate::tui::widgets::{Window, write};

/// Columns of everything but the change and the note.
const NUMBERS: usize = 58;

/// Draws the entries around the one looked at, under a line of headings.
pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(history) = &app.history else { return };
    let entries = app.entries();
    let wide = area.width as usize >= NUMBERS + 30;
    let note = if wide { (area.width as usize - NUMBERS) / 2 } else { 0 };
    let change = (area.width as usize).saturating_sub(if wide { NUMBERS + note } else { 36 });
    let dim = app.theme.role(Role::Dim);
    let heading = if wide {
        format!(
            "    #   when   {:<change$} Full   Δloss       ±      prefill  decode  name",
            "change, and where it began"
        )
    } else {
        format!("    #  {:<change$} Full   Δloss   prefill", "change")
    };
    write(buf, area, 0, &[(format::fit(&heading, area.width as usize), dim)]);
    if entries.is_empty() {
        write(buf, area, 1, &[(" nothing that is plotted is measured yet; 'f' lists all entries".into(), dim)]);
        return;
    }
    let here = app.entry();
    let seen = window(app, &entries, area);
    for row in 0..seen.count {
        let entry = entries[seen.first + row];
        let role = match entry {
            e if e == here => Role::Cursor,
            e if e == history.current() => Role::Text,
            _ => Role::Dim,
        };
        let text = line(app, history, entry, change, wide);
        let text = format!("{text:<width$}", width = area.width as usize);
        write(buf, area, row as u16 + 1, &[(format::fit(&text, area.width as usize), app.theme.role(role))]);
    }
}

/// Returns which of the listed entries are seen.
fn window(app: &App, entries: &[usize], area: Rect) -> Window {
    let here = app.entry();
    let at = entries.iter().position(|&e| e <= here).unwrap_or(entries.len().saturating_sub(1));
    Window::around(at, area.height.saturating_sub(1) as usize, entries.len())
}

/// Returns the entry in a row below the headings.
pub fn at(app: &App, area: Rect, row: u16) -> Option<usize> {
    let entries = app.entries();
    let seen = window(app, &entries, area);
    entries.get(seen.first + row as usize).copied().filter(|_| (row as usize) < seen.count)
}

fn line(app: &App, history: &History, entry: usize, room: usize, wide: bool) -> String {
    let node = &history.nodes()[entry];
    let pattern = node.pattern;
    let results = app.known.results.get(&pattern);
    let delta = app.delta(pattern);
    let value = delta.map_or_else(|| "–".to_owned(), |d| format::delta(d.value));
    let speed = |phase: &str| {
        let found = results.and_then(|r| r.speed.iter().find(|s| s.phase == phase));
        found.map_or_else(|| "–".to_owned(), |s| format!("{:.2}×", app.faster(s)))
    };
    let pointer = if entry == history.current() { "▸" } else { " " };
    // A side branch steps in, and says where it left the path to the current entry.
    let branch = if history.is_on_path(entry) { " " } else { "├" };
    let parent = node.parent.filter(|p| p + 1 != entry).map_or_else(String::new, |p| format!(" (from #{p})"));
    let change = format::fit(&format!("{}{parent}", node.change), room);
    let full = pattern.full_count();
    if !wide {
        let short = format::fit(&node.change.replace("Full → Shared", "F→S").replace("Shared → Full", "S→F"), room);
        return format!("{pointer}{branch}{entry:>3}  {short:<room$} {full:>4} {value:>8} {:>8}", speed("prefill"));
    }
    let when = node.at.map_or_else(|| "file".to_owned(), |at| format::clock(at.as_secs_f64()));
    let spread = delta.map_or_else(String::new, |d| format::short_spread(d.spread(), app.theme.ascii));
    let name = match (app.pinned == Some(pattern), app.name_of(pattern)) {
        (true, Some(name)) => format!("▲ B  ■ {name}"),
        (true, None) => "▲ B".to_owned(),
        (false, Some(name)) => format!("■ {name}"),
        (false, None) => String::new(),
    };
    format!(
        "{pointer}{branch}{entry:>3}  {when:>5}  {change:<room$} {full:>4} {value:>8}  {spread:<10} {:>6}  {:>6}  {name}",
        speed("prefill"),
        speed("decode"),
    )
}
