//! `indexscope export`: what to paste so that an engine runs a pattern, and checkpoints that engines can load.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{Format, OutputArgs, print};
use super::{CliError, target};
use crate::checkpoint::Checkpoint;
use crate::domain::{Pattern, PatternSpec};
use crate::interop::{self, Engine, ExportError, Pruned, Target};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["engine", "checkpoint"]))]
pub struct Args {
    /// A checkpoint's folder.
    model: String,
    /// The engine that will serve it: vllm, sglang or transformers.
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<EngineArg>,
    /// The pattern: F/S letters, all-full, native, uniform:N, freq:N[,OFFSET], @FILE or session:FILE.
    #[arg(long, value_name = "PATTERN")]
    pattern: PatternSpec,
    /// Writes a checkpoint to this new folder, without the indexer tensors of Shared layers.
    #[arg(long, value_name = "OUT")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum EngineArg {
    Vllm,
    Sglang,
    Transformers,
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Vllm => Self::Vllm,
            EngineArg::Sglang => Self::Sglang,
            EngineArg::Transformers => Self::Transformers,
        }
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Pattern(error) => error.into(),
            other => {
                let hint = other.hint().unwrap_or_default();
                Self::run(other).hint(hint)
            }
        }
    }
}

/// Prints what to paste, and writes the checkpoint asked for.
///
/// # Errors
/// When the model cannot have the pattern, the engine ignores it, or files cannot be read or written.
pub fn run(args: Args) -> Result<(), CliError> {
    if matches!(args.output.format(), Format::Csv | Format::Md) {
        return Err(CliError::usage("export prints text or JSON, no tables").hint("use --format text or --json"));
    }
    let mut checkpoint = target::open(&args.model)?;
    let Some(pattern) = target::resolve(&args.pattern, &checkpoint)? else {
        return Err(CliError::usage("'dense' is no pattern of layers that an engine could run")
            .hint("give F/S letters, or all-full"));
    };
    let mut json = json!({ "schema": 1 });
    let mut text = String::new();
    if let Some(out) = &args.checkpoint {
        let report = interop::prune(&checkpoint, pattern, out)?;
        json["checkpoint"] = json!({ "path": out, "pattern": pattern, "report": report });
        text = describe(&report, pattern, out);
        checkpoint = Checkpoint::open(out).map_err(target::told)?;
    }
    if let Some(engine) = args.engine {
        let export = interop::export(engine.into(), &Target::of(&checkpoint), pattern)?;
        export.warnings.iter().for_each(|warning| args.output.warn(warning));
        text = format!("{}\n", export.argument);
        if let (Some(all), Some(more)) = (json.as_object_mut(), json!(export).as_object()) {
            all.extend(more.clone());
        }
    }
    print(&if args.output.format() == Format::Json { format!("{json}\n") } else { text })
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
