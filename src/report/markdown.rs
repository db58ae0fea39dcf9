//! The page as Markdown.

use std::fmt::Write as _;

use super::document::Block;
use super::table::Table;

/// Renders the blocks of a page.
pub(super) fn render(blocks: &[Block]) -> String {
    let mut text = String::from("# indexscope report\n\n");
    for block in blocks {
        let _ = match block {
            Block::Heading(title) => writeln!(text, "## {title}\n"),
            Block::Text(paragraph) => writeln!(text, "{paragraph}\n"),
            Block::Letters(letters) => writeln!(text, "`{letters}`\n"),
            Block::Facts(facts) => {
                let lines: Vec<String> = facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                writeln!(text, "{}", points(&lines))
            }
            Block::List(lines) => writeln!(text, "{}", points(lines)),
            Block::Table(table) => writeln!(text, "{}", rows(table)),
            Block::Figure(figure, caption) => {
                writeln!(text, "*{}* ({caption}) Drawn by `--figure {}`.\n", figure.name(), figure.name())
            }
            Block::Strips(strips) => {
                let rows_of = strips.iter().map(|s| {
                    let letters = if s.letters.is_empty() { "–".to_owned() } else { format!("`{}`", s.letters) };
                    vec![s.engine.clone(), letters, s.note.clone()]
                });
                writeln!(text, "{}", rows(&Table { header: vec!["engine", "layers", "why"], rows: rows_of.collect() }))
            }
        };
    }
    text
}

fn points(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["- ".to_owned(), cell(line), "\n".to_owned()]).collect()
}

fn rows(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.header.iter().map(|&h| cell(h)).collect());
    text = text + "|" + &"---|".repeat(table.header.len()) + "\n";
    text + &table.rows.iter().map(|row| line(row.iter().map(|c| cell(c)).collect())).collect::<String>()
}

/// Returns a text that cannot end a cell or a line.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
