//! `indexscope bench`: how long forwards take, per phase, at several contexts; and whether the kernels are right.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::data::DataArgs;
use super::model::{self, RunArgs};
use super::output::{OutputArgs, Table};
use super::progress::{Progress, cancel_on_interrupt};
use super::{CliError, gpu_check, target};
use crate::analysis::fit::{Fit, Point};
use crate::domain::{Pattern, PatternSpec, Speed};
use crate::engine::{Backend, LayerTime, LocalBackend, ModelInfo, RandomModel, Settings};

/// Phases in the order in which they are timed.
const PHASES: [&str; 2] = ["prefill", "decode"];

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, ORG/NAME[@REVISION] of the Hub, or demo.
    #[arg(required_unless_present_any = ["geometry", "gpu_check"])]
    model: Option<String>,
    /// Random weights instead of a checkpoint: glm-4.7-flash-dsa, glm-5, deepseek-v3.2, or a file like config.json.
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "model")]
    geometry: Option<String>,
    /// Changes a key of the geometry, such as index_topk=1024; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "geometry")]
    set: Vec<String>,
    /// Compares the CUDA kernels with their CPU twins, and times them; nothing else is run.
    #[arg(long, conflicts_with_all = ["model", "geometry", "patterns", "context"])]
    gpu_check: bool,
    /// Also write where one more prefill of the first pattern at the longest context spends its time: layer by layer and
    /// phase by phase, as a Chrome trace.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// F/S letters, all-full, native, uniform:N, freq:N[,OFFSET], @FILE or session:FILE; may be repeated.
    #[arg(long = "pattern", required_unless_present = "gpu_check", value_name = "P")]
    patterns: Vec<PatternSpec>,
    /// Tokens in context; from three on, a cost model is fitted and projected to longer ones.
    #[arg(long, required_unless_present = "gpu_check", value_delimiter = ',', value_name = "N,…", value_parser = context)]
    context: Vec<usize>,
    /// Tokens that are run at once in a prefill; by default all of the context.
    #[arg(long, value_name = "N")]
    chunk: Option<std::num::NonZeroUsize>,
    /// Contexts to project to; by default 2, 4 and 8 times the longest one timed, as far as the model goes.
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = context)]
    project: Vec<usize>,
    /// Tokens to run, repeated up to the context; random ones by default, because timing hardly depends on them.
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    fn settings(&self) -> Result<Settings, CliError> {
        Ok(Settings { chunk: self.chunk.map(std::num::NonZeroUsize::get), ..self.run.settings()? })
    }
}

fn context(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 1).ok_or_else(|| "a context is a whole number of tokens above 1".to_owned())
}

/// A cost that was not measured.
struct Projection {
    pattern: Pattern,
    phase: &'static str,
    context: usize,
    seconds: f64,
    ratio: f64,
    fit: Fit,
}

/// Times every pattern asked for, in alternation with the reference pattern, at every context.
///
/// # Errors
/// Wrong usage, files, a model that cannot run, Ctrl-C.
pub fn run(args: Args) -> Result<(), CliError> {
    if args.gpu_check {
        return gpu_check::run(&args.run, &args.output);
    }
    let longest = args.context.iter().copied().max().unwrap_or_default();
    let cancel = cancel_on_interrupt()?;
    let (mut backend, patterns, positions) = match (&args.model, &args.geometry) {
        (Some(model), _) => of_checkpoint(&args, model, longest)?,
        (None, geometry) => of_geometry(&args, geometry.as_deref().unwrap_or_default(), longest)?,
    };
    if longest > positions {
        args.output.warn(&format!("a context of {longest} tokens is longer than the model's {positions} positions"));
    }
    let mut progress = Progress::new(&args.output);
    let mut speeds = Vec::new();
    for &context in &args.context {
        for &pattern in &patterns {
            let mut tell = |share| progress.tell(&format!("{pattern} at {context} tokens:"), share);
            speeds.extend(backend.measure_at(pattern, context, &cancel, &mut tell)?);
        }
    }
    drop(progress);
    let targets = if args.project.is_empty() {
        [2, 4, 8].map(|n| n * longest).into_iter().filter(|&n| n <= positions).collect()
    } else {
        args.project.clone()
    };
    let distinct: Vec<Pattern> =
        patterns.iter().enumerate().filter(|&(i, p)| !patterns[..i].contains(p)).map(|(_, &p)| p).collect();
    let projections = project(&speeds, &distinct, backend.describe().reference, &targets);
    if projections.is_empty() && !args.project.is_empty() {
        args.output.warn("fewer than three contexts were timed, so there is no cost model to project from");
    }
    if let Some(path) = &args.timeline {
        let pattern = patterns.first().copied().unwrap_or(backend.describe().reference);
        let text = timeline(&backend.trace(pattern, longest, &cancel)?).to_string();
        crate::atomic::write(path, text.as_bytes()).map_err(|e| CliError::file("cannot write", path, e))?;
    }
    let info = backend.describe();
    args.output.print(&to_json(info, &speeds, &projections), &to_table(info, &speeds, &projections))
}

