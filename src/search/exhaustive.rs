//! Every pattern with the number of Full layers asked for: the ground truth where few layers are free.

use super::{Ledger, SearchError, Space};
use crate::domain::{Goal, Pattern, Role};

/// Most patterns that are tried.
const MOST: usize = 20_000;

/// Measures every pattern of the space with the goal's number of Full layers; for a budget of Δ, of ever fewer Full
/// layers while the best pattern is within it.
pub(super) fn exhaustive(space: &Space, goal: Goal, ledger: &mut Ledger) -> Result<(), SearchError> {
    let all = space.start.full_count();
    match goal {
        Goal::Keep(full) => best_of(space, full.min(all), f64::INFINITY, ledger).map(|_| ()),
        Goal::MaxDelta(most) => {
            best_of(space, all, f64::INFINITY, ledger)?;
            for full in (space.full.len()..all).rev() {
                if !best_of(space, full, most, ledger)? {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Measures every pattern with `full` Full layers; the best one becomes the result if its Δ is at most `most`.
fn best_of(space: &Space, full: usize, most: f64, ledger: &mut Ledger) -> Result<bool, SearchError> {
    let patterns = patterns(space, full)?;
    let samples = ledger.measure(&patterns)?;
    let best = patterns.iter().zip(samples).min_by(|(_, a), (_, b)| a.mean().total_cmp(&b.mean()));
    let Some((pattern, sample)) = best else { return Ok(false) };
    let delta = sample.delta();
    if delta.value > most {
        return Ok(false);
    }
    (ledger.progress.record.pattern, ledger.progress.record.delta) = (*pattern, Some(delta));
    if most.is_finite() {
        ledger.progress.record.path.push(*pattern);
    }
    ledger.tell();
    Ok(true)
}

/// Returns every pattern of the space with `full` Full layers.
pub(super) fn patterns(space: &Space, full: usize) -> Result<Vec<Pattern>, SearchError> {
    let free: Vec<usize> = space.free().collect();
    let chosen = full.saturating_sub(space.full.len());
    let count = (0..chosen.min(free.len())).fold(1f64, |n, i| n * (free.len() - i) as f64 / (i + 1) as f64);
    if count > MOST as f64 {
        return Err(SearchError::failed(
            format!("there are {count:.3e} patterns with {full} Full layers, and at most {MOST} are tried"),
            "lock layers with --lock-full or --lock-shared, or use --method swap",
        ));
    }
    let mut found = Vec::new();
    choose(&free, chosen, &mut Vec::new(), &mut |layers| {
        let role = |l: usize| if space.full.contains(l) || layers.contains(&l) { Role::Full } else { Role::Shared };
        found.extend(Pattern::from_fn(space.layers(), role).ok());
    });
    Ok(found)
}

/// Calls `take` with every choice of `n` of the layers.
fn choose(layers: &[usize], n: usize, chosen: &mut Vec<usize>, take: &mut dyn FnMut(&[usize])) {
    if n == 0 {
        return take(chosen);
    }
    for (i, &layer) in layers.iter().enumerate() {
        if layers.len() - i < n {
            return;
        }
        chosen.push(layer);
        choose(&layers[i + 1..], n - 1, chosen, take);
        chosen.pop();
    }
}
