//! One search from its settings to its record.

use super::descend::{Pick, descend};
use super::greedy::Greedy;
use super::lazy::Lazy;
use super::racing::Racing;
use super::{AffinityKind, Ledger, SearchError, Space, exhaustive, placed, swap};
use crate::domain::{Goal, Pattern, SearchRecord, SearchSettings, SearchState, Strategy};

/// Searches, and returns what was found: for a budget of Δ, what keeps to it on the text searched on, which unseen text has
/// to confirm ([`super::confirm`]).
///
/// # Errors
/// [`SearchError`]; what was measured until then was told to the ledger's watch.
pub fn search(space: &Space, settings: &SearchSettings, ledger: &mut Ledger) -> Result<SearchRecord, SearchError> {
    match settings.method.strategy {
        Strategy::Greedy => step_by_step(space, settings, &mut Greedy, ledger)?,
        Strategy::Lazy => step_by_step(space, settings, &mut Lazy::new(settings.seed), ledger)?,
        Strategy::Racing => step_by_step(space, settings, &mut Racing::default(), ledger)?,
        Strategy::Dp => {
            let affinity = ledger.affinity(AffinityKind::MassRecall)?;
            at_goal(space, settings.goal, ledger, &mut |full| placed::by_affinity(space, &affinity, full))?;
        }
        Strategy::Similarity => {
            let affinity = ledger.affinity(AffinityKind::OutputCosine)?;
            at_goal(space, settings.goal, ledger, &mut |full| placed::by_affinity(space, &affinity, full))?;
        }
        Strategy::Uniform => at_goal(space, settings.goal, ledger, &mut |full| placed::uniform(space, full))?,
        Strategy::Exhaustive => exhaustive::exhaustive(space, settings.goal, ledger)?,
    }
    if settings.method.swap {
        swap::refine(space, settings.goal, ledger)?;
    }
    ledger.progress.record.state = SearchState::Done;
    ledger.progress.candidate = None;
    ledger.expect(None);
    ledger.tell();
    Ok(ledger.progress.record.clone())
}

fn step_by_step(
    space: &Space,
    settings: &SearchSettings,
    picker: &mut dyn Pick,
    ledger: &mut Ledger,
) -> Result<(), SearchError> {
    descend(space, settings, picker, ledger)
}

/// Takes the pattern that a rule gives for a number of Full layers; for a budget of Δ the last one within it.
fn at_goal(
    space: &Space,
    goal: Goal,
    ledger: &mut Ledger,
    rule: &mut dyn FnMut(usize) -> Pattern,
) -> Result<(), SearchError> {
    let all = space.start.full_count();
    match goal {
        Goal::Keep(full) => take(rule(full.min(all)), ledger).map(|_| ()),
        Goal::MaxDelta(most) => {
            take(space.start, ledger)?;
            for full in (space.full.len()..all).rev() {
                let before = (ledger.progress.record.pattern, ledger.progress.record.delta);
                if take(rule(full), ledger)? > most {
                    (ledger.progress.record.pattern, ledger.progress.record.delta) = before;
                    break;
                }
                let pattern = ledger.progress.record.pattern;
                ledger.progress.record.path.push(pattern);
            }
            Ok(())
        }
    }
}

/// Measures a pattern and makes it the result; returns its Δ.
fn take(pattern: Pattern, ledger: &mut Ledger) -> Result<f64, SearchError> {
    let delta = ledger.measure_one(pattern)?.delta();
    (ledger.progress.record.pattern, ledger.progress.record.delta) = (pattern, Some(delta));
    ledger.tell();
    Ok(delta.value)
}
