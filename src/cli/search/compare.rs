//! `search --compare`: every method at several retentions, in one table.

use serde_json::{Value, json};

use super::plan::Shown;
use super::print::count;
use super::{Args, settings, usage};
use crate::checkpoint::Checkpoint;
use crate::cli::CliError;
use crate::cli::deltas::{self, text as delta};
use crate::cli::output::Table;
use crate::cli::progress::Progress;
use crate::domain::{Delta, Evaluation, Goal, Keep, Method, Pattern, SearchSettings, Subject, Work};
use crate::engine::{Backend, Calibration, Cancel, Evaluator};
use crate::search::{Ledger, Measured, Space, Watch, search};

/// The methods that are compared where none are named.
pub(super) const ALL: &str = "greedy,greedy+swap,lazy,lazy+swap,racing,racing+swap,dp,similarity,uniform,exhaustive";

/// The retentions compared at.
const KEEP: [f64; 3] = [0.5, 0.25, 0.125];

/// What one method found at one retention.
struct Row {
    method: Method,
    full: usize,
    pattern: Pattern,
    delta: Delta,
    work: Work,
    judged: Option<Evaluation>,
}

/// Runs every method, each from scratch, and judges what it found.
///
/// A method with a flip order runs once, to the lowest retention: the higher ones are cut from its order, with what it
/// had cost until there. What a method cannot do is left out and told.
pub(super) fn run(
    args: &Args,
    methods: &[Method],
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    unseen: Option<&Calibration>,
    backend: &dyn Backend,
    cancel: &Cancel,
) -> Result<(), CliError> {
    let base = settings(args, checkpoint)?;
    let layers = checkpoint.constraints().len();
    let keep = match args.keep {
        Some(keep) => vec![keep.count(layers)],
        None => KEEP.map(|share| Keep::Share(share).count(layers)).to_vec(),
    };
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for &method in methods {
        // A backend of its own, so that no method profits from what another has run.
        let mut own = backend.on(calibration.clone())?;
        match one(args, &base, method, &keep, checkpoint, own.as_mut(), cancel) {
            Ok(found) => rows.extend(found),
            Err(CliError::Interrupted) => return Err(CliError::Interrupted),
            Err(CliError::Told { diagnostic, .. }) => {
                notes.push(format!("{method} is left out: {}", diagnostic.message));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(unseen) = unseen {
        let mut judge = backend.on(unseen.clone())?;
        for row in &mut rows {
            row.judged = Some(judge.evaluate(Subject::Pattern(row.pattern), cancel, &mut |_| {})?);
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.full));
    let json = json!({
        "schema": 1,
        "model": backend.describe().name,
        "calibration": {"sequences": calibration.sequences().len(), "eligible": backend.describe().eligible, "data": calibration.data()},
        "validation": unseen.map(|u| json!({"sequences": u.sequences().len(), "data": u.data()})),
        "seed": base.seed,
        "results": rows.iter().map(|row| to_json(row, layers)).collect::<Vec<_>>(),
        "left_out": notes,
    });
    args.output.print(&json, &to_table(backend, unseen, &rows, notes, layers))
}

fn one(
    args: &Args,
    base: &SearchSettings,
    method: Method,
    keep: &[usize],
    checkpoint: &Checkpoint,
    backend: &mut dyn Backend,
    cancel: &Cancel,
) -> Result<Vec<Row>, CliError> {
    let mut known = Known { measured: Vec::new(), shown: Shown(Progress::new(&args.output)) };
    let parts: Vec<usize> = (0..backend.layout().parts.len()).collect();
    let mut find = |goal: usize| {
        let settings = SearchSettings { method, goal: Goal::Keep(goal), ..base.clone() };
        let space = Space::new(&checkpoint.constraints(), &settings).map_err(usage)?;
        let mut evaluator = Evaluator::new(backend, cancel);
        let before = known.measured.clone();
        let mut ledger = Ledger::new(&mut evaluator, &parts, &settings, space.start, before, &mut known);
        search(&space, &settings, &mut ledger).map_err(CliError::from)
    };
    if method.strategy.has_order() && !method.swap {
        let lowest = keep.iter().copied().min().unwrap_or(1);
        let record = find(lowest)?;
        let cut = |&full: &usize| {
            let flips = (0..=record.order.len()).find(|&n| record.after(n).full_count() <= full)?;
            let flip = flips.checked_sub(1).map(|last| &record.order[last]);
            Some(Row {
                method,
                full,
                pattern: record.after(flips),
                delta: flip.map_or(record.delta, |flip| Some(flip.delta))?,
                work: flip.map_or(record.work, |flip| flip.work),
                judged: None,
            })
        };
        return Ok(keep.iter().filter_map(cut).collect());
    }
    keep.iter()
        .map(|&full| {
            let record = find(full)?;
            let delta = record.delta.ok_or_else(|| CliError::run(format!("{method} measured nothing")))?;
            Ok(Row { method, full, pattern: record.pattern, delta, work: record.work, judged: None })
        })
        .collect()
}

/// Measurements of one method, for its search at the next retention: each search is still charged for what it uses.
struct Known {
    measured: Vec<Measured>,
    shown: Shown,
}

impl Watch for Known {
    fn measured(&mut self, measured: &Measured) {
        self.measured.push(measured.clone());
    }

    fn progress(&mut self, progress: &crate::domain::SearchProgress) {
        self.shown.progress(progress);
    }
}

fn to_json(row: &Row, layers: usize) -> Value {
    let mut json = json!({
        "method": row.method.to_string(),
        "pattern": row.pattern.to_string(),
        "full": row.pattern.full_count(),
        "evaluations": count(row.work.evaluations),
        "layer_forwards": count(row.work.layer_forwards),
        "paper_layer_forwards": count(row.work.paper(layers)),
        "seconds": row.work.seconds,
        "validation": row.judged.as_ref().map(|e| {
            let mut json = json!({"loss": e.loss});
            deltas::insert(&mut json, "delta", e.delta);
            json
        }),
    });
    deltas::insert(&mut json, "delta", Some(row.delta));
    json
}

fn to_table(
    backend: &dyn Backend,
    unseen: Option<&Calibration>,
    rows: &[Row],
    notes: Vec<String>,
    layers: usize,
) -> Table {
    let header =
        ["full", "method", "pattern", "validation delta ± se", "searched delta", "evaluations", "layer-forwards", "s"];
    let mut table = Table::new(header);
    for row in rows {
        table.rows.push(vec![
            row.pattern.full_count().to_string(),
            row.method.to_string(),
            row.pattern.to_string(),
            row.judged.as_ref().map_or("-".to_owned(), |e| delta(e.delta)),
            format!("{:+.4}", row.delta.value),
            format!("{:.1}", row.work.evaluations),
            format!("{:.0}", row.work.layer_forwards),
            format!("{:.1}", row.work.seconds),
        ]);
    }
    let info = backend.describe();
    table.notes.push(format!(
        "{}: searched on {} sequences ({}, {} eligible targets), {}; nats against {}",
        info.name,
        info.sequences,
        info.data,
        info.eligible,
        unseen.map_or("judged on nothing else".to_owned(), |u| {
            format!("judged on {} others ({})", u.sequences().len(), u.data())
        }),
        info.reference
    ));
    for full in rows.iter().map(|row| row.full).collect::<std::collections::BTreeSet<_>>().into_iter().rev() {
        table.notes.extend(regrets(rows, full, layers));
    }
    table.notes.extend(deltas::note(rows.iter().map(|row| row.judged.as_ref().and_then(|e| e.delta))));
    table.notes.extend(notes);
    table
}

/// Says how far each method is from the searched optimum on unseen text, paired, and what it ran of the paper's
/// layer-forwards.
fn regrets(rows: &[Row], full: usize, layers: usize) -> Option<String> {
    let at = |name: &str| rows.iter().find(|row| row.full == full && row.method.to_string() == name);
    let paper = at("greedy").map(|row| row.work.paper(layers));
    // On text that neither saw: where the optimum was chosen, it is the lowest by its choice.
    let judged = |name: &str| at(name)?.judged.as_ref();
    let optimum = judged("exhaustive");
    let parts: Vec<String> = rows
        .iter()
        .filter(|row| row.full == full && (row.method.strategy.has_order()))
        .filter_map(|row| {
            let regret = row.judged.as_ref().zip(optimum).and_then(|(ours, best)| ours.minus(best));
            let regret = regret.map(|regret| format!("regret {} nats", delta(Some(regret))));
            let share = paper
                .map(|paper| format!("{:.0} % of the paper's layer-forwards", row.work.layer_forwards / paper * 100.0));
            let said: Vec<String> = regret.into_iter().chain(share).collect();
            (!said.is_empty()).then(|| format!("{} {}", row.method, said.join(", ")))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("{full} Full: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tally::Tally;
    use crate::domain::{Cluster, SelectionUnit, TopK};

    fn row(method: &str, searched: f64, unseen: f64) -> Row {
        let by_cluster: Vec<Cluster> =
            (0..9).map(|i| Cluster { sum: 480.0 * (unseen + f64::from(i)), n: 480 }).collect();
        let tally = Tally {
            subject: Subject::Dense,
            topk: TopK { unit: SelectionUnit::Token, k: 0 },
            total: 0,
            bytes: None,
            clusters: Vec::new(),
            scored: Vec::new(),
            resumed_from: 0,
            layer_forwards: 0.0,
        };
        Row {
            method: method.parse().unwrap(),
            full: 2,
            pattern: "FSSF".parse().unwrap(),
            delta: Delta::bare(searched, 1),
            work: Work::default(),
            judged: Some(Evaluation { by_cluster, ..tally.evaluation(0.0) }),
        }
    }

    #[test]
    fn regret_is_paired_and_on_unseen_text() {
        let rows = [row("lazy", 0.3, 0.25), row("exhaustive", 0.2, 0.26)];
        assert_eq!(regrets(&rows, 2, 4).unwrap(), "2 Full: lazy regret -0.0100 ± 0.0000 nats");
    }
}
