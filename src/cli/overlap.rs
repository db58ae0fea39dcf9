//! `indexscope overlap`: the matrix of a recording.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::CliError;
use super::output::{OutputArgs, Table};
use crate::analysis::overlap::{Accumulator, Metric, OverlapMatrix, matrix};
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
}

/// Prints how much the index sets of every two layers have in common.
///
/// # Errors
/// When the trace cannot be read, or stdout not written.
pub fn run(args: Args) -> Result<(), CliError> {
    let metric = match args.metric {
        MetricArg::Overlap => Metric::Overlap,
        MetricArg::Jaccard => Metric::Jaccard,
    };
    let (matrix, topk) = match TraceFile::open(&args.trace)? {
        TraceFile::Whole(trace) => (matrix(&trace, metric), trace.meta.index_topk),
        TraceFile::Packed(trace) => {
            let mut pieces = Accumulator::new(trace.meta(), trace.queries(), metric);
            for piece in trace.pieces() {
                pieces.add(&piece?);
            }
            (pieces.finish(), trace.meta().index_topk)
        }
    };
    if matrix.counted == 0 {
        args.output.warn(&format!(
            "no recorded query sees more than index_topk = {topk} keys: every set holds all of them, and {metric} is trivially 1"
        ));
    }
    args.output.print(&to_json(&matrix), &to_table(&matrix))
}

fn to_json(m: &OverlapMatrix) -> Value {
    let rows = |value: &dyn Fn(usize) -> Value| -> Vec<Vec<Value>> {
        (0..m.layers).map(|i| (0..m.layers).map(|j| value(i * m.layers + j)).collect()).collect()
    };
    json!({
        "schema": 1,
        "metric": m.metric.to_string(),
        "layers": (0..m.layers).collect::<Vec<_>>(),
        "queries": m.queries,
        "counted": m.counted,
        "chance": m.chance,
        "borrowed": m.borrowed,
        "matrix": rows(&|at| json!(m.values[at])),
        "se": rows(&|at| json!(m.se[at])),
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
    if !m.borrowed.is_empty() {
        let layers: Vec<String> = m.borrowed.iter().map(ToString::to_string).collect();
        table.notes.push(format!("borrowed sets (Shared layers): {}", layers.join(", ")));
    }
    table
}
