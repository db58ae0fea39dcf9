//! `indexscope eval`: the loss of patterns.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use super::data::DataArgs;
use super::interrupt::cancel_on_interrupt;
use super::model::{self, RunArgs, load};
use super::output::{OutputArgs, Table};
use super::progress::Progress;
use super::{CliError, bytes, deltas};
use crate::checkpoint::Checkpoint;
use crate::domain::{Evaluation, Pattern, PatternSource, Subject};
use crate::engine::{Backend, Calibration, Cancel, ModelInfo, Source, stream};
use crate::session::write_atomic;

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, ORG/NAME[@REVISION] of the Hub, or demo.
    model: String,
    /// F/S letters, all-full, native, uniform:N, freq:N[,OFFSET], dense, paper:NAME, @FILE,
    /// session:FILE, or what a config or a launch script has; may be repeated.
    #[arg(long = "pattern", required = true, value_name = "P")]
    patterns: Vec<PatternSource>,
    /// Also write the logits of every position to this safetensors file.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Hold one layer at a time, for a checkpoint larger than memory; all patterns pass it before the next is loaded.
    #[arg(long, conflicts_with = "logits")]
    stream: bool,
    /// Compare with the reference pattern under these indexers instead of --index: what training them changed.
    #[arg(long, value_name = "own|oracle|SIDECAR", conflicts_with = "stream")]
    reference_index: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Measures the loss of every pattern asked for, against the reference pattern.
///
/// # Errors
/// Wrong usage, files, a model that cannot run, a loss that is not finite, Ctrl-C.
pub fn run(args: Args) -> Result<(), CliError> {
    args.run.without_worker(&[
        (args.stream, "--stream"),
        (args.logits.is_some(), "--logits"),
        (args.reference_index.is_some(), "--reference-index"),
    ])?;
    let checkpoint = args.run.open(&args.model, args.output.quiet())?;
    let subjects = args.patterns.iter().map(|spec| model::resolve(&checkpoint, spec)).collect::<Result<Vec<_>, _>>()?;
    args.data.note(&args.output)?;
    let calibration = args.data.load(&checkpoint)?;
    let cancel = cancel_on_interrupt();
    if args.stream {
        return run_streamed(&args, &checkpoint, &calibration, &subjects, &cancel);
    }
    let documents = calibration.documents();
    let runtime = args.run.runtime(&args.model)?;
    let source = Source::new(checkpoint, calibration, runtime);
    let mut backend = load(&source, &args.output, &cancel)?;
    warn_of_random(&args);
    let mut progress = Progress::new(&args.output);
    let mut tell = |partial: &Evaluation| {
        let (done, all) = partial.sequences;
        progress.tell(&format!("{}: {done}/{all} sequences", partial.subject), done as f64 / all as f64);
    };
    let reference = Subject::Pattern(backend.describe().reference);
    let base = match &args.reference_index {
        None => backend.evaluate(reference, &cancel, &mut tell)?,
        Some(index) => {
            let checkpoint = args.run.open_with(&args.model, index, args.output.quiet())?;
            let mut other = load(&Source { checkpoint, ..source }, &args.output, &cancel)?;
            backend.compare_with(other.as_mut(), &cancel, &mut tell)?
        }
    };
    let results = subjects.iter().map(|&s| backend.evaluate(s, &cancel, &mut tell)).collect::<Result<Vec<_>, _>>()?;
    drop(progress);
    if let Some(path) = &args.logits {
        write_logits(path, backend.as_mut(), &subjects, &cancel)?;
    }
    let json = to_json(&args, backend.describe(), documents, &base, &results);
    let mut table = to_table(backend.describe(), &base, &results);
    if let Some(index) = &args.reference_index {
        table.notes.push(format!("the reference has the indexers of '{index}'"));
    }
    args.output.print(&json, &table)
}

/// The same with one layer in memory at a time.
fn run_streamed(
    args: &Args,
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    subjects: &[Subject],
    cancel: &Cancel,
) -> Result<(), CliError> {
    let settings = args.run.settings()?;
    model::check_streaming_room(checkpoint, calibration, &settings, subjects.len() + 1)?;
    model::warn(checkpoint, calibration, &args.output);
    warn_of_random(args);
    let mut progress = Progress::new(&args.output);
    let layers = checkpoint.config().num_hidden_layers;
    let streamed = stream(checkpoint, calibration, &settings, subjects, cancel, &mut |layer, share| {
        progress.tell(&format!("layer {layer} of {layers}:"), share);
    })?;
    drop(progress);
    let mut json = to_json(args, &streamed.info, calibration.documents(), &streamed.reference, &streamed.evaluations);
    json["stream"] = json!(true);
    json["peak_anonymous_bytes"] = json!(streamed.peak_anonymous_bytes);
    let mut table = to_table(&streamed.info, &streamed.reference, &streamed.evaluations);
    if let Some(peak) = streamed.peak_anonymous_bytes {
        let note =
            format!("streamed layer by layer, seconds of all patterns together; at most {} held", bytes::show(peak));
        table.notes.push(note);
    }
    args.output.print(&json, &table)
}

