//! Results on stdout: JSON, or one table in the format asked for.

use std::io::Write;

use super::CliError;
use super::say::say;
use crate::shown::{shown, shown_json, shown_lines, shown_markdown};

/// The form of results on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// A Markdown table.
    Md,
}

/// How results and progress are printed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// Form of the results.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print neither progress nor warnings.
    #[arg(long)]
    quiet: bool,
}

impl OutputArgs {
    /// Returns the format asked for.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    /// Returns whether only results and errors are wanted.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// Prints a warning to stderr, unless told to be quiet.
    pub fn warn(&self, message: &str) {
        if !self.quiet {
            say(&format!("warning: {message}"));
        }
    }

    /// Prints something worth knowing to stderr, unless told to be quiet.
    pub fn note(&self, message: &str) {
        if !self.quiet {
            say(&format!("note: {message}"));
        }
    }

    /// Prints `json`, or `table` in the other formats.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, json: &serde_json::Value, table: &Table) -> Result<(), CliError> {
        match self.format() {
            Format::Json => print_json(json),
            Format::Text => print(&table.to_text()),
            Format::Csv => print(&table.to_csv()),
            Format::Md => print(&table.to_markdown()),
        }
    }
}

/// Writes lines of text to stdout, without what a terminal would obey.
///
/// # Errors
/// When stdout cannot be written; a closed pipe ends the command silently.
pub fn print(text: &str) -> Result<(), CliError> {
    write(&shown_lines(text))
}

/// Writes text to stdout of which every foreign part is shown already, styles of ours among it.
///
/// # Errors
/// As [`print`].
pub fn print_styled(text: &str) -> Result<(), CliError> {
    write(text)
}

/// Writes one line of JSON to stdout.
///
/// # Errors
/// As [`print`].
pub fn print_json(json: &serde_json::Value) -> Result<(), CliError> {
    write(&shown_json(&format!("{json}\n")))
}

fn write(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// A table of strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Column titles.
    pub header: Vec<String>,
    /// Rows as long as the header.
    pub rows: Vec<Vec<String>>,
    /// Lines around the table in the text and Markdown formats.
    pub notes: Vec<String>,
}

impl Table {
    /// Returns an empty table with these columns.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.header).chain(&self.rows)
    }

    fn to_text(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|c| self.lines().filter_map(|r| r.get(c)).map(|s| shown(s).chars().count()).max().unwrap_or(0))
            .collect();
        let mut text: String = self.notes.iter().map(|note| shown(note).into_owned() + "\n").collect();
        for row in self.lines() {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{:>width$}", shown(cell))).collect();
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
        text
    }

    fn to_csv(&self) -> String {
        let quote = |cell: &String| {
            let cell = shown(cell);
            if cell.contains([',', '"']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.into_owned() }
        };
        self.lines().map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\n").collect()
    }

    fn to_markdown(&self) -> String {
        let line = |row: &Vec<String>| {
            format!("| {} |\n", row.iter().map(|cell| shown_markdown(cell)).collect::<Vec<_>>().join(" | "))
        };
        let mut text: String = self.notes.iter().map(|note| shown_markdown(note) + "\n\n").collect();
        text += &line(&self.header);
        text = text + "|" + &"---:|".repeat(self.header.len()) + "\n";
        text + &self.rows.iter().map(line).collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_cells_and_notes_forge_nothing() {
        let mut table = Table::new(["name"]);
        table.rows.push(vec!["a\u{1b}[31m\n9|<b>".into()]);
        table.notes.push("n\u{7}\nwarning: none".into());
        for text in [table.to_text(), table.to_csv(), table.to_markdown()] {
            assert!(!text.contains(['\u{1b}', '\u{7}']) && text.lines().all(|l| !l.starts_with("warning")), "{text}");
        }
        assert!(table.to_markdown().contains("9\\|&lt;b>"));
    }

    #[test]
    fn one_table_prints_in_every_form() {
        let mut table = Table::new(["layer", "Δ"]);
        table.rows.push(vec!["0".into(), "a,b".into()]);
        table.notes.push("note".into());
        assert_eq!(table.to_text(), "note\nlayer    Δ\n    0  a,b\n");
        assert_eq!(table.to_csv(), "layer,Δ\n0,\"a,b\"\n");
        assert_eq!(table.to_markdown(), "note\n\n| layer | Δ |\n|---:|---:|\n| 0 | a,b |\n");
    }
}
