//! `indexscope overlap A B` and `overlap A --temporal`: two recordings of the same tokens, and sets over time.

use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::json;

use super::CliError;
use super::output::{OutputArgs, Table};
use crate::analysis::agreement::{self, Agreement, Temporal};
use crate::domain::{Estimate, Metric, Trace};
use crate::session::read_trace;

/// Prints how far two recordings of the same tokens agree, per layer and per position.
///
/// # Errors
/// When a trace cannot be read, or the two are of different models or tokens.
pub(super) fn between(a: &Path, b: &Path, metric: Metric, output: &OutputArgs) -> Result<(), CliError> {
    let (first, second) = (read_trace(a)?, read_trace(b)?);
    let agreement = agreement::between(&first, &second, metric).map_err(|e| {
        CliError::run(format!("'{}' and '{}': {e}", a.display(), b.display()))
            .hint("record both from the same tokens, with the same index_topk")
    })?;
    if agreement.counted == 0 {
        output.warn(&format!(
            "no common query sees more than index_topk = {} keys: every set holds all of them",
            first.meta.index_topk
        ));
    }
    let layer = |(layer, l): (usize, &agreement::LayerAgreement)| {
        json!({
            "layer": agreement.sites[layer],
            "mean": l.mean.map(|m| m.value),
            "se": l.mean.and_then(|m| m.se),
            "identical": l.identical,
            "worst": l.worst.map(|(q, value)| json!({"sequence": q.sequence, "position": q.position, "value": value})),
        })
    };
    let bucket = |p: &agreement::PositionAgreement| json!({"from": p.from, "to": p.to, "queries": p.queries, "layers": p.layers});
    let json = json!({
        "schema": 1,
        "metric": metric.to_string(),
        "a": about(a, &first),
        "b": about(b, &second),
        "queries": agreement.queries,
        "counted": agreement.counted,
        "chance": agreement.chance,
        "layers": agreement.layers.iter().enumerate().map(layer).collect::<Vec<_>>(),
        "by_position": agreement.by_position.iter().map(bucket).collect::<Vec<_>>(),
    });
    output.print(&json, &table_of(&agreement))
}

fn about(path: &Path, trace: &Trace) -> serde_json::Value {
    json!({"trace": path.display().to_string(), "model": trace.meta.model, "fingerprint": trace.meta.fingerprint,
        "pattern": trace.meta.pattern})
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.3}"))
}

fn table_of(agreement: &Agreement) -> Table {
    let positions = agreement.by_position.iter().map(|p| format!("{}-{}", p.from, p.to - 1));
    let head = ["layer", "mean", "se", "identical", "least", "at"].map(str::to_owned);
    let mut table = Table::new(head.into_iter().chain(positions));
    for (layer, l) in agreement.layers.iter().enumerate() {
        let mut row = vec![
            agreement.sites[layer].to_string(),
            number(l.mean.map(|m| m.value)),
            number(l.mean.and_then(|m| m.se)),
            number(l.identical),
            number(l.worst.map(|(_, value)| value)),
            l.worst.map_or("-".to_owned(), |(q, _)| format!("{}:{}", q.sequence, q.position)),
        ];
        row.extend(agreement.by_position.iter().map(|p| number(Some(p.layers[layer]))));
        table.rows.push(row);
    }
    table.notes.push(format!(
        "{} of the sets of both recordings, layer by layer, over {} of {} common queries, chance {}; on the right by \
         position of the query",
        agreement.metric,
        agreement.counted,
        agreement.queries,
        number(agreement.chance)
    ));
    table
}

/// Prints how much of its set each layer keeps from one query to later ones.
///
/// # Errors
/// When the trace cannot be read, or no two recorded queries are that far apart.
pub(super) fn temporal(path: &Path, lags: &[NonZeroUsize], output: &OutputArgs) -> Result<(), CliError> {
    let trace = read_trace(path)?;
    let all: Vec<Temporal> = lags.iter().map(|lag| agreement::temporal(&trace, lag.get())).collect();
    if all.iter().all(|one| one.pairs == 0) {
        return Err(CliError::run(format!(
            "'{}' has no two recorded queries that far apart of which the first sees more than index_topk = {} keys",
            path.display(),
            trace.meta.index_topk
        ))
        .hint("record every query (--queries all) of sequences longer than index_topk"));
    }
    let value = |estimate: &Option<Estimate>| estimate.map(|e| e.value);
    let lag = |one: &Temporal| {
        json!({
            "lag": one.lag,
            "sites": one.sites,
            "pairs": one.pairs,
            "chance": one.chance,
            "layers": one.layers.iter().map(value).collect::<Vec<_>>(),
            "se": one.layers.iter().map(|estimate| estimate.and_then(|e| e.se)).collect::<Vec<_>>(),
        })
    };
    let json = json!({
        "schema": 1,
        "metric": "temporal",
        "trace": about(path, &trace),
        "lags": all.iter().map(lag).collect::<Vec<_>>(),
    });
    let mut table =
        Table::new(std::iter::once("layer".to_owned()).chain(all.iter().map(|one| format!("after {}", one.lag))));
    for (site, layer) in trace.meta.sites().iter().enumerate() {
        let cells = all.iter().map(|one| number(value(&one.layers[site])));
        table.rows.push(std::iter::once(layer.to_string()).chain(cells).collect());
    }
    let chance = all.iter().map(|one| number(one.chance));
    table.rows.push(std::iter::once("chance".to_owned()).chain(chance).collect());
    let pairs: Vec<String> = all.iter().map(|one| format!("{} after {}", one.pairs, one.lag)).collect();
    table.notes.push(format!(
        "|S(t) ∩ S(t + n)| / k: the share of its set that a layer selects again n positions later; pairs of queries: {}",
        pairs.join(", ")
    ));
    output.print(&json, &table)
}
