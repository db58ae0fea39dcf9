//! Results on stdout: JSON, or one table in the format asked for.

use std::io::{IsTerminal, Write};

use super::CliError;

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
            eprintln!("{}warning: {message}", over_progress());
        }
    }

    /// Prints something worth knowing to stderr, unless told to be quiet.
    pub fn note(&self, message: &str) {
        if !self.quiet {
            eprintln!("{}note: {message}", over_progress());
        }
    }

    /// Prints `json`, or `table` in the other formats.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn print(&self, json: &serde_json::Value, table: &Table) -> Result<(), CliError> {
        let text = match self.format() {
            Format::Json => format!("{json}\n"),
            Format::Text => table.to_text(),
            Format::Csv => table.to_csv(),
            Format::Md => table.to_markdown(),
        };
        print(&text)
    }
}

/// Returns what takes a line of progress away, which only a terminal shows.
fn over_progress() -> &'static str {
    if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" }
}

/// Writes `text` to stdout.
///
/// # Errors
/// When stdout cannot be written; a closed pipe ends the command silently.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Returns every line followed by `end`.
fn join(lines: &[String], end: &str) -> String {
    lines.iter().flat_map(|line| [line.as_str(), end]).collect()
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
            .map(|c| self.lines().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = join(&self.notes, "\n");
        for row in self.lines() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
        text
    }

    fn to_csv(&self) -> String {
        let quote = |cell: &String| {
            if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
        };
        self.lines().map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\n").collect()
    }

    fn to_markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let mut text = join(&self.notes, "\n\n");
        text += &line(&self.header);
        text = text + "|" + &"---:|".repeat(self.header.len()) + "\n";
        text + &self.rows.iter().map(line).collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
