//! vLLM 0.33.0: `models/deepseek_v32/attention.py` (CUDA, ROCm) and `model_executor/models/deepseek_v2.py` (elsewhere),
//! `DeepseekV32Attention.__init__`; `models/{glm5next,hy_v4,deepseek_v4,deepseek_v41,minimax_m3}`. Verified in released
//! source; the problem of loading weights and the two-batch overlap by reading only.
//!
//! DeepSeek-V3.2 and GLM-5: `index_topk_pattern` beats the frequency rule; `indexer_types` and `use_index_cache` are not
//! read. Exactly `S` is Shared, a short pattern leaves the rest Full. For GLM the transformers class runs first, with its
//! errors; overrides arrive after it. The loaders in `models/deepseek_v32/{nvidia,amd}/model.py` have no filter for
//! indexer tensors of layers that built no indexer.

use serde_json::{Map, Value, json};

use super::super::python::{int, is_truthy};
use super::super::recipe::{Recipe, Route, StageOptions, option, quoted};
use super::super::rules::{
    BUILD, Formula, LOAD, Shared, TRANSFORMERS, asked, entries, given, layer_ids, pattern_or_frequency, source_lists,
};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Mark, Reading};
use super::super::{ExportError, Target, list};
use super::Reader;
use crate::domain::{Pattern, Stages};

pub(in super::super) const VERSION: &str = "0.33.0";

/// From vLLM's documentation.
pub(super) const STAGES: StageOptions =
    StageOptions { variable: "VLLM_PP_LAYER_PARTITION", option: "--pipeline-parallel-size", verified: false };

pub(in super::super) const READER: Reader = Reader {
    name: "vLLM",
    version: VERSION,
    verified: true,
    source: "models/deepseek_v32/attention.py, DeepseekV32Attention.__init__, and its like",
    only: None,
    read,
};

pub(super) const ROCM: Reader = Reader {
    name: "vLLM (ROCm, MiniMax-M3)",
    version: VERSION,
    verified: true,
    source: "models/minimax_m3/amd/model.py, _should_skip_index_topk",
    only: Some(Family::MinimaxM3),
    read: minimax_rocm,
};

fn read(served: &Served) -> Reading {
    if served.replaces_text_config {
        let reason = "text_config becomes a plain dict, since the loaded config has no such part";
        return Reading::fails("the overrides", Failure::new("ValueError", LOAD, reason));
    }
    match served.family {
        Family::Glm => match TRANSFORMERS.fill_then_override(served, LOAD) {
            Ok(_) => sharing(served, &served.sites()),
            Err(failure) => Reading::fails("the transformers config class comes first", failure),
        },
        Family::DeepseekV3 | Family::Dots3 | Family::Longcat if served.late("index_topk").is_none() => {
            Reading::dense(served, "the config has no index_topk: dense attention")
        }
        Family::DeepseekV32 | Family::DeepseekV3 | Family::Dots3 => sharing(served, &served.sites()),
        Family::HyV4 => hy_v4(served),
        Family::DeepseekV41 => v41(served),
        Family::Longcat => {
            let reason = "its attention has no buffer for an indexer";
            Reading::fails("index_topk", Failure::new("AssertionError", BUILD, reason))
        }
        Family::Glm5Next => match TRANSFORMERS.fill(served) {
            Ok(_) => ignoring(served, &served.sites()),
            Err(failure) => Reading::fails("the transformers config class comes first", failure),
        },
        Family::DeepseekV4 => ignoring(served, &served.sites()),
        Family::MinimaxM3 => ignoring(served, &sparse(served)),
        Family::Other => Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
        Family::MistralLarge4 => {
            Reading::fails("", Failure::new("not supported", LOAD, "mistral_large4 is not registered"))
        }
    }
}

/// A family for which no key is read.
fn ignoring(served: &Served, sites: &[usize]) -> Reading {
    Reading::of(served, sites, "no key of index sharing is read", |_| false).warn_if(
        !asked(served).is_empty(),
        format!("silently ignores {}", asked(served).join(", ")),
        "no argument changes that in this version",
    )
}

