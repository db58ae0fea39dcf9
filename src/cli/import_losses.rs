//! `indexscope import losses`: loss of patterns from servers' log-probabilities.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{OutputArgs, Table};
use super::served::{read, read_config, told, topk};
use super::tokens::read_tokens;
use super::{CliError, deltas};
use crate::analysis::tally::{Row, Scored, Tally};
use crate::domain::{Delta, Evaluation, Origin, SelectionUnit, Subject, TopK};
use crate::interop::import::{ImportError, Pair, Prompt, compare, responses};

/// Standard errors beyond which what no pattern can change has changed.
const SURE: f64 = 4.0;

/// Arguments of `import losses`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The responses of the reference, such as a server that runs every layer Full.
    #[arg(value_name = "REFERENCE")]
    reference: PathBuf,
    /// Those of other servers to the same prompts.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The config.json that was served, or its folder; for k.
    #[arg(long, value_name = "CONFIG")]
    config: Option<PathBuf>,
    /// k: targets whose query sees more keys can differ.
    #[arg(long, value_name = "K")]
    index_topk: Option<usize>,
    /// The prompts' token ids, where the responses do not tell them: as --tokens of eval, in order.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// One run against the reference.
struct Compared {
    file: String,
    evaluation: Evaluation,
    same_top: Option<f64>,
    /// Difference over the targets that no pattern can change: what else differs between the servers.
    others: Option<Delta>,
}

/// Prints loss and Δ of every run.
///
/// # Errors
/// Files, responses that do not hold what is needed, prompts that differ.
pub fn run(args: Args) -> Result<(), CliError> {
    let config = args.config.as_deref().map(read_config).transpose()?;
    let k = topk(args.index_topk, config.as_ref())?;
    let sent = args.tokens.as_deref().map(read_tokens).transpose()?.unwrap_or_default();
    let sent: Vec<Vec<u32>> = sent.into_iter().map(|sequence| sequence.ids).collect();
    let reference = prompts(&args.reference, &sent)?;
    let mut all = Vec::new();
    for path in &args.runs {
        let pairs = compare(&reference, &prompts(path, &sent)?).map_err(|e| told(path, e))?;
        all.push(measure(path, &pairs, k));
    }
    let base = compare(&reference, &reference).map_err(|e| told(&args.reference, e))?;
    let base = measure(&args.reference, &base, k).evaluation;
    if base.eligible == 0 {
        args.output.warn(&format!("no target's query sees more than {k} keys: every pattern gives the same loss"));
    }
    for one in &all {
        let sure = one.others.and_then(|o| Some(o.value.abs() > SURE * o.spread().value()?));
        if sure == Some(true) {
            args.output.warn(&format!(
                "'{}' differs from the reference where no pattern can: the servers differ in something else",
                one.file
            ));
        }
    }
    args.output.print(&to_json(&args, k, &base, &all), &to_table(&args, k, &base, &all))
}

/// Reads the prompts of a file's responses; `sent` are their token ids, where they are known.
fn prompts(path: &Path, sent: &[Vec<u32>]) -> Result<Vec<Prompt>, CliError> {
    let bytes = read(path)?;
    let all = responses(&bytes, sent).map_err(|e| told(path, e))?;
    let prompt = |(i, r): (usize, crate::interop::import::Response)| r.prompt.ok_or(ImportError::NoLosses(i));
    all.into_iter().enumerate().map(prompt).collect::<Result<_, _>>().map_err(|e| told(path, e))
}

fn measure(path: &Path, pairs: &[Vec<Pair>], topk: usize) -> Compared {
    let row = |p: &Pair| Row { position: p.position, nll: p.nll, reference: p.reference, kl: 0.0, same_top: false };
    let scored = |(index, pairs): (usize, &Vec<Pair>)| Scored { index, rows: pairs.iter().map(row).collect() };
    let tally = Tally {
        subject: Subject::Dense,
        topk: TopK { unit: SelectionUnit::Token, k: topk },
        total: pairs.len(),
        bytes: None,
        clusters: (0..pairs.len()).collect(),
        scored: pairs.iter().enumerate().map(scored).collect(),
        resumed_from: 0,
        layer_forwards: 0.0,
    };
    // Log-probabilities of some tokens give neither KL nor all that is most likely.
    let evaluation = Evaluation { agreement: None, origin: Origin::Imported, ..tally.evaluation(0.0) };
    let eligible = || pairs.iter().flatten().filter(|p| p.position >= topk);
    let tops: Option<Vec<bool>> = eligible().map(|p| p.same_top).collect();
    let same_top = tops.filter(|t| !t.is_empty()).map(|t| t.iter().filter(|&&s| s).count() as f64 / t.len() as f64);
    let short = |p: &&Pair| p.position < topk;
    let rest: Vec<Vec<f64>> =
        pairs.iter().map(|one| one.iter().filter(short).map(|p| p.nll - p.reference).collect()).collect();
    let others = Delta::paired(rest.iter().map(Vec::as_slice).enumerate()).map(|(delta, _)| delta);
    Compared { file: path.display().to_string(), evaluation, same_top, others }
}

fn to_json(args: &Args, k: usize, base: &Evaluation, all: &[Compared]) -> Value {
    let result = |one: &Compared| {
        let e = &one.evaluation;
        let bucket = e
            .by_position
            .iter()
            .map(|b| json!({"from": b.from, "to": b.to, "targets": b.targets, "loss": b.loss, "delta": b.delta}));
        let mut json = json!({
            "file": one.file,
            "loss": e.loss,
            "delta_all": e.delta_all,
            "perplexity": e.loss.exp(),
            "ppl_ratio": (e.loss - e.reference_loss).exp(),
            "same_top": one.same_top,
            "by_position": bucket.collect::<Vec<_>>(),
            "worst_sequence": e.worst_sequence.map(|w| json!({"index": w.index, "delta": w.delta})),
        });
        deltas::insert(&mut json, "delta", e.delta);
        deltas::insert(&mut json, "delta_unaffected", one.others);
        json
    };
    json!({
        "schema": 1,
        "origin": "imported",
        "sequences": base.sequences.1,
        "targets": base.targets,
        "eligible": base.eligible,
        "blocks": base.blocks,
        "index_topk": k,
        "reference": {"file": args.reference.display().to_string(), "loss": base.loss},
        "results": all.iter().map(result).collect::<Vec<_>>(),
    })
}

fn to_table(args: &Args, k: usize, base: &Evaluation, all: &[Compared]) -> Table {
    let mut table = Table::new(["run", "loss", "delta", "se", "unaffected", "se", "ppl ratio", "same top"]);
    let signed = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:+.4}"));
    let plain = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.4}"));
    for one in all {
        let e = &one.evaluation;
        table.rows.push(vec![
            one.file.clone(),
            format!("{:.4}", e.loss),
            signed(e.delta.map(|d| d.value)),
            deltas::error_of(e.delta),
            signed(one.others.map(|o| o.value)),
            deltas::error_of(one.others),
            format!("{:.4}", (e.loss - e.reference_loss).exp()),
            plain(one.same_top),
        ]);
    }
    table.notes.push(format!(
        "imported: {} targets of {} prompts, {} of them see more than {k} keys; reference '{}' has loss {:.4} nats",
        base.targets,
        base.sequences.1,
        base.eligible,
        args.reference.display(),
        base.loss
    ));
    table.notes.push(format!(
        "unaffected: Δ over the {} targets that no pattern can change, which is what else differs between the servers",
        base.targets - base.eligible
    ));
    table.notes.extend(deltas::note(all.iter().map(|one| one.evaluation.delta)));
    table
}
