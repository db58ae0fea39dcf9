//! Coverage under a pattern: the indexers of Shared layers run in shadow beside the forward.

use super::forward::How;
use super::local::LocalBackend;
use super::{BackendError, Cancel, Coverage, LayerCoverage};
use crate::domain::{Estimate, Pattern, Selection, Subject, intersection_len};
use crate::model::{At, Ran};

/// Tokens that are enough for a mean per layer; whole batches are run.
const TOKENS: usize = 2048;

/// Measures how much of its own selection each Shared layer finds in the set that it uses.
pub(super) fn coverage(
    backend: &mut LocalBackend,
    pattern: Pattern,
    cancel: &Cancel,
) -> Result<Coverage, BackendError> {
    if let Some(known) = backend.coverages.get(&pattern) {
        return Ok(known.clone());
    }
    let first_shared = (0..pattern.len()).find(|&l| !pattern.is_full(l)).unwrap_or(pattern.len());
    let topk = backend.info.index_topk;
    // Per layer, per sequence: one value per query that sees more than k keys.
    let mut values: Vec<Vec<Vec<f64>>> = vec![Vec::new(); pattern.len()];
    let mut tokens = 0;
    for batch in 0..backend.runner.batches.len() {
        if tokens >= TOKENS || first_shared == pattern.len() {
            break;
        }
        tokens += backend.runner.batches[batch].ids.iter().map(Vec::len).sum::<usize>();
        let how = How { shadow: true, from: first_shared };
        backend.runner.forward(batch, Subject::Pattern(pattern), how, cancel, &mut |at: &At, ran: &Ran| {
            if let (Some(own), Some(used)) = (&ran.output.own, &ran.output.indices) {
                values[at.layer].extend(shares(own.sets()?, used.sets()?, topk));
            }
            Ok(())
        })?;
    }
    let layers = values
        .iter()
        .enumerate()
        .filter_map(|(layer, values)| {
            let (overlap, _) = Estimate::paired(values.iter().map(Vec::as_slice))?;
            Some(LayerCoverage { layer, overlap })
        })
        .collect();
    let coverage = Coverage { pattern, layers };
    backend.coverages.insert(pattern, coverage.clone());
    Ok(coverage)
}

/// Returns |own ∩ used| / k for every query that sees more than k keys, sequence by sequence.
fn shares(own: &[Selection], used: &[Selection], topk: usize) -> Vec<Vec<f64>> {
    own.iter()
        .zip(used.iter())
        .map(|(own, used)| {
            (topk..own.len()).map(|q| intersection_len(own.row(q), used.row(q)) as f64 / topk as f64).collect()
        })
        .collect()
}