/// A model to time, the patterns asked for, and its positions.
type Timed = (LocalBackend, Vec<Pattern>, usize);

fn of_checkpoint(args: &Args, model: &str, longest: usize) -> Result<Timed, CliError> {
    let checkpoint = args.run.open(model, args.output.quiet())?;
    let patterns = bound(&args.patterns, |spec| target::resolve(spec, &checkpoint))?;
    let data = if args.data.is_given() { args.data.clone() } else { args.data.with_random(longest, longest) };
    let calibration = data.load(&checkpoint)?;
    let settings = args.settings()?;
    model::check_room(&checkpoint, &settings)?;
    let positions = checkpoint.config().max_position_embeddings;
    Ok((LocalBackend::load(&checkpoint, calibration, settings)?, patterns, positions))
}

fn of_geometry(args: &Args, geometry: &str, longest: usize) -> Result<Timed, CliError> {
    if args.data.is_given() {
        return Err(CliError::usage("a geometry has no tokenizer and no use for tokens")
            .hint("leave --tokens and --text away: random tokens are run"));
    }
    let model = RandomModel::read(geometry, &args.set)?;
    let (native, constraints) = (model.native()?, model.constraints());
    let patterns = bound(&args.patterns, |spec| target::bind(spec, native, &constraints))?;
    let settings = args.settings()?;
    model::check_random_room(&model, &settings)?;
    let calibration = DataArgs::only_random(longest, model.config.vocab_size)?;
    Ok((LocalBackend::random(&model, calibration, settings)?, patterns, model.config.max_position_embeddings))
}

/// Binds the patterns asked for; dense attention is none.
fn bound(
    specs: &[PatternSpec],
    bind: impl Fn(&PatternSpec) -> Result<Option<Pattern>, CliError>,
) -> Result<Vec<Pattern>, CliError> {
    let dense = || {
        CliError::usage("'dense' is no pattern of layers that could be timed against one")
            .hint("give F/S letters, or all-full")
    };
    specs.iter().map(|spec| bind(spec)?.ok_or_else(dense)).collect()
}

/// Returns a Chrome trace (microseconds): one row for layers, one for phases.
fn timeline(layers: &[LayerTime]) -> Value {
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

/// Fits each phase and evaluates the fit at contexts that were not timed.
fn project(speeds: &[Speed], patterns: &[Pattern], reference: Pattern, contexts: &[usize]) -> Vec<Projection> {
    let mut projections = Vec::new();
    for phase in PHASES {
        let points: Vec<Point> = speeds.iter().filter(|s| s.phase == phase).map(Point::of).collect();
        let Some(fit) = Fit::of(&points) else { continue };
        for &context in contexts {
            for &pattern in patterns {
                let seconds = fit.seconds(pattern.full_count(), context);
                let ratio = fit.seconds(reference.full_count(), context) / seconds;
                projections.push(Projection { pattern, phase, context, seconds, ratio, fit });
            }
        }
    }
    projections
}

fn to_json(info: &ModelInfo, speeds: &[Speed], projections: &[Projection]) -> Value {
    let measured = speeds.iter().map(|s| {
        json!({
            "pattern": s.pattern,
            "full": s.pattern.full_count(),
            "phase": s.phase,
            "context": s.context,
            "seconds": s.seconds,
            "ratio": {"median": s.ratio.median, "mad": s.ratio.mad},
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
    })
}

fn to_table(info: &ModelInfo, speeds: &[Speed], projections: &[Projection]) -> Table {
    let mut table = Table::new([
        "pattern",
        "full",
        "phase",
        "context",
        "seconds",
        "mad",
        "ratio",
        "mad",
        "indexer",
        "topk",
        "attention",
        "mlp",
        "rest",
        "runs",
        "origin",
    ]);
    let share = |part: f64| format!("{:.1} %", part * 100.0);
    for s in speeds {
        let mut row = vec![s.pattern.to_string(), s.pattern.full_count().to_string(), s.phase.clone()];
        row.extend([s.context.to_string(), format!("{:.5}", s.seconds.median), format!("{:.5}", s.seconds.mad)]);
        row.extend([format!("{:.3}", s.ratio.median), format!("{:.3}", s.ratio.mad)]);
        row.extend([s.share.indexer, s.share.topk, s.share.attention, s.share.mlp, s.share.rest].map(share));
        row.extend([s.seconds.runs.to_string(), "measured".to_owned()]);
        table.rows.push(row);
    }
    for p in projections {
        let mut row = vec![p.pattern.to_string(), p.pattern.full_count().to_string(), p.phase.to_owned()];
        row.extend([p.context.to_string(), format!("{:.5}", p.seconds), "-".to_owned(), format!("{:.3}", p.ratio)]);
        row.resize(table.header.len() - 1, "-".to_owned());
        row.push("predicted".to_owned());
        table.rows.push(row);
    }
    table.notes.push(format!(
        "{} on {} in {}, attention {}, {}; seconds of one forward (prefill) or one token (decode); ratio = time of {} / time of the pattern",
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
    table
}
