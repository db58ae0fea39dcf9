//! What every recording does: its head, and the refusal of scores that mean nothing.

use candle_core::DType;

use super::{BackendError, ModelInfo};
use crate::domain::Diagnostic;
use crate::domain::{Pattern, QuerySampling, Trace, TraceMeta, hash_ids};
use crate::engine::Calibration;
use crate::model::At;

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

/// Checks that a layer that selects is entered with finite numbers: the weights of indexers were checked when they were
/// loaded, and scores of NaN would select the first keys without a trace of it.
///
/// # Errors
/// [`BackendError::Failed`] naming the layer.
pub(super) fn check_finite(at: &At) -> Result<(), BackendError> {
    if at.site.is_none() || at.entry.hidden.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Ok(());
    }
    Err(BackendError::Failed(Diagnostic {
        message: format!("the scores of layer {} are not finite: its input has NaN or infinity", at.layer),
        hint: Some("try --dtype f32, and check the checkpoint's weights".to_owned()),
    }))
}
