//! `indexscope train indexers`: lightning indexers for a model that stays as it is.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::interrupt::stop_on_interrupt;
use super::output::{OutputArgs, Table};
use super::train_progress::Progress;
use super::{CliError, bytes, model, target, tokens};
use crate::checkpoint::{Checkpoint, IndexerShape, Sidecar};
use crate::domain::{Pattern, Role, Targets};
use crate::interop::Pruned;
use crate::session::SessionLock;
use crate::train::indexers::{IndexerEvent, IndexerRecipe, IndexerRun, IndexerStep, Setup, SparseTarget, memory};
use crate::train::read_text;

/// Arguments of `train indexers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, ORG/NAME[@REVISION] of the Hub, or demo.
    model: String,
    /// Layers that get an indexer, such as 0,4,8-11; every layer that may have one by default.
    #[arg(long, value_name = "LIST")]
    layers: Option<String>,
    /// Heads of each indexer; 4 for dense models, as in the checkpoint for others.
    #[arg(long, value_name = "N")]
    heads: Option<NonZeroUsize>,
    /// Width of a head; 32 for dense models, as in the checkpoint for others.
    #[arg(long, value_name = "N")]
    dim: Option<NonZeroUsize>,
    #[command(flatten)]
    training: TrainingArgs,
}

/// How indexers are trained, and on what.
#[derive(Debug, clap::Args)]
pub struct TrainingArgs {
    /// The sidecar to write; the state of an unfinished run lies beside it. 'train distill' on a DSA checkpoint's folder
    /// takes a folder, too: the checkpoint with the trained indexers and the pattern, with the sidecar beside it.
    #[arg(long, value_name = "SIDECAR")]
    pub(super) out: PathBuf,
    /// A training text, UTF-8 or compressed as .xz; may be repeated.
    #[arg(long = "text", value_name = "FILE", required_unless_present = "tokens")]
    texts: Vec<PathBuf>,
    /// JSON array of arrays of token ids, trained on as one text.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    tokens: Option<PathBuf>,
    /// Tokens per sequence; each step works on one.
    #[arg(long, value_name = "N", default_value = "512")]
    pub(super) seq_len: NonZeroUsize,
    /// Steps of the warm-up: dense attention, KL over all visible keys.
    #[arg(long, value_name = "N", default_value_t = 200)]
    steps: u64,
    /// Steps of the sparse stage: attention to the selected keys, KL over them.
    #[arg(long, value_name = "N", default_value_t = 50)]
    sparse_steps: u64,
    /// Peak of the learning rate; the sparse stage begins at a tenth of it.
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    lr: f64,
    /// Query rows sampled per step; a quarter of --seq-len, but at least 128, by default.
    #[arg(long, value_name = "R")]
    rows: Option<NonZeroUsize>,
    /// Most memory that weights and a step may need, such as 4GiB: fewer rows are sampled where it is short.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    max_memory: Option<usize>,
    /// Keys that a query attends to in the sparse stage; as in config.json by default, a quarter of --seq-len for
    /// dense models.
    #[arg(long, value_name = "K")]
    index_topk: Option<NonZeroUsize>,
    /// How heads are averaged into the target of the sparse stage.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    sparse_target: SparseTargetArg,
    /// Decides initial weights, order of the text and sampled rows.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// Go on from the state beside the sidecar.
    #[arg(long)]
    pub(super) resume: bool,
    /// Also write progress to this file, with every layer's KL, a line every 30 seconds.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// How heads are averaged into the target of the sparse stage, over the keys that were selected.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum SparseTargetArg {
    /// Each head's softmax over the selected keys, then the average.
    #[default]
    PerHead,
    /// The average over all keys, restricted to the selected ones: heads with little attention on them weigh less.
    Averaged,
}

impl From<SparseTargetArg> for SparseTarget {
    fn from(arg: SparseTargetArg) -> Self {
        match arg {
            SparseTargetArg::PerHead => Self::PerHead,
            SparseTargetArg::Averaged => Self::Averaged,
        }
    }
}

