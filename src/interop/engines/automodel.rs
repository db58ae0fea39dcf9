//! NVIDIA NeMo Automodel 0.7.0: `components/models/{glm_moe_dsa,glm5_next}/config.py`. Verified in released source.
//!
//! Its own config classes: `indexer_types` beats `index_topk_pattern` beats the frequency, whose offset is fixed at 2 for
//! GLM-5. Stages hand indices on. GLM-5.3-Flash's class fills the key in the same way, checks it, and no layer reads it.

use serde_json::Value;

use super::super::Target;
use super::super::python::{item_is, len};
use super::super::recipe::{Recipe, Route};
use super::super::rules::{BUILD, ConfigClass, LOAD, asked, given};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Reading};
use super::Reader;
use crate::domain::Pattern;

pub(in super::super) const VERSION: &str = "0.7.0";

pub(in super::super) const READER: Reader = Reader {
    name: "NeMo Automodel",
    version: VERSION,
    verified: true,
    source: "components/models/glm_moe_dsa/config.py, GlmMoeDsaConfig.__init__",
    only: None,
    read,
};

/// It checks no types, and GLM-5's takes `int()` of the frequency.
const GLM5: ConfigClass = ConfigClass { is_strict: false, reads_offset: false };
/// GLM-5.3-Flash's.
const GLM5_NEXT: ConfigClass = ConfigClass { is_strict: false, reads_offset: true };

fn read(served: &Served) -> Reading {
    let saved = served.as_saved();
    let reading = match served.family {
        Family::Glm => glm5(&saved),
        Family::Glm5Next => glm5_next(&saved),
        _ => return Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    };
    reading.warn_if(
        asked(served).iter().any(|key| served.overridden(key).is_some()),
        "overrides are those of vLLM and SGLang; config.json alone was read",
        "write the keys to config.json",
    )
}

/// `glm_moe_dsa/{config,model}.py`.
fn glm5(served: &Served) -> Reading {
    let filled = match GLM5.fill(served) {
        Ok(filled) => filled,
        Err(failure) => return Reading::fails("indexer_types", failure),
    };
    let sites = served.sites();
    let shared = |layer| item_is(&filled.types, layer, "shared", "indexer_types", BUILD);
    let reading = Reading::raising(served, &sites, &filled.rule, shared);
    let first = reading.shared(&sites[..1]);
    let by_freq = filled.rule.starts_with("index_topk_freq");
    reading.but_forward(first.first().map(|layer| format!("layer {layer} is shared, with nothing before it"))).warn_if(
        by_freq && served.file("index_skip_topk_offset").is_some_and(|v| v.as_i64() != Some(2)),
        "index_skip_topk_offset is ignored, 2 is used",
        "write indexer_types",
    )
}

/// `glm5_next/{config,layers}.py`: `indexer_types` is filled and checked, and no layer reads it.
fn glm5_next(served: &Served) -> Reading {
    let wrong = |rule: &str, reason: String| Reading::fails(rule, Failure::new("ValueError", LOAD, reason));
    let n = served.layers;
    if let Some(words) = given(served.file("layer_types")).and_then(Value::as_array) {
        let is_odd = |word: &&Value| !LAYER_TYPES.contains(&word.as_str().unwrap_or_default());
        if words.len() != n {
            return wrong("layer_types", format!("layer_types has {} entries for {n} layers", words.len()));
        }
        if let Some(odd) = words.iter().find(is_odd) {
            return wrong(
                "layer_types",
                format!("{odd} in layer_types: this version knows 'deepseek_sparse_attention'"),
            );
        }
    }
    let filled =
        GLM5_NEXT.fill(served).and_then(|filled| Ok((len(&filled.types, "indexer_types", LOAD)?, filled.rule)));
    match filled {
        Err(failure) => Reading::fails("indexer_types", failure),
        Ok((got, rule)) if got != n => wrong(&rule, format!("indexer_types has {got} entries for {n} layers")),
        Ok(_) => Reading::all_full(served, "indexer_types is stored and not read: every sparse layer").warn_if(
            !asked(served).is_empty(),
            format!("stores {} and reads none of them", asked(served).join(", ")),
            "no key changes that in this version",
        ),
    }
}

/// The layer types that it knows.
const LAYER_TYPES: [&str; 3] = ["linear_attention", "deepseek_sparse_attention", "full_attention"];

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    Recipe {
        argument: format!("{:#}", Value::Object(target.keys(pattern))),
        route: Route::File,
        row: READER.name,
        warnings: vec![
            "these are keys of the checkpoint's config.json, where index_topk_freq and index_skip_topk_offset must go; \
             'indexscope export --write-config OUT' writes the whole file"
                .to_owned(),
        ],
        command: None,
        stages: None,
    }
}
