//! `indexscope overlap`: the matrix of a recording.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::CliError;
use super::output::{OutputArgs, Table};
use crate::analysis::overlap::{Accumulator, Metric, OverlapMatrix, matrix};
use crate::domain::{MassRecall, TraceMeta};
use crate::session::TraceFile;

/// Arguments of `overlap`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording, as written by `indexscope record`.
    trace: PathBuf,
    /// How two sets are compared.
    #[arg(long, value_enum, default_value_t, value_name = "METRIC")]
    metric: MetricArg,
    #[command(flatten)]
    output: OutputArgs,
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
    let metric = match args.metric {
        MetricArg::Overlap => Metric::Overlap,
        MetricArg::Jaccard => Metric::Jaccard,
        MetricArg::MassRecall => return print_mass_recall(&args),
    };
    let (matrix, meta) = compare(TraceFile::open(&args.trace)?, metric)?;
    if matrix.counted == 0 {
        args.output.warn(&format!(
            "no recorded query sees more than index_topk = {} keys: every set holds all of them, and {metric} is trivially 1",
            meta.index_topk
        ));
    }
    args.output.print(&to_json(&matrix), &to_table(&matrix))
}

/// Compares every two layers, without reading all sets of a packed trace at once.
fn compare(file: TraceFile, metric: Metric) -> Result<(OverlapMatrix, TraceMeta), CliError> {
    match file {
        TraceFile::Whole(trace) => Ok((matrix(&trace, metric), trace.meta)),
        TraceFile::Packed(trace) => {
            let mut pieces = Accumulator::new(trace.meta(), trace.queries(), metric);
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
    let (matrix, meta) = compare(TraceFile::open(trace)?, Metric::Overlap)?;
    let mut json = to_json(&matrix);
    json["model"] = json!(meta.model);
    json["fingerprint"] = json!(meta.fingerprint);
    json["pattern"] = json!(meta.pattern.to_string());
    json["index_topk"] = json!(meta.index_topk);
    json["tokens_hash"] = json!(meta.tokens_hash);
    if let Some(mass) = &meta.mass_recall {
        json["mass_recall"] = mass_to_json(mass, &matrix.borrowed);
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
    let borrowed: Vec<usize> = (0..meta.layers).filter(|&l| !meta.pattern.is_full(l)).collect();
    args.output.print(&mass_to_json(mass, &borrowed), &mass_to_table(mass, &borrowed))
}

/// Returns the rows of a matrix.
fn rows(layers: usize, value: impl Fn(usize) -> Value) -> Vec<Vec<Value>> {
    (0..layers).map(|i| (0..layers).map(|j| value(i * layers + j)).collect()).collect()
}

fn to_json(m: &OverlapMatrix) -> Value {
    json!({
        "schema": 1,
        "metric": m.metric.to_string(),
        "layers": (0..m.layers).collect::<Vec<_>>(),
        "queries": m.queries,
        "counted": m.counted,
        "chance": m.chance,
        "borrowed": m.borrowed,
        "matrix": rows(m.layers, |at| json!(m.values[at])),
        "se": rows(m.layers, |at| json!(m.se[at])),
    })
}

fn to_table(m: &OverlapMatrix) -> Table {
    let mut table = Table::new(std::iter::once("layer".to_owned()).chain((0..m.layers).map(|l| l.to_string())));
    for i in 0..m.layers {
        let cells = (0..m.layers).map(|j| format!("{:.3}", m.values[i * m.layers + j]));
        table.rows.push(std::iter::once(i.to_string()).chain(cells).collect());
    }
    let chance = m.chance.map_or("not defined".to_owned(), |c| format!("{c:.3}"));
    table.notes.push(format!("{} over {} of {} queries, chance {chance}", m.metric, m.counted, m.queries));
    table.notes.extend(borrowed_note(&m.borrowed));
    table
}

fn borrowed_note(borrowed: &[usize]) -> Option<String> {
    let layers: Vec<String> = borrowed.iter().map(ToString::to_string).collect();
    (!layers.is_empty()).then(|| format!("borrowed sets (Shared layers): {}", layers.join(", ")))
}

fn mass_to_json(m: &MassRecall, borrowed: &[usize]) -> Value {
    json!({
        "schema": 1,
        "metric": "mass-recall",
        "layers": (0..m.layers).collect::<Vec<_>>(),
        "queries": m.queries,
        "counted": m.queries,
        "per_sequence": m.per_sequence,
        "seed": m.seed,
        "chance": m.chance,
        "borrowed": borrowed,
        "own": m.own.iter().map(|own| own.map(|own| own.value)).collect::<Vec<_>>(),
        "own_se": m.own.iter().map(|own| own.and_then(|own| own.se)).collect::<Vec<_>>(),
        "matrix": rows(m.layers, |at| json!(m.values[at])),
        "se": rows(m.layers, |at| json!(m.se[at])),
    })
}

fn mass_to_table(m: &MassRecall, borrowed: &[usize]) -> Table {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.3}"));
    let mut table = Table::new(std::iter::once("set of".to_owned()).chain((0..m.layers).map(|l| l.to_string())));
    for i in 0..m.layers {
        let cells = (0..m.layers).map(|j| number(m.values[i * m.layers + j]));
        table.rows.push(std::iter::once(i.to_string()).chain(cells).collect());
    }
    let own = m.own.iter().map(|own| number(own.map(|own| own.value)));
    table.rows.push(std::iter::once("dense".to_owned()).chain(own).collect());
    let chance = m.chance.map_or("not defined".to_owned(), |c| format!("{c:.3}"));
    table.notes.push(format!(
        "mass recall: of the attention that a column's layer keeps with its own set, what the row's set keeps; {} queries, chance {chance}",
        m.queries
    ));
    table.notes.push("dense: the share of its dense attention that a layer's own set keeps".to_owned());
    table.notes.extend(borrowed_note(borrowed));
    table
}
