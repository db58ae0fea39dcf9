//! SGLang 0.5.23: `srt/configs/model_config.py`, `dsa_layer_skips_topk`; `srt/configs/{hy_v4,deepseek_v41}.py`;
//! `srt/arg_groups/model_hook.py` for the two-batch overlap. Verified in released source, the function also by running it.
//!
//! `indexer_types` beats `cli_factor` beats `index_topk_pattern` beats the frequency rule. For GLM the config class has
//! filled `indexer_types` before an override arrives, so that a pattern alone would silently do nothing: both keys are
//! given. The weight loader drops indexer tensors of layers without an indexer, and stages hand indices on.

use serde_json::{Map, json};

use super::super::recipe::{Recipe, Route, StageOptions};
use super::super::rules::{BUILD, Formula, LOAD, START, Shared, asked, entries, filled, given, hy_v4_default, int};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Reading};
use super::super::{Target, words};
use super::Reader;
use crate::domain::Pattern;

pub(in super::super) const VERSION: &str = "0.5.23";

pub(in super::super) const READER: Reader = Reader {
    name: "SGLang",
    version: VERSION,
    verified: true,
    source: "srt/configs/model_config.py, dsa_layer_skips_topk",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    let types = match served.family {
        Family::Glm => match (served.overridden("indexer_types"), filled(served)) {
            (_, Err(failure)) => return Reading::fails("the transformers config class comes first", failure),
            (Some(_), Ok(_)) => None,
            (None, Ok(filled)) => Some(filled.words),
        },
        Family::HyV4 => return hy_v4(served),
        Family::DeepseekV41 => return super::super::rules::source_lists(served),
        Family::DeepseekV32 | Family::Glm5Next | Family::Dots3 | Family::Longcat => None,
        Family::MistralLarge4 => {
            return Reading::fails("", Failure::new("not supported", LOAD, "mistral_large4 is not known"));
        }
        Family::DeepseekV4 | Family::MinimaxM3 => {
            return Reading::all_full(served, "no key of index sharing is read").warn_if(
                !asked(served).is_empty(),
                format!("ignores {}", asked(served).join(", ")),
                "no argument changes that in this version",
            );
        }
        Family::Other => return Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    };
    let filled_before = types.is_some();
    let (rule, shared) = match chosen(served, types) {
        Ok(chosen) => chosen,
        Err(failure) => return Reading::fails("index_topk_freq", failure),
    };
    let sites = served.sites();
    let reading = Reading::of(served, &sites, rule, shared);
    let first = reading.shared(&sites[..sites.len().min(1)]);
    let late = ["index_topk_pattern", "index_topk_freq"].into_iter().find(|key| served.overridden(key).is_some());
    let shares = reading.shares();
    let frequent = served.late("index_topk_freq").and_then(serde_json::Value::as_i64).is_some_and(|freq| freq > 1);
    reading
        .warn_if(
            !first.is_empty(),
            "the first layer is Shared and gets no indices: what it does is undefined (by reading)",
            "make it Full",
        )
        .warn_if(
            filled_before && late.is_some(),
            format!("override {} does nothing: the config class has filled indexer_types", late.unwrap_or_default()),
            "override indexer_types too, as 'indexscope export --engine sglang' does",
        )
        .warn_if(
            shares || frequent,
            "two-batch overlap (--enable-two-batch-overlap) is refused",
            "leave it off, and remove index_topk_freq where every layer is Full",
        )
}

/// `dsa_layer_skips_topk`; `types` is what a config class filled in.
fn chosen(served: &Served, types: Option<Vec<String>>) -> Result<(String, Shared), Failure> {
    let origin = |key: &str| served.origin(key);
    let types = match (types, given(served.late("indexer_types"))) {
        (Some(words), _) if origin("indexer_types") == "default" => {
            Some((words, "indexer_types, filled by the config class".to_owned()))
        }
        (Some(words), _) => Some((words, format!("indexer_types ({})", origin("indexer_types")))),
        (None, Some(value)) => {
            let words = entries(value, "indexer_types", BUILD)?;
            Some((words, format!("indexer_types ({})", origin("indexer_types"))))
        }
        (None, None) => None,
    };
    if let Some((words, rule)) = types {
        return Ok((rule, Box::new(move |layer| words.get(layer).is_some_and(|word| word == "shared"))));
    }
    let positive = |key: &str, default: i64| -> Result<i64, Failure> {
        match int(given(served.late(key)), default, key, START)? {
            n if n > 0 => Ok(n),
            n => Err(Failure::new("AssertionError", START, format!("{key} is {n}, not positive"))),
        }
    };
    let factor = positive("cli_factor", 1)?;
    if factor > 1 {
        let rule = format!("cli_factor {factor}: {}", Formula::P.text(factor, 0));
        return Ok((rule, Box::new(move |layer| !Formula::P.is_full(layer, factor, 0))));
    }
    if let Some(pattern) = given(served.late("index_topk_pattern")) {
        let letters = entries(pattern, "index_topk_pattern", START)?;
        let rule = format!("index_topk_pattern ({})", origin("index_topk_pattern"));
        return Ok((rule, Box::new(move |layer| letters.get(layer).is_some_and(|letter| letter == "S"))));
    }
    let freq = positive("index_topk_freq", 1)?;
    let offset = positive("index_skip_topk_offset", 2)?;
    let rule = if freq == 1 {
        "no sharing keys: every layer".to_owned()
    } else {
        format!("index_topk_freq {freq}: {} ({})", Formula::V.text(freq, offset), origin("index_topk_freq"))
    };
    Ok((rule, Box::new(move |layer| !Formula::V.is_full(layer, freq, offset))))
}

/// `srt/configs/hy_v4.py`, `_validate_hy_v4`.
fn hy_v4(served: &Served) -> Reading {
    let words = match given(served.file("indexer_types")).map(|types| entries(types, "indexer_types", LOAD)) {
        None => hy_v4_default(served).words,
        Some(Ok(words)) => words,
        Some(Err(failure)) => return Reading::fails("indexer_types", failure),
    };
    let reason = if words.len() != served.layers {
        Some(format!("indexer_types has {} entries for {} layers", words.len(), served.layers))
    } else if let Some(odd) = words.iter().find(|word| *word != "full" && *word != "shared") {
        Some(format!("'{odd}' in indexer_types is neither full nor shared"))
    } else {
        (words[0] != "full").then(|| "indexer_types begins with shared".to_owned())
    };
    if let Some(reason) = reason {
        return Reading::fails("indexer_types", Failure::new("ValueError", LOAD, reason));
    }
    match chosen(served, served.overridden("indexer_types").is_none().then_some(words)) {
        Ok((rule, shared)) => Reading::of(served, &served.sites(), rule, shared),
        Err(failure) => Reading::fails("index_topk_freq", failure),
    }
}

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    let keys = Map::from_iter([
        ("indexer_types".to_owned(), json!(words(pattern))),
        ("index_topk_pattern".to_owned(), json!(pattern.to_string())),
    ]);
    Recipe {
        argument: format!("--json-model-override-args '{}'", target.nest(&keys)),
        route: Route::Overrides(keys),
        warnings: Vec::new(),
        command: Some(format!("python -m sglang.launch_server --model-path '{}'", target.model)),
        stages: Some(StageOptions { variable: "SGLANG_PP_LAYER_PARTITION", option: "--pp-size", verified: true }),
    }
}
