//! The page as Markdown.

use std::fmt::Write as _;

use super::document::Block;
use super::table::Table;
use crate::shown::shown_markdown;

/// Renders the blocks of a page.
pub(super) fn render(blocks: &[Block]) -> String {
    let mut text = String::from("# indexscope report\n\n");
    for block in blocks {
        let _ = match block {
            Block::Heading(title) => writeln!(text, "## {title}\n"),
            Block::Text(paragraph) => writeln!(text, "{}\n", shown_markdown(paragraph)),
            Block::Letters(letters) => writeln!(text, "`{letters}`\n"),
            Block::Facts(facts) => {
                let lines: Vec<String> = facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                writeln!(text, "{}", points(&lines))
            }
            Block::List(lines) => writeln!(text, "{}", points(lines)),
            Block::Table(table) => writeln!(text, "{}", rows(table)),
            Block::Figure(figure, caption) => {
                let (name, caption) = (figure.name(), shown_markdown(caption));
                writeln!(text, "*{name}* ({caption}) Drawn by `--figure {name}`.\n")
            }
            Block::Strips(strips) => {
                let rows_of = strips.iter().map(|s| {
                    let letters = if s.letters.is_empty() { "–".to_owned() } else { s.letters.clone() };
                    vec![s.engine.clone(), letters, s.note.clone()]
                });
                writeln!(text, "{}", rows(&Table { header: vec!["engine", "layers", "why"], rows: rows_of.collect() }))
            }
        };
    }
    text
}

fn points(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["- ".to_owned(), shown_markdown(line), "\n".to_owned()]).collect()
}

fn rows(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.header.iter().map(|&h| shown_markdown(h)).collect());
    text = text + "|" + &"---|".repeat(table.header.len()) + "\n";
    text + &table.rows.iter().map(|row| line(row.iter().map(|c| shown_markdown(c)).collect())).collect::<String>()
}