/// The rule of DeepSeek-V3.2 and GLM-5, and of dots3-note's full attention.
fn sharing(served: &Served, sites: &[usize]) -> Reading {
    let reading = match pattern_or_frequency(served) {
        Ok((rule, shared)) => Reading::raising(served, sites, rule, shared),
        Err(failure) => return Reading::fails("index_topk_pattern, index_topk_freq", failure),
    };
    let heads = reading.shared(&served.heads(sites));
    let kept: Vec<usize> = served.indexers.map_or_else(Vec::new, |present| {
        present.iter().filter(|&layer| reading.marks.get(layer) == Some(&Mark::Shared)).collect()
    });
    let (shares, letters) = (reading.shares(), given(served.late("index_topk_pattern")));
    let odd = letters.and_then(|p| entries(p, "", BUILD).ok()).unwrap_or_default();
    let odd: Vec<String> = odd.into_iter().filter(|w| w != "S" && w != "F").collect();
    reading
        .warn_if(
            !heads.is_empty(),
            format!("{} has no earlier indices on its stage and reads a buffer that was never written", list(&heads)),
            "make the first layer and every stage's first layer Full",
        )
        .warn_if(
            !kept.is_empty(),
            format!(
                "indexer tensors of Shared {} end loading with KeyError on CUDA and ROCm (by reading)",
                list(&kept)
            ),
            "write a checkpoint without them: indexscope export MODEL --pattern P --checkpoint OUT",
        )
        .warn_if(
            !odd.is_empty(),
            format!("'{}' in index_topk_pattern counts as Full: only 'S' is Shared", odd.first().map_or("", |w| w)),
            "write the pattern in upper-case F and S",
        )
        .warn_if(
            shares,
            "two-batch overlap (--enable-dbo) is not refused, but both batches share one index buffer (by reading)",
            "leave it off",
        )
}

/// Names of sparse attention in `layer_types` of HY-V4: vLLM's own, and what transformers renames to one of them.
const HY_V4_SPARSE: [&str; 5] =
    ["sparse_attention", "sparse", "indexed_attention", "deepseek_sparse_attention", "qwen_sparse_attention"];

/// `models/hy_v4/nvidia/attention.py`: only layers that `layer_types` calls sparse take part; without it none does.
fn hy_v4(served: &Served) -> Reading {
    let types = match TRANSFORMERS.fill_hy_v4(served).and_then(|filled| TRANSFORMERS.overriding(served, filled, LOAD)) {
        Ok(filled) => filled.types,
        Err(failure) => return Reading::fails("indexer_types", failure),
    };
    let words = served.late("layer_types").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_sparse =
        |layer: &usize| words.get(*layer).and_then(Value::as_str).is_some_and(|w| HY_V4_SPARSE.contains(&w));
    let sites: Vec<usize> = (0..served.layers).filter(is_sparse).collect();
    if sites.is_empty() {
        return Reading::dense(served, "layer_types names no sparse layer: dense attention").warn(
            "runs dense attention: only layers that layer_types calls sparse select keys",
            "write layer_types with 'indexed_attention' for every layer",
        );
    }
    match skipped(served, &types) {
        Ok((rule, shared)) => Reading::raising(served, &sites, rule, shared),
        Err(failure) => Reading::fails("indexer_types", failure),
    }
}

/// `compute_skip_topk_layers`: `indexer_types`, or the other keys where an override leaves null behind.
fn skipped(served: &Served, types: &Value) -> Result<(String, Shared), Failure> {
    let wrong = |reason: String| Err(Failure::new("ValueError", BUILD, reason));
    if types.is_null() {
        return match given(served.late("index_topk_freq")) {
            Some(freq) if !freq.is_boolean() && freq.as_i64().is_none_or(|freq| freq <= 0) => {
                wrong(format!("index_topk_freq is {freq}, no positive integer"))
            }
            None if served.late("index_topk_freq").is_some() => wrong("index_topk_freq is null".to_owned()),
            _ => pattern_or_frequency(served),
        };
    }
    let words = entries(types, "indexer_types", BUILD)?;
    if words.len() != served.layers {
        return wrong(format!("indexer_types has {} entries for {} layers", words.len(), served.layers));
    }
    if let Some(word) = words.iter().find(|w| *w != "full" && *w != "shared") {
        return wrong(format!("'{word}' in indexer_types is neither full nor shared"));
    }
    let rule = format!("indexer_types ({})", served.origin("indexer_types"));
    Ok((rule, Box::new(move |layer| Ok(words[layer] == "shared"))))
}

/// `models/deepseek_v41/attention.py`: a layer reuses the last source at or before it, which there must be.
fn v41(served: &Served) -> Reading {
    let fails = |reason: String| Reading::fails("index_source_layer_ids", Failure::new("ValueError", BUILD, reason));
    if let Some(layer) = (0..served.layers).find(|&layer| served.ratio(layer).is_some_and(|ratio| ratio > 2)) {
        return fails(format!("the compress ratio of layer {layer} is none of 0, 1 and 2"));
    }
    for key in ["kv_source_layer_ids", "index_source_layer_ids"] {
        let sources = layer_ids(served, key);
        let is_orphan = |site: &&usize| !sources.iter().any(|source| source <= *site);
        match served.sites().iter().find(is_orphan) {
            Some(_) if sources.is_empty() => return fails(format!("{key} is missing or empty")),
            Some(layer) => return fails(format!("layer {layer} comes before the first of {key}")),
            None => {}
        }
    }
    source_lists(served)
}

