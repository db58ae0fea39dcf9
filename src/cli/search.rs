//! `indexscope search`: a pattern, and the flip order that led to it.

mod compare;
mod keeper;
mod plan;
mod print;
mod split;

use std::path::PathBuf;

use self::keeper::Keeper;
use self::split::Split;
use super::CliError;
use super::data::DataArgs;
use super::interrupt::cancel_on_interrupt;
use super::model::{RunArgs, load};
use super::output::OutputArgs;
use crate::checkpoint::Checkpoint;
use crate::domain::{
    BLOCK, FIRST_LOOK, Goal, Keep, LayerSet, MIN_BLOCKS, Method, SearchRecord, SearchSettings, SearchState, Stages,
};
use crate::engine::{Backend, Calibration, Cancel, Evaluator, Source};
use crate::search::{Budget, Ledger, SearchError, Space, search};

/// Arguments of `search`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("split", |arg| arg.long("demo-split").hide(true)))]
pub struct Args {
    /// A checkpoint's folder, a GGUF file, or demo.
    model: String,
    /// Full layers that stay: a share such as 1/4 or 0.25, or their number; 1/4 by default.
    #[arg(long, value_name = "1/4|N|0.25")]
    keep: Option<Keep>,
    /// Instead: as few Full layers as unseen text confirms to cost at most so many nats (95 %).
    #[arg(long, value_name = "NATS", conflicts_with = "keep")]
    max_delta: Option<f64>,
    /// Test the budget at five planned looks, for patterns whose differences are skewed.
    #[arg(long, requires = "max_delta")]
    strict: bool,
    /// greedy, lazy, racing, dp, similarity, uniform or exhaustive, each also with +swap; swap is greedy+swap.
    #[arg(long, value_name = "METHOD", default_value = "racing")]
    method: Method,
    /// Layers per pipeline stage, such as 14,6x8,16; the first layer of each stays Full.
    #[arg(long, value_name = "LIST")]
    stages: Option<Stages>,
    /// Commit the best flip of every stage in each step, as the paper does for pipelines.
    #[arg(long, requires = "stages")]
    block_search: bool,
    /// Layers that stay Full, such as 3,8-10.
    #[arg(long, value_name = "LIST", value_parser = layers, default_value = "")]
    lock_full: LayerSet,
    /// Layers that are Shared from the start.
    #[arg(long, value_name = "LIST", value_parser = layers, default_value = "")]
    lock_shared: LayerSet,
    /// Seed of the order of sequences, of audits and of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Search again on so many disjoint parts of the calibration set, and compare the flip orders (Kendall's τ).
    #[arg(long = "split", id = "pieces", value_name = "N", value_parser = clap::value_parser!(u8).range(2..=8))]
    pieces: Option<u8>,
    /// Other sequences that the result is judged on; twice as many as are searched on by default.
    #[arg(long, value_name = "N")]
    validation_sequences: Option<std::num::NonZeroUsize>,
    /// Measure two evaluations, and print what every method would cost and what Δ the set can resolve.
    #[arg(long, conflicts_with_all = ["pieces", "resume", "compare"])]
    plan: bool,
    /// Run these methods at 1/2, 1/4 and 1/8 (or at --keep) and print one table.
    #[arg(long, value_name = "METHODS", value_delimiter = ',', num_args = 0..=1, default_missing_value = compare::ALL,
          conflicts_with_all = ["pieces", "resume", "max_delta", "session"])]
    compare: Option<Vec<Method>>,
    /// Go on with the search that was interrupted; one that was not yet begun is begun.
    #[arg(long)]
    resume: bool,
    /// Session that every step is saved to; MODEL.search.toml among the sessions by default.
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Folder of sessions; ./sessions where there is one, else the user's data folder.
    #[arg(long, value_name = "DIR")]
    sessions: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads a list of layers such as `3,8-10`.
