//! Reports of a session: one page (HTML, Markdown), its numbers (CSV, JSON), and figures (SVG, PDF, PNG).
//!
//! A [`Report`] is what is known; `document` says in which order it is told, `html` and `markdown` how that looks;
//! `figure` draws into a [`Scene`], which knows no file format. Every number carries its unit, sample size, spread and
//! origin, and stands beside the pattern that it was measured for.

mod axes;
mod document;
mod error;
mod figure;
mod font;
mod html;
mod markdown;
mod number;
mod palette;
mod pdf;
mod png;
mod scene;
mod table;

pub use error::ReportError;
pub use figure::Figure;
pub use scene::Scene;

use serde_json::{Value, json};

use crate::analysis::OverlapMatrix;
use crate::analysis::agreement::{Agreement, Temporal};
use crate::session::Session;

/// One engine's reading of the current pattern, as the report shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripRow {
    /// Engine and version.
    pub engine: String,
    /// Its letters; empty where nothing runs.
    pub letters: String,
    /// The rule that led there, or what ends it.
    pub note: String,
}

/// Everything that a report tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The session.
    pub session: Session,
    /// Where it was read from.
    pub source: String,
    /// The overlap of the layers' index sets: the session's, or that of another recording of the same model.
    pub overlap: Option<OverlapMatrix>,
    /// How much of their sets layers select again later, by the recording that was given.
    pub temporal: Vec<Temporal>,
    /// Another recording of the same tokens, by its name, and how far the two agree.
    pub agreement: Option<(String, Agreement)>,
    /// What engines make of the current pattern.
    pub strips: Vec<StripRow>,
    /// What to know about that.
    pub notes: Vec<String>,
    /// Programs and their versions.
    pub versions: Vec<(String, String)>,
}

impl Report {
    /// Returns the page as one self-contained HTML file: no script runs, nothing is loaded from elsewhere.
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// Returns the page as Markdown, without the figures.
    pub fn markdown(&self) -> String {
        markdown::render(&document::blocks(self))
    }

    /// Returns the history, one line per entry, with every number in full precision.
    pub fn csv(&self) -> String {
        table::history_csv(self)
    }

    /// Returns everything as JSON; `session` holds the session file whole, under the same names.
    pub fn json(&self) -> Value {
        let matrix = self.overlap.as_ref().map(|m| {
            json!({"metric": m.metric, "layers": m.layers, "values": m.values, "se": m.se, "chance": m.chance,
                "queries": m.queries, "counted": m.counted, "borrowed": m.borrowed})
        });
        let strips = self.strips.iter().map(|s| json!({"engine": s.engine, "strip": s.letters, "note": s.note}));
        let agreement = self.agreement.as_ref().map(|(with, a)| json!({"with": with, "agreement": a}));
        json!({
            "schema": 1,
            "temporal": self.temporal,
            "recordings": agreement,
            "source": self.source,
            "versions": self.versions.iter().map(|(name, version)| json!({"name": name, "version": version})).collect::<Vec<_>>(),
            "session": self.session,
            "overlap": matrix,
            "engines": strips.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests;
