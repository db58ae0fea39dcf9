//! What a page tells, in order, whatever it looks like.

use super::number::{delta, grouped, ratio};
use super::table::{self, Table};
use super::{Figure, Report};
use crate::domain::Evaluation;

/// A part of a page.
pub(super) enum Block {
    /// A heading.
    Heading(&'static str),
    /// A paragraph.
    Text(String),
    /// Name and value pairs.
    Facts(Vec<(&'static str, String)>),
    /// A line of letters, one per layer.
    Letters(String),
    /// A table.
    Table(Table),
    /// A figure with its caption.
    Figure(Figure, String),
    /// Engines, their letters and their rules.
    Strips(Vec<super::StripRow>),
    /// Points.
    List(Vec<String>),
}

/// The method in one paragraph.
const METHOD: &str = "Layers marked F run their own lightning indexer, layers marked S reuse the indices of the nearest earlier F \
layer (IndexCache, arXiv 2603.12201). Loss is the mean negative log-likelihood over scored targets. Δ is the paired \
difference to the reference pattern (every layer Full that has an indexer) over eligible targets, those whose query sees \
more than index_topk keys; no pattern can change the others. Its standard error is over blocks of 128 consecutive eligible \
targets of a sequence, and is not given below eight blocks (± ?). Times are of full forwards of this program, pattern and \
reference alternating, as median and median absolute deviation; they do not predict a serving engine's.";

/// Returns the page.
pub(super) fn blocks(report: &Report) -> Vec<Block> {
    let session = &report.session;
    let current = session.history.get(session.current);
    let evaluation = current.and_then(|step| step.evaluation.as_ref());
    let mut blocks = vec![Block::Facts(facts(report, evaluation)), Block::Letters(session.pattern.to_string())];
    if let Some(e) = evaluation {
        blocks.push(Block::Text(headline(report, e)));
    }
    for figure in [Figure::Overlap, Figure::Trajectory, Figure::Pareto, Figure::Scatter] {
        if figure.csv(report).is_ok() {
            blocks.push(Block::Figure(figure, figure.caption(report)));
        }
    }
    if !session.history.is_empty() {
        blocks.push(Block::Heading("What was measured"));
        blocks.push(Block::Table(table::history(report)));
    }
    if !session.searches.is_empty() {
        blocks.push(Block::Heading("What searches found"));
        blocks.push(Block::Table(table::searches(&session.searches, &session.calibration)));
        for (i, record) in session.searches.iter().enumerate().filter(|(_, record)| !record.order.is_empty()) {
            let stop = "any prefix of it is the pattern of another retention";
            blocks.push(Block::Text(format!("Flip order of search {} ({}); {stop}.", i + 1, record.settings.method)));
            blocks.push(Block::Table(table::flips(record)));
        }
    }
    if let Some(e) = evaluation.filter(|e| !e.by_position.is_empty()) {
        blocks.push(Block::Heading("By position, for the current pattern"));
        blocks.push(Block::Table(table::by_position(e)));
    }
    if let Some(speed) = current.map(|step| &step.speed).filter(|speed| !speed.is_empty()) {
        blocks.push(Block::Heading("Where the time goes, for the current pattern"));
        blocks.push(Block::Table(table::time(speed)));
    }
    if !session.named.is_empty() {
        blocks.push(Block::Heading("Named patterns"));
        blocks.push(Block::List(session.named.iter().map(|n| format!("{}: {}", n.name, n.pattern)).collect()));
    }
    if !report.temporal.is_empty() {
        blocks.push(Block::Heading("Index sets over time"));
        blocks.push(Block::Text(
            "The share of its set that a layer selects again so many positions later, over queries that see more than \
             index_topk keys: what caches of decode steps and indices shared with MTP layers rest on."
                .to_owned(),
        ));
        blocks.push(Block::Table(table::temporal(&report.temporal)));
    }
    if let Some((with, agreement)) = &report.agreement {
        blocks.push(Block::Heading("Against another recording"));
        blocks.push(Block::Text(format!(
            "The same layer's sets in '{with}', which is of the same tokens, over {} common queries that see more than \
             index_topk keys.",
            grouped(agreement.counted)
        )));
        blocks.push(Block::Table(table::agreement(agreement)));
    }
    if !report.strips.is_empty() {
        blocks.push(Block::Heading("What engines would run"));
        blocks.push(Block::Strips(report.strips.clone()));
        blocks.push(Block::List(report.notes.clone()));
    }
    blocks.push(Block::Heading("Method"));
    blocks.push(Block::Text(METHOD.to_owned()));
    blocks.push(Block::Heading("Versions"));
    blocks.push(Block::List(report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect()));
    blocks
}

fn facts(report: &Report, evaluation: Option<&Evaluation>) -> Vec<(&'static str, String)> {
    let session = &report.session;
    let calibration = if session.calibration.is_empty() { "none" } else { &session.calibration };
    let mut facts = vec![
        ("model", session.model.name.clone()),
        ("fingerprint", session.model.fingerprint.clone()),
        ("calibration set", calibration.to_owned()),
        ("session", report.source.clone()),
        ("pattern", format!("{} Full of {} layers", session.pattern.full_count(), session.pattern.len())),
    ];
    if let Some(e) = evaluation {
        facts.push((
            "measured on",
            format!(
                "{} of {} sequences, {} targets, {} of them eligible, {} blocks",
                e.sequences.0,
                e.sequences.1,
                grouped(e.targets),
                grouped(e.eligible),
                e.blocks
            ),
        ));
    }
    facts
}

/// Says what the current pattern costs and saves.
fn headline(report: &Report, e: &Evaluation) -> String {
    let step = &report.session.history[report.session.current];
    let mut parts = vec![match e.delta {
        Some(d) => format!("Δloss {} nats/token over {} eligible targets", delta(d), grouped(d.n)),
        None => "no target is eligible: every pattern gives the same loss".to_owned(),
    }];
    parts.push(format!("loss {:.4} against {:.4} nats of the reference", e.loss, e.reference_loss));
    if let Some(a) = e.agreement {
        parts.push(format!("same top token at {:.1} % of the eligible targets", a.same_top * 100.0));
    }
    for speed in &step.speed {
        parts.push(format!("{} {} ({} runs)", speed.phase, ratio(speed), speed.ratio.runs));
    }
    let origin = super::number::origin(e.origin);
    format!("{} ({origin}).", parts.join("; "))
}
