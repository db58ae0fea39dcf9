//! `indexscope import`: what a running server told of its forwards.

use super::{CliError, import_indices, import_losses};

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