impl TrainingArgs {
    /// Returns k of the sparse stage.
    pub(super) fn topk(&self, checkpoint: &Checkpoint) -> usize {
        let config = checkpoint.base().config();
        let usual = if config.family.is_dense() { (self.seq_len.get() / 4).max(1) } else { config.index_topk };
        self.index_topk.map_or(usual, NonZeroUsize::get)
    }

    /// Returns what decides the result, to tell runs apart.
    pub(super) fn about(&self) -> String {
        let Self { texts, tokens, seq_len, steps, sparse_steps, lr, rows, index_topk, sparse_target, seed, .. } = self;
        format!(
            "{texts:?} {tokens:?} {seq_len} {steps} {sparse_steps} {lr} {rows:?} {index_topk:?} {sparse_target:?} {seed}"
        )
    }
}

/// Trains indexers until all steps are done or the process is told to stop; both leave what can be gone on with.
///
/// # Errors
/// Wrong usage, files, a model that cannot run, a loss that is not finite; [`CliError::Interrupted`] after Ctrl-C.
pub fn run(args: Args) -> Result<(), CliError> {
    let checkpoint = target::open(&args.model, args.training.output.quiet())?;
    checkpoint.check().map_err(target::told)?;
    let pattern = reachable(&checkpoint, args.layers.as_deref())?;
    let layers = match &args.layers {
        Some(list) => parse_layers(list)?,
        None => (0..pattern.len()).filter(|&l| pattern.is_full(l)).collect(),
    };
    let shape = shape(&checkpoint, args.heads, args.dim);
    let what = Training {
        checkpoint: &checkpoint,
        pattern,
        layers,
        targets: Targets::Own,
        shape,
        start: None,
        out: &args.training.out,
        seed: args.training.seed,
        resume: args.training.resume,
        lm_lr: None,
    };
    let (run, recipe) = train(what, &args.training)?;
    print(&run, &recipe, None, &args.training.output)
}

/// Returns the pattern of the sparse stage: the checkpoint's own with the layers asked for made Full.
fn reachable(checkpoint: &Checkpoint, layers: Option<&str>) -> Result<Pattern, CliError> {
    let mut pattern = checkpoint.base().native().map_err(target::told)?;
    for layer in layers.map(parse_layers).transpose()?.unwrap_or_default() {
        pattern = pattern.with(layer, Role::Full)?;
    }
    Ok(pattern)
}

/// Returns the sizes asked for; those of the checkpoint where it has indexers.
pub(super) fn shape(checkpoint: &Checkpoint, heads: Option<NonZeroUsize>, dim: Option<NonZeroUsize>) -> IndexerShape {
    let config = checkpoint.base().config();
    let or = |asked: Option<NonZeroUsize>, own: usize, usual: usize| {
        asked.map_or(if config.family.is_dense() { usual } else { own }, NonZeroUsize::get)
    };
    let (heads, dim) = (or(heads, config.index_n_heads, 4), or(dim, config.index_head_dim, 32));
    let rope_dims = if config.family.is_dense() {
        // At most half of a head tells positions apart, in as many frequencies as divide attention's.
        let width = config.qk_rope_head_dim;
        (2..=(dim / 2).max(2)).rev().find(|d| d % 2 == 0 && width.is_multiple_of(*d)).unwrap_or(2)
    } else {
        config.index_rope_head_dim
    };
    IndexerShape { heads, dim, rope_dims }
}

/// What is trained, towards what.
pub(super) struct Training<'a> {
    /// The frozen model.
    pub(super) checkpoint: &'a Checkpoint,
    /// The pattern of the sparse stage.
    pub(super) pattern: Pattern,
    /// Full layers that are trained, ascending.
    pub(super) layers: Vec<usize>,
    /// Whose attention they learn.
    pub(super) targets: Targets,
    /// Their sizes.
    pub(super) shape: IndexerShape,
    /// Where they start.
    pub(super) start: Option<&'a Sidecar>,
    /// The sidecar to write.
    pub(super) out: &'a Path,
    /// Decides the order of the text and the sampled rows.
    pub(super) seed: u64,
    /// Go on from the state beside it.
    pub(super) resume: bool,
    /// Peak of the rate at which the rest of the model learns.
    pub(super) lm_lr: Option<f64>,
}

