//! The keys of config.json that make every reader agree.
//!
//! vLLM reads `index_topk_pattern` and never `indexer_types`; transformers, SGLang and Automodel put `indexer_types`
//! first; ROCm ATOM and vllm-ascend for V4 also want `use_index_cache`, which the others ignore.

use serde_json::{Map, Value, json};

use super::words;
use crate::domain::Pattern;

/// Keys of the frequency rule, which would contradict an explicit pattern, and which as nulls make transformers fail.
pub(super) const STALE: [&str; 2] = ["index_topk_freq", "index_skip_topk_offset"];

/// Returns the keys to set for a pattern.
pub(super) fn keys(pattern: Pattern) -> Map<String, Value> {
    Map::from_iter([
        ("indexer_types".to_owned(), json!(words(pattern))),
        ("index_topk_pattern".to_owned(), json!(pattern.to_string())),
        ("use_index_cache".to_owned(), json!(true)),
    ])
}

/// Changes a config so that every reader finds the pattern; everything else stays as it is.
pub(super) fn patch(config: &mut Map<String, Value>, pattern: Pattern) {
    config.retain(|key, _| !STALE.contains(&key.as_str()));
    config.extend(keys(pattern));
}
