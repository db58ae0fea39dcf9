//! `indexscope train distill`: the indexers that a pattern keeps learn from all the layers that they serve.

use std::path::PathBuf;

use super::train_indexers::{Training, TrainingArgs, print, shape, train};
use super::train_rounds::{self, Begin, RoundsArgs};
use super::{CliError, target};
use crate::checkpoint::Sidecar;
use crate::domain::{PatternSource, Targets};
use crate::interop::{ExportError, can_retrain, prune_retrained, prune_with};

/// Arguments of `train distill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, ORG/NAME[@REVISION] of the Hub, or demo.
    model: String,
    /// F/S letters, native, uniform:N, freq:N[,OFFSET], @FILE or session:FILE: whose Full layers keep an indexer.
    #[arg(long, value_name = "P")]
    pattern: PatternSource,
    /// Start from these indexers; from the checkpoint's own, or from random ones, by default.
    #[arg(long, value_name = "SIDECAR")]
    sidecar: Option<PathBuf>,
    /// served trains each indexer towards all layers that use its keys, own towards its own layer alone.
    #[arg(long, value_enum, default_value_t, value_name = "TARGETS")]
    targets: TargetsArg,
    /// Also train the rest of the model in the sparse stage, on its own loss, at this peak rate, as the paper does; it stays
    /// as it is by default. DSA checkpoints only, with a folder as --out; needs six times the model's size in f32.
    #[arg(long, value_name = "RATE", value_parser = rate, conflicts_with = "rounds")]
    lm_lr: Option<f64>,
    #[command(flatten)]
    rounds: RoundsArgs,
    #[command(flatten)]
    training: TrainingArgs,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum TargetsArg {
    #[default]
    Served,
    Own,
}

/// Parses a learning rate.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a rate is a number such as 1e-5".to_owned())?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("a rate is above 0".to_owned()) }
}

/// Trains the indexers of the pattern's Full layers.
///
/// # Errors
/// As `train indexers`.
pub fn run(args: Args) -> Result<(), CliError> {
    let checkpoint = target::open(&args.model, args.training.output.quiet())?;
    checkpoint.check().map_err(target::told)?;
    let start = args.sidecar.as_deref().map(Sidecar::open).transpose()?;
    let with = match &start {
        Some(start) => checkpoint.with_sidecar(start).map_err(target::told)?,
        None => checkpoint.clone(),
    };
    let Some(pattern) = target::resolve(&args.pattern, &with)? else {
        return Err(
            CliError::usage("'dense' keeps no indexers that could be trained").hint("give F/S letters, or uniform:N")
        );
    };
    let out = &args.training.out;
    // A checkpoint's folder can become another one; any model can have a sidecar.
    let is_folder = out.extension().is_none_or(|e| e != "safetensors")
        && !checkpoint.base().config().family.is_dense()
        && checkpoint.dir().is_some();
    let folder = is_folder.then_some(out.as_path());
    if let Some(folder) = folder.filter(|folder| folder.symlink_metadata().is_ok()) {
        return Err(ExportError::Exists(folder.to_owned()).into());
    }
    if args.lm_lr.is_some() && folder.is_none() {
        return Err(CliError::usage("--lm-lr changes the whole model, which only a checkpoint's folder can hold")
            .hint("give a DSA checkpoint's folder as MODEL and a new folder as --out"));
    }
    if folder.is_some() {
        // Before anything is trained that could not be written.
        can_retrain(&checkpoint, pattern, args.lm_lr.is_some())?;
    }
    let sidecar = match folder {
        None => out.clone(),
        Some(folder) => {
            let mut name = folder.file_name().unwrap_or_default().to_owned();
            name.push(".indexers.safetensors");
            folder.with_file_name(name)
        }
    };
    let targets = match args.targets {
        TargetsArg::Served => Targets::Served,
        TargetsArg::Own => Targets::Own,
    };
    let shape = start.as_ref().map_or_else(|| shape(&checkpoint, None, None), Sidecar::shape);
    let finish = |pattern| match folder {
        None => Ok::<_, CliError>(None),
        Some(folder) => Ok(Some((folder, prune_with(&checkpoint, pattern, &Sidecar::open(&sidecar)?, folder)?))),
    };
    if args.rounds.is_asked_for() {
        let begin =
            Begin { checkpoint: &checkpoint, sidecar: args.sidecar.as_deref(), pattern, targets, shape, out: &sidecar };
        let found = train_rounds::run(begin, &args.rounds, &args.training)?;
        if sidecar.exists() {
            finish(found)?;
        }
        return Ok(());
    }
    let (run, recipe) = train(
        Training {
            checkpoint: &checkpoint,
            layers: (0..pattern.len()).filter(|&l| pattern.is_full(l)).collect(),
            pattern,
            targets,
            shape,
            start: start.as_ref(),
            out: &sidecar,
            seed: args.training.seed,
            resume: args.training.resume,
            lm_lr: args.lm_lr,
        },
        &args.training,
    )?;
    let report = match folder {
        Some(folder) if args.lm_lr.is_some() => {
            let report = prune_retrained(&checkpoint, pattern, &run.weights(), folder)?;
            run.discard_state()?;
            Some((folder, report))
        }
        _ => finish(pattern)?,
    };
    let written = report.as_ref().map(|(folder, report)| (*folder, report));
    print(&run, &recipe, written, &args.training.output)
}