/// Trains and writes the sidecar.
///
/// # Errors
/// As [`run`].
pub(super) fn train(what: Training, args: &TrainingArgs) -> Result<(IndexerRun, IndexerRecipe), CliError> {
    let Training { checkpoint, pattern, layers, targets, shape, start, out, seed, resume, lm_lr } = what;
    let seq_len = args.seq_len.get();
    let _lock = lock(out)?;
    let mut recipe = IndexerRecipe {
        seed,
        base: String::new(),
        tokens: String::new(),
        pattern,
        layers,
        targets,
        seq_len,
        rows: args.rows.map_or((seq_len / 4).max(128), NonZeroUsize::get).min(seq_len),
        steps: args.steps,
        sparse_steps: args.sparse_steps,
        lr: args.lr,
        index_topk: args.topk(checkpoint),
        lm_lr,
        sparse_target: args.sparse_target.into(),
    };
    let asked = recipe.rows;
    recipe.limit(memory(checkpoint, &recipe, shape), args.max_memory.map(|bytes| bytes as u64))?;
    if recipe.rows < asked {
        args.output.note(&format!("--max-memory leaves room for {} of {asked} query rows per step", recipe.rows));
    }
    let mut progress = Progress::new(args.log.as_deref(), args.output.quiet())?;
    progress.line("reading the texts");
    let texts = texts(args, checkpoint)?;
    let mut run = IndexerRun::prepare(Setup {
        checkpoint,
        recipe: recipe.clone(),
        shape,
        texts,
        start,
        out: Some(out),
        model: None,
        resume,
    })?;
    let (done, weights, tokens) = run.size();
    progress.line(&format!(
        "{} indexers of {} × {}, {weights} weights; {} rows of {seq_len} tokens per step, {tokens} tokens per epoch; from step {done}",
        recipe.layers.len(),
        shape.heads,
        shape.dim,
        recipe.rows,
    ));
    // Until now there was nothing to save.
    let stop = stop_on_interrupt();
    let finished = run.run(&stop, &mut |event| match event {
        IndexerEvent::Step(step) => tell(&mut progress, &step),
        IndexerEvent::Saved(_) => {}
        IndexerEvent::Written(path) => progress.line(&format!("sidecar written to {}", path.display())),
    })?;
    if !finished {
        return Err(CliError::Interrupted);
    }
    Ok((run, recipe))
}

fn tell(progress: &mut Progress, step: &IndexerStep) {
    let (mean, (at, of)) = (step.mean(), step.step);
    let worst = step.layers.iter().max_by(|a, b| a.1.kl.total_cmp(&b.1.kl));
    let worst = worst.map(|(layer, d)| format!(" (layer {layer}: {:.4})", d.kl)).unwrap_or_default();
    let stage = if step.sparse { "sparse" } else { "warmup" };
    let lm = step.lm.map(|lm| format!(" · LM loss {lm:.4}")).unwrap_or_default();
    let line = format!(
        "{stage} {at}/{of} · KL {:.4}{worst}{lm} · rate {:.1e} · {} tokens · {:.0} tokens/s",
        mean.kl, step.rate, step.tokens, step.tokens_per_second
    );
    progress.step(&line, of - at, at == of, || {
        step.layers.iter().fold("\n  KL per layer".to_owned(), |text, (layer, d)| format!("{text} {layer}:{:.3}", d.kl))
    });
}

/// Keeps others from training into the same file for as long as the result lives.
pub(super) fn lock(out: &Path) -> Result<SessionLock, CliError> {
    SessionLock::acquire(out)?.ok_or_else(|| {
        CliError::run(format!("another indexscope is training into '{}'", out.display()))
            .hint("wait for it, or name another --out")
    })
}

