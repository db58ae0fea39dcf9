//! Hugging Face transformers 5.23.0: `models/*/configuration_*.py` (`__post_init__`), verified in released source.
//!
//! For `glm_moe_dsa`, `glm5_next` and `mistral_large4`, `indexer_types` beats `index_topk_pattern` beats the frequency
//! rule, and is filled from them when the config is loaded, so that a later pattern alone does nothing; `hy_v4` reads
//! `indexer_types` only. The other families share no indices. A list that is too short is an IndexError, a Shared first
//! layer a ValueError.

use serde_json::{Map, json};

use super::super::Target;
use super::super::python::item_is;
use super::super::recipe::{Recipe, Route};
use super::super::rules::{BUILD, Filled, LOAD, TRANSFORMERS, asked, check_layer_types};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Mark, Reading};
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
    let has_class = !matches!(served.family, Family::DeepseekV41 | Family::Other);
    // Classes that derive indexer_types check layer_types after them.
    let derives = matches!(served.family, Family::Glm | Family::Glm5Next | Family::MistralLarge4 | Family::HyV4);
    if has_class
        && !derives
        && let Err(failure) = check_layer_types(served)
    {
        return Reading::fails("layer_types", failure);
    }
    let filled = match served.family {
        Family::Glm | Family::Glm5Next | Family::MistralLarge4 => TRANSFORMERS.fill(served),
        Family::HyV4 => TRANSFORMERS.fill_hy_v4(served),
        Family::DeepseekV41 => {
            let reason = "this version has no deepseek_v41";
            return Reading::fails("model_type", Failure::new("ValueError", LOAD, reason));
        }
        Family::DeepseekV3 | Family::Longcat => {
            return Reading::dense(served, format!("its {} has no indexer", served.model_type)).warn_if(
                served.late("index_topk").is_some(),
                format!(
                    "model_type decides: as {} it runs dense attention, whatever index_topk says",
                    served.model_type
                ),
                "write model_type deepseek_v32 where the checkpoint has indexers",
            );
        }
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
    match filled.and_then(|filled| TRANSFORMERS.overriding(served, filled, BUILD)) {
        Ok(filled) => built(served, &filled),
        Err(failure) => Reading::fails("indexer_types", failure),
    }
}

/// Builds every layer from its word; everything but "shared" is Full.
fn built(served: &Served, filled: &Filled) -> Reading {
    let sites = served.sites();
    let shared = |layer| item_is(&filled.types, layer, "shared", "indexer_types", BUILD);
    let reading = Reading::raising(served, &sites, &filled.rule, shared);
    let lost = lost(served, &reading, &sites);
    let beyond = filled.types.as_array().map_or(0, Vec::len).saturating_sub(served.layers);
    let late = ["index_topk_pattern", "index_topk_freq"].into_iter().find(|key| served.overridden(key).is_some());
    reading
        .but_forward(lost)
        .warn_if(beyond > 0, format!("{beyond} entries beyond the last layer are ignored"), "give one per layer")
        .warn_if(
            late.is_some() && served.overridden("indexer_types").is_none(),
            format!("{} set after loading does nothing: indexer_types is filled by then", late.unwrap_or_default()),
            "set indexer_types, or write it to config.json",
        )
}

/// Returns why a Shared layer would get no indices in the forward.
///
/// Layers hand indices on as they got them; those of `glm5_next` only from a Full layer to the very next one.
fn lost(served: &Served, reading: &Reading, sites: &[usize]) -> Option<String> {
    let shared = reading.shared(sites);
    let layer = if served.family == Family::Glm5Next {
        let gets = |layer: usize| layer > 0 && reading.marks.get(layer - 1) == Some(&Mark::Full);
        *shared.iter().find(|&&layer| !gets(layer))?
    } else {
        *shared.first().filter(|layer| sites.first() == Some(layer))?
    };
    Some(match (served.family, layer) {
        (Family::Glm5Next, 1..) => {
            format!("layer {layer} is shared, and indices reach only the layer right after a Full attention layer")
        }
        _ => format!("layer {layer} is shared, and no layer before it has indices"),
    })
}

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    // JSON strings are Python strings.
    let model = json!(target.model);
    let (part, class) = if target.is_nested() {
        ("config.text_config", "AutoModelForImageTextToText")
    } else {
        ("config", "AutoModelForCausalLM")
    };
    let mut keys = Map::new();
    let mut roles = String::new();
    if matches!(target.family(), Family::Glm | Family::Glm5Next | Family::MistralLarge4 | Family::HyV4) {
        let letters = target.letters(pattern);
        keys.insert("indexer_types".to_owned(), json!(target.words(pattern)));
        keys.insert("index_topk_pattern".to_owned(), json!(letters));
        roles = format!(
            "{part}.indexer_types = [{{\"F\": \"full\", \"S\": \"shared\"}}[c] for c in \"{letters}\"]\n\
             {part}.index_topk_pattern = \"{letters}\"\n"
        );
    }
    let slow = "transformers scores all pairs and masks them: it shows the pattern's loss, not its speed";
    Recipe {
        argument: format!(
            "from transformers import AutoConfig, {class}\n\n\
             config = AutoConfig.from_pretrained({model})\n\
             {roles}\
             model = {class}.from_pretrained({model}, config=config)"
        ),
        route: Route::Overrides(keys),
        row: READER.name,
        warnings: (pattern.shared_count() > 0).then(|| slow.to_owned()).into_iter().collect(),
        command: None,
        stages: None,
    }
}
