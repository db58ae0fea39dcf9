//! `search --plan`: what every method would cost, and what the calibration set can tell apart.

use serde_json::json;

use super::print::count;
use super::{Args, keeper};
use crate::cli::output::Table;
use crate::cli::progress::Progress;
use crate::cli::{CliError, deltas};
use crate::domain::{MIN_CLUSTERS, Role, SearchProgress, SearchSettings, Strategy};
use crate::engine::{Backend, Cancel, Evaluator};
use crate::search::{Cost, Evaluate, Ledger, Measured, Space, Watch, costs};

/// Standard errors that a difference must have to be found significant at 95 % in 80 % of repetitions.
const RESOLVED: f64 = 2.49;

/// Blocks that are measured: enough for a standard error, few enough to cost no more than a glance.
const ENOUGH: usize = 16;

/// Measures the reference and one flip on the first sequences, and prints costs.
pub(super) fn run(
    args: &Args,
    settings: &SearchSettings,
    space: &Space,
    backend: &mut dyn Backend,
    cancel: &Cancel,
) -> Result<(), CliError> {
    let free: Vec<usize> = space.free().collect();
    let Some(&middle) = free.get(free.len() / 2) else {
        return Err(CliError::usage("every layer is locked, so there is nothing to search for")
            .hint("lock fewer layers by --lock-full and --lock-shared"));
    };
    let mut watch = Shown(Progress::new(&args.output));
    let mut evaluator = Evaluator::new(backend, cancel);
    let parts: Vec<usize> = (0..evaluator.layout().parts.len()).collect();
    let mut ledger = Ledger::new(&mut evaluator, &parts, settings, space.start, [], &mut watch);
    let blocks_of = |first: usize| ledger.layout().blocks(&parts[..first]);
    let clusters_of = |first: usize| ledger.layout().clusters(&parts[..first]);
    let enough = |first: &usize| blocks_of(*first) >= ENOUGH && clusters_of(*first) >= MIN_CLUSTERS;
    let first = (1..=parts.len()).find(enough).unwrap_or(parts.len());
    let (measured, blocks) = (blocks_of(first), blocks_of(parts.len()));
    let flipped = space.start.with(middle, Role::Shared)?;
    let start = ledger.measure_on(&[space.start], first)?.remove(0);
    let flip = ledger.measure_on(&[flipped], first)?.remove(0).minus(&start).delta();
    let work = ledger.work();
    let clusters = ledger.layout().clusters(&parts[..first]);
    drop(watch);
    let info = backend.describe();
    let pace = work.seconds / work.layer_forwards.max(f64::MIN_POSITIVE);
    let rows: Vec<(Strategy, Option<Cost>)> =
        Strategy::ALL.map(|s| (s, costs(s, space, settings.goal, blocks))).to_vec();
    let hours = |layer_forwards: f64| layer_forwards * pace / 3600.0;
    // The error falls with the root of the number of blocks; a search measures on all of them.
    let resolved = flip.se.map(|se| RESOLVED * se * (measured as f64 / blocks.max(1) as f64).sqrt());
    let methods: Vec<_> = rows
        .iter()
        .map(|(strategy, cost)| {
            json!({
                "method": strategy.name(),
                "evaluations": cost.map(|c| [count(c.evaluations.0), count(c.evaluations.1)]),
                "layer_forwards": cost.map(|c| [count(c.layer_forwards.0), count(c.layer_forwards.1)]),
                "hours": cost.map(|c| [hours(c.layer_forwards.0), hours(c.layer_forwards.1)]),
            })
        })
        .collect();
    let mut of_flip = json!({"layer": middle});
    deltas::insert(&mut of_flip, "delta", Some(flip));
    let json = json!({
        "schema": 1,
        "model": info.name,
        "plan": methods,
        "measured": {"evaluations": 2, "layer_forwards": count(work.layer_forwards), "seconds": work.seconds,
            "sequences": first, "blocks": measured},
        "resolvable_delta": resolved,
        "flip": of_flip,
        "eligible": info.eligible,
        "blocks": blocks,
        "clusters": clusters,
    });
    let mut table = Table::new(["method", "evaluations", "layer-forwards", "hours"]);
    let range = |(low, high): (f64, f64), digits: usize| {
        if low == high { format!("{low:.digits$}") } else { format!("{low:.digits$} to {high:.digits$}") }
    };
    for (strategy, cost) in rows {
        let mut row = vec![strategy.name().to_owned()];
        row.extend(match cost {
            None => ["too many".to_owned(), "-".to_owned(), "-".to_owned()],
            Some(c) => {
                let (low, high) = c.layer_forwards;
                [range(c.evaluations, 0), range(c.layer_forwards, 0), range((hours(low), hours(high)), 4)]
            }
        });
        table.rows.push(row);
    }
    table.notes.push(format!(
        "{}: two evaluations measured (the reference, and L{middle} Shared) on {first} of {} sequences with {} eligible targets in {:.2} s, {:.4} s per layer-forward of all",
        info.name, info.sequences, info.eligible, work.seconds, pace
    ));
    table.notes.push(match resolved {
        Some(resolved) => format!(
            "the smallest delta that this set resolves is about {resolved:.4} nats ({RESOLVED} standard errors of that flip over {clusters} sequences or documents: 80 % power); four times the text halves it"
        ),
        None => format!("{clusters} independent sequences or documents are too few for an error on other text (8 are needed): what this set resolves is not known"),
    });
    table.notes.push(
        "+swap adds a race of all pairs of a Full and a Shared layer per exchange; lazy and racing depend on the model"
            .to_owned(),
    );
    args.output.print(&json, &table)
}

/// Shows progress and keeps nothing.
pub(super) struct Shown(pub(super) Progress);

impl Watch for Shown {
    fn measured(&mut self, _: &Measured) {}

    fn progress(&mut self, progress: &SearchProgress) {
        let (done, all) = progress.measured;
        self.0.tell(&keeper::line(progress), done as f64 / all.max(1) as f64);
    }
}
