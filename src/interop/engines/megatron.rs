//! megatron-core 0.19.2: `core/transformer/experimental_attention_variant/dsa.py`, `is_dsa_skip_topk_layer`;
//! `experimental_attention_variant_module_specs.py`, `_validate_dsa_index_share_pipeline_split`. Verified in released
//! source, the function also by running it.
//!
//! Two fields of its own, `dsa_indexer_topk_freq` and `dsa_indexer_skip_topk_offset`, and formula M after the offset was
//! raised to 1; no pattern, and no key of config.json. A stage that begins Shared is a RuntimeError. 0.16.1 shares nothing.

use serde_json::{Map, json};

use super::super::python::number;
use super::super::recipe::{Recipe, Route};
use super::super::rules::{BUILD, Formula, asked};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Reading};
use super::super::{ExportError, Target, list};
use super::Reader;
use crate::domain::{Pattern, Stages};

pub(in super::super) const VERSION: &str = "0.19.2";

pub(in super::super) const READER: Reader = Reader {
    name: "megatron-core",
    version: VERSION,
    verified: true,
    source: "core/transformer/experimental_attention_variant/dsa.py, is_dsa_skip_topk_layer",
    only: None,
    read,
};

/// The two fields of `TransformerConfig`.
const FREQ: &str = "dsa_indexer_topk_freq";
const OFFSET: &str = "dsa_indexer_skip_topk_offset";

fn read(served: &Served) -> Reading {
    match served.family {
        Family::Glm | Family::DeepseekV32 => {}
        Family::DeepseekV3 | Family::Other if served.late("index_topk").is_some() => {}
        Family::DeepseekV3 => return Reading::dense(served, "the config has no index_topk: dense attention"),
        _ => return Reading::unknown("only attention as in DeepSeek-V3.2 and GLM-5 was looked up"),
    }
    let freq = number(served.late(FREQ), 1., FREQ, BUILD);
    let (freq, offset) = match (freq, number(served.late(OFFSET), 0., OFFSET, BUILD)) {
        (Ok(freq), Ok(offset)) => (freq, offset),
        (Err(failure), _) | (_, Err(failure)) => return Reading::fails(FREQ, failure),
    };
    if freq < 1. || offset < 0. {
        let (key, value) = if freq < 1. { (FREQ, freq) } else { (OFFSET, offset) };
        return Reading::fails(FREQ, Failure::new("ValueError", BUILD, format!("{key} is {value}")));
    }
    let raised = offset.max(1.);
    let rule = if freq == 1. {
        format!("{FREQ} is not set: every layer")
    } else {
        format!("{FREQ} {freq}: {}", Formula::M.text(freq, raised))
    };
    // Its number of layers is its own, and no override of config.json's.
    let layers = served.as_saved();
    let sites = layers.sites();
    let reading = Reading::of(&layers, &sites, rule, |layer| !Formula::M.is_full(layer, freq, raised));
    let heads = reading.shared(&served.heads(&sites));
    let failure = (!heads.is_empty())
        .then(|| Failure::new("RuntimeError", BUILD, format!("{} begins a stage as Shared", list(&heads))));
    let unread = asked(served);
    reading.but(failure).warn_if(
        !unread.is_empty(),
        format!("{} are not read: only its own {FREQ} and {OFFSET} are", unread.join(", ")),
        "set those two, where a frequency can say it",
    )
}

pub(in super::super) fn export(target: &Target, pattern: Pattern, stages: &Stages) -> Result<Recipe, ExportError> {
    if let [head, ..] = target.shared_heads(pattern, stages)[..] {
        return Err(ExportError::StageHead { engine: format!("megatron-core {VERSION}"), layer: head });
    }
    let (freq, offset) = Formula::M
        .solve(pattern)
        .ok_or_else(|| ExportError::NotExpressible { engine: format!("megatron-core {VERSION}"), pattern })?;
    let keys = Map::from_iter([(FREQ.to_owned(), json!(freq)), (OFFSET.to_owned(), json!(offset))]);
    Ok(Recipe {
        argument: format!("{FREQ}={freq},\n{OFFSET}={offset},"),
        route: Route::Overrides(keys),
        row: READER.name,
        warnings: vec![
            "these are fields of megatron-core's TransformerConfig; how a launcher spells them on its command line was \
             not read"
                .to_owned(),
        ],
        command: None,
        stages: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_released_function_hold() {
        let letters = |freq, offset: f64| -> String {
            (0..13).map(|l| if Formula::M.is_full(l, freq, offset.max(1.)) { 'F' } else { 'S' }).collect()
        };
        assert_eq!(letters(4., 0.), "FSSSFSSSFSSSF");
        assert_eq!(letters(4., 3.), "FFFSSSFSSSFSS");
    }

    #[test]
    fn a_frequency_is_found_where_there_is_one() {
        let solve = |letters: &str| Formula::M.solve(letters.parse().unwrap());
        assert_eq!(solve("FFFSSSFSSSFSS"), Some((4, 3)));
        assert_eq!(solve("FSSSFSSSFSSSF"), Some((4, 1)));
        assert_eq!(solve("FFFF"), Some((1, 1)));
        assert_eq!(solve("FFSSS"), Some((4, 2)));
        assert_eq!(solve("FSSFS"), Some((3, 1)));
        assert_eq!(solve("FSSFSF"), None);
    }
}
