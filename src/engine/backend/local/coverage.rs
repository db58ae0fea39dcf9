//! Coverage under a pattern: the indexers of Shared layers run in shadow beside the forward.

use super::LocalBackend;
use super::forward::How;
use crate::domain::{Estimate, Pattern, Site, Subject, TopK, intersection_len};
use crate::engine::{BackendError, Cancel, Coverage, LayerCoverage};
use crate::model::{At, Indices, Ran};

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
    let sites = backend.info.constraints.sites;
    let shared = (0..pattern.len()).find(|&site| !pattern.is_full(site));
    let first_shared = shared.and_then(|site| sites.layer(Site(site)));
    let topk = backend.info.topk();
    // Per site, per sequence: one value per query that sees more than k keys.
    let mut values: Vec<Vec<Vec<f64>>> = vec![Vec::new(); pattern.len()];
    let mut tokens = 0;
    for batch in 0..backend.runner.batches.len() {
        let Some(from) = first_shared.filter(|_| tokens < TOKENS) else { break };
        tokens += backend.runner.batches[batch].ids.iter().map(Vec::len).sum::<usize>();
        let how = How { shadow: true, from };
        backend.runner.forward(batch, Subject::Pattern(pattern), how, cancel, &mut |at: &At, ran: &Ran| {
            if let (Some(Site(site)), Some(own), Some(used)) = (at.site, &ran.output.own, &ran.output.indices) {
                values[site].extend(shares(own, used, topk)?);
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

/// Returns |own ∩ used| / k for every query that sees more than k units, the mean over its groups, sequence by sequence.
fn shares(own: &Indices, used: &Indices, topk: TopK) -> candle_core::Result<Vec<Vec<f64>>> {
    let groups = own.groups();
    let shares = own.sets()?.iter().zip(used.sets()?).map(|(own, used)| {
        let both = |row: usize| intersection_len(own.row(row), used.row(row));
        let share =
            |q: usize| (q * groups..(q + 1) * groups).map(both).sum::<usize>() as f64 / (topk.k * groups) as f64;
        (topk.first()..own.len() / groups).map(share).collect()
    });
    Ok(shares.collect())
}
