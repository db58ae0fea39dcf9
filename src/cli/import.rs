//! `indexscope import`: what a running server told of its forwards.

use std::path::Path;

use super::{CliError, import_indices, import_losses};
use crate::checkpoint::CONFIG_FILE;
use crate::interop::Served;
use crate::interop::import::ImportError;

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = false)] // an error, as every missing argument is
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// What the server was asked for.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Makes a trace of the index sets that SGLang returns, and says which pattern really ran.
    Indices(import_indices::Args),
    /// Compares the log-probabilities of the same prompts under two patterns, as SGLang or vLLM returned them.
    Losses(import_losses::Args),
}

/// Imports what was asked for.
///
/// # Errors
/// Wrong usage, files, responses that do not hold what is needed.
pub fn run(args: Args) -> Result<(), CliError> {
    match args.what {
        What::Indices(args) => import_indices::run(args),
        What::Losses(args) => import_losses::run(args),
    }
}

/// Reads the config that was served: config.json, or a folder that has one.
pub(super) fn read_config(path: &Path) -> Result<Served, CliError> {
    let path = if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
    let text = std::fs::read_to_string(&path).map_err(|e| CliError::file("cannot read", &path, e))?;
    Ok(Served::parse(&text)?)
}

/// Returns k as the config says, or as it is given.
pub(super) fn topk(given: Option<usize>, config: Option<&Served>) -> Result<usize, CliError> {
    let told = given.or(config.and_then(|c| c.index_topk).map(|k| k as usize));
    told.filter(|&k| k > 0).ok_or_else(|| {
        CliError::usage("it is not known how many keys a query keeps").hint("give --index-topk N, as it was served")
    })
}

/// Reads a file of responses.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|e| CliError::file("cannot read", path, e))
}

/// Returns an error about the responses of a file.
pub(super) fn told(path: &Path, error: ImportError) -> CliError {
    let hint = error.hint();
    CliError::run(format!("'{}': {error}", path.display())).hint(hint)
}
