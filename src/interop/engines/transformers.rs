//! Hugging Face transformers 5.23.0: `models/*/configuration_*.py` (`__post_init__`), verified in released source.
//!
//! For `glm_moe_dsa`, `glm5_next` and `mistral_large4`, `indexer_types` beats `index_topk_pattern` beats the frequency
//! rule, and is filled from them when the config is loaded, so that a later pattern alone does nothing; `hy_v4` reads
//! `indexer_types` only. The other families share no indices. A list that is too short is an IndexError, a Shared first
//! layer a ValueError.

use serde_json::{Map, Value, json};

use super::super::recipe::{Recipe, Route};
use super::super::rules::{BUILD, FORWARD, Filled, LOAD, asked, entries, filled, given};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Reading};
use super::super::{Target, words};
use super::Reader;
use crate::domain::Pattern;

pub(in super::super) const VERSION: &str = "5.23.0";

pub(in super::super) const READER: Reader = Reader {
    name: "transformers",
    version: VERSION,
    verified: true,
    source: "models/glm_moe_dsa/configuration_glm_moe_dsa.py, GlmMoeDsaConfig.__post_init__, and its like",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    let filled = match served.family {
        Family::Glm | Family::Glm5Next | Family::MistralLarge4 => filled(served),
        Family::HyV4 => hy_v4(served),
        Family::Other => {
            return Reading::unknown(format!("model type '{}' was not looked up", served.model_type));
        }
        _ => {
            return Reading::all_full(served, "no key of index sharing is read").warn_if(
                !asked(served).is_empty(),
                format!("ignores {}", asked(served).join(", ")),
                "serve it with an engine that reads them",
            );
        }
    };
    match filled.and_then(|filled| late(served, filled)) {
        Ok(filled) => built(served, &filled),
        Err(failure) => Reading::fails("indexer_types", failure),
    }
}

/// Fills `indexer_types` as `HYV4Config` does.
fn hy_v4(served: &Served) -> Result<Filled, Failure> {
    match given(served.file("indexer_types")) {
        Some(types) => {
            let words = entries(types, "indexer_types", LOAD)?;
            Ok(Filled { words, rule: "indexer_types (config.json)".to_owned() })
        }
        None => Ok(super::super::rules::hy_v4_default(served)),
    }
}

/// Applies attributes that are set on the loaded config: only `indexer_types` still matters then.
fn late(served: &Served, filled: Filled) -> Result<Filled, Failure> {
    match served.overridden("indexer_types") {
        None => Ok(filled),
        Some(Value::Null) => Err(Failure::new("TypeError", BUILD, "indexer_types was set to None after loading")),
        Some(types) => {
            let words = entries(types, "indexer_types", BUILD)?;
            Ok(Filled { words, rule: "indexer_types (override)".to_owned() })
        }
    }
}

/// Builds every layer from its word; everything but "shared" is Full.
fn built(served: &Served, filled: &Filled) -> Reading {
    let words = &filled.words;
    if words.len() < served.layers {
        let reason = format!("indexer_types has {} entries for {} layers", words.len(), served.layers);
        return Reading::fails(&filled.rule, Failure::new("IndexError", BUILD, reason));
    }
    let sites = served.sites();
    let reading = Reading::of(served, &sites, &filled.rule, |layer| words[layer] == "shared");
    let first = reading.shared(&sites[..sites.len().min(1)]);
    let failure = first.first().map(|layer| {
        Failure::new("ValueError", FORWARD, format!("layer {layer} is shared, and no layer before it has indices"))
    });
    let beyond = words.len() - served.layers;
    let late = ["index_topk_pattern", "index_topk_freq"].into_iter().find(|key| served.overridden(key).is_some());
    reading
        .but(failure)
        .warn_if(beyond > 0, format!("{beyond} entries beyond the last layer are ignored"), "give one per layer")
        .warn_if(
            late.is_some() && served.overridden("indexer_types").is_none(),
            format!("{} set after loading does nothing: indexer_types is filled by then", late.unwrap_or_default()),
            "set indexer_types, or write it to config.json",
        )
}

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    // JSON strings are Python strings.
    let model = json!(target.model);
    let mut keys = Map::new();
    let mut roles = String::new();
    if target.model_type != "deepseek_v32" {
        keys.insert("indexer_types".to_owned(), json!(words(pattern)));
        keys.insert("index_topk_pattern".to_owned(), json!(pattern.to_string()));
        roles = format!(
            "config.indexer_types = [{{\"F\": \"full\", \"S\": \"shared\"}}[c] for c in \"{pattern}\"]\n\
             config.index_topk_pattern = \"{pattern}\"\n"
        );
    }
    let slow = "transformers scores all pairs and masks them: it shows the pattern's loss, not its speed";
    Recipe {
        argument: format!(
            "from transformers import AutoConfig, AutoModelForCausalLM\n\n\
             config = AutoConfig.from_pretrained({model})\n\
             {roles}\
             model = AutoModelForCausalLM.from_pretrained({model}, config=config)"
        ),
        route: Route::Overrides(keys),
        warnings: (pattern.shared_count() > 0).then(|| slow.to_owned()).into_iter().collect(),
        command: None,
        stages: None,
    }
}