fn layers(text: &str) -> Result<LayerSet, String> {
    let wrong = |part: &str| format!("'{part}' is neither a layer nor a range such as 8-10");
    let mut set = LayerSet::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.trim().parse::<usize>().map_err(|_| wrong(part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= crate::domain::MAX_LAYERS {
            return Err(wrong(part));
        }
        (first..=last).for_each(|layer| set.insert(layer));
    }
    Ok(set)
}

/// Searches, plans or compares.
///
/// # Errors
/// Wrong usage, files, a model that cannot run, Ctrl-C.
pub fn run(args: Args) -> Result<(), CliError> {
    args.run.without_worker(&[
        (args.plan, "--plan"),
        (args.compare.is_some(), "--compare"),
        (args.pieces.is_some(), "--split"),
    ])?;
    let checkpoint = args.run.open(&args.model, args.output.quiet())?;
    let settings = settings(&args, &checkpoint)?;
    let space = Space::new(&checkpoint.constraints(), &settings).map_err(usage)?;
    args.data.note(&args.output)?;
    let (calibration, unseen) =
        args.data.load_pair(&checkpoint, args.validation_sequences.map(std::num::NonZeroUsize::get))?;
    let cancel = cancel_on_interrupt();
    let source = Source { unseen, ..Source::new(checkpoint, calibration, args.run.runtime(&args.model)?) };
    let Source { checkpoint, calibration, unseen, .. } = &source;
    let mut backend = load(&source, &args.output, &cancel)?;
    check_set(&args, backend.as_ref(), unseen.as_ref())?;
    if args.plan {
        return plan::run(&args, &settings, &space, backend.as_mut(), &cancel);
    }
    if let Some(methods) = &args.compare {
        return compare::run(&args, methods, checkpoint, calibration, unseen.as_ref(), backend.as_ref(), &cancel);
    }
    on_backend(&args, checkpoint, &settings, &space, backend.as_mut(), &cancel)
}

/// Refuses calibration text that cannot carry the search, and warns of what little of it says.
fn check_set(args: &Args, backend: &dyn Backend, unseen: Option<&Calibration>) -> Result<(), CliError> {
    if args.data.is_random() {
        args.output.warn("the tokens are random: losses say nothing about text");
    }
    if backend.describe().eligible == 0 {
        return Err(CliError::run("no query sees more than index_topk keys, so there is nothing to search for")
            .hint("use longer sequences (--seq-len)"));
    }
    let blocks = backend.layout().blocks(&(0..backend.layout().parts.len()).collect::<Vec<_>>());
    if blocks < MIN_BLOCKS {
        args.output.warn(&format!(
            "the searched text has {blocks} blocks of {BLOCK} eligible targets, and a standard error needs {MIN_BLOCKS}: flips come \
             without one (± ?), and none can be told from noise; give more or longer sequences"
        ));
    }
    if unseen.is_none() {
        args.output.warn("no sequence is left to judge the result on: it is judged on nothing that it has not seen");
    }
    let judged = unseen.map_or(0, Calibration::clusters);
    if args.max_delta.is_some() && !args.plan && judged < FIRST_LOOK {
        return Err(CliError::run(format!(
            "a budget needs {FIRST_LOOK} sequences or documents that the search does not see, and there are {judged}"
        ))
        .hint("give more text, a smaller --sequences, or --keep for a number of Full layers"));
    }
    Ok(())
}

/// Searches on a backend with a journal, and prints what was found.
fn on_backend(
    args: &Args,
    checkpoint: &Checkpoint,
    settings: &SearchSettings,
    space: &Space,
    backend: &mut dyn Backend,
    cancel: &Cancel,
) -> Result<(), CliError> {
    let mut keeper = Keeper::open(args, checkpoint, backend.describe(), &backend.layout(), cancel)?;
    let found = measure(args, settings, space, backend, cancel, &mut keeper);
    let Some((failure, last)) = keeper.failure() else {
        let (record, split) = found?;
        return print::print(args, backend.describe(), space, &record, split.as_ref(), keeper.path());
    };
    // What could not be saved is printed, so that it is not lost.
    let (record, split) = found.map_or((last, None), |(record, split)| (Some(record), split));
    if let Some(record) = record {
        print::print(args, backend.describe(), space, &record, split.as_ref(), keeper.path())?;
    }
    Err(failure)
}

/// Searches, and validates what was found.
fn measure(
    args: &Args,
    settings: &SearchSettings,
    space: &Space,
    backend: &mut dyn Backend,
    cancel: &Cancel,
    keeper: &mut Keeper,
) -> Result<(SearchRecord, Option<Split>), CliError> {
    let known = keeper.known.clone();
    let parts: Vec<usize> = (0..backend.layout().parts.len()).collect();
    let record = {
        let mut evaluator = Evaluator::new(backend, cancel);
        let mut ledger = Ledger::new(&mut evaluator, &parts, settings, space.start, known, keeper);
        search(space, settings, &mut ledger)
    };
    keeper.clear();
    let mut record = record?;
    let split = match args.pieces {
        None => None,
        Some(pieces) => Some(split::run(settings, space, usize::from(pieces), backend, cancel, keeper)?),
    };
    if let Goal::MaxDelta(most) = settings.goal {
        let budget = Budget { most, strict: settings.strict, seed: settings.seed };
        if let Some(confirmation) = backend.confirm(&record.chain(), budget, cancel, &mut |_| {})? {
            record.confirmed_by(confirmation);
        }
    }
    record.validation = backend.validate(record.pattern, cancel, &mut |_| {})?;
    record.state = SearchState::Done;
    keeper.save(&record);
    Ok((record, split))
}

fn settings(args: &Args, checkpoint: &Checkpoint) -> Result<SearchSettings, CliError> {
    let layers = checkpoint.constraints().len();
    if args.pieces.is_some() && !args.method.strategy.has_order() {
        return Err(CliError::usage(format!("--split compares flip orders, and '{}' has none", args.method))
            .hint("use --method greedy, lazy or racing"));
    }
    let goal = match args.max_delta {
        Some(most) if most.is_finite() && most >= 0.0 => Goal::MaxDelta(most),
        Some(most) => {
            return Err(
                CliError::usage(format!("--max-delta {most} is no budget")).hint("give 0 nats or more, such as 0.01")
            );
        }
        None => Goal::Keep(args.keep.unwrap_or(Keep::Share(0.25)).count(layers)),
    };
    Ok(SearchSettings {
        lock_full: args.lock_full,
        lock_shared: args.lock_shared,
        stages: args.stages.clone(),
        block_search: args.block_search,
        seed: args.seed,
        strict: args.strict,
        ..SearchSettings::new(args.method, goal)
    })
}

/// A contradiction in what was asked for.
fn usage(error: SearchError) -> CliError {
    match error {
        SearchError::Interrupted => CliError::Interrupted,
        SearchError::Failed(diagnostic) => CliError::Told { diagnostic, code: 2 },
    }
}

impl From<SearchError> for CliError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Interrupted => Self::Interrupted,
            SearchError::Failed(diagnostic) => diagnostic.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_layers() {
        assert_eq!(layers("3, 8-10").unwrap().iter().collect::<Vec<_>>(), [3, 8, 9, 10]);
        assert!(layers("").unwrap().is_empty());
        for wrong in ["x", "5-3", "1-", "999"] {
            assert!(layers(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
