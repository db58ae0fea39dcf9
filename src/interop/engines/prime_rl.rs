//! prime-rl at 559b44772. From a repository snapshot, unverified.
//!
//! TOML `[trainer.model.index_cache]` with `topk_pattern` or `topk_freq`; a pattern beats config.json's `indexer_types`
//! beats the frequency (formula P). Setting the table clears `indexer_types`. Here its keys are looked for among the overrides.

use super::super::python::number;
use super::super::rules::{BUILD, Formula, TRANSFORMERS, entries, given};
use super::super::served::{Family, Served};
use super::super::strip::Reading;
use super::Reader;

pub(super) const READER: Reader = Reader {
    name: "prime-rl",
    version: "@559b44772",
    verified: false,
    source: "[trainer.model.index_cache] of its TOML",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    if !served.family.is_plain() {
        return Reading::unknown("only DeepSeek-V3.2 and GLM-5 are in the notes");
    }
    let sites = served.sites();
    if let Some(pattern) = given(served.overridden("topk_pattern")) {
        return match entries(pattern, "topk_pattern", BUILD) {
            Ok(letters) => Reading::of(served, &sites, "topk_pattern (its TOML)", |layer| {
                letters.get(layer).is_some_and(|letter| letter == "S")
            }),
            Err(failure) => Reading::fails("topk_pattern", failure),
        };
    }
    if served.overridden("topk_freq").is_some() {
        return match number(served.overridden("topk_freq"), 1., "topk_freq", BUILD) {
            Ok(freq) if freq > 0. => {
                let rule = format!("topk_freq {freq} (its TOML): {}", Formula::P.text(freq, 0.));
                Reading::of(served, &sites, rule, |layer| !Formula::P.is_full(layer, freq, 0.))
            }
            _ => Reading::unknown("what such a frequency does is not in the notes"),
        };
    }
    let words = match (served.family, given(served.file("indexer_types"))) {
        (Family::Glm, _) => {
            TRANSFORMERS.fill(served).and_then(|filled| entries(&filled.types, "indexer_types", BUILD)).map(Some)
        }
        (_, Some(types)) => entries(types, "indexer_types", BUILD).map(Some),
        _ => Ok(None),
    };
    match words {
        Ok(Some(words)) => {
            Reading::of(served, &sites, "indexer_types", |layer| words.get(layer).is_some_and(|word| word == "shared"))
        }
        Ok(None) => Reading::all_full(served, "its TOML has no index_cache: every layer"),
        Err(failure) => Reading::fails("indexer_types", failure),
    }
}
