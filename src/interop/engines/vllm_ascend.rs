//! vllm-ascend 0.30.0rc2: `utils.py`, `should_reuse_topk` and `dsv4_skips_indexer_topk`; `patch_deepseek_v2.py`;
//! `worker/v2/pp_transport.py`. Verified in released source (0.23.0.post1: the same, without forcing stage heads of V4).
//!
//! DeepSeek-V3.2 and GLM-5: `index_topk_pattern` beats the frequency rule (V), inside vLLM and its config classes.
//! `indexer_types` decides only whether a Shared layer is built without an indexer. A stage that begins Shared gets the
//! indices of the stage before if `indexer_types` says shared, or `use_index_cache` is set; otherwise not.
//! DeepSeek-V4: only with `use_index_cache`; letters count the layers of compression ratio 4.

use serde_json::Value;

use super::super::python::{has_item, is_truthy, item, item_is, len, number};
use super::super::recipe::{Recipe, Route, option, quoted};
use super::super::rules::{
    BUILD, Formula, LOAD, START, Shared, TRANSFORMERS, asked, frequency_rule, given, pattern_or_frequency,
};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Reading};
use super::super::{Target, list};
use super::Reader;
use crate::domain::Pattern;

pub(in super::super) const VERSION: &str = "0.30.0rc2";

pub(in super::super) const READER: Reader = Reader {
    name: "vllm-ascend",
    version: VERSION,
    verified: true,
    source: "utils.py, should_reuse_topk and dsv4_skips_indexer_topk",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    match served.family {
        Family::Glm => match TRANSFORMERS.fill_then_override(served, LOAD) {
            Ok(filled) => plain(served, &filled.types),
            Err(failure) => Reading::fails("the transformers config class comes first", failure),
        },
        Family::DeepseekV3 if served.late("index_topk").is_none() => {
            Reading::dense(served, "the config has no index_topk: dense attention")
        }
        Family::DeepseekV32 | Family::DeepseekV3 => plain(served, served.late("indexer_types").unwrap_or(&Value::Null)),
        Family::DeepseekV4 => v4(served),
        _ => Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    }
}

/// `should_reuse_topk`; `types` is `indexer_types` after loading.
fn plain(served: &Served, types: &Value) -> Reading {
    let (rule, shared) = match pattern_or_frequency(served) {
        Ok(chosen) => chosen,
        Err(failure) => return Reading::fails("index_topk_freq", failure),
    };
    let sites = served.sites();
    let reading = Reading::raising(served, &sites, &rule, |layer| {
        let is_shared = shared(layer)?;
        if is_shared {
            type_of(types, layer)?;
        }
        Ok(is_shared)
    });
    // Boundaries between stages ask whether indices are transported.
    let boundaries: Vec<usize> = served.heads(&sites).into_iter().skip(1).collect();
    if reading.failure.is_none()
        && let Some(failure) = boundaries.iter().find_map(|&layer| transported(types, layer).err())
    {
        return Reading::fails(rule, failure);
    }
    let is_typed = |layer: usize| transported(types, layer).is_ok_and(|is_typed| is_typed);
    let carries = is_truthy(served.late("use_index_cache"));
    let first = reading.shared(&sites[..1]);
    let lost: Vec<usize> =
        reading.shared(&boundaries).into_iter().filter(|&layer| !carries && !is_typed(layer)).collect();
    let kept = reading.shared(&sites).into_iter().filter(|&layer| !is_typed(layer)).count();
    reading
        .warn_if(!first.is_empty(), "the first layer is Shared and gets no indices", "make it Full")
        .warn_if(
            !lost.is_empty(),
            format!("{} begins a stage as Shared, and the indices are not handed on", list(&lost)),
            "write indexer_types too, or set use_index_cache",
        )
        .warn_if(
            kept > 0,
            format!("{kept} Shared layers keep their indexer loaded, since indexer_types does not name them"),
            "write indexer_types too, to save the memory",
        )
}

/// Returns a layer's entry in `indexer_types`: null where that is null or too short.
fn type_of(types: &Value, layer: usize) -> Result<Value, Failure> {
    if types.is_null() || layer >= len(types, "indexer_types", BUILD)? {
        return Ok(Value::Null);
    }
    item(types, layer, "indexer_types", BUILD)
}

/// `pp_stage_requires_topk_indices`, as far as `indexer_types` goes: `indexer_types[layer].lower() == "shared"`.
fn transported(types: &Value, layer: usize) -> Result<bool, Failure> {
    if types.is_null() || layer >= len(types, "indexer_types", BUILD)? {
        return Ok(false);
    }
    match item(types, layer, "indexer_types", BUILD)? {
        Value::String(word) => Ok(word.to_lowercase() == "shared"),
        other => Err(Failure::new("AttributeError", BUILD, format!("indexer_types holds {other} at layer {layer}"))),
    }
}

fn v4(served: &Served) -> Reading {
    let sites = served.sites();
    if !is_truthy(served.late("use_index_cache")) {
        return Reading::all_full(served, "use_index_cache is not set: every layer of ratio 4").warn_if(
            !asked(served).is_empty(),
            format!("ignores {}", asked(served).join(", ")),
            "set use_index_cache to true",
        );
    }
    let (rule, shared) = match v4_shared(served) {
        Ok(chosen) => chosen,
        Err(_) if sites.is_empty() => return Reading::all_full(served, "no layer has compression ratio 4"),
        Err(failure) => return Reading::fails("index_topk_freq", failure),
    };
    let ordinal = |layer: usize| sites.iter().position(|&site| site == layer).unwrap_or_default();
    let heads = served.heads(&sites);
    let forced: Vec<usize> =
        heads.iter().copied().filter(|&layer| shared(ordinal(layer)).is_ok_and(|is_shared| is_shared)).collect();
    let reading = Reading::raising(served, &sites, rule, |l| Ok(shared(ordinal(l))? && !heads.contains(&l)));
    reading
        .warn_if(
            !forced.is_empty(),
            format!("{} begins a stage and is made Full", list(&forced)),
            "expect less saving, or move the stage boundary",
        )
        .warn(
            format!("letters count the {} layers of compression ratio 4, not all {}", sites.len(), served.layers),
            "do not reuse such a pattern for engines that count all layers",
        )
}

/// `dsv4_skips_indexer_topk`, by the ordinal among the layers of ratio 4: a pattern that begins with F, or a frequency
/// (V, offset 2).
fn v4_shared(served: &Served) -> Result<(String, Shared), Failure> {
    let key = "index_topk_pattern";
    if let Some(pattern) = given(served.late(key)).cloned() {
        let rule = format!("{key} ({})", served.origin(key));
        if !item_is(&pattern, 0, "F", key, BUILD)? {
            return Err(Failure::new("AssertionError", START, "the pattern does not begin with F"));
        }
        return Ok((rule, Box::new(move |ordinal| has_item(&pattern, ordinal, "S", key, BUILD))));
    }
    let freq = number(served.late("index_topk_freq"), 1., "index_topk_freq", BUILD)?;
    if freq == 0. {
        return Err(Failure::new("ZeroDivisionError", BUILD, "index_topk_freq is 0"));
    }
    Ok((frequency_rule(served, freq, 2.), Box::new(move |ordinal| Ok(!Formula::V.is_full(ordinal, freq, 2.)))))
}

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    let keys = target.keys(pattern);
    Recipe {
        argument: option("--hf-overrides", &target.nest(&keys)),
        route: Route::Overrides(keys),
        row: READER.name,
        warnings: Vec::new(),
        command: Some(format!("vllm serve {}", quoted(&target.model))),
        stages: Some(super::vllm::STAGES),
    }
}
