//! The entry looked at against the pattern pinned as B, number by number and layer by layer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::domain::{Delta, Pattern, Speed};
use crate::tui::app::App;
use crate::tui::color::Depth;
use crate::tui::format;
use crate::tui::theme::Role;
use crate::tui::widgets::{frame, wrapped, write};

/// Draws the panel.
pub fn draw(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(pattern) = app.entry_pattern() else { return };
    let entry = app.entry();
    let theme = app.theme;
    let title = match app.pinned {
        Some(_) => format!("#{entry} against B"),
        None => format!("#{entry} · 'b' pins an entry as B"),
    };
    let inner = frame(buf, area, &title, theme);
    let mut rows = rows(app, pattern);
    if inner.height < 12 {
        rows.truncate(5);
    }
    let here = format!("#{entry}");
    let heading = format!("{:<9}{here:>9}{:>9}{:>9}", "", "B", format!("{here}−B"));
    write(buf, inner, 0, &[(heading, theme.role(Role::Dim))]);
    for (at, (name, [now, b, difference])) in rows.iter().enumerate() {
        let numbers = format!("{now:>9}{b:>9}");
        let pieces = [
            (format!("{name:<9}"), theme.role(Role::Dim)),
            (numbers, theme.role(Role::Text)),
            (format!("{difference:>9}"), theme.role(Role::Text)),
        ];
        write(buf, inner, at as u16 + 1, &pieces);
    }
    let Some(b) = app.pinned else { return };
    let mut row = rows.len() as u16 + 1;
    let layers: Vec<String> = (0..pattern.len().min(b.len()))
        .filter(|&l| pattern.role(l) != b.role(l))
        .map(|l| format!("{}{}", app.label(l), pattern.role(l).letter()))
        .collect();
    let text = match layers.len() {
        0 => "the same pattern".to_owned(),
        n => format!("{n} layers differ: {}", layers.join(" ")),
    };
    for line in wrapped(&text, inner.width as usize).into_iter().take(inner.height.saturating_sub(row + 2) as usize) {
        write(buf, inner, row, &[(line, theme.role(Role::Text))]);
        row += 1;
    }
    coverage(app, (pattern, b), Rect { y: inner.y + row, height: inner.height.saturating_sub(row), ..inner }, buf);
}

type Row = (&'static str, [String; 3]);

fn rows(app: &App, pattern: Pattern) -> Vec<Row> {
    let none = || "–".to_owned();
    let results = |p: Option<Pattern>| p.and_then(|p| app.known.results.get(&p));
    let both = [results(Some(pattern)), results(app.pinned)];
    let full = [Some(pattern), app.pinned].map(|p| p.map(|p| p.full_count() as f64));
    let whole = |v: f64| format!("{v:.0}");
    let signed = |v: f64| if v == 0.0 { "0".to_owned() } else { format!("{v:+.0}").replace('-', "−") };
    let delta: [Option<Delta>; 2] = [Some(pattern), app.pinned].map(|p| p.and_then(|p| app.delta(p)));
    let speed = |phase: &str, of: &dyn Fn(&Speed) -> f64| {
        both.map(|r| r.and_then(|r| r.speed.iter().find(|s| s.phase == phase)).map(of))
    };
    let row = |values: [Option<f64>; 2], number: &dyn Fn(f64) -> String, change: &dyn Fn(f64) -> String| {
        let [now, b] = values;
        let difference = now.zip(b).map(|(now, b)| change(now - b));
        [now.map(number), b.map(number), difference].map(|text| text.unwrap_or_else(none))
    };
    let times = |v: f64| format!("{v:.2}×");
    let hundredths = |v: f64| format!("{v:+.2}").replace('-', "−");
    let percent = |v: f64| format::percent(v);
    let points = |v: f64| format!("{:+.0} %", v * 100.0).replace('-', "−");
    let sign = if app.theme.ascii { "+/-" } else { "±" };
    let spread = |se: f64| format!("{sign}{}", format!("{se:.4}").trim_start_matches('0'));
    let se = delta.map(|d| d.and_then(|d| d.spread().value()));
    let [ours, theirs] = both.map(|r| r.and_then(|r| r.evaluation.as_ref()));
    let paired = ours.zip(theirs).and_then(|(a, b)| a.minus(b)?.se).map(spread);
    // Where only the pairs with the reference are known, the sum of the errors is an upper bound.
    let bound = paired.or_else(|| se[0].zip(se[1]).map(|(a, b)| format!("≤{}", spread(a + b))));
    let [now, b] = se.map(|se| se.map_or_else(String::new, spread));
    let judged = both.map(|r| r.and_then(|r| r.validation.as_ref()?.delta));
    let judged_spread = judged.map(|d| d.and_then(|d| d.spread().value()).map_or_else(String::new, spread));
    let [judged_now, judged_b] = judged_spread;
    let mut rows = vec![
        ("Full", row(full, &whole, &signed)),
        ("Δloss", row(delta.map(|d| d.map(|d| d.value)), &format::delta, &format::delta)),
        ("", [now, b, bound.unwrap_or_default()]),
        ("prefill", row(speed("prefill", &|s| app.faster(s)), &times, &hundredths)),
        ("decode", row(speed("decode", &|s| app.faster(s)), &times, &hundredths)),
        ("indexing", row(speed("prefill", &|s| s.share.indexer + s.share.topk), &percent, &points)),
    ];
    if judged.iter().any(Option::is_some) {
        let validated = [
            ("unseen Δ", row(judged.map(|d| d.map(|d| d.value)), &format::delta, &format::delta)),
            ("", [judged_now, judged_b, String::new()]),
        ];
        rows.splice(3..3, validated);
    }
    rows
}

/// Draws the difference map: per layer, how much more of its own set it finds than under B.
fn coverage(app: &App, (now, b): (Pattern, Pattern), area: Rect, buf: &mut Buffer) {
    let ((ours, ours_measured), (theirs, theirs_measured)) = (app.coverage_of(now), app.coverage_of(b));
    let differences: Vec<Option<f64>> =
        ours.iter().zip(&theirs).map(|(a, b)| Some(a.as_ref()?.value - b.as_ref()?.value)).collect();
    let largest = differences.iter().flatten().fold(0.0, |m: f64, d| m.max(d.abs()));
    let theme = app.theme;
    let mark = if ours_measured && theirs_measured { "●" } else { "≈" };
    if differences.iter().all(Option::is_none) {
        write(buf, area, 0, &[("coverage needs a recording".into(), theme.role(Role::Dim))]);
        return;
    }
    let text = format!("{mark} coverage minus B's, at most {largest:.2}");
    write(buf, area, 0, &[(format::fit(&text, area.width as usize), theme.role(Role::Dim))]);
    let cell = |difference: &Option<f64>| -> (String, Style) {
        let Some(value) = difference else { return ("╱".into(), theme.role(Role::Border)) };
        let share = if largest > 0.0 { value / largest } else { 0.0 };
        let glyph = match value {
            _ if theme.depth > Depth::Ansi => " ",
            v if *v > 0.005 => "+",
            v if *v < -0.005 => "-",
            _ => "·",
        };
        (glyph.to_owned(), theme.on_difference(share))
    };
    let columns = area.width.max(1) as usize;
    for (row, layers) in differences.chunks(columns).enumerate() {
        write(buf, area, row as u16 + 1, &layers.iter().map(cell).collect::<Vec<_>>());
    }
}
