//! SGLang 0.5.23: `srt/configs/model_config.py`, `dsa_layer_skips_topk`; `srt/configs/{hy_v4,deepseek_v41}.py`;
//! `srt/arg_groups/model_hook.py` for the two-batch overlap. Verified in released source, the function also by running it.
//!
//! `indexer_types` beats `cli_factor` beats `index_topk_pattern` beats the frequency rule. For GLM the config class has
//! filled `indexer_types` before an override arrives, so that a pattern alone would silently do nothing: both keys are
//! given. The weight loader drops indexer tensors of layers without an indexer, and stages hand indices on.

use serde_json::{Map, Value, json};

use super::super::Target;
use super::super::python::{has_item, number};
use super::super::recipe::{Recipe, Route, StageOptions, option, quoted};
use super::super::rules::{
    BUILD, ConfigClass, Filled, Formula, LOAD, START, Shared, TRANSFORMERS, asked, entries, frequency_rule, given,
    pattern_rule, source_lists,
};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Mark, Reading};
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
    let has_topk = given(served.late("index_topk")).is_some();
    let sites = served.sites();
    let types = match served.family {
        Family::Glm => match TRANSFORMERS.fill_then_override(served, LOAD) {
            Ok(filled) => Some(filled),
            Err(failure) => return Reading::fails("the transformers config class comes first", failure),
        },
        Family::HyV4 => match hy_v4(served) {
            Ok(filled) => Some(filled),
            Err(failure) => return Reading::fails("indexer_types", failure),
        },
        // The transformers class comes first, then its own, which keeps the raw keys.
        Family::Glm5Next => match TRANSFORMERS.fill(served) {
            Ok(_) => None,
            Err(failure) => return Reading::fails("the transformers config class comes first", failure),
        },
        Family::DeepseekV3 | Family::Longcat | Family::Dots3 if !has_topk => {
            return Reading::dense(served, "the config has no index_topk: dense attention");
        }
        Family::DeepseekV32 | Family::DeepseekV3 | Family::Longcat => None,
        Family::Dots3 | Family::DeepseekV4 | Family::MinimaxM3 => {
            // On ROCm gfx95 an environment variable makes MiniMax-M3 share: no key of the config.
            return Reading::all_full(served, "no key of index sharing is read").warn_if(
                !asked(served).is_empty(),
                format!("ignores {}", asked(served).join(", ")),
                "no argument changes that in this version",
            );
        }
        Family::DeepseekV41 => return source_lists(served),
        Family::MistralLarge4 => {
            return Reading::fails("", Failure::new("not supported", LOAD, "mistral_large4 is not known"));
        }
        Family::Other => return Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    };
    let filled_before = types.is_some() && served.overridden("indexer_types").is_none();
    let raw = || served.late("indexer_types").map(|types| (types.clone(), served.origin("indexer_types").to_owned()));
    let types = match types {
        Some(filled) => Some((filled.types, filled.rule)),
        None => raw().map(|(types, origin)| (types, format!("indexer_types ({origin})"))),
    };
    let (rule, shared) = match chosen(served, types.filter(|(types, _)| !types.is_null())) {
        Ok(chosen) => chosen,
        Err(failure) => return Reading::fails("index_topk_freq", failure),
    };
    let reading = Reading::raising(served, &sites, rule, shared);
    let first = reading.shared(&sites[..sites.len().min(1)]);
    let late = ["index_topk_pattern", "index_topk_freq"].into_iter().find(|key| served.overridden(key).is_some());
    let shares = reading.shares();
    let lost = reading.shared(&sites).into_iter().find(|&layer| {
        served.family == Family::Glm5Next && layer > 0 && reading.marks.get(layer - 1) == Some(&Mark::None)
    });
    let frequent = served.late("index_topk_freq").and_then(Value::as_f64).is_some_and(|freq| freq > 1.);
    reading
        .warn_if(
            !first.is_empty(),
            "the first layer is Shared and gets no indices: what it does is undefined (by reading)",
            "make it Full",
        )
        .warn_if(
            lost.is_some(),
            format!(
                "layer {} is Shared after a linear layer, which hands no indices on (by reading)",
                lost.unwrap_or_default()
            ),
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

/// `dsa_layer_skips_topk`; `types` is `indexer_types` where it is not null, with the rule that it follows.
fn chosen(served: &Served, types: Option<(Value, String)>) -> Result<(String, Shared), Failure> {
    if let Some((types, rule)) = types {
        return Ok((rule, Box::new(move |layer| has_item(&types, layer, "shared", "indexer_types", BUILD))));
    }
    let positive = |key: &str, default: f64| -> Result<f64, Failure> {
        match number(given(served.late(key)), default, key, BUILD)? {
            n if n > 0. => Ok(n),
            n => Err(Failure::new("AssertionError", START, format!("{key} is {n}, not positive"))),
        }
    };
    let factor = positive("cli_factor", 1.)?;
    if factor > 1. {
        let rule = format!("cli_factor {factor}: {}", Formula::P.text(factor, 0.));
        return Ok((rule, Box::new(move |layer| Ok(!Formula::P.is_full(layer, factor, 0.)))));
    }
    if let Some(pattern) = given(served.late("index_topk_pattern")).cloned() {
        let rule = pattern_rule(served, &pattern);
        return Ok((rule, Box::new(move |layer| has_item(&pattern, layer, "S", "index_topk_pattern", BUILD))));
    }
    let freq = positive("index_topk_freq", 1.)?;
    let offset = positive("index_skip_topk_offset", 2.)?;
    Ok((frequency_rule(served, freq, offset), Box::new(move |layer| Ok(!Formula::V.is_full(layer, freq, offset)))))
}

/// The transformers class, then `srt/configs/hy_v4.py`, `_validate_hy_v4`; overrides are set on the latter, unchecked.
fn hy_v4(served: &Served) -> Result<Filled, Failure> {
    let filled = TRANSFORMERS.fill_hy_v4(served)?;
    let (words, layers) = (entries(&filled.types, "indexer_types", LOAD)?, served.as_saved().layers);
    let reason = if words.len() != layers {
        Some(format!("indexer_types has {} entries for {layers} layers", words.len()))
    } else if let Some(odd) = words.iter().find(|word| *word != "full" && *word != "shared") {
        Some(format!("'{odd}' in indexer_types is neither full nor shared"))
    } else {
        (words[0] != "full").then(|| "indexer_types begins with shared".to_owned())
    };
    if let Some(reason) = reason {
        return Err(Failure::new("ValueError", LOAD, reason));
    }
    ConfigClass { is_strict: false, ..TRANSFORMERS }.overriding(served, filled, LOAD)
}

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    let keys = match target.family() {
        Family::DeepseekV41 => target.keys(pattern),
        _ => Map::from_iter([
            ("indexer_types".to_owned(), json!(target.words(pattern))),
            ("index_topk_pattern".to_owned(), json!(target.letters(pattern))),
        ]),
    };
    Recipe {
        argument: option("--json-model-override-args", &target.nest(&keys)),
        route: Route::Overrides(keys),
        row: READER.name,
        warnings: Vec::new(),
        command: Some(format!("python -m sglang.launch_server --model-path {}", quoted(&target.model))),
        stages: Some(StageOptions { variable: "SGLANG_PP_LAYER_PARTITION", option: "--pp-size", verified: true }),
    }
}
