//! `indexscope export`: what to paste so that an engine runs a pattern, and checkpoints that engines can load.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{Format, OutputArgs, print, print_json};
use super::{CliError, target};
use crate::checkpoint::Checkpoint;
use crate::domain::{Pattern, PatternSource, Stages};
use crate::interop::{self, Engine, ExportError, Pruned, SimulateError, Target};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["engine", "checkpoint", "write_config"]))]
pub struct Args {
    /// A checkpoint's folder, or a config.json.
    model: String,
    /// The engine that will run it.
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<EngineArg>,
    /// The pattern: F/S letters, all-full, native, uniform:N, freq:N[,OFFSET], paper:NAME, @FILE,
    /// session:FILE, or what a config has.
    #[arg(long, allow_hyphen_values = true, value_name = "PATTERN")]
    pattern: PatternSource,
    /// Layers of every pipeline stage, such as 14,6x8,16: some engines cannot begin a stage with a Shared layer.
    #[arg(long, value_name = "SIZES")]
    stages: Option<Stages>,
    /// Writes a checkpoint to this new folder, without the indexer tensors of Shared layers.
    #[arg(long, value_name = "OUT")]
    checkpoint: Option<PathBuf>,
    /// Writes a copy of config.json to this new file, in which every reader finds the pattern.
    #[arg(long, value_name = "OUT")]
    write_config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum EngineArg {
    Vllm,
    Sglang,
    Transformers,
    VllmAscend,
    Automodel,
    Megatron,
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Vllm => Self::Vllm,
            EngineArg::Sglang => Self::Sglang,
            EngineArg::Transformers => Self::Transformers,
            EngineArg::VllmAscend => Self::VllmAscend,
            EngineArg::Automodel => Self::Automodel,
            EngineArg::Megatron => Self::Megatron,
        }
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Pattern(error) => error.into(),
            ExportError::Simulate(error @ SimulateError::Stages(_)) => error.into(),
            other => {
                let hint = other.hint().unwrap_or_default();
                Self::run(other).hint(hint)
            }
        }
    }
}

/// Prints what to paste, and writes the checkpoint or config asked for.
///
/// # Errors
/// When the model cannot have the pattern, the engine ignores it, or files cannot be read or written.
pub fn run(args: Args) -> Result<(), CliError> {
    if matches!(args.output.format(), Format::Csv | Format::Md) {
        return Err(CliError::usage("export prints text or JSON, no tables").hint("use --format text or --json"));
    }
    let (mut target, pattern, checkpoint) = open(&args)?;
    let mut json = json!({"schema": 1});
    let mut text = String::new();
    if let Some(out) = &args.checkpoint {
        let checkpoint = checkpoint.ok_or_else(|| {
            CliError::usage(format!("'{}' is a config without weights", args.model))
                .hint("give the checkpoint's folder, or --write-config OUT")
        })?;
        let report = interop::prune(&checkpoint, pattern, out)?;
        if !report.skipped.is_empty() {
            let names = report.skipped.join(", ");
            args.output.warn(&format!("not taken along, as no regular files of the folder: {names}"));
        }
        json["checkpoint"] = json!({ "path": out, "pattern": pattern, "report": report });
        text = describe(&report, pattern, out);
        target = Target::of(&Checkpoint::open(out).map_err(target::told)?);
    }
    if let Some(out) = &args.write_config {
        let readers = interop::write_config(&target, pattern, out)?;
        json["config"] = json!({ "path": out, "pattern": pattern, "readers": readers });
        text = [text, format!("{}: {pattern}, as {} run it\n", out.display(), readers.join(", "))].concat();
    }
    if let Some(engine) = args.engine {
        let stages = args.stages.unwrap_or_else(|| Stages::one(target.sites().layers()));
        let export = interop::export(engine.into(), &target, pattern, &stages)?;
        export.warnings.iter().for_each(|warning| args.output.warn(warning));
        text = format!("{}\n", export.argument);
        if let (Some(all), Some(more)) = (json.as_object_mut(), json!(export).as_object()) {
            all.extend(more.clone());
        }
    }
    if args.output.format() == Format::Json { print_json(&json) } else { print(&text) }
}

/// Opens MODEL as a checkpoint, or as a bare config.
fn open(args: &Args) -> Result<(Target, Pattern, Option<Checkpoint>), CliError> {
    let dense = || {
        CliError::usage("'dense' runs no indexer at all, which no engine can be told")
            .hint("name a pattern of F and S, or all-full")
    };
    if let Some(config) = target::bare_config(Path::new(&args.model)) {
        let target = Target::of_config(&config)?;
        let pattern = target::pattern_of(&args.pattern, target.native()?, target.sites())?.ok_or_else(dense)?;
        return Ok((target, pattern, None));
    }
    let checkpoint = target::open(&args.model, args.output.quiet())?;
    let pattern = target::resolve(&args.pattern, &checkpoint)?.ok_or_else(dense)?;
    Ok((Target::of(&checkpoint), pattern, Some(checkpoint)))
}

fn describe(report: &Pruned, pattern: Pattern, out: &Path) -> String {
    format!(
        "{}: {pattern}, without {} indexer tensors ({} bytes); {} files written, {} linked, {} copied\n",
        out.display(),
        report.dropped,
        report.dropped_bytes,
        report.rewritten.len(),
        report.linked.len(),
        report.copied.len()
    )
}
