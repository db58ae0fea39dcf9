//! vllm-ascend 0.30.0rc2: `utils.py`, `should_reuse_topk` and `dsv4_skips_indexer_topk`; `patch_deepseek_v2.py`;
//! `worker/v2/pp_transport.py`. Verified in released source (0.23.0.post1: the same, without forcing stage heads of V4).
//!
//! DeepSeek-V3.2 and GLM-5: `index_topk_pattern` beats the frequency rule (V), inside vLLM and its config classes.
//! `indexer_types` decides only whether a Shared layer is built without an indexer. A stage that begins Shared gets the
//! indices of the stage before if `indexer_types` says shared, or `use_index_cache` is set; otherwise not.
//! DeepSeek-V4: only with `use_index_cache`; letters count the layers of compression ratio 4.

use serde_json::Value;

use super::super::recipe::{Recipe, Route};
use super::super::rules::{BUILD, Formula, START, Shared, asked, entries, filled, given, int};
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
        Family::Glm => match filled(served) {
            Ok(_) => plain(served),
            Err(failure) => Reading::fails("the transformers config class comes first", failure),
        },
        Family::DeepseekV32 => plain(served),
        Family::DeepseekV4 => v4(served),
        _ => Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    }
}

/// A layer's letter under `index_topk_pattern`, or under the frequency; V4 has no offset key.
fn shared(served: &Served, fixed_offset: Option<i64>) -> Result<(String, Shared), Failure> {
    if let Some(pattern) = given(served.late("index_topk_pattern")) {
        let letters = entries(pattern, "index_topk_pattern", BUILD)?;
        let rule = format!("index_topk_pattern ({})", served.origin("index_topk_pattern"));
        return Ok((rule, Box::new(move |l| letters.get(l).is_some_and(|letter| letter == "S"))));
    }
    let freq = int(served.late("index_topk_freq"), 1, "index_topk_freq", BUILD)?;
    let offset = match fixed_offset {
        Some(offset) => offset,
        None => int(served.late("index_skip_topk_offset"), 2, "index_skip_topk_offset", BUILD)?,
    };
    if freq < 1 {
        return Err(Failure::new("not known", BUILD, format!("what index_topk_freq {freq} does was not read")));
    }
    let rule = match freq {
        1 => "no pattern, no frequency: every layer".to_owned(),
        _ => format!("index_topk_freq {freq}: {}", Formula::V.text(freq, offset)),
    };
    Ok((rule, Box::new(move |l| !Formula::V.is_full(l, freq, offset))))
}

fn plain(served: &Served) -> Reading {
    let nulls = ["index_topk_freq", "index_skip_topk_offset"].map(|key| served.late(key) == Some(&Value::Null));
    if given(served.late("index_topk_pattern")).is_none() && nulls.contains(&true) {
        return Reading::unknown("what a null frequency or offset does here was not read");
    }
    let (rule, shared) = match shared(served, None) {
        Ok(shared) => shared,
        Err(failure) => return Reading::fails("index_topk_freq", failure),
    };
    let sites = served.sites();
    let reading = Reading::of(served, &sites, rule, shared);
    let types = served.late("indexer_types").and_then(Value::as_array);
    let is_typed = |layer: usize| types.and_then(|t| t.get(layer)).and_then(Value::as_str) == Some("shared");
    let carries = served.late("use_index_cache").and_then(Value::as_bool) == Some(true);
    let first = reading.shared(&sites[..1]);
    let heads: Vec<usize> = reading.shared(&served.heads(&sites)[1..]);
    let lost: Vec<usize> = heads.into_iter().filter(|&layer| !carries && !is_typed(layer)).collect();
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

fn v4(served: &Served) -> Reading {
    let sites = served.sites();
    if served.late("use_index_cache").and_then(Value::as_bool) != Some(true) {
        return Reading::all_full(served, "use_index_cache is not set: every layer of ratio 4").warn_if(
            !asked(served).is_empty(),
            format!("ignores {}", asked(served).join(", ")),
            "set use_index_cache to true",
        );
    }
    let (rule, shared) = match shared(served, Some(2)) {
        Ok(shared) => shared,
        Err(failure) => return Reading::fails("index_topk_freq", failure),
    };
    if shared(0) {
        let reason = "the pattern begins with S";
        return Reading::fails(rule, Failure::new("AssertionError", START, reason));
    }
    let heads = served.heads(&sites);
    let ordinal = |layer: usize| sites.iter().position(|&site| site == layer).unwrap_or_default();
    let forced: Vec<usize> = heads.iter().copied().filter(|&layer| shared(ordinal(layer))).collect();
    let reading = Reading::of(served, &sites, rule, |layer| shared(ordinal(layer)) && !heads.contains(&layer));
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

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    let keys = target.keys(pattern);
    Recipe {
        argument: format!("--hf-overrides '{}'", target.nest(&keys)),
        route: Route::Overrides(keys),
        warnings: Vec::new(),
        command: Some(format!("vllm serve '{}'", target.model)),
        stages: Some(super::vllm::STAGES),
    }
}
