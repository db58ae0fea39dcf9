//! `indexscope overlap`: the matrix of a recording.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{OutputArgs, Table};
use super::{CliError, overlap_between};
use crate::analysis::overlap::{Accumulator, Groups, Metric, OverlapMatrix};
use crate::domain::{MassRecall, TraceMeta};
use crate::session::TraceFile;

/// Arguments of `overlap`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording, as written by `indexscope record`.
    trace: PathBuf,
    /// Another recording of the same tokens, which is compared with the first layer by layer.
    #[arg(value_name = "TRACE")]
    other: Option<PathBuf>,
    /// How much of its set a layer selects again N positions later; 1, 8 and 64 without N.
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        value_delimiter = ',',
        default_missing_value = "1,8,64",
        conflicts_with = "other"
    )]
    temporal: Option<Vec<NonZeroUsize>>,
    /// How two sets are compared.
    #[arg(long, value_enum, default_value_t, value_name = "METRIC")]
    metric: MetricArg,
    /// Where each group of heads selects for itself (MiniMax-M3): compare one group's sets, or the union of all; otherwise
    /// the mean over the groups.
    #[arg(long, value_name = "N|pooled", value_parser = group)]
    group: Option<Groups>,
    #[command(flatten)]
    output: OutputArgs,
}

