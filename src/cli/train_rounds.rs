//! `train distill --rounds`: distillation and search in turn, until neither lowers the loss.

mod steps;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

use self::steps::{Done, Journal, What, beside, next, open, told};
use super::interrupt::stop_on_interrupt;
use super::output::{OutputArgs, Table};
use super::train_indexers::{Training, TrainingArgs, lock, train};
use super::{CliError, deltas, model, target, tokens};
use crate::checkpoint::{Checkpoint, IndexerShape, Sidecar};
use crate::domain::{Delta, Evaluation, Goal, Pattern, SearchProgress, SearchSettings, Strategy, Subject, Targets};
use crate::engine::{
    Backend, Calibration, Cancel, DeviceChoice, Evaluator, Generation, Placement, Runtime, Sequence, Settings, Source,
};
use crate::seal;
use crate::search::{Ledger, Measured, Space, Watch, search};
use crate::session::write_atomic;
use crate::train::read_text;

/// Options of alternation.
#[derive(Clone, Debug, clap::Args)]
pub struct RoundsArgs {
    /// Then search for a pattern with as many Full layers on the distilled model, distil for what was found, and so on,
    /// until neither lowers the loss, at most so many times.
    #[arg(long, value_name = "N", requires = "search_text")]
    rounds: Option<std::num::NonZeroU64>,
    /// The text that patterns are searched on, not trained on: UTF-8, compressed as .xz, or token ids as .json. As many other
    /// sequences of it decide what is taken over, and as many more report what was.
    #[arg(long, value_name = "FILE", requires = "rounds")]
    search_text: Option<PathBuf>,
    /// Sequences of --seq-len tokens to search on.
    #[arg(long, value_name = "N", default_value = "4", requires = "rounds")]
    search_sequences: std::num::NonZeroUsize,
}

impl RoundsArgs {
    /// Returns whether search and distillation are to alternate.
    pub(super) fn is_asked_for(&self) -> bool {
        self.rounds.is_some()
    }
}

/// What alternation begins with.
pub(super) struct Begin<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) sidecar: Option<&'a Path>,
    pub(super) pattern: Pattern,
    pub(super) targets: Targets,
    pub(super) shape: IndexerShape,
    /// The sidecar to write.
    pub(super) out: &'a Path,
}

/// Everything that the steps work with.
struct Rounds<'a> {
    begin: Begin<'a>,
    args: &'a TrainingArgs,
    topk: usize,
    searched: Calibration,
    /// The first model on the text that decides what is taken over.
    reference: Box<dyn Backend>,
    /// The text that decides.
    deciding: Calibration,
    /// Text that decides nothing: what came of it all is reported on it.
    reported: Calibration,
    stop: Arc<AtomicBool>,
    steps: Vec<Done>,
}

/// Alternates; returns the pattern whose indexers were written.
///
/// # Errors
/// As `train distill` and `search`.
pub(super) fn run(begin: Begin, rounds: &RoundsArgs, args: &TrainingArgs) -> Result<Pattern, CliError> {
    let Some(text) = rounds.search_text.as_deref() else {
        return Err(CliError::usage("--rounds needs --search-text").hint("give a text that is not trained on"));
    };
    if begin.checkpoint.base().config().family.is_dense() && begin.sidecar.is_none() {
        return Err(CliError::usage("--rounds searches with indexers, and this model has none")
            .hint("give --sidecar; 'train indexers' makes one"));
    }
    let most = rounds.rounds.map_or(1, std::num::NonZeroU64::get);
    let journal = beside(begin.out, "rounds.json");
    let about = about(begin.checkpoint.fingerprint(), &begin, rounds, args);
    let former = begin.checkpoint.former_fingerprints();
    let abouts: Vec<String> =
        former.iter().map(|f| self::about(f, &begin, rounds, args)).chain([about.clone()]).collect();
    let _lock = lock(begin.out)?;
    let steps = open(&journal, &abouts, args.resume)?;
    let [searched, deciding, reported] = sets(&begin, text, args.seq_len.get(), rounds.search_sequences.get())?;
    let topk = args.topk(begin.checkpoint);
    let reference = backend(begin.checkpoint, begin.sidecar, topk, deciding.clone())?;
    let mut all =
        Rounds { begin, args, topk, searched, reference, deciding, reported, stop: stop_on_interrupt(), steps };
    while let Some((what, round)) = next(&all.steps, most) {
        let done = all.step(what, round)?;
        args.output.note(&told(&done));
        all.steps.push(done);
        let (about, steps) = (about.clone(), all.steps.clone());
        let written = Journal { schema: 1, about, steps, crc32: seal::BLANK.to_owned() };
        let mut written = json!(written).to_string().into_bytes();
        seal::seal(&mut written);
        if let Err(error) = write_atomic(&journal, &written) {
            // What could not be saved is printed, so that it is not lost.
            if let Some(best) = all.now() {
                print(&all, best, None, &args.output)?;
            }
            return Err(error.into());
        }
    }
    let best = all.now().cloned().ok_or_else(|| CliError::run("nothing was done"))?;
    match &best.sidecar {
        Some(sidecar) => {
            let bytes = std::fs::read(sidecar).map_err(|e| CliError::file("cannot read", sidecar, e))?;
            write_atomic(all.begin.out, &bytes)?;
        }
        None => args.output.warn("nothing was gained, so there is nothing to write"),
    }
    let report = all.report(&best)?;
    print(&all, &best, Some(&report), &args.output)?;
    Ok(best.pattern)
}

