//! The command line: one file per subcommand.

mod bench;
mod bytes;
mod chat;
mod conversation;
mod dashboard;
mod data;
mod deltas;
mod demo;
mod error;
mod eval;
mod export;
mod files;
mod gpu_check;
mod import;
mod import_indices;
mod import_losses;
mod index;
mod info;
mod info_config;
mod interrupt;
mod json_lines;
mod model;
mod output;
mod overlap;
mod overlap_between;
mod progress;
mod record;
mod report;
mod sampling;
mod say;
mod search;
mod served;
mod simulate;
mod target;
mod tokens;
mod train;
mod train_distill;
mod train_indexers;
mod train_progress;
mod train_rounds;
mod worker;
mod worth;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};

pub use error::CliError;

/// Shows which layers of a DSA model need their own indexer.
#[derive(Debug, Parser)]
#[command(name = "indexscope", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dashboard: dashboard::Args,
}

/// What can be asked for; without one, the dashboard opens.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints what a checkpoint is: type, layers, top-k, native pattern, locked layers, bytes by part.
    Info(info::Args),
    /// Prints what to paste so that a serving engine runs a pattern; writes checkpoints without unused indexers.
    Export(export::Args),
    /// Shows which layers every serving engine would run the indexer of under a config, and why.
    Simulate(simulate::Args),
    /// Takes what a running server told: index sets as a trace, log-probabilities as losses.
    Import(import::Args),
    /// Writes a session as a page (HTML, Markdown, CSV, JSON), or one of its figures.
    Report(report::Args),
    /// Measures the loss of patterns against the reference pattern.
    Eval(eval::Args),
    /// Records every layer's top-k index sets to a trace file.
    Record(record::Args),
    /// Prints how much the index sets of every two layers of a recording have in common.
    Overlap(overlap::Args),
    /// Writes the demo model as a folder, or prints its card.
    Demo(demo::Args),
    /// Searches for a pattern, and prints it with the flip order that led to it.
    Search(search::Args),
    /// Times forwards of patterns against the reference pattern, per phase, at several contexts.
    Bench(bench::Args),
    /// Lists the devices that --device takes, with their free memory.
    Devices(gpu_check::DevicesArgs),
    /// Predicts from config.json alone what sharing indices would save: prefill, decode, index keys.
    Worth(worth::Args),
    /// Trains indexers for a model, or for a pattern; or a small model from a recipe.
    Train(train::Args),
    /// Writes or checks the worker by which a model runs in transformers instead of in this process.
    Worker(worker::Args),
}

/// Runs the program with the arguments of the process and returns its exit code.
///
/// 0 done; 1 anything about files or the run; 2 wrong usage; 130 interrupted. A closed pipe ends with 0.
pub fn run() -> ExitCode {
    interrupt::listen();
    let arguments = meant(std::env::args_os());
    let result = match (misspelt(&arguments), Cli::try_parse_from(arguments)) {
        (Some(error), _) => Err(error),
        (None, Ok(cli)) => dispatch(cli),
        (None, Err(error)) => Err(CliError::from(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// Takes `demo` for the name of a model, the dashboard's default, where nothing follows that the subcommand does.
fn meant(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_option = |a: &OsString| a.to_string_lossy().starts_with('-');
    let is_own = |a: &OsString| {
        let text = a.to_string_lossy();
        ["--write", "--card", "--of", "--help", "-h"].contains(&text.split('=').next().unwrap_or_default())
    };
    let rest = arguments.get(2..).unwrap_or_default();
    if arguments.get(1).is_some_and(|a| a == "demo") && rest.first().is_none_or(is_option) && !rest.iter().any(is_own) {
        arguments.remove(1);
    }
    arguments
}

/// Returns the error about a first word that is no file and nearly the name of a subcommand, such as `serach`.
fn misspelt(arguments: &[OsString]) -> Option<CliError> {
    let word = arguments.get(1)?.to_str().filter(|word| !word.starts_with('-') && !Path::new(word).exists())?;
    let mut commands = clap::Command::new("indexscope").subcommands(Cli::command().get_subcommands().cloned());
    let error = commands.try_get_matches_from_mut(["indexscope", word]).err()?;
    let Some(ContextValue::Strings(near)) = error.get(ContextKind::SuggestedSubcommand) else { return None };
    let near =
        near.iter().find(|name| name.len().abs_diff(word.len()) <= 2 && name.chars().next() == word.chars().next())?;
    Some(
        CliError::usage(format!("'{word}' is neither a subcommand nor a file")).hint(format!("did you mean '{near}'?")),
    )
}

/// Starts the threads of what computes, which would else be started, or panic, in its midst.
fn start_threads() -> Result<(), CliError> {
    rayon::ThreadPoolBuilder::new().build_global().map_err(|e| {
        CliError::run(format!("the threads that compute cannot be started: {e}"))
            .hint("raise the limits of processes and memory (ulimit -u, ulimit -v), or set RAYON_NUM_THREADS=1")
    })
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    let prints = matches!(
        cli.command,
        Some(Command::Info(_) | Command::Export(_) | Command::Simulate(_) | Command::Devices(_) | Command::Worth(_))
    );
    if !prints {
        start_threads()?;
    }
    match cli.command {
        Some(Command::Info(args)) => info::run(args),
        Some(Command::Export(args)) => export::run(args),
        Some(Command::Simulate(args)) => simulate::run(args),
        Some(Command::Import(args)) => import::run(args),
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Eval(args)) => eval::run(args),
        Some(Command::Record(args)) => record::run(args),
        Some(Command::Overlap(args)) => overlap::run(args),
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::Search(args)) => search::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Devices(args)) => gpu_check::list(args),
        Some(Command::Worth(args)) => worth::run(args),
        Some(Command::Train(args)) => train::run(args),
        Some(Command::Worker(args)) => worker::run(args),
        None => dashboard::run(cli.dashboard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_subcommand_is_named_with_the_one_that_is_meant() {
        let told = |words: &[&str]| {
            let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
            match misspelt(&arguments) {
                Some(CliError::Told { diagnostic, code }) => Some((diagnostic.message, diagnostic.hint, code)),
                _ => None,
            }
        };
        let (message, hint, code) = told(&["indexscope", "serach", "demo"]).unwrap();
        assert_eq!((message.as_str(), code), ("'serach' is neither a subcommand nor a file", 2));
        assert_eq!(hint.as_deref(), Some("did you mean 'search'?"));
        for other in ["search", "--help", "model", "Cargo.toml", "org/searh", "é"] {
            assert!(told(&["indexscope", other]).is_none(), "{other}");
        }
    }

    #[test]
    fn demo_is_a_model_where_the_subcommand_has_nothing_to_do() {
        let meant = |text: &str| {
            let all = meant(text.split(' ').map(OsString::from));
            all.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(meant("indexscope demo --seq-len 128"), "indexscope --seq-len 128");
        assert_eq!(meant("indexscope demo"), "indexscope");
        for other in
            ["indexscope demo --write=d", "indexscope demo -h", "indexscope demo x --ascii", "indexscope eval demo"]
        {
            assert_eq!(meant(other), other);
        }
    }
}