fn warn_of_random(args: &Args) {
    if args.data.is_random() {
        args.output.warn("the tokens are random: losses say nothing about text");
    }
}

fn to_json(
    args: &Args,
    info: &ModelInfo,
    documents: Option<usize>,
    base: &Evaluation,
    results: &[Evaluation],
) -> Value {
    let results: Vec<Value> = args.patterns.iter().zip(results).map(|(asked, e)| result(asked, e)).collect();
    let mut json = json!({
        "schema": 1,
        "model": info.name,
        "device": info.device,
        "dtype": info.dtype,
        "attention": info.ops,
        "sequences": info.sequences,
        "targets": base.targets,
        "eligible": base.eligible,
        "blocks": base.blocks,
        "clusters": base.delta.map_or(0, |d| d.clusters),
        "documents": documents,
        "take": args.data.taken(),
        "index_topk": info.index_topk,
    });
    if args.data.is_random() {
        json["tokens"] = json!("random");
    }
    json["reference"] = json!({"pattern": base.subject.to_string(), "loss": base.loss});
    if let Some(index) = &args.reference_index {
        json["reference"]["index"] = json!(index);
    }
    if let Some(noise) = info.noise {
        json["noise"] = json!({"delta": noise.delta, "targets": noise.targets});
    }
    json["results"] = Value::Array(results);
    json
}

fn result(asked: &PatternSource, e: &Evaluation) -> Value {
    let pattern = match e.subject {
        Subject::Pattern(pattern) => Some(pattern),
        Subject::Dense => None,
    };
    let buckets = e
        .by_position
        .iter()
        .map(|b| json!({"from": b.from, "to": b.to, "targets": b.targets, "loss": b.loss, "delta": b.delta}));
    let mut json = json!({
        "asked": asked.to_string(),
        "pattern": e.subject.to_string(),
        "full": pattern.map(Pattern::full_count),
        "shared": pattern.map(Pattern::shared_count),
        "loss": e.loss,
        "delta_all": e.delta_all,
        "perplexity": e.loss.exp(),
        "ppl_ratio": (e.loss - e.reference_loss).exp(),
        "same_top": e.agreement.map(|a| a.same_top),
        "kl": e.agreement.map(|a| a.kl),
        "kl_p99": e.agreement.map(|a| a.kl_p99),
        "bits_per_byte": e.bits_per_byte,
        "by_position": buckets.collect::<Vec<_>>(),
        "worst_sequence": e.worst_sequence.map(|w| json!({"index": w.index, "delta": w.delta})),
        "by_cluster": e.by_cluster,
        "seconds": e.seconds,
    });
    deltas::insert(&mut json, "delta", e.delta);
    json
}

fn to_table(info: &ModelInfo, base: &Evaluation, results: &[Evaluation]) -> Table {
    let mut table = Table::new(["pattern", "full", "loss", "delta", "se", "ppl ratio", "same top", "KL", "seconds"]);
    let optional = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    for e in results {
        let full = match e.subject {
            Subject::Pattern(pattern) => pattern.full_count().to_string(),
            Subject::Dense => "-".to_owned(),
        };
        table.rows.push(vec![
            e.subject.to_string(),
            full,
            format!("{:.4}", e.loss),
            e.delta.map_or("-".to_owned(), |d| format!("{:+.4}", d.value)),
            deltas::error_of(e.delta),
            format!("{:.4}", (e.loss - e.reference_loss).exp()),
            optional(e.agreement.map(|a| a.same_top), 4),
            optional(e.agreement.map(|a| a.kl), 4),
            format!("{:.2}", e.seconds),
        ]);
    }
    table.notes.push(format!(
        "{}: {} targets of {} sequences ({}), {} of them see more than {} {}; reference {} has loss {:.4} nats",
        info.name,
        base.targets,
        info.sequences,
        info.data,
        base.eligible,
        info.index_topk,
        info.unit.plural(),
        base.subject,
        base.loss
    ));
    table.notes.extend(deltas::note(results.iter().map(|e| e.delta)));
    table.notes.extend(deltas::noise(info));
    table
}

/// Writes `logits.<pattern>` f32 `[N, T, vocab]` per distinct pattern; shorter sequences end in zeros.
fn write_logits(path: &Path, backend: &mut dyn Backend, subjects: &[Subject], cancel: &Cancel) -> Result<(), CliError> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for &subject in subjects {
        let name = format!("logits.{subject}");
        if tensors.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let sequences = backend.logits(subject, cancel)?;
        let longest = backend.describe().context;
        tensors.push((name, stack(&sequences, longest).map_err(CliError::run)?));
    }
    let bytes = safetensors::serialize(tensors, None).map_err(CliError::run)?;
    Ok(write_atomic(path, &bytes)?)
}

fn stack(sequences: &[Tensor], longest: usize) -> candle_core::Result<Tensor> {
    let padded: Vec<Tensor> = sequences
        .iter()
        .map(|logits| logits.to_dtype(DType::F32)?.pad_with_zeros(0, 0, longest - logits.dim(0)?))
        .collect::<Result<_, _>>()?;
    Tensor::stack(&padded, 0)?.to_device(&candle_core::Device::Cpu)
}
