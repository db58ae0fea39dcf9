//! The page as one HTML file: light, dark and print, nothing loaded from elsewhere.

use std::fmt::Write as _;

use super::Report;
use super::document::{Block, blocks};
use super::scene::escape;
use crate::shown::shown_json;

/// Width of figures on the page, points.
const WIDTH: f64 = 260.0;

const STYLE: &str = r":root{color-scheme:light dark;--page:#fff;--text:#1e222a;--dim:#626670;--grid:#dee2ea;--accent:#005ca0;--other:#b06f00;--curve1:#c45a00;--curve2:#008260;--curve3:#a4467c;--curve4:#5a5a5a;--card:#f5f6f9;--full:#cd8200;--ink:#000}
@media(prefers-color-scheme:dark){:root{--page:#0d0f14;--text:#d0d4dc;--dim:#9ca1ac;--grid:#2b303c;--accent:#62b4f0;--other:#e69f00;--curve1:#ff9a4d;--curve2:#2fc79b;--curve3:#e092c0;--curve4:#b4b4b4;--card:#161a22;--full:#e69f00}}
@media print{:root{--page:#fff;--text:#000;--dim:#444;--grid:#ccc;--accent:#005ca0;--other:#b06f00;--curve1:#c45a00;--curve2:#008260;--curve3:#a4467c;--curve4:#5a5a5a;--card:#fff;--full:#cd8200}html{font-size:12px}body{font-size:11px!important}main{max-width:none!important;padding:0!important}figure,table,.strip{break-inside:avoid}.figures{grid-template-columns:1fr 1fr!important;gap:8px!important}.wide{overflow:visible!important;font-size:6.5pt!important}th,td{padding:2px 5px!important}h2{break-after:avoid}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,'DejaVu Sans',Helvetica,Arial,sans-serif}
main{max-width:1100px;margin:0 auto;padding:24px 20px 60px}h1{font-size:1.6rem;margin:0 0 12px}h2{font-size:1.15rem;margin:32px 0 8px;border-bottom:1px solid var(--grid);padding-bottom:4px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0 0 16px}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:20px}figure{margin:0;background:var(--card);border-radius:6px;padding:12px}figure svg{width:100%;height:auto}figcaption{color:var(--dim);font-size:.83rem}
.wide{overflow-x:auto;font-size:.85rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}th{color:var(--dim);font-weight:600}th,td{padding:4px 8px;text-align:right;border-bottom:1px solid var(--grid);vertical-align:top}th{vertical-align:bottom}td.l,th.l{text-align:left}td{white-space:nowrap}td.why{white-space:normal;min-width:16rem}
code,.strip{font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace}.strip{font-size:.95rem;letter-spacing:1px;overflow-wrap:anywhere;margin:0 0 12px}.strip b{background:var(--full);color:var(--ink);font-weight:700}
";

/// Renders the whole page.
pub(super) fn render(report: &Report) -> String {
    let title = format!("{}: which layers need their own indexer?", report.session.model.name);
    let mut body = String::new();
    let mut figures = false;
    for block in blocks(report) {
        let is_figure = matches!(block, Block::Figure(..));
        match (figures, is_figure) {
            (false, true) => body += "<div class=\"figures\">\n",
            (true, false) => body += "</div>\n",
            _ => {}
        }
        figures = is_figure;
        body += &part(report, &block);
    }
    // In a script element `</script` and `<!--` would be read as markup; within JSON, `<` only stands in strings.
    let data = shown_json(&report.json().to_string()).replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n\
         <script type=\"application/json\" id=\"indexscope\">{data}</script>\n</body>\n</html>\n",
        title = escape(&title)
    )
}

fn part(report: &Report, block: &Block) -> String {
    match block {
        Block::Heading(title) => format!("<h2>{}</h2>\n", escape(title)),
        Block::Text(text) => format!("<p>{}</p>\n", escape(text)),
        Block::Letters(letters) => format!("<p class=\"strip\">{}</p>\n", strip(letters)),
        Block::Facts(facts) => {
            let row = |(name, value): &(&str, String)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value));
            format!("<dl>\n{}</dl>\n", facts.iter().map(row).collect::<String>())
        }
        Block::List(points) => {
            let points: Vec<String> = points.iter().map(|p| format!("<li>{}</li>\n", escape(p))).collect();
            if points.is_empty() { String::new() } else { format!("<ul>\n{}</ul>\n", points.concat()) }
        }
        Block::Table(table) => rows(&table.header, &table.rows),
        Block::Figure(figure, caption) => match figure.draw(report, WIDTH) {
            Ok(scene) => {
                format!("<figure>\n{}<figcaption>{}</figcaption>\n</figure>\n", scene.inline(), escape(caption))
            }
            // Only figures that can be drawn are among the blocks.
            Err(_) => String::new(),
        },
        Block::Strips(strips) => {
            let mut text = String::from("<div class=\"wide\"><table>\n");
            for s in strips {
                let letters = if s.letters.is_empty() { "–".to_owned() } else { strip(&s.letters) };
                let _ = writeln!(
                    text,
                    "<tr><td class=\"l\">{}</td><td class=\"l\"><span class=\"strip\">{letters}</span></td>\
                     <td class=\"l why\">{}</td></tr>",
                    escape(&s.engine),
                    escape(&s.note)
                );
            }
            text + "</table></div>\n"
        }
    }
}

/// Marks the letters of Full layers.
fn strip(letters: &str) -> String {
    let runs = letters.as_bytes().chunk_by(|a, b| a == b).map(|run| {
        let run = String::from_utf8_lossy(run);
        if run.starts_with('F') { format!("<b>{run}</b>") } else { escape(&run) }
    });
    runs.collect::<Vec<_>>().concat()
}

fn rows(header: &[&str], rows: &[Vec<String>]) -> String {
    // Numbers stand to the right, words to the left.
    let words = |title: &str| {
        matches!(
            title,
            "change" | "pattern" | "phase" | "origin" | "position" | "search" | "state" | "searched on" | "#"
        )
    };
    let cell = |tag: &str, title: &str, text: &str| {
        let class = if words(title) { " class=\"l\"" } else { "" };
        let text =
            if title == "pattern" && tag == "td" { format!("<code>{}</code>", escape(text)) } else { escape(text) };
        format!("<{tag}{class}>{text}</{tag}>")
    };
    let line = |tag: &str, cells: Vec<&str>| {
        let cells: String = header.iter().zip(cells).map(|(title, text)| cell(tag, title, text)).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(|row| line("td", row.iter().map(String::as_str).collect())).collect();
    format!("<div class=\"wide\"><table>\n{}{body}</table></div>\n", line("th", header.to_vec()))
}
