//! Recording: the sets that every layer uses, at all positions or at sampled ones.

use super::forward::How;
use super::local::{LocalBackend, Reference};
use super::recorder::head;
use super::{BackendError, Cancel};
use crate::domain::{Pattern, Query, QuerySampling, Selection, Subject, Trace};
use crate::model::Indices;

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
    let (layers, topk) = (trace.meta.layers, trace.meta.index_topk);
    trace.selections = vec![Selection::with_capacity(trace.queries.len(), topk); layers];
    let mut runs = Vec::with_capacity(batches);
    for batch in 0..batches {
        runs.push(run(backend, batch, pattern, cancel)?);
        progress((batch + 1) as f64 / batches as f64);
    }
    for (layer, selection) in trace.selections.iter_mut().enumerate() {
        let mut rest = trace.queries.as_slice();
        for (batch, run) in backend.runner.batches.iter().zip(&runs) {
            for (n, set) in run[layer].sets()?.iter().enumerate() {
                let here = rest.partition_point(|q| q.sequence as usize <= batch.first + n);
                rest[..here].iter().for_each(|q| selection.push(set.row(q.position as usize)));
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

/// Returns each layer's sets for one batch.
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
    backend.runner.forward(batch, Subject::Pattern(pattern), How::FRESH, cancel, &mut |_, output| {
        sets.extend(output.indices.as_ref().map(Indices::on_host).transpose()?);
        Ok(())
    })?;
    Ok(sets)
}

/// Returns the recorded queries in (sequence, position) order.
pub(super) fn sample(tokens: &[Vec<u32>], sampling: QuerySampling) -> Vec<Query> {
    let mut queries = Vec::new();
    for (sequence, ids) in tokens.iter().enumerate() {
        let positions: Vec<usize> = match sampling {
            QuerySampling::All => (0..ids.len()).collect(),
            QuerySampling::Sampled { per_sequence, seed } => {
                choose(ids.len(), per_sequence, seed ^ (sequence as u64) << 32)
            }
        };
        let query = |position| Query { sequence: sequence as u32, position: position as u32 };
        queries.extend(positions.into_iter().map(query));
    }
    queries
}

/// Draws `count` of 0..`n` without repetition, ascending (Knuth's algorithm S on splitmix64).
pub(super) fn choose(n: usize, count: usize, mut seed: u64) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count.min(n));
    for i in 0..n {
        let wanted = count.min(n) - chosen.len();
        if splitmix(&mut seed) % ((n - i) as u64) < wanted as u64 {
            chosen.push(i);
        }
    }
    chosen
}

/// Advances a splitmix64 generator and returns its next number.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_ascending_repeatable_and_no_more_than_there_are() {
        let tokens = [vec![0; 50], vec![0; 3]];
        let sampling = QuerySampling::Sampled { per_sequence: 8, seed: 1 };
        let queries = sample(&tokens, sampling);
        assert_eq!(queries, sample(&tokens, sampling));
        assert_eq!(queries.iter().filter(|q| q.sequence == 0).count(), 8);
        assert_eq!(queries.iter().filter(|q| q.sequence == 1).count(), 3);
        assert!(queries.windows(2).all(|w| (w[0].sequence, w[0].position) < (w[1].sequence, w[1].position)));
        assert_eq!(sample(&tokens, QuerySampling::All).len(), 53);
    }
}
