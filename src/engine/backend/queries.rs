//! The head of a recording.

use super::ModelInfo;
use crate::domain::{Pattern, QuerySampling, Trace, TraceMeta, hash_ids};
use crate::engine::Calibration;

/// Returns a recording without its sets.
pub(super) fn head(info: &ModelInfo, calibration: &Calibration, pattern: Pattern, sampling: QuerySampling) -> Trace {
    let tokens: Vec<Vec<u32>> = calibration.sequences().iter().map(|s| s.ids.clone()).collect();
    let queries = sampling.draw(tokens.iter().map(Vec::len));
    let meta = TraceMeta {
        schema: 1,
        model: info.name.clone(),
        fingerprint: info.fingerprint.clone(),
        pattern,
        index_topk: info.index_topk,
        layers: info.constraints.sites.layers(),
        sites: info.constraints.sites.named(),
        unit: info.unit,
        groups: info.groups,
        forced: info.forced,
        heads: info.index_heads,
        queries: sampling,
        tokens_hash: hash_ids(tokens.iter().map(Vec::as_slice)),
        mass_recall: None,
    };
    Trace { meta, tokens, queries, selections: Vec::new() }
}
