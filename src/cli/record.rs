//! `indexscope record`: the top-k sets of every layer, as a trace file.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::data::DataArgs;
use super::interrupt::cancel_on_interrupt;
use super::model::{self, RunArgs, load};
use super::output::{OutputArgs, Table};
use super::progress::Progress;
use super::{CliError, bytes, overlap};
use crate::atomic::Draft;
use crate::domain::{PatternSource, QuerySampling, Selection, Subject, Trace};
use crate::engine::{BackendError, ModelInfo, Recorded, Recording, Runtime, Sink, Source};
use crate::session::{is_packed, write_atomic, write_packed, write_trace};

/// What runs the model and gives its sets to a sink.
type Run<'a> = dyn FnMut(&mut Sink) -> Result<Recorded, BackendError> + 'a;

/// Arguments of `record`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, ORG/NAME[@REVISION] of the Hub, or demo.
    model: String,
    /// The file to write: packed, a quarter of the size or less, if its name ends in .trace; only the matrix of
    /// overlap if it ends in .json, the sets going through a file beside it; else safetensors.
    #[arg(long, value_name = "TRACE")]
    out: PathBuf,
    /// The pattern under which to record; by default every layer that has an indexer runs it.
    #[arg(long, value_name = "P")]
    pattern: Option<PatternSource>,
    /// all, or how many positions of each sequence are drawn.
    #[arg(long, default_value = "all", value_name = "all|N", value_parser = sampling)]
    queries: QuerySampling,
    /// Also measure mass recall, on N queries of each sequence that see more than index_topk keys.
    #[arg(long, value_name = "N")]
    mass_recall: Option<NonZeroUsize>,
    /// Load one layer at a time, for checkpoints larger than memory.
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn sampling(text: &str) -> Result<QuerySampling, String> {
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
    args.run.without_worker(&[(args.stream, "--stream")])?;
    let checkpoint = args.run.open(&args.model, args.output.quiet())?;
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
    let recording = Recording { pattern, queries: args.queries, mass_recall: args.mass_recall.map(NonZeroUsize::get) };
    args.data.note(&args.output)?;
    let calibration = args.data.load(&checkpoint)?;
    let cancel = cancel_on_interrupt();
    let runtime = args.run.runtime(&args.model)?;
    let mut progress = Progress::new(&args.output);
    let mut told = |share| progress.tell("recording", share);
    let (mut trace, mut run): (Trace, Box<Run>);
    let mut engine = None;
    match &runtime {
        Runtime::Process(settings) if args.stream => {
            model::check_streaming_room(&checkpoint, &calibration, settings, 1)?;
            model::warn(&checkpoint, &calibration, &args.output);
            trace = recording.head(&ModelInfo::of(&checkpoint, &calibration, settings)?, &calibration)?;
            run = Box::new(|sink| recording.stream(&checkpoint, &calibration, settings, &cancel, &mut told, sink));
        }
        _ => {
            let source = Source::new(checkpoint.clone(), calibration.clone(), runtime.clone());
            let mut backend = load(&source, &args.output, &cancel)?;
            engine = matches!(source.runtime, Runtime::Workers(_)).then(|| backend.describe().ops.clone());
            trace = recording.head(backend.describe(), &source.calibration)?;
            run = Box::new(move |sink| backend.record_into(&recording, &cancel, &mut told, sink));
        }
    }
    let recorded = write(&args.out, &mut trace, &mut run)?;
    drop(run);
    drop(progress);
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
    let mut json = json!({
        "schema": 1,
        "trace": out,
        "pattern": pattern.to_string(),
        "layers": trace.meta.layers,
        "sequences": trace.tokens.len(),
        "queries": trace.queries.len(),
        "index_topk": trace.meta.index_topk,
        "stream": args.stream,
        "peak_anonymous_bytes": recorded.peak_anonymous_bytes,
    });
    if let Some(engine) = engine {
        json["engine"] = json!(engine);
    }
    if let Some(mass) = &recorded.mass_recall {
        json["mass_recall_queries"] = json!(mass.queries);
        let note = format!("mass recall of {} queries, up to {} per sequence", mass.queries, mass.per_sequence);
        table.notes.push(note);
    }
    if let Some(peak) = recorded.peak_anonymous_bytes {
        table.notes.push(format!("at most {} of memory held", bytes::show(peak)));
    }
    args.output.print(&json, &table)
}

/// Records into a file of the form that its name tells.
fn write(out: &Path, trace: &mut Trace, run: &mut Run) -> Result<Recorded, CliError> {
    if out.extension().is_some_and(|e| e == "json") {
        return write_matrix(out, trace, run);
    }
    if is_packed(out) {
        return write_pieces(out, trace, run);
    }
    trace.selections =
        vec![Selection::with_capacity(trace.queries.len(), trace.meta.index_topk); trace.meta.sites().len()];
    let recorded = run(&mut |layer, _, rows| {
        rows.rows().for_each(|row| trace.selections[layer].push(row));
        Ok(())
    })?;
    trace.meta.mass_recall.clone_from(&recorded.mass_recall);
    write_trace(out, trace)?;
    Ok(recorded)
}

/// Records into a packed trace, piece by piece.
fn write_pieces(out: &Path, head: &Trace, run: &mut Run) -> Result<Recorded, CliError> {
    let mut result = None;
    let written =
        write_packed(out, head, |writer| match run(&mut |layer, first, rows| writer.add(layer, first, rows)) {
            Ok(recorded) => {
                let mass = recorded.mass_recall.clone();
                result = Some(Ok(recorded));
                mass.map_or(Ok(()), |mass| writer.mass_recall(&mass))
            }
            Err(stopped) => {
                result = Some(Err(stopped));
                Err(io::ErrorKind::Interrupted.into())
            }
        });
    let recorded = result.transpose()?;
    written?;
    recorded.ok_or_else(|| CliError::run(format!("'{}' was not written", out.display())))
}

/// Records into a packed trace that is removed again, and writes what the sets of every two layers have in common.
fn write_matrix(out: &Path, head: &Trace, run: &mut Run) -> Result<Recorded, CliError> {
    let beside = Draft::beside(out).map_err(|e| CliError::file("cannot write beside", out, e))?;
    let sets = beside.path().join("sets.trace");
    let recorded = write_pieces(&sets, head, run)?;
    let json = overlap::recorded(&sets)?;
    write_atomic(out, format!("{json}\n").as_bytes())?;
    Ok(recorded)
}