fn group(text: &str) -> Result<Groups, String> {
    match text {
        "pooled" => Ok(Groups::Pooled),
        number => {
            number.parse().map(Groups::One).map_err(|_| "give the number of a group, from 0, or 'pooled'".to_owned())
        }
    }
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum MetricArg {
    /// |A ∩ B| / k.
    #[default]
    Overlap,
    /// |A ∩ B| / |A ∪ B|.
    Jaccard,
    /// Attention that layer j keeps with the set of layer i, over what it keeps with its own; of recordings made with
    /// --mass-recall.
    MassRecall,
}

/// Prints how much the index sets of every two layers have in common.
///
/// # Errors
/// When the trace cannot be read, or stdout not written.
pub fn run(args: Args) -> Result<(), CliError> {
    if let Some(other) = &args.other {
        let metric = match args.metric {
            MetricArg::Overlap => Metric::Overlap,
            MetricArg::Jaccard => Metric::Jaccard,
            MetricArg::MassRecall => {
                return Err(CliError::usage("mass recall compares layers of one recording, not two recordings")
                    .hint("use --metric overlap or jaccard"));
            }
        };
        return overlap_between::between(&args.trace, other, metric, &args.output);
    }
    if let Some(lags) = &args.temporal {
        return overlap_between::temporal(&args.trace, lags, &args.output);
    }
    let metric = match args.metric {
        MetricArg::Overlap => Metric::Overlap,
        MetricArg::Jaccard => Metric::Jaccard,
        MetricArg::MassRecall => return print_mass_recall(&args),
    };
    let (matrix, meta) = compare(TraceFile::open(&args.trace)?, metric, args.group.unwrap_or_default())?;
    if matrix.counted == 0 {
        args.output.warn(&format!(
            "no recorded query sees more than index_topk = {} {}: every set holds all of them, and {metric} is trivially 1",
            meta.index_topk,
            meta.unit.plural()
        ));
    }
    let mut json = to_json(&matrix, &meta);
    if meta.groups > 1 {
        json["groups"] = json!(meta.groups);
        json["group"] = match args.group {
            None => json!("mean"),
            Some(Groups::One(group)) => json!(group),
            Some(_) => json!("pooled"),
        };
    }
    args.output.print(&json, &to_table(&matrix, &meta))
}

/// Compares every two layers, without reading all sets of a packed trace at once.
fn compare(file: TraceFile, metric: Metric, groups: Groups) -> Result<(OverlapMatrix, TraceMeta), CliError> {
    let check = |meta: &TraceMeta| match groups {
        Groups::One(group) if group >= meta.groups => {
            Err(CliError::run(format!("the recording has no group {group}: it has {}", meta.groups))
                .hint("groups are counted from 0"))
        }
        _ => Ok(()),
    };
    match file {
        TraceFile::Whole(trace) => {
            check(&trace.meta)?;
            let mut all = Accumulator::new(&trace.meta, &trace.queries, metric).of(groups);
            all.add(&trace.selections);
            Ok((all.finish(), trace.meta))
        }
        TraceFile::Packed(trace) => {
            check(trace.meta())?;
            let mut pieces = Accumulator::new(trace.meta(), trace.queries(), metric).of(groups);
            for piece in trace.pieces() {
                pieces.add(&piece?);
            }
            Ok((pieces.finish(), trace.meta().clone()))
        }
    }
}

/// Returns the matrix of overlap of a recording as `--json` prints it; mass recall, where measured, is in it.
///
/// # Errors
/// When the trace cannot be read.
pub(super) fn recorded(trace: &Path) -> Result<Value, CliError> {
    let (matrix, meta) = compare(TraceFile::open(trace)?, Metric::Overlap, Groups::Each)?;
    let mut json = to_json(&matrix, &meta);
    json["model"] = json!(meta.model);
    json["fingerprint"] = json!(meta.fingerprint);
    json["pattern"] = json!(meta.pattern.to_string());
    json["index_topk"] = json!(meta.index_topk);
    json["tokens_hash"] = json!(meta.tokens_hash);
    if let Some(mass) = &meta.mass_recall {
        json["mass_recall"] = mass_to_json(mass, &meta);
    }
    Ok(json)
}

fn print_mass_recall(args: &Args) -> Result<(), CliError> {
    let meta = match TraceFile::open(&args.trace)? {
        TraceFile::Whole(trace) => trace.meta,
        TraceFile::Packed(trace) => trace.meta().clone(),
    };
    let Some(mass) = &meta.mass_recall else {
        return Err(CliError::run(format!("'{}' holds no mass recall", args.trace.display()))
            .hint("it is measured along with the sets: record --mass-recall 64"));
    };
    if mass.queries == 0 {
        args.output.warn(&format!("no query sees more than index_topk = {} keys", meta.index_topk));
    }
    args.output.print(&mass_to_json(mass, &meta), &mass_to_table(mass, &meta))
}

/// Returns the layers that the rows and columns of a matrix are of.
fn layers(meta: &TraceMeta) -> Vec<usize> {
    meta.sites().iter().collect()
}

/// Returns the layers that used the sets of others.
fn borrowed(meta: &TraceMeta) -> Vec<usize> {
    let sites = meta.sites().iter().enumerate();
    sites.filter(|&(site, _)| !meta.pattern.is_full(site)).map(|(_, layer)| layer).collect()
}

/// Returns the heading of a table of layers by layers.
fn heading(first: &str, meta: &TraceMeta) -> Table {
    Table::new(std::iter::once(first.to_owned()).chain(layers(meta).iter().map(ToString::to_string)))
}

/// Returns the rows of a matrix.
fn rows(layers: usize, value: impl Fn(usize) -> Value) -> Vec<Vec<Value>> {
    (0..layers).map(|i| (0..layers).map(|j| value(i * layers + j)).collect()).collect()
}

fn to_json(m: &OverlapMatrix, meta: &TraceMeta) -> Value {
    json!({
        "schema": 1,
        "metric": m.metric.to_string(),
        "layers": layers(meta),
        "queries": m.queries,
        "counted": m.counted,
        "chance": m.chance,
        "borrowed": borrowed(meta),
        "matrix": rows(m.layers, |at| json!(m.values[at])),
        "se": rows(m.layers, |at| json!(m.se[at])),
    })
}

fn to_table(m: &OverlapMatrix, meta: &TraceMeta) -> Table {
    let mut table = heading("layer", meta);
    for (i, layer) in layers(meta).into_iter().enumerate() {
        let cells = (0..m.layers).map(|j| format!("{:.3}", m.values[i * m.layers + j]));
        table.rows.push(std::iter::once(layer.to_string()).chain(cells).collect());
    }
    let chance = m.chance.map_or("not defined".to_owned(), |c| format!("{c:.3}"));
    table.notes.push(format!("{} over {} of {} queries, chance {chance}", m.metric, m.counted, m.queries));
    table.notes.extend(borrowed_note(&borrowed(meta)));
    table
}

fn borrowed_note(borrowed: &[usize]) -> Option<String> {
    let layers: Vec<String> = borrowed.iter().map(ToString::to_string).collect();
    (!layers.is_empty()).then(|| format!("borrowed sets (Shared layers): {}", layers.join(", ")))
}

fn mass_to_json(m: &MassRecall, meta: &TraceMeta) -> Value {
    json!({
        "schema": 1,
        "metric": "mass-recall",
        "layers": layers(meta),
        "queries": m.queries,
        "counted": m.queries,
        "per_sequence": m.per_sequence,
        "seed": m.seed,
        "chance": m.chance,
        "borrowed": borrowed(meta),
        "own": m.own.iter().map(|own| own.map(|own| own.value)).collect::<Vec<_>>(),
        "own_se": m.own.iter().map(|own| own.and_then(|own| own.se)).collect::<Vec<_>>(),
        "matrix": rows(m.layers, |at| json!(m.values[at])),
        "se": rows(m.layers, |at| json!(m.se[at])),
    })
}

fn mass_to_table(m: &MassRecall, meta: &TraceMeta) -> Table {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.3}"));
    let mut table = heading("set of", meta);
    for (i, layer) in layers(meta).into_iter().enumerate() {
        let cells = (0..m.layers).map(|j| number(m.values[i * m.layers + j]));
        table.rows.push(std::iter::once(layer.to_string()).chain(cells).collect());
    }
    let own = m.own.iter().map(|own| number(own.map(|own| own.value)));
    table.rows.push(std::iter::once("dense".to_owned()).chain(own).collect());
    let chance = m.chance.map_or("not defined".to_owned(), |c| format!("{c:.3}"));
    table.notes.push(format!(
        "mass recall: of the attention that a column's layer keeps with its own set, what the row's set keeps; {} queries, chance {chance}",
        m.queries
    ));
    table.notes.push("dense: the share of its dense attention that a layer's own set keeps".to_owned());
    table.notes.extend(borrowed_note(&borrowed(meta)));
    table
}
