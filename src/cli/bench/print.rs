//! Timings as JSON, as one table, and as a Chrome trace.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Args, PHASES, Projection, paper};
use crate::cli::CliError;
use crate::cli::output::Table;
use crate::domain::Timing;
use crate::engine::{LayerTime, ModelInfo, StepSpeed};

/// Prints what was timed and what follows from it.
pub(super) fn print(
    args: &Args,
    info: &ModelInfo,
    timed: &[StepSpeed],
    projections: &[Projection],
) -> Result<(), CliError> {
    args.output.print(&to_json(args, info, timed, projections), &to_table(args, info, timed, projections))
}

/// Returns a Chrome trace (microseconds): one row for layers, one for phases.
pub(super) fn timeline(layers: &[LayerTime]) -> Value {
    let event = |name: String, row: usize, begin: Duration, length: Duration| json!({"name": name, "ph": "X", "pid": 0, "tid": row, "ts": begin.as_secs_f64() * 1e6, "dur": length.as_secs_f64() * 1e6});
    let mut events = Vec::new();
    for layer in layers {
        let role = if layer.full { "Full" } else { "Shared" };
        events.push(event(format!("layer {} ({role})", layer.layer), 0, layer.begin, layer.length));
        let mut begin = layer.begin;
        // Phases in the order in which they mostly come; a layer's share of each is laid out in one piece.
        for (name, length) in layer.phases {
            events.push(event(name.to_owned(), 1, begin, length));
            begin += length;
        }
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms"})
}

fn to_json(args: &Args, info: &ModelInfo, timed: &[StepSpeed], projections: &[Projection]) -> Value {
    let measured = timed.iter().map(|StepSpeed { speed: s, batch, tokens }| {
        json!({
            "pattern": s.pattern,
            "full": s.pattern.full_count(),
            "phase": s.phase,
            "context": s.context,
            "batch": batch,
            "tokens": tokens,
            "seconds": s.seconds,
            "ratio": {"median": s.ratio.median, "mad": s.ratio.mad, "interval": s.ratio.interval},
            "share": s.share,
            "origin": s.origin,
        })
    });
    let predicted = projections.iter().map(|p| {
        json!({
            "pattern": p.pattern,
            "full": p.pattern.full_count(),
            "phase": p.phase,
            "context": p.context,
            "seconds": p.seconds,
            "ratio": p.ratio,
            "fit": {"residual": p.fit.residual, "held_out": p.fit.held_out},
            "origin": "predicted",
        })
    });
    json!({
        "schema": 1,
        "model": info.name,
        "device": info.device,
        "dtype": info.dtype,
        "attention": info.ops,
        "index_topk": info.index_topk,
        "tokens": info.data,
        "reference": info.reference,
        "results": measured.collect::<Vec<_>>(),
        "projections": predicted.collect::<Vec<_>>(),
        "paper": paper::json(args.geometry.as_deref(), &args.context),
    })
}

/// Returns an interval with so many digits; `-` where there is none.
fn interval(timing: Timing, digits: usize) -> String {
    timing.interval.map_or("-".to_owned(), |(low, high)| format!("{low:.digits$} to {high:.digits$}"))
}

/// Returns one measurement as the cells of its row.
fn row(StepSpeed { speed: s, batch, tokens }: &StepSpeed) -> Vec<String> {
    let share = |part: f64| format!("{:.1} %", part * 100.0);
    let mut row = vec![s.pattern.to_string(), s.pattern.full_count().to_string(), s.phase.clone()];
    row.extend([s.context.to_string(), format!("{:.5}", s.seconds.median), interval(s.seconds, 5)]);
    row.extend([format!("{:.3}", s.ratio.median), interval(s.ratio, 3)]);
    row.extend([s.share.indexer, s.share.topk, s.share.attention, s.share.mlp, s.share.rest].map(share));
    row.extend([s.seconds.runs.to_string(), batch.to_string(), tokens.to_string(), "measured".to_owned()]);
    row
}

/// Returns one measurement as a line.
pub(super) fn line(step: &StepSpeed) -> String {
    let StepSpeed { speed: s, batch, tokens } = step;
    let share = |name, part: f64| format!("{name} {:.1} %", part * 100.0);
    let shares = [
        share("indexer", s.share.indexer),
        share("topk", s.share.topk),
        share("attention", s.share.attention),
        share("mlp", s.share.mlp),
        share("rest", s.share.rest),
    ];
    format!(
        "{} {} at {}, {batch} x {tokens} tokens: {:.5} s (median of {}, 95 % {}), ratio {:.3} (95 % {}), {}",
        s.pattern,
        s.phase,
        s.context,
        s.seconds.median,
        s.seconds.runs,
        interval(s.seconds, 5),
        s.ratio.median,
        interval(s.ratio, 3),
        shares.join(", ")
    )
}

fn to_table(args: &Args, info: &ModelInfo, timed: &[StepSpeed], projections: &[Projection]) -> Table {
    let mut table = Table::new([
        "pattern",
        "full",
        "phase",
        "context",
        "seconds",
        "95 %",
        "ratio",
        "95 %",
        "indexer",
        "topk",
        "attention",
        "mlp",
        "rest",
        "runs",
        "batch",
        "tokens",
        "origin",
    ]);
    table.rows.extend(timed.iter().map(row));
    for p in projections {
        let mut row = vec![p.pattern.to_string(), p.pattern.full_count().to_string(), p.phase.to_owned()];
        row.extend([p.context.to_string(), format!("{:.5}", p.seconds), "-".to_owned(), format!("{:.3}", p.ratio)]);
        row.resize(table.header.len() - 1, "-".to_owned());
        row.push("predicted".to_owned());
        table.rows.push(row);
    }
    table.notes.push(format!(
        "{} on {} in {}, attention {}, {}; seconds of one forward of as many sequences (batch) and tokens of each; ratio = time of {} / time of the pattern",
        info.name, info.device, info.dtype, info.ops, info.data, info.reference
    ));
    for phase in PHASES {
        if let Some(p) = projections.iter().find(|p| p.phase == phase) {
            table.notes.push(format!(
                "fit of {phase}, a + b T + c T^2 for indexers and for the rest: off by up to {:.1} % where measured, by {:.1} % at the longest context when fitted to the others",
                p.fit.residual * 100.0,
                p.fit.held_out * 100.0
            ));
        }
    }
    table.notes.extend(paper::notes(args.geometry.as_deref(), !args.set.is_empty(), &args.context));
    table
}