/// The sparse layers of MiniMax-M3: `layer_types` is not read.
fn sparse(served: &Served) -> Vec<usize> {
    (0..served.layers).filter(|&layer| served.is_sparse(layer)).collect()
}

/// Keys that ROCm's MiniMax-M3 refuses outside `text_config`.
const NESTED: [&str; 3] = ["use_index_cache", "index_topk_freq", "index_skip_topk_offset"];

/// `models/minimax_m3/amd/model.py`: formula A over the ordinal of sparse layers, off unless `use_index_cache`.
fn minimax_rocm(served: &Served) -> Reading {
    if served.family != Family::MinimaxM3 {
        return Reading::unknown("only for minimax_m3_vl");
    }
    if let Some(key) = served.stray.iter().find(|key| NESTED.contains(&key.as_str())) {
        let reason = format!("override '{key}' is not nested in text_config");
        return Reading::fails("text_config", Failure::new("ValueError", LOAD, reason));
    }
    let sites = sparse(served);
    let all_full = |rule: &str| Reading::of(served, &sites, rule, |_| false);
    if !is_truthy(served.late("use_index_cache")) {
        return all_full("use_index_cache is not set: every sparse layer").warn_if(
            !asked(served).is_empty(),
            format!("ignores {}", asked(served).join(", ")),
            "set use_index_cache inside text_config",
        );
    }
    // `int(value or default)`: 0 and null count as absent.
    let read = |key, default| int(served.late(key).filter(|value| is_truthy(Some(value))), default, key, BUILD);
    let (freq, offset) = match (read("index_topk_freq", 1.), read("index_skip_topk_offset", 0.)) {
        (Ok(freq), _) if freq <= 1. => return all_full("index_topk_freq is at most 1: every sparse layer"),
        (Ok(freq), Ok(offset)) => (freq, offset),
        (Err(failure), _) | (_, Err(failure)) => return Reading::fails("index_topk_freq", failure),
    };
    let rule = format!("index_topk_freq {freq}: {}, l counting sparse layers", Formula::A.text(freq, offset));
    Reading::of(served, &sites, rule, |layer| {
        let ordinal = sites.iter().position(|&site| site == layer).unwrap_or_default();
        !Formula::A.is_full(ordinal, freq, offset)
    })
    .warn_if(
        given(served.late("index_topk_pattern")).is_some(),
        "index_topk_pattern is not read",
        "only a frequency can be given for this model",
    )
}

/// Returns whether the family's loader has no place for indexer tensors of Shared layers.
fn has_strict_loader(family: Family) -> bool {
    matches!(family, Family::Glm | Family::DeepseekV32 | Family::DeepseekV3 | Family::Dots3)
}

pub(in super::super) fn export(target: &Target, pattern: Pattern, stages: &Stages) -> Result<Recipe, ExportError> {
    if let [layer, ..] = target.shared_heads(pattern, stages)[..] {
        return Err(ExportError::StageHead { engine: format!("vLLM {VERSION}"), layer });
    }
    let of = |key: &str, value: Value| Map::from_iter([(key.to_owned(), value)]);
    let mut row = READER.name;
    let mut warnings = Vec::new();
    let keys = match target.family() {
        Family::MinimaxM3 => {
            row = ROCM.name;
            warnings.push("only on ROCm: on CUDA vLLM reads no key for this model and runs every layer".to_owned());
            target.keys(pattern)
        }
        Family::DeepseekV41 => target.keys(pattern),
        Family::HyV4 => of("indexer_types", json!(target.words(pattern))),
        _ => of("index_topk_pattern", json!(target.letters(pattern))),
    };
    if keys.is_empty() {
        return Err(ExportError::NotExpressible { engine: format!("{row} {VERSION}"), pattern });
    }
    if pattern.shared_count() > 0 && stages.sizes().len() == 1 {
        warnings.push(
            "vLLM hands no indices from one pipeline stage to the next: every stage must begin with a Full layer (--stages \
             checks it)"
                .to_owned(),
        );
    }
    if target.indexers.is_none() && has_strict_loader(target.family()) && pattern.shared_count() > 0 {
        warnings.push(format!(
            "if the checkpoint stores indexer tensors of {}, vLLM {VERSION} raises KeyError when it loads them; \
             'indexscope export FOLDER --checkpoint OUT' writes one without",
            list(&target.shared(pattern))
        ));
    }
    Ok(Recipe {
        argument: option("--hf-overrides", &target.nest(&keys)),
        route: Route::Overrides(keys),
        row,
        warnings,
        command: Some(format!("vllm serve {}", quoted(&target.model))),
        stages: Some(STAGES),
    })
}
