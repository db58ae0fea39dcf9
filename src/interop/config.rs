//! The keys of config.json that make every reader agree.
//!
//! vLLM reads `index_topk_pattern` and never `indexer_types`; transformers, SGLang and Automodel put `indexer_types`
//! first; ROCm ATOM and vllm-ascend for V4 also want `use_index_cache`, which the others ignore. GLM's indexers rotate
//! interleaved pairs; engines that read `indexer_rope_interleave` rotate by halves where it is absent.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::simulate::simulate;
use super::{ExportError, Target};
use crate::atomic;
use crate::domain::{Pattern, Role, Stages};

/// Keys of the frequency rule, which would contradict an explicit pattern, and which as nulls make transformers fail.
pub(super) const STALE: [&str; 2] = ["index_topk_freq", "index_skip_topk_offset"];

/// Whether the indexer rotates the pairs (2j, 2j + 1), rather than (j, j + half).
pub(super) const ROPE_KEY: &str = "indexer_rope_interleave";

/// Returns the keys to set for the roles of all layers of a model of this type.
pub(super) fn keys(roles: &[Role], model_type: &str) -> Map<String, Value> {
    let mut keys = Map::from_iter([
        ("indexer_types".to_owned(), json!(words(roles))),
        ("index_topk_pattern".to_owned(), json!(letters(roles))),
        ("use_index_cache".to_owned(), json!(true)),
    ]);
    if model_type == "glm_moe_dsa" {
        keys.insert(ROPE_KEY.to_owned(), json!(true));
    }
    keys
}

/// Returns roles in the words of `indexer_types`.
pub(super) fn words(roles: &[Role]) -> Vec<&'static str> {
    roles.iter().map(|role| if *role == Role::Full { "full" } else { "shared" }).collect()
}

/// Returns roles in the letters of `index_topk_pattern`.
pub(super) fn letters(roles: &[Role]) -> String {
    roles.iter().map(|role| role.letter()).collect()
}

/// Changes a config so that every reader finds these keys; everything else stays as it is.
pub(super) fn patch(config: &mut Map<String, Value>, keys: Map<String, Value>) {
    if let Some(inner) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        return patch(inner, keys);
    }
    config.retain(|key, _| !STALE.contains(&key.as_str()));
    config.extend(keys);
}

/// Writes a copy of the model's config.json with `pattern` in it to the new file `out`; returns the readers that run it.
///
/// # Errors
/// [`ExportError::Pattern`] where the model cannot have the pattern, [`ExportError::NoReader`] where no reader would run
/// it, [`ExportError::Dense`] where no reader
/// shares, [`ExportError::Exists`] where `out` exists, [`ExportError::Io`] where it cannot be written.
pub fn write_config(target: &Target, pattern: Pattern, out: &Path) -> Result<Vec<String>, ExportError> {
    target.refuse_dense()?;
    target.constraints.check(pattern)?;
    let readers = readers(target, pattern)?;
    let mut config = target.config.clone();
    patch(&mut config, target.keys(pattern));
    if out.symlink_metadata().is_ok() {
        return Err(ExportError::Exists(out.to_owned()));
    }
    atomic::write(out, format!("{:#}\n", Value::Object(config)).as_bytes()).map_err(|e| ExportError::io(out, e))?;
    Ok(readers)
}

/// Returns the readers, with their versions, that run `pattern` once its keys are in config.json.
fn readers(target: &Target, pattern: Pattern) -> Result<Vec<String>, ExportError> {
    let stages = Stages::one(target.sites().layers());
    let served = target.serving(target.keys(pattern), &stages).map_err(ExportError::Simulate)?;
    let wanted = served.marks(pattern);
    let strips = simulate(&served).engines;
    let runs = strips.iter().filter(|strip| strip.verified && strip.end().is_none() && strip.marks == wanted);
    let readers: Vec<String> = runs.map(|strip| format!("{} {}", strip.engine, strip.version)).collect();
    if readers.is_empty() {
        return Err(ExportError::NoReader { model_type: target.model_type.clone() });
    }
    Ok(readers)
}
