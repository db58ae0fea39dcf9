//! vLLM 0.33.0: `models/deepseek_v32/attention.py` (CUDA, ROCm) and `model_executor/models/deepseek_v2.py` (elsewhere),
//! `DeepseekV32Attention.__init__`; `models/{glm5next,hy_v4,deepseek_v4,deepseek_v41,minimax_m3}`. Verified in released
//! source; the problem of loading weights and the two-batch overlap by reading only.
//!
//! DeepSeek-V3.2 and GLM-5: `index_topk_pattern` beats the frequency rule; `indexer_types` and `use_index_cache` are not
//! read. Exactly `S` is Shared, a short pattern leaves the rest Full. For GLM the transformers class runs first, with its
//! errors; overrides arrive after it. The loaders in `models/deepseek_v32/{nvidia,amd}/model.py` have no filter for
//! indexer tensors of layers that built no indexer.

use serde_json::{Map, json};

use super::super::recipe::{Recipe, Route, StageOptions};
use super::super::rules::{BUILD, Formula, LOAD, asked, entries, filled, given, hy_v4_default, int};
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
    match served.family {
        Family::Glm => match filled(served) {
            Ok(_) => sharing(served),
            Err(failure) => Reading::fails("the transformers config class comes first", failure),
        },
        Family::DeepseekV32 => sharing(served),
        Family::HyV4 => hy_v4(served),
        Family::DeepseekV41 => super::super::rules::source_lists(served),
        Family::Other => Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
        Family::MistralLarge4 => {
            Reading::fails("", Failure::new("not supported", LOAD, "mistral_large4 is not registered"))
        }
        _ => Reading::all_full(served, "no key of index sharing is read").warn_if(
            !asked(served).is_empty(),
            format!("silently ignores {}", asked(served).join(", ")),
            "no argument changes that in this version",
        ),
    }
}

/// The rule of DeepSeek-V3.2 and GLM-5.
fn sharing(served: &Served) -> Reading {
    let reading = match chosen(served) {
        Ok((rule, shared)) => Reading::of(served, &served.sites(), rule, |layer| shared[layer]),
        Err(failure) => return Reading::fails("index_topk_pattern, index_topk_freq", failure),
    };
    let heads = reading.shared(&served.heads(&served.sites()));
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

/// Returns the rule and which layers are Shared.
fn chosen(served: &Served) -> Result<(String, Vec<bool>), Failure> {
    if let Some(pattern) = given(served.late("index_topk_pattern")) {
        let letters = entries(pattern, "index_topk_pattern", BUILD)?;
        let short = letters.len() < served.layers;
        let rest =
            if short { format!(", {} of {} letters, the rest F", letters.len(), served.layers) } else { String::new() };
        let rule = format!("index_topk_pattern ({}){rest}", served.origin("index_topk_pattern"));
        return Ok((rule, (0..served.layers).map(|l| letters.get(l).is_some_and(|c| c == "S")).collect()));
    }
    let freq = int(served.late("index_topk_freq"), 1, "index_topk_freq", BUILD)?;
    let offset = int(served.late("index_skip_topk_offset"), 2, "index_skip_topk_offset", BUILD)?;
    if freq == 0 {
        return Err(Failure::new("ZeroDivisionError", BUILD, "index_topk_freq is 0"));
    }
    let rule = if freq == 1 {
        "no pattern, no frequency: every layer".to_owned()
    } else {
        let text = Formula::V.text(freq, offset);
        format!("index_topk_freq {freq}: {text} ({})", served.origin("index_topk_freq"))
    };
    Ok((rule, (0..served.layers).map(|l| !Formula::V.is_full(l, freq, offset)).collect()))
}

/// `models/hy_v4/nvidia/attention.py`, `compute_skip_topk_layers`.
fn hy_v4(served: &Served) -> Reading {
    let types = match served.late("indexer_types") {
        Some(types) if !types.is_null() => entries(types, "indexer_types", LOAD),
        // Only an override can leave null behind: the config class fills the key.
        _ if served.overridden("indexer_types").is_some() => {
            return match chosen(served) {
                Ok((rule, shared)) => Reading::of(served, &served.sites(), rule, |l| shared[l]),
                Err(failure) => Reading::fails("index_topk_pattern, index_topk_freq", failure),
            };
        }
        _ => Ok(hy_v4_default(served).words),
    };
    let words = match types {
        Ok(words) => words,
        Err(failure) => return Reading::fails("indexer_types", failure),
    };
    let odd = words.iter().find(|w| *w != "full" && *w != "shared");
    if words.len() != served.layers || odd.is_some() {
        let reason = match odd {
            Some(word) => format!("'{word}' in indexer_types is neither full nor shared"),
            None => format!("indexer_types has {} entries for {} layers", words.len(), served.layers),
        };
        return Reading::fails("indexer_types", Failure::new("ValueError", BUILD, reason));
    }
    let rule = format!("indexer_types ({})", served.origin("indexer_types"));
    Reading::of(served, &served.sites(), rule, |layer| words[layer] == "shared").warn_if(
        served.file("layer_types").is_some(),
        "only layers whose layer_types entry is sparse take part, which is not simulated",
        "look at layer_types",
    )
}

/// `models/minimax_m3/amd/model.py`: formula A over the ordinal of sparse layers, off unless `use_index_cache`.
fn minimax_rocm(served: &Served) -> Reading {
    if served.family != Family::MinimaxM3 {
        return Reading::unknown("only for minimax_m3_vl");
    }
    if let Some(key) = served.stray.iter().find(|key| key.starts_with("index_") || *key == "use_index_cache") {
        let reason = format!("override '{key}' is not nested in text_config");
        return Reading::fails("text_config", Failure::new("ValueError", LOAD, reason));
    }
    if served.late("use_index_cache").and_then(serde_json::Value::as_bool) != Some(true) {
        return Reading::all_full(served, "use_index_cache is not set: every sparse layer").warn_if(
            !asked(served).is_empty(),
            format!("ignores {}", asked(served).join(", ")),
            "set use_index_cache inside text_config",
        );
    }
    let freq = int(served.late("index_topk_freq"), 1, "index_topk_freq", BUILD);
    let offset = int(served.late("index_skip_topk_offset"), 0, "index_skip_topk_offset", BUILD);
    let (freq, offset) = match (freq, offset) {
        (Ok(0), _) => {
            let reason = "index_topk_freq is 0";
            return Reading::fails("index_topk_freq", Failure::new("ZeroDivisionError", BUILD, reason));
        }
        (Ok(freq), Ok(offset)) => (freq, offset),
        (Err(failure), _) | (_, Err(failure)) => return Reading::fails("index_topk_freq", failure),
    };
    let sites = served.sites();
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

pub(in super::super) fn export(target: &Target, pattern: Pattern, stages: &Stages) -> Result<Recipe, ExportError> {
    if let [layer, ..] = stages.shared_heads(pattern)[..] {
        return Err(ExportError::StageHead { engine: format!("vLLM {VERSION}"), layer });
    }
    let keys = Map::from_iter([("index_topk_pattern".to_owned(), json!(pattern.to_string()))]);
    let warnings = (pattern.shared_count() > 0 && stages.sizes().len() == 1).then(|| {
        "vLLM hands no indices from one pipeline stage to the next: every stage must begin with a Full layer (--stages \
         checks it)"
            .to_owned()
    });
    Ok(Recipe {
        argument: format!("--hf-overrides '{}'", target.nest(&keys)),
        route: Route::Overrides(keys),
        warnings: warnings.into_iter().collect(),
        command: Some(format!("vllm serve '{}'", target.model)),
        stages: Some(STAGES),
    })
}
