//! What is computed from a recording beside the screen: sets over time, and how far another recording agrees.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::analysis::agreement::{self, LAGS, Temporal};
use crate::domain::Diagnostic;
use crate::domain::{Estimate, Metric, Trace};
use crate::session::read_trace;

/// What is asked about a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Study {
    /// How much of a query's set later queries select again.
    OverTime,
    /// How far the recording in this file, of the same tokens, agrees.
    With(PathBuf),
}

/// What was found, to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The heading.
    pub title: String,
    /// The lines.
    pub body: String,
}

impl Study {
    /// Computes it; reads the other recording where there is one.
    ///
    /// # Errors
    /// A sentence for the person who asked.
    pub fn of(&self, trace: &Trace) -> Result<Findings, Diagnostic> {
        match self {
            Self::OverTime => over_time(trace),
            Self::With(path) => with(trace, path),
        }
    }
}

fn over_time(trace: &Trace) -> Result<Findings, Diagnostic> {
    let all: Vec<Temporal> = LAGS.iter().map(|&lag| agreement::temporal(trace, lag)).collect();
    let k = trace.meta.index_topk;
    if all.iter().all(|one| one.pairs == 0) {
        let far = LAGS.map(|lag| lag.to_string()).join(", ");
        return Err(Diagnostic {
            message: format!(
                "no two recorded queries are {far} positions apart, of which the first sees more than {k} keys"
            ),
            hint: Some("record every query of longer sequences".to_owned()),
        });
    }
    let row = |name: &str, cells: Vec<String>| {
        let cells = cells.iter().fold(String::new(), |line, cell| line + &format!("{cell:>10}"));
        format!("{name:>6}{cells}\n")
    };
    let mut body = "Share of its set that a layer selects again later\n\n".to_owned();
    body += &row("layer", all.iter().map(|one| format!("after {}", one.lag)).collect());
    for (site, layer) in trace.meta.sites().iter().enumerate() {
        let cells = all.iter().map(|one| number(one.layers[site].map(|estimate| estimate.value)));
        body += &row(&format!("L{layer}"), cells.collect());
    }
    body += &row("chance", all.iter().map(|one| number(one.chance)).collect());
    body += &row("pairs", all.iter().map(|one| one.pairs.to_string()).collect());
    Ok(Findings { title: "Overlap over time".to_owned(), body })
}

fn with(trace: &Trace, path: &Path) -> Result<Findings, Diagnostic> {
    let other = read_trace(path).map_err(|e| Diagnostic { hint: e.hint(), message: e.to_string() })?;
    let agreement = agreement::between(trace, &other, Metric::Overlap).map_err(|e| Diagnostic {
        message: format!("'{}': {e}", path.display()),
        hint: Some("record both from the same tokens, with the same index_topk".to_owned()),
    })?;
    let mut body = format!(
        "Overlap of both recordings' sets, {} of {} common queries, chance {}\n\n{:>6}{:>18}{:>12}{:>9} at\n",
        agreement.counted,
        agreement.queries,
        number(agreement.chance),
        "layer",
        "mean",
        "identical",
        "least"
    );
    for (layer, found) in agreement.sites.iter().zip(&agreement.layers) {
        let se = found.mean.and_then(|mean: Estimate| mean.se).map_or("?".to_owned(), |se| format!("{se:.4}"));
        let mean = format!("{} ±{se}", number(found.mean.map(|mean| mean.value)));
        let least = found
            .worst
            .map_or("–".to_owned(), |(query, value)| format!("{value:.3} {}:{}", query.sequence, query.position));
        let (name, identical) = (format!("L{layer}"), number(found.identical));
        let _ = writeln!(body, "{name:>6}{mean:>18}{identical:>12}    {least}");
    }
    Ok(Findings { title: format!("Agreement with {}", path.display()), body })
}

/// Returns a share, or a dash where nothing was counted.
fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.3}"))
}
