//! `indexscope record`: the top-k sets of every layer, as a trace file.

use std::io;
use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::data::DataArgs;
use super::model::{self, RunArgs, load};
use super::output::{OutputArgs, Table};
use super::progress::{Progress, cancel_on_interrupt};
use crate::domain::{PatternSpec, QuerySampling, Subject};
use crate::session::{is_packed, write_packed, write_trace};

/// Arguments of `record`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a checkpoint.
    model: String,
    /// The file to write: packed, a quarter of the size or less, if its name ends in .trace, else safetensors.
    #[arg(long, value_name = "TRACE")]
    out: PathBuf,
    /// The pattern under which to record; by default every layer that has an indexer runs it.
    #[arg(long, value_name = "P")]
    pattern: Option<PatternSpec>,
    /// all, or how many positions of each sequence are drawn.
    #[arg(long, default_value = "all", value_name = "all|N", value_parser = sampling)]
    queries: QuerySampling,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn sampling(text: &str) -> Result<QuerySampling, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(QuerySampling::All),
        (_, Ok(per_sequence)) if per_sequence > 0 => Ok(QuerySampling::Sampled { per_sequence, seed: 0 }),
        _ => Err("give 'all' or a whole number above 0".to_owned()),
    }
}

/// Runs the model once over the tokens and writes what every layer selected.
///
/// # Errors
/// Wrong usage, files, a model that cannot run, Ctrl-C.
pub fn run(args: Args) -> Result<(), CliError> {
    let checkpoint = model::open(&args.model)?;
    let pattern = match &args.pattern {
        None => checkpoint.constraints().reference()?,
        Some(spec) => match model::resolve(&checkpoint, spec)? {
            Subject::Pattern(pattern) => pattern,
            Subject::Dense => {
                return Err(CliError::usage("dense attention selects nothing that could be recorded")
                    .hint("record a pattern, such as all-full"));
            }
        },
    };
    let calibration = args.data.load(&checkpoint)?;
    let cancel = cancel_on_interrupt()?;
    let mut backend = load(&checkpoint, calibration, args.run.settings()?, &args.output)?;
    let mut progress = Progress::new(&args.output);
    let mut told = |share| progress.tell("recording", share);
    let trace = if is_packed(&args.out) {
        let empty = backend.empty_recording(pattern, args.queries);
        let mut stopped = None;
        let written = write_packed(&args.out, &empty, |writer| {
            let mut refused = Ok(());
            let done = backend.record_into(&empty, &cancel, &mut told, &mut |layer, first, rows| {
                if refused.is_ok() {
                    refused = writer.add(layer, first, rows);
                }
            });
            stopped = done.err();
            refused.and_then(|()| if stopped.is_some() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) })
        });
        drop(progress);
        stopped.map_or(Ok(()), Err)?;
        written?;
        empty
    } else {
        let trace = backend.record_pattern(pattern, args.queries, &cancel, &mut told)?;
        drop(progress);
        write_trace(&args.out, &trace)?;
        trace
    };
    let out = args.out.display().to_string();
    let mut table = Table::new(["trace", "pattern", "layers", "sequences", "queries", "k"]);
    table.rows.push(vec![
        out.clone(),
        pattern.to_string(),
        trace.meta.layers.to_string(),
        trace.tokens.len().to_string(),
        trace.queries.len().to_string(),
        trace.meta.index_topk.to_string(),
    ]);
    let json = json!({
        "schema": 1,
        "trace": out,
        "pattern": pattern.to_string(),
        "layers": trace.meta.layers,
        "sequences": trace.tokens.len(),
        "queries": trace.queries.len(),
        "index_topk": trace.meta.index_topk,
    });
    args.output.print(&json, &table)
}
