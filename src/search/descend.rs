//! From all-Full downwards, one flip at a time: what greedy, lazy and racing have in common.

use super::plan::costs;
use super::sample::probability_of_best;
use super::{Ledger, Sample, SearchError, Space};
use crate::domain::{Audit, Flip, Goal, Pattern, Role, SearchSettings};

/// One step: which of these layers becomes Shared?
#[derive(Debug)]
pub(super) struct Step<'a> {
    /// The pattern before it.
    pub pattern: Pattern,
    /// What was measured for that pattern.
    pub sample: &'a Sample,
    /// The layers that may become Shared, ascending.
    pub candidates: &'a [usize],
}

impl Step<'_> {
    /// Returns the pattern with one more layer Shared.
    pub(super) fn with(&self, layer: usize) -> Pattern {
        self.pattern.with(layer, Role::Shared).unwrap_or(self.pattern)
    }

    /// Returns by how much a sample lies above that of the pattern before the step, nats, with the error of that.
    pub(super) fn damage(&self, sample: &Sample) -> Damage {
        let (value, se) = sample.minus(self.sample).mean_and_spread();
        Damage { value, se }
    }
}

/// What a flip costs, nats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damage {
    pub value: f64,
    pub se: f64,
}

/// A candidate that was measured.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub layer: usize,
    pub sample: Sample,
    /// Whether that was on the whole calibration set; only then it may be picked.
    pub whole: bool,
}

/// How a step chooses which candidates to measure.
pub(super) trait Pick {
    /// Measures at least the candidate that it thinks is the best.
    fn pick(&mut self, step: &Step, ledger: &mut Ledger) -> Result<Vec<Tried>, SearchError>;

    /// Returns how skipping candidates went.
    fn audit(&self) -> Option<Audit> {
        None
    }
}

/// Flips layer after layer until the goal is reached or nothing more may be flipped.
pub(super) fn descend(
    space: &Space,
    settings: &SearchSettings,
    picker: &mut dyn Pick,
    ledger: &mut Ledger,
) -> Result<(), SearchError> {
    let mut pattern = space.start;
    let mut sample = ledger.measure_one(pattern)?;
    ledger.progress.record.delta = Some(sample.delta());
    let most = space.most_flips(settings.goal);
    ledger.progress.steps = (0, most);
    let whole = std::iter::once(0..space.layers()).collect();
    let stages = if settings.block_search { &space.stages } else { &whole };
    // Before a step has told what one costs there is only what the method can cost at all.
    let whole_search = costs(settings.method.strategy, space, settings.goal, ledger.blocks());
    let mut paces = Paces::default();
    loop {
        let before = pattern;
        for stage in stages {
            let candidates = space.candidates(pattern, stage);
            if candidates.is_empty() || reached(settings.goal, pattern) {
                continue;
            }
            let begun = ledger.progress.record.work.layer_forwards;
            let known = paces.left(&candidates, most - ledger.progress.record.order.len(), settings.goal);
            let rest = |(low, high): (f64, f64)| ((low - begun).max(0.0), (high - begun).max(0.0));
            ledger.expect(known.or_else(|| whole_search.map(|cost| rest(cost.layer_forwards))));
            let step = Step { pattern, sample: &sample, candidates: &candidates };
            let tried = picker.pick(&step, ledger)?;
            let Some(best) = best(&tried) else { continue };
            let after = tried[best].sample.delta();
            // What lies beyond the budget here will hardly be confirmed elsewhere, where nothing was selected.
            if let Goal::MaxDelta(most) = settings.goal
                && after.value > most
            {
                continue;
            }
            let flip = flip(&step, &tried, best, settings.seed, ledger);
            pattern = step.with(flip.layer);
            sample = tried[best].sample.clone();
            paces.add(ledger.progress.record.work.layer_forwards - begun, candidates.len());
            let record = &mut ledger.progress.record;
            (record.pattern, record.delta, record.audit) = (pattern, Some(after), picker.audit());
            record.order.push(flip);
            ledger.progress.steps.0 += 1;
            ledger.tell();
        }
        if pattern == before {
            return Ok(());
        }
    }
}

fn reached(goal: Goal, pattern: Pattern) -> bool {
    matches!(goal, Goal::Keep(full) if pattern.full_count() <= full)
}

/// Returns the index of the lowest mean of those measured on the whole set; of equals the lowest layer.
fn best(tried: &[Tried]) -> Option<usize> {
    let key = |i: usize| (tried[i].sample.mean(), tried[i].layer);
    (0..tried.len())
        .filter(|&i| tried[i].whole)
        .min_by(|&a, &b| key(a).0.total_cmp(&key(b).0).then(key(a).1.cmp(&key(b).1)))
}

fn flip(step: &Step, tried: &[Tried], best: usize, seed: u64, ledger: &Ledger) -> Flip {
    let Tried { layer, sample, .. } = &tried[best];
    let own = sample.minus(step.sample).delta();
    let rivals: Vec<&Sample> = tried.iter().filter(|t| t.layer != *layer).map(|t| &t.sample).collect();
    let (p_best, compared) = probability_of_best(sample, &rivals, seed);
    Flip {
        layer: *layer,
        to: Role::Shared,
        delta: sample.delta(),
        step: own,
        p_best,
        compared,
        within_noise: own.is_noise(),
        work: ledger.progress.record.work,
    }
}

/// Layer-forwards per candidate of the steps so far, from which those to come are told.
#[derive(Debug, Default)]
struct Paces(Vec<f64>);

impl Paces {
    fn add(&mut self, layer_forwards: f64, candidates: usize) {
        self.0.push(layer_forwards / candidates as f64);
    }

    /// Returns the layer-forwards of the flips left, from and to; the first step, which knows nothing yet, is apart.
    fn left(&self, candidates: &[usize], flips: usize, goal: Goal) -> Option<(f64, f64)> {
        let known = self.0.get(1..).filter(|known| !known.is_empty())?;
        let (low, high) = known.iter().fold((f64::MAX, 0f64), |(low, high), &c| (low.min(c), high.max(c)));
        let flips = flips.min(candidates.len());
        let all: usize = (candidates.len() - flips + 1..=candidates.len()).sum();
        // With a budget for the loss the search may end at any step.
        let least = if matches!(goal, Goal::MaxDelta(_)) { 0.0 } else { low * all as f64 };
        Some((least, high * all as f64))
    }
}
