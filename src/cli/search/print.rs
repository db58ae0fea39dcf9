//! What a search found, as JSON or as one table.

use std::path::Path;

use serde_json::{Value, json};

use super::Args;
use super::split::Split;
use crate::cli::CliError;
use crate::cli::output::Table;
use crate::domain::{Estimate, Goal, SearchRecord};
use crate::engine::ModelInfo;
use crate::search::{FALL, Space};

/// Prints a search.
pub(super) fn print(
    args: &Args,
    info: &ModelInfo,
    space: &Space,
    record: &SearchRecord,
    split: Option<&Split>,
    session: &Path,
) -> Result<(), CliError> {
    let json = to_json(info, record, split, session);
    args.output.print(&json, &to_table(info, space, record, split, session))
}

/// Returns a count as an integer where it is one: sums of shares are off by rounding.
pub(super) fn count(value: f64) -> Value {
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded.fract() == 0.0 { json!(rounded as u64) } else { json!(rounded) }
}

fn to_json(info: &ModelInfo, record: &SearchRecord, split: Option<&Split>, session: &Path) -> Value {
    let order: Vec<Value> = record
        .order
        .iter()
        .map(|flip| {
            json!({
                "layer": flip.layer,
                "delta": flip.delta.value,
                "delta_se": flip.delta.se,
                "step": flip.step.value,
                "step_se": flip.step.se,
                "p_best": flip.p_best,
                "within_noise": flip.within_noise,
            })
        })
        .collect();
    let swaps: Vec<Value> = record
        .swaps
        .iter()
        .map(|s| json!({"full": s.full, "shared": s.shared, "delta": s.delta.value, "delta_se": s.delta.se}))
        .collect();
    let mut json = json!({
        "schema": 1,
        "model": info.name,
        "method": record.settings.method.to_string(),
        "pattern": record.pattern.to_string(),
        "full": record.pattern.full_count(),
        "start": record.start.to_string(),
        "delta": record.delta.map(|d| d.value),
        "delta_se": record.delta.and_then(|d| d.se),
        "order": order,
        "swaps": swaps,
        "evaluations": count(record.work.evaluations),
        "layer_forwards": count(record.work.layer_forwards),
        "paper_layer_forwards": count(record.work.paper(record.pattern.len())),
        "seconds": record.work.seconds,
        "seed": record.settings.seed,
        "calibration": {"sequences": info.sequences, "eligible": info.eligible, "data": info.data, "hash": info.calibration},
        "validation": record.validation.as_ref().map(|v| json!({
            "loss": v.loss,
            "delta": v.delta.map(|d| d.value),
            "delta_se": v.delta.and_then(|d| d.se),
            "sequences": v.sequences,
            "data": v.data,
        })),
        "session": session.display().to_string(),
    });
    if let Some(audit) = record.audit {
        json["audit"] = json!({"audited": audit.audited, "violations": audit.violations});
    }
    if let Some(split) = split {
        let layers = |r: &SearchRecord| r.order.iter().map(|f| f.layer).collect::<Vec<_>>();
        json["split"] = json!({
            "pieces": split.records.len(),
            "kendall_tau": split.tau,
            "orders": split.records.iter().map(layers).collect::<Vec<_>>(),
            "patterns": split.records.iter().map(|r| r.pattern.to_string()).collect::<Vec<_>>(),
        });
    }
    json
}

/// Returns a difference with its error, such as `+0.0123 ± 0.0004`.
pub(super) fn delta(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "-".to_owned(),
        Some(Estimate { value, se: Some(se), .. }) => format!("{value:+.4} ± {se:.4}"),
        Some(Estimate { value, .. }) => format!("{value:+.4} ± ?"),
    }
}

fn to_table(info: &ModelInfo, space: &Space, record: &SearchRecord, split: Option<&Split>, session: &Path) -> Table {
    let mut table = Table::new(["step", "layer", "full", "delta ± se", "of this flip ± se", "P(best)", "noise"]);
    for (i, flip) in record.order.iter().enumerate() {
        table.rows.push(vec![
            (i + 1).to_string(),
            flip.layer.to_string(),
            record.after(i + 1).full_count().to_string(),
            delta(Some(flip.delta)),
            delta(Some(flip.step)),
            flip.p_best.map_or("-".to_owned(), |p| format!("{:.0} %", p * 100.0)),
            match flip.step.se {
                None => "not known",
                Some(_) if flip.within_noise => "within",
                Some(_) => "",
            }
            .to_owned(),
        ]);
    }
    let note = &mut table.notes;
    let layers = space.layers();
    note.push(format!(
        "{}: {} Full of {layers} as shipped, {} free to become Shared; {} eligible targets of {} sequences ({})",
        info.name,
        info.reference.full_count(),
        space.free().count(),
        info.eligible,
        info.sequences,
        info.data
    ));
    let goal = match record.settings.goal {
        Goal::Keep(keep) => format!("{keep} Full layers"),
        Goal::MaxDelta(most) => format!("upper confidence bound (95 %) of delta at most {most} nats"),
    };
    note.push(format!("{} for {goal}, seed {}", record.settings.method, record.settings.seed));
    for swap in &record.swaps {
        let full = swap.full.map_or(String::new(), |layer| format!("L{layer} Full, "));
        note.push(format!("swap: {full}L{} Shared: delta {}", swap.shared, delta(Some(swap.delta))));
    }
    note.push(format!(
        "pattern {} with {} Full: delta {} nats on the text searched on",
        record.pattern,
        record.pattern.full_count(),
        delta(record.delta)
    ));
    if let Some(v) = &record.validation {
        note.push(format!(
            "validation: loss {:.4}, delta {} nats on {} sequences never searched on ({})",
            v.loss,
            delta(v.delta),
            v.sequences,
            v.data
        ));
    }
    let work = record.work;
    note.push(format!(
        "cost: {:.1} evaluations, {:.0} layer-forwards ({:.0} by the paper's count), {:.1} s",
        work.evaluations,
        work.layer_forwards,
        work.paper(layers),
        work.seconds
    ));
    if let Some(audit) = record.audit {
        note.push(format!(
            "assumed that a flip's damage falls by at most {:.0} % between measurements; {} of {} audited candidates fell by more",
            FALL * 100.0,
            audit.violations,
            audit.audited
        ));
    }
    if let Some(split) = split {
        let tau = split.tau.map_or("-".to_owned(), |tau| format!("{tau:.2}"));
        note.push(format!(
            "on {} disjoint parts of the set: Kendall's tau of the flip orders {tau}",
            split.records.len()
        ));
        note.extend(split.records.iter().map(|r| format!("  {} delta {}", r.pattern, delta(r.delta))));
    }
    note.push(format!("saved to {}", session.display()));
    table
}
