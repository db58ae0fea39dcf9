//! Recording: the sets that every layer uses, at all positions or at sampled ones.

use super::forward::How;
use super::{LocalBackend, Reference};
use crate::domain::{Pattern, QuerySampling, Selection, Subject, Trace};
use crate::engine::backend::queries::{check_finite, head};
use crate::engine::{BackendError, Cancel};
use crate::model::{At, Indices, Ran};

/// Records under `pattern`; what the reference's forwards have kept is used, and what is finished survives a cancel.
pub(super) fn record(
    backend: &mut LocalBackend,
    pattern: Pattern,
    sampling: QuerySampling,
    cancel: &Cancel,
    progress: &mut dyn FnMut(f64),
) -> Result<Trace, BackendError> {
    let mut trace = head(&backend.info, &backend.calibration, pattern, sampling);
    let batches = backend.runner.batches.len();
    let (layers, topk) = (trace.meta.sites().len(), trace.meta.index_topk);
    trace.selections = vec![Selection::with_capacity(trace.queries.len(), topk); layers];
    let mut runs = Vec::with_capacity(batches);
    for batch in 0..batches {
        runs.push(run(backend, batch, pattern, cancel)?);
        progress((batch + 1) as f64 / batches as f64);
    }
    for (layer, selection) in trace.selections.iter_mut().enumerate() {
        let mut rest = trace.queries.as_slice();
        for (batch, run) in backend.runner.batches.iter().zip(&runs) {
            for n in 0..run[layer].sequences() {
                let here = rest.partition_point(|q| q.sequence as usize <= batch.first + n);
                let positions: Vec<usize> = rest[..here].iter().map(|q| q.position as usize).collect();
                run[layer].pick(n, &positions, selection)?;
                rest = &rest[here..];
            }
        }
    }
    // Only now, so that a cancelled recording goes on where it stopped.
    for reference in backend.references.iter_mut().flatten() {
        reference.selections = None;
    }
    backend.settings.keep_selections = false;
    Ok(trace)
}

/// Returns each site's sets for one batch.
fn run(
    backend: &mut LocalBackend,
    batch: usize,
    pattern: Pattern,
    cancel: &Cancel,
) -> Result<Vec<Indices>, BackendError> {
    if pattern == backend.info.reference && !backend.foreign {
        backend.run_reference(batch, true, cancel)?;
        if let Some(Reference { selections: Some(kept), .. }) = &backend.references[batch] {
            return Ok(kept.clone());
        }
    }
    let mut sets = Vec::with_capacity(pattern.len());
    backend.runner.forward(batch, Subject::Pattern(pattern), How::FRESH, cancel, &mut |at: &At, ran: &Ran| {
        check_finite(at)?;
        let selected = ran.output.indices.as_ref().filter(|_| at.site.is_some());
        sets.extend(selected.map(Indices::on_host).transpose()?);
        Ok(())
    })?;
    Ok(sets)
}
