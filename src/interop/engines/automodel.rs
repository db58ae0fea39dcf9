//! NVIDIA NeMo Automodel 0.7.0: `components/models/{glm_moe_dsa,glm5_next}/config.py`. Verified in released source.
//!
//! Its own config classes: `indexer_types` beats `index_topk_pattern` beats the frequency, whose offset is fixed at 2 for
//! GLM-5 and read for GLM-5.3-Flash. Stages hand indices on.

use serde_json::Value;

use super::super::Target;
use super::super::recipe::{Recipe, Route};
use super::super::rules::{BUILD, FORWARD, LOAD, asked, fill, int};
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

fn read(served: &Served) -> Reading {
    let glm5 = match served.family {
        Family::Glm => true,
        Family::Glm5Next => false,
        _ => return Reading::unknown(format!("model type '{}' was not looked up", served.model_type)),
    };
    let filled = fill(served, |key, default| {
        if glm5 && key == "index_skip_topk_offset" { Ok(2) } else { int(served.file(key), default, key, LOAD) }
    });
    let filled = match filled {
        Ok(filled) => filled,
        Err(failure) => return Reading::fails("indexer_types", failure),
    };
    let (words, n) = (&filled.words, served.layers);
    if !glm5 && words.len() != n {
        let reason = format!("indexer_types has {} entries for {n} layers", words.len());
        return Reading::fails(&filled.rule, Failure::new("ValueError", LOAD, reason));
    }
    if words.len() < n {
        let reason = format!("indexer_types has {} entries for {n} layers", words.len());
        return Reading::fails(&filled.rule, Failure::new("IndexError", BUILD, reason));
    }
    let sites = served.sites();
    let reading = Reading::of(served, &sites, &filled.rule, |layer| words[layer] == "shared");
    let first = reading.shared(&sites[..sites.len().min(1)]);
    let failure = first
        .first()
        .map(|layer| Failure::new("ValueError", FORWARD, format!("layer {layer} is shared, with nothing before it")));
    let by_freq = filled.rule.starts_with("index_topk_freq");
    reading
        .but(failure)
        .warn_if(
            glm5 && by_freq && served.file("index_skip_topk_offset").is_some_and(|v| v.as_i64() != Some(2)),
            "index_skip_topk_offset is ignored, 2 is used",
            "write indexer_types",
        )
        .warn_if(
            asked(served).iter().any(|key| served.overridden(key).is_some()),
            "overrides are those of vLLM and SGLang; config.json alone was read",
            "write the keys to config.json",
        )
}

pub(in super::super) fn export(target: &Target, pattern: Pattern) -> Recipe {
    Recipe {
        argument: format!("{:#}", Value::Object(target.keys(pattern))),
        route: Route::File,
        warnings: vec![
            "these are keys of the checkpoint's config.json, where index_topk_freq and index_skip_topk_offset must go; \
             'indexscope export --write-config OUT' writes the whole file"
                .to_owned(),
        ],
        command: None,
        stages: None,
    }
}