impl Rounds<'_> {
    /// Returns the last step that was taken over.
    fn now(&self) -> Option<&Done> {
        self.steps.iter().rev().find(|done| done.gained)
    }

    fn step(&mut self, what: What, round: u64) -> Result<Done, CliError> {
        let began = Instant::now();
        let (mut pattern, mut sidecar) = match self.now() {
            Some(now) => (now.pattern, now.sidecar.clone()),
            None => (self.begin.pattern, self.begin.sidecar.map(Into::into)),
        };
        match what {
            What::Start => {}
            What::Distil => sidecar = Some(self.distil(pattern, sidecar.as_deref(), round)?),
            What::Search => pattern = self.search(pattern, sidecar.as_deref())?,
        }
        let evaluation = self.judge(pattern, sidecar.as_deref())?;
        let gained = self.now().is_none_or(|now| evaluation.0 < now.loss);
        let seconds = began.elapsed().as_secs_f64();
        Ok(Done { what, round, pattern, sidecar, loss: evaluation.0, delta: evaluation.1, gained, seconds })
    }

    /// Trains the pattern's indexers from those of `start`; the others are taken along for the next search.
    fn distil(&self, pattern: Pattern, start: Option<&Path>, round: u64) -> Result<PathBuf, CliError> {
        let out = beside(self.begin.out, &format!("round{round}.safetensors"));
        let before = start.map(Sidecar::open).transpose()?;
        train(
            Training {
                checkpoint: self.begin.checkpoint,
                layers: (0..pattern.len()).filter(|&l| pattern.is_full(l)).collect(),
                pattern,
                targets: self.begin.targets,
                shape: self.begin.shape,
                start: before.as_ref(),
                out: &out,
                seed: self.args.seed + round - 1,
                resume: self.args.resume && beside(&out, "state").exists(),
                lm_lr: None,
            },
            self.args,
        )?;
        if let Some(before) = &before {
            let bytes = Sidecar::open(&out)?.over(before).map_err(CliError::run)?;
            write_atomic(&out, &bytes)?;
        }
        Ok(out)
    }

    /// Searches for a pattern with as many Full layers.
    fn search(&self, pattern: Pattern, sidecar: Option<&Path>) -> Result<Pattern, CliError> {
        let mut backend = backend(self.begin.checkpoint, sidecar, self.topk, self.searched.clone())?;
        let goal = Goal::Keep(pattern.full_count());
        let settings = SearchSettings { seed: self.args.seed, ..SearchSettings::new(Strategy::Racing, goal) };
        let space = Space::new(&backend.describe().constraints, &settings)?;
        let parts: Vec<usize> = (0..backend.layout().parts.len()).collect();
        let generation = Generation::default();
        let cancel = generation.advance();
        let mut watch = Stopper { stop: &self.stop, generation: &generation };
        let mut evaluator = Evaluator::new(backend.as_mut(), &cancel);
        let mut ledger = Ledger::new(&mut evaluator, &parts, &settings, space.start, Vec::new(), &mut watch);
        Ok(search(&space, &settings, &mut ledger)?.pattern)
    }

    /// Measures a pattern on the text that judges: its loss, and Δ against the first reference.
    fn judge(&mut self, pattern: Pattern, sidecar: Option<&Path>) -> Result<(f64, Option<Delta>), CliError> {
        let cancel = Cancel::never();
        let mut backend = backend(self.begin.checkpoint, sidecar, self.topk, self.deciding.clone())?;
        backend.compare_with(self.reference.as_mut(), &cancel, &mut |_| {})?;
        let evaluation = backend.evaluate(Subject::Pattern(pattern), &cancel, &mut |_| {})?;
        Ok((evaluation.loss, evaluation.delta))
    }
}

impl Rounds<'_> {
    /// Measures what was taken over on text that decided nothing.
    fn report(&self, best: &Done) -> Result<Evaluation, CliError> {
        let cancel = Cancel::never();
        let load = |sidecar| backend(self.begin.checkpoint, sidecar, self.topk, self.reported.clone());
        let (mut first, mut last) = (load(self.begin.sidecar)?, load(best.sidecar.as_deref())?);
        last.compare_with(first.as_mut(), &cancel, &mut |_| {})?;
        Ok(last.evaluate(Subject::Pattern(best.pattern), &cancel, &mut |_| {})?)
    }
}

/// Ends a search between two measurements once the process was told to stop.
struct Stopper<'a> {
    stop: &'a AtomicBool,
    generation: &'a Generation,
}

