//! SGLang 0.5.23, from its source: `srt/configs/model_config.py`, `dsa_layer_skips_topk`.
//!
//! `indexer_types` beats `index_topk_pattern` beats the frequency rule. For GLM the config class has filled
//! `indexer_types` before an override arrives, so that a pattern alone would silently do nothing: both keys are given.
//! The weight loader drops indexer tensors of layers without an indexer.

use serde_json::json;

use super::words;
use crate::domain::Pattern;

pub(super) const VERSION: &str = "0.5.23";

pub(super) fn export(pattern: Pattern) -> (String, Vec<String>) {
    let keys = json!({ "indexer_types": words(pattern), "index_topk_pattern": pattern.to_string() });
    let warnings = if pattern.shared_count() > 0 {
        vec!["SGLang refuses two-batch overlap (--enable-two-batch-overlap) with Shared layers".to_owned()]
    } else {
        Vec::new()
    };
    (format!("--json-model-override-args '{keys}'"), warnings)
}
