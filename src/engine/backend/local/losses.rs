//! Losses for searches: many patterns on parts of the calibration set, so that common prefixes are run once.

use std::time::Instant;

use super::LocalBackend;
use super::forward::How;
use crate::domain::Subject;
use crate::engine::backend::search::{Baseline, measured, part_of};
use crate::engine::{BackendError, Cancel};
use crate::model::Unseen;
use crate::search::{Layout, Measured, Unit};

/// Returns the calibration set in parts, one per batch.
pub(super) fn layout(backend: &LocalBackend) -> Layout {
    let part = |batch: usize| {
        let targets = backend.targets(batch);
        let (fixed, eligible) = targets.split(backend.info.topk());
        part_of(fixed.counts().sum(), &eligible.counts().zip(targets.clusters()).collect::<Vec<_>>())
    };
    Layout { parts: (0..backend.runner.batches.len()).map(part).collect() }
}

/// Measures every unit, part by part; within a part patterns with common prefixes follow each other.
pub(super) fn losses(
    backend: &mut LocalBackend,
    units: &[Unit],
    cancel: &Cancel,
    done: &mut dyn FnMut(Measured),
) -> Result<(), BackendError> {
    let mut units = units.to_vec();
    // In the order of their letters patterns form a tree that is walked depth first.
    units.sort_by_cached_key(|(pattern, part)| (*part, pattern.to_string()));
    for (pattern, part) in units {
        backend.info.check(Subject::Pattern(pattern))?;
        let started = Instant::now();
        let (_, targets) = backend.targets(part).split(backend.info.topk());
        let mut layers = run_baseline(backend, part, cancel)?;
        let (subject, is_reference) = (Subject::Pattern(pattern), pattern == backend.info.reference);
        let losses = if is_reference {
            None
        } else {
            let run = backend.runner.forward(part, Subject::Pattern(pattern), How::RESUMED, cancel, &mut Unseen)?;
            layers += backend.info.constraints.sites.layers() - run.resumed_from;
            Some(targets.losses(subject, backend.runner.model.head(), &run.hidden, cancel)?)
        };
        let Some(baseline) = &backend.baselines[part] else { continue };
        let losses = losses.as_ref().unwrap_or(&baseline.eligible);
        let cost = (layers, started.elapsed().as_secs_f64());
        done(measured((pattern, part), losses, baseline, is_reference, cost));
    }
    Ok(())
}

/// Runs the reference on a part unless that has been done; returns how many layers were run.
fn run_baseline(backend: &mut LocalBackend, part: usize, cancel: &Cancel) -> Result<usize, BackendError> {
    if backend.baselines[part].is_some() {
        return Ok(0);
    }
    let subject = Subject::Pattern(backend.info.reference);
    let run = backend.runner.forward(part, subject, How::RESUMED, cancel, &mut Unseen)?;
    let (fixed, eligible) = backend.targets(part).split(backend.info.topk());
    let head = backend.runner.model.head();
    let fixed = fixed.losses(subject, head, &run.hidden, cancel)?.iter().flatten().sum();
    let eligible = eligible.losses(subject, head, &run.hidden, cancel)?;
    backend.baselines[part] = Some(Baseline { eligible, fixed });
    Ok(backend.info.constraints.sites.layers() - run.resumed_from)
}
