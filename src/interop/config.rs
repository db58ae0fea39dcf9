//! The keys of config.json that make every reader agree.
//!
//! vLLM reads `index_topk_pattern` and never `indexer_types`; transformers, SGLang and Automodel put `indexer_types`
//! first; ROCm ATOM and vllm-ascend for V4 also want `use_index_cache`, which the others ignore. GLM's indexers rotate
//! interleaved pairs; engines that read `indexer_rope_interleave` rotate by halves where it is absent.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{ExportError, Target, words};
use crate::atomic;
use crate::domain::Pattern;

/// Keys of the frequency rule, which would contradict an explicit pattern, and which as nulls make transformers fail.
pub(super) const STALE: [&str; 2] = ["index_topk_freq", "index_skip_topk_offset"];

/// Whether the indexer rotates the pairs (2j, 2j + 1), rather than (j, j + half).
pub(super) const ROPE_KEY: &str = "indexer_rope_interleave";

/// Returns the keys to set for a pattern of a model of this type.
pub(super) fn keys(pattern: Pattern, model_type: &str) -> Map<String, Value> {
    let mut keys = Map::from_iter([
        ("indexer_types".to_owned(), json!(words(pattern))),
        ("index_topk_pattern".to_owned(), json!(pattern.to_string())),
        ("use_index_cache".to_owned(), json!(true)),
    ]);
    if model_type == "glm_moe_dsa" {
        keys.insert(ROPE_KEY.to_owned(), json!(true));
    }
    keys
}

/// Changes a config so that every reader finds these keys; everything else stays as it is.
pub(super) fn patch(config: &mut Map<String, Value>, keys: Map<String, Value>) {
    if let Some(inner) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        return patch(inner, keys);
    }
    config.retain(|key, _| !STALE.contains(&key.as_str()));
    config.extend(keys);
}

/// Writes a copy of the model's config.json in which every reader finds `pattern` to the new file `out`.
///
/// # Errors
/// [`ExportError::Pattern`] where the model cannot have the pattern, [`ExportError::Exists`] where `out` exists,
/// [`ExportError::Dense`] where no reader shares, [`ExportError::Io`] where it cannot be written.
pub fn write_config(target: &Target, pattern: Pattern, out: &Path) -> Result<(), ExportError> {
    target.refuse_dense()?;
    target.constraints.check(pattern)?;
    let mut config = target.config.clone();
    patch(&mut config, target.keys(pattern));
    if out.symlink_metadata().is_ok() {
        return Err(ExportError::Exists(out.to_owned()));
    }
    atomic::write(out, format!("{:#}\n", Value::Object(config)).as_bytes()).map_err(|e| ExportError::io(out, e))
}
