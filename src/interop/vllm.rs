//! vLLM 0.33.0, from its source: `models/deepseek_v32/attention.py` (CUDA, ROCm) and
//! `model_executor/models/deepseek_v2.py` (elsewhere), `DeepseekV32Attention.__init__`.
//!
//! `index_topk_pattern` beats the frequency rule; `indexer_types` and `use_index_cache` are not read. Exactly `S` is
//! Shared, a short pattern leaves the rest Full. The loaders in `models/deepseek_v32/{nvidia,amd}/model.py` have no
//! filter for indexer tensors of layers that built no indexer.

use serde_json::json;

use super::{Target, list};
use crate::domain::Pattern;

pub(super) const VERSION: &str = "0.33.0";

pub(super) fn export(target: &Target, pattern: Pattern) -> (String, Vec<String>) {
    let keys = json!({ "index_topk_pattern": pattern.to_string() });
    let mut warnings = Vec::new();
    let unused = target.unused_indexers(pattern);
    if !unused.is_empty() {
        warnings.push(format!(
            "vLLM {VERSION} fails on CUDA and ROCm to load indexer tensors of Shared layers (by its source), and the \
             checkpoint has them for {}; write one without them: indexscope export '{}' --pattern {pattern} --checkpoint OUT",
            list(&unused),
            target.model
        ));
    }
    if pattern.shared_count() > 0 {
        warnings.push(
            "vLLM hands no indices from one pipeline stage to the next: every stage must begin with a Full layer"
                .to_owned(),
        );
        warnings.push(
            "vLLM's two-batch overlap (--enable-dbo) shares one index buffer between both batches: leave it off"
                .to_owned(),
        );
    }
    (format!("--hf-overrides '{keys}'"), warnings)
}