impl Watch for Stopper<'_> {
    fn measured(&mut self, _: &Measured) {
        if self.stop.load(Ordering::Relaxed) {
            self.generation.advance();
        }
    }

    fn progress(&mut self, _: &SearchProgress) {}
}

/// Returns everything that decides the result, to tell runs apart.
fn about(fingerprint: &str, begin: &Begin, rounds: &RoundsArgs, args: &TrainingArgs) -> String {
    let Begin { sidecar, pattern, targets, .. } = begin;
    format!(
        "{fingerprint} {sidecar:?} {pattern} {} {:?} {} {}",
        targets.name(),
        rounds.search_text,
        rounds.search_sequences,
        args.about()
    )
}

/// Returns the sequences that are searched on, those that decide, and those that report; each is spread over the text.
fn sets(begin: &Begin, text: &Path, length: usize, count: usize) -> Result<[Calibration; 3], CliError> {
    let ids = if text.extension().is_some_and(|e| e == "json" || e == "jsonl") {
        tokens::read_tokens(text)?.into_iter().flat_map(|s| s.ids).collect()
    } else {
        model::tokenizer(begin.checkpoint)?.encode_long(&read_text(text)?)?
    };
    let piece = |(cluster, ids): (usize, &[u32])| Sequence { cluster, ..Sequence::of(ids.to_vec()) };
    let pieces: Vec<Sequence> = ids.chunks_exact(length).enumerate().map(piece).collect();
    if pieces.len() < 3 * count {
        return Err(CliError::run(format!(
            "'{}' has {} sequences of {length} tokens, and {} are needed to search, to decide and to report",
            text.display(),
            pieces.len(),
            3 * count
        ))
        .hint("give more text, or fewer --search-sequences"));
    }
    let vocab = begin.checkpoint.config().vocab_size;
    let set = |which: usize| {
        let at = (0..count).map(|i| (3 * i + which) * pieces.len() / (3 * count));
        let part = at.map(|at| pieces[at].clone()).collect();
        Calibration::new(part, text.display().to_string(), vocab).map_err(CliError::run)
    };
    Ok([set(0)?, set(1)?, set(2)?])
}

/// Loads the model with some indexers.
fn backend(
    checkpoint: &Checkpoint,
    sidecar: Option<&Path>,
    topk: usize,
    calibration: Calibration,
) -> Result<Box<dyn Backend>, CliError> {
    let with = match sidecar {
        Some(path) => checkpoint.with_sidecar(&Sidecar::open(path)?).map_err(target::told)?,
        None => checkpoint.clone(),
    };
    let with = with.with_topk(topk).map_err(target::told)?;
    let settings = Settings::new(Placement::open(DeviceChoice::Cpu, None)?);
    Ok(Source::new(with, calibration, Runtime::Process(settings)).open(&Cancel::never())?)
}

fn print(all: &Rounds, best: &Done, report: Option<&Evaluation>, output: &OutputArgs) -> Result<(), CliError> {
    let mut table = Table::new(["round", "step", "full", "pattern", "loss", "delta", "se", "taken over", "seconds"]);
    for done in &all.steps {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:+.4}"));
        table.rows.push(vec![
            done.round.to_string(),
            json!(done.what).as_str().unwrap_or_default().to_owned(),
            done.pattern.full_count().to_string(),
            done.pattern.to_string(),
            format!("{:.4}", done.loss),
            number(done.delta.map(|d| d.value)),
            deltas::error_of(done.delta),
            if done.gained { "yes" } else { "no" }.to_owned(),
            format!("{:.0}", done.seconds),
        ]);
    }
    let info = all.reference.describe();
    table.notes.push(format!(
        "{} targets of {} sequences that were neither trained nor searched on, {} of them see more than {} keys, decide what is \
         taken over; delta in nats against {} with the first indexers",
        info.targets, info.sequences, info.eligible, info.index_topk, info.reference
    ));
    table.notes.extend(report.map(|report| {
        format!(
            "{} on {} sequences that decided nothing: loss {:.4}, delta {}",
            best.pattern,
            report.sequences.0,
            report.loss,
            deltas::text(report.delta)
        )
    }));
    table.notes.extend(deltas::note(report.map(|report| report.delta)));
    let reported = report.map(|report| {
        let mut json = json!({"loss": report.loss, "sequences": report.sequences.0, "eligible": report.eligible});
        deltas::insert(&mut json, "delta", report.delta);
        json
    });
    let json = json!({
        "schema": 1, "pattern": best.pattern.to_string(), "loss": best.loss, "index_topk": all.topk,
        "sequences": info.sequences, "targets": info.targets, "eligible": info.eligible, "report": reported,
        "steps": all.steps.iter().map(|done| {
            let mut json = json!({
                "step": done.what, "round": done.round, "pattern": done.pattern.to_string(), "loss": done.loss,
                "gained": done.gained, "seconds": done.seconds,
            });
            deltas::insert(&mut json, "delta", done.delta);
            json
        }).collect::<Vec<_>>(),
    });
    output.print(&json, &table)
}
