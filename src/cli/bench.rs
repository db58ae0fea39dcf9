//! `indexscope bench`: how long forwards take, per phase, at several contexts; and whether the kernels are right.

mod paper;
mod print;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::data::DataArgs;
use super::interrupt::cancel_on_interrupt;
use super::model::{self, RunArgs};
use super::output::OutputArgs;
use super::progress::Progress;
use super::{CliError, gpu_check, target};
use crate::analysis::fit::{Fit, Point};
use crate::domain::{Pattern, PatternSource, Speed};
use crate::engine::{Backend, Cancel, NoRoom, RandomModel, Runtime, Settings, Source, StepSpeed, Steps, open_random};

/// Phases in the order in which they are timed.
const PHASES: [&str; 2] = ["prefill", "decode"];

/// The usual `--runs`.
const RUNS: NonZeroUsize = NonZeroUsize::new(6).expect("6 is not 0");

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
    /// F/S letters, all-full, native, uniform:N, freq:N[,OFFSET], paper:NAME, @FILE, session:FILE,
    /// or what a config has; may be repeated.
    #[arg(long = "pattern", required_unless_present = "gpu_check", value_name = "P")]
    patterns: Vec<PatternSource>,
    /// Tokens in context; from three on, a cost model is fitted and projected to longer ones.
    #[arg(long, required_unless_present = "gpu_check", value_delimiter = ',', value_name = "N,…", value_parser = context)]
    context: Vec<usize>,
    /// Tokens that are run at once in a prefill; by default all of the context.
    #[arg(long, value_name = "N")]
    chunk: Option<NonZeroUsize>,
    /// Fewest runs of pattern and reference of which a time is the median, an even number; 12 give an interval of the ratio.
    #[arg(long, value_name = "N", default_value_t = RUNS)]
    runs: NonZeroUsize,
    /// Also time a prefill of the last N tokens of each context on a cached prefix, as after a prefix-cache hit.
    #[arg(long, value_name = "N")]
    suffix: Option<NonZeroUsize>,
    /// Also time decode of so many sequences at once, such as 1,8,32; each has a cache of the whole context.
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_value = "1")]
    batch: Vec<NonZeroUsize>,
    /// Also time decode steps of so many query tokens per sequence, such as 1,4 (as where tokens are drafted).
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_value = "1")]
    query_tokens: Vec<NonZeroUsize>,
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
        let (chunk, runs) = (self.chunk.map(NonZeroUsize::get), self.runs.get());
        Ok(Settings { chunk, runs, ..self.run.settings()? })
    }

    /// Returns what is timed beside prefill and single tokens.
    fn steps(&self) -> Result<Steps, CliError> {
        if let Some((suffix, context)) = self.suffix.map(NonZeroUsize::get).zip(self.context.iter().copied().min())
            && suffix >= context
        {
            return Err(CliError::usage(format!(
                "--suffix {suffix} leaves no prefix of a context of {context} tokens"
            ))
            .hint("give a shorter suffix or longer contexts"));
        }
        let pairs = self.batch.iter().flat_map(|b| self.query_tokens.iter().map(move |q| (b.get(), q.get())));
        // One token of one sequence is timed in any case.
        let decode = pairs.filter(|&pair| pair != (1, 1)).collect();
        Ok(Steps { decode, suffix: self.suffix.map(NonZeroUsize::get) })
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
    let steps = args.steps()?;
    let cancel = cancel_on_interrupt();
    let (mut backend, patterns, positions) = match (&args.model, &args.geometry) {
        (Some(model), _) => of_checkpoint(&args, model, longest, &cancel)?,
        (None, geometry) => of_geometry(&args, geometry.as_deref().unwrap_or_default(), longest)?,
    };
    if longest > positions {
        args.output.warn(&format!("a context of {longest} tokens is longer than the model's {positions} positions"));
    }
    let mut progress = Progress::new(&args.output);
    let (mut speeds, mut timed) = (Vec::new(), Vec::new());
    for &context in &args.context {
        for &pattern in &patterns {
            let mut tell = |share| progress.tell(&format!("{pattern} at {context} tokens:"), share);
            let tokens = |speed: &Speed| if speed.phase == "prefill" { context } else { 1 };
            let mut hear = |speed: StepSpeed| {
                // Told at once, so that what ends a long run early loses nothing.
                args.output.note(&print::line(&speed));
                timed.push(speed);
            };
            speeds.extend(backend.measure(pattern, Some(context), &cancel, &mut tell, &mut |speed| {
                hear(StepSpeed { tokens: tokens(speed), batch: 1, speed: speed.clone() });
            })?);
            if !steps.is_empty() {
                backend.measure_steps(pattern, context, &steps, &cancel, &mut |step| match step {
                    Ok(speed) => hear(speed),
                    Err(NoRoom { phase, batch, tokens }) => args.output.warn(&format!(
                        "{phase} of {batch} sequences x {tokens} tokens at context {context} does not fit and is not timed"
                    )),
                })?;
            }
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
        let text = print::timeline(&backend.layer_times(pattern, longest, &cancel)?).to_string();
        crate::atomic::write(path, text.as_bytes()).map_err(|e| CliError::file("cannot write", path, e))?;
    }
    print::print(&args, backend.describe(), &timed, &projections)
}

/// A model to time, the patterns asked for, and its positions.
type Timed = (Box<dyn Backend>, Vec<Pattern>, usize);

fn of_checkpoint(args: &Args, model: &str, longest: usize, cancel: &Cancel) -> Result<Timed, CliError> {
    let checkpoint = args.run.open(model, args.output.quiet())?;
    let patterns = bound(&args.patterns, |spec| target::resolve(spec, &checkpoint))?;
    let data = if args.data.is_given() { args.data.clone() } else { args.data.with_random(longest, longest) };
    let calibration = data.load(&checkpoint)?;
    let runtime = match args.run.runtime(model)? {
        Runtime::Process(_) => Runtime::Process(args.settings()?),
        workers @ Runtime::Workers(_) => workers,
    };
    if let Runtime::Process(settings) = &runtime {
        model::check_room(&checkpoint, settings)?;
    }
    let positions = checkpoint.config().max_position_embeddings;
    Ok((Source::new(checkpoint, calibration, runtime).open(cancel)?, patterns, positions))
}

fn of_geometry(args: &Args, geometry: &str, longest: usize) -> Result<Timed, CliError> {
    args.run.without_worker(&[(true, "--geometry")])?;
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
    Ok((open_random(&model, calibration, settings)?, patterns, model.config.max_position_embeddings))
}

/// Binds the patterns asked for; dense attention is none.
fn bound(
    specs: &[PatternSource],
    bind: impl Fn(&PatternSource) -> Result<Option<Pattern>, CliError>,
) -> Result<Vec<Pattern>, CliError> {
    let dense = || {
        CliError::usage("'dense' is no pattern of layers that could be timed against one")
            .hint("give F/S letters, or all-full")
    };
    specs.iter().map(|spec| bind(spec)?.ok_or_else(dense)).collect()
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