/// Prints what became of every layer, and where the checkpoint was written, if one was.
pub(super) fn print(
    run: &IndexerRun,
    recipe: &IndexerRecipe,
    written: Option<(&Path, &Pruned)>,
    output: &OutputArgs,
) -> Result<(), CliError> {
    let found = run.divergences();
    let tokens = recipe.all_steps() * recipe.seq_len as u64;
    let mut table = Table::new(["layer", "KL"]);
    let served = recipe.targets == Targets::Served;
    if served {
        table.header.extend(["floor".to_owned(), "serves".to_owned()]);
    }
    for &(layer, d) in &found {
        let mut row = vec![layer.to_string(), format!("{:.4}", d.kl)];
        if served {
            row.extend([format!("{:.4}", d.floor), recipe.served(layer).len().to_string()]);
        }
        table.rows.push(row);
    }
    let mean = found.iter().map(|(_, d)| d.kl).sum::<f64>() / found.len().max(1) as f64;
    table.notes.push(format!(
        "{} steps, {tokens} tokens, {:.0} s; KL in nats per query row, averaged over about the last 20 steps, mean over layers {mean:.4}",
        recipe.all_steps(),
        run.seconds()
    ));
    let layers: Vec<_> = found.iter().map(|(l, d)| json!({"layer": l, "kl": d.kl, "floor": d.floor})).collect();
    let mut json = json!({
        "schema": 1, "steps": recipe.steps, "sparse_steps": recipe.sparse_steps, "tokens": tokens, "rows": recipe.rows,
        "index_topk": recipe.index_topk, "pattern": recipe.pattern.to_string(), "targets": recipe.targets.name(),
        "sparse_target": recipe.sparse_target.name(),
        "seconds": run.seconds(), "kl": mean, "layers": layers,
    });
    if let (Some(rate), Some(loss)) = (recipe.lm_lr, run.lm()) {
        json["lm"] = json!({ "lr": rate, "loss": loss });
        table.notes.push(format!(
            "the rest of the model learned at a peak rate of {rate:.1e}; its loss on the training text, averaged over about the last 20 steps, {loss:.4} nats"
        ));
    }
    if let Some((path, report)) = written {
        json["checkpoint"] = json!({ "path": path, "report": report });
        table.notes.push(format!(
            "checkpoint {}: {} tensors trained, {} left out",
            path.display(),
            report.replaced,
            report.dropped
        ));
    }
    output.print(&json, &table)
}

/// Reads and tokenises the training texts.
fn texts(args: &TrainingArgs, checkpoint: &Checkpoint) -> Result<Vec<(String, Vec<u32>)>, CliError> {
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if let Some(path) = &args.tokens {
        let ids = tokens::read_tokens(path)?.into_iter().flat_map(|s| s.ids).collect();
        return Ok(vec![(name(path), ids)]);
    }
    let tokenizer = model::tokenizer(checkpoint)?;
    args.texts.iter().map(|path| Ok((name(path), tokenizer.encode_long(&read_text(path)?)?))).collect()
}

/// Parses a list of layers such as `0,4,8-11`.
fn parse_layers(list: &str) -> Result<Vec<usize>, CliError> {
    let wrong = |part: &str| {
        CliError::usage(format!("'{part}' of --layers is neither a layer nor a range of layers"))
            .hint("give layers such as 0,4,8-11")
    };
    let mut layers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong(part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong(part));
        }
        layers.extend(first..=last);
    }
    layers.sort_unstable();
    layers.dedup();
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_singly_and_in_ranges() {
        assert_eq!(parse_layers("8-11, 0,4,9").unwrap_or_default(), [0, 4, 8, 9, 10, 11]);
        for wrong in ["", "a", "3-1", "1,,2", "-3"] {
            assert!(parse_layers(wrong).is_err(), "{wrong}");
        }
    }
}
