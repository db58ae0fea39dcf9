//! What a search found, as JSON or as one table.

use std::path::Path;

use serde_json::{Value, json};

use super::Args;
use super::split::Split;
use crate::cli::CliError;
use crate::cli::deltas::{self, noise, text as delta};
use crate::cli::output::Table;
use crate::domain::{Confirmation, FIRST_LOOK, Goal, SearchRecord, Trial, Verdict};
use crate::engine::ModelInfo;
use crate::search::{FALL, SLACK, Space};

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

fn confirmation(c: &Confirmation) -> Value {
    let trial = |t: &Trial| {
        let mut json = json!({
            "pattern": t.pattern.to_string(),
            "full": t.pattern.full_count(),
            "verdict": t.verdict,
            "lower": t.bounds.map(|b| b.0),
            "upper": t.bounds.map(|b| b.1),
        });
        deltas::insert(&mut json, "delta", t.delta);
        json
    };
    json!({
        "budget": c.budget,
        "strict": c.strict,
        "clusters": c.clusters,
        "trials": c.trials.iter().map(trial).collect::<Vec<_>>(),
        "untested": c.untested.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Says how far the budget was confirmed, and what was not.
fn confirmed(c: &Confirmation) -> Vec<String> {
    let passed = c.trials.iter().filter(|t| t.verdict == Verdict::Confirmed).count();
    let mut notes = vec![format!(
        "budget {}: {passed} of {} patterns along the order confirmed on unseen text of {} sequences or documents ({})",
        c.budget,
        c.trials.len() + c.untested.len(),
        c.clusters,
        if c.strict { "five planned looks" } else { "time-uniform bound" }
    )];
    notes.extend(c.failed().map(|t| {
        let bounds = match t.bounds {
            Some((low, high)) => format!(", bounds {low:+.4} to {high:+.4}"),
            None => format!(": it has fewer than the {FIRST_LOOK} sequences or documents that a bound needs"),
        };
        let (pattern, full, words) = (t.pattern, t.pattern.full_count(), t.verdict.words());
        format!("{pattern} with {full} Full is {words}: delta {}{bounds}", delta(t.delta))
    }));
    notes.extend(
        (!c.untested.is_empty())
            .then(|| format!("not tested after that: {} patterns with fewer Full", c.untested.len())),
    );
    notes
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
            let mut json = json!({"layer": flip.layer, "p_best": flip.p_best, "compared": flip.compared, "within_noise": flip.within_noise});
            deltas::insert(&mut json, "delta", Some(flip.delta));
            deltas::insert(&mut json, "step", Some(flip.step));
            json
        })
        .collect();
    let swaps: Vec<Value> = record
        .swaps
        .iter()
        .map(|s| {
            let mut json = json!({"full": s.full, "shared": s.shared});
            deltas::insert(&mut json, "delta", Some(s.delta));
            json
        })
        .collect();
    let mut json = json!({
        "schema": 1,
        "model": info.name,
        "method": record.settings.method.to_string(),
        "pattern": record.pattern.to_string(),
        "full": record.pattern.full_count(),
        "start": record.start.to_string(),
        "order": order,
        "swaps": swaps,
        "evaluations": count(record.work.evaluations),
        "layer_forwards": count(record.work.layer_forwards),
        "paper_layer_forwards": count(record.work.paper(record.pattern.len())),
        "seconds": record.work.seconds,
        "seed": record.settings.seed,
        "calibration": {"sequences": info.sequences, "eligible": info.eligible, "data": info.data, "hash": info.calibration},
        "validation": record.validation.as_ref().map(|v| {
            let mut json = json!({"loss": v.loss, "sequences": v.sequences, "data": v.data});
            deltas::insert(&mut json, "delta", v.delta);
            json
        }),
        "session": session.display().to_string(),
    });
    deltas::insert(&mut json, "delta", record.delta);
    if let Some(c) = &record.confirmation {
        json["over_budget"] = json!(c.failed().is_some_and(|t| t.verdict == Verdict::OverBudget));
        json["confirmation"] = confirmation(c);
    }
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

fn to_table(info: &ModelInfo, space: &Space, record: &SearchRecord, split: Option<&Split>, session: &Path) -> Table {
    let mut table = Table::new(["step", "layer", "full", "delta ± se", "of this flip ± se", "P(best)", "noise"]);
    for (i, flip) in record.order.iter().enumerate() {
        table.rows.push(vec![
            (i + 1).to_string(),
            flip.layer.to_string(),
            record.after(i + 1).full_count().to_string(),
            delta(Some(flip.delta)),
            delta(Some(flip.step)),
            flip.p_best.map_or("-".to_owned(), |p| format!("{:.0} % of {}", p * 100.0, flip.compared)),
            if flip.within_noise { "within" } else { "" }.to_owned(),
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
        Goal::MaxDelta(most) => format!("delta at most {most} nats, confirmed on unseen text (95 %)"),
    };
    note.push(format!("{} for {goal}, seed {}", record.settings.method, record.settings.seed));
    note.extend(noise(info));
    for swap in &record.swaps {
        let full = swap.full.map_or(String::new(), |layer| format!("L{layer} Full, "));
        note.push(format!("swap: {full}L{} Shared: delta {}", swap.shared, delta(Some(swap.delta))));
    }
    note.extend(record.confirmation.iter().flat_map(confirmed));
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
    let judged = record.validation.as_ref().and_then(|v| v.delta);
    note.extend(deltas::note(record.order.iter().map(|flip| Some(flip.step)).chain([record.delta, judged])));
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
            "assumed that a flip's damage falls by at most {:.0} % and {SLACK} standard errors between measurements; {} of {} audited candidates fell by more",
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
