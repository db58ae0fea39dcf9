//! ROCm ATOM at ffdf3bb5d. From a repository snapshot, unverified.
//!
//! Sharing is on with `use_index_cache`, or a frequency above 1; a pattern alone is ignored. Then `indexer_types` beats
//! the pattern beats the frequency (formula A, offset 1). MiniMax-M3 counts sparse layers and needs the switch;
//! DeepSeek-V4 counts layers of ratio 4 for the frequency (P) and all layers for the pattern.

use serde_json::Value;

use super::super::python::number;
use super::super::rules::{BUILD, Formula, asked, entries, given};
use super::super::served::{Family, Served};
use super::super::strip::{Failure, Reading};
use super::Reader;

pub(super) const READER: Reader = Reader {
    name: "ROCm ATOM",
    version: "@ffdf3bb5d",
    verified: false,
    source: "model code at that commit",
    only: None,
    read,
};

fn read(served: &Served) -> Reading {
    let freq = match number(given(served.late("index_topk_freq")), 1., "index_topk_freq", BUILD) {
        Ok(freq) if freq > 0. => freq,
        _ => return Reading::unknown("what such a frequency does is not in the notes"),
    };
    let flag = served.late("use_index_cache").and_then(Value::as_bool) == Some(true);
    let on = match served.family {
        Family::Glm | Family::DeepseekV32 => flag || freq > 1.,
        Family::MinimaxM3 | Family::DeepseekV4 => flag,
        _ => return Reading::unknown(format!("model type '{}' is not in the notes", served.model_type)),
    };
    if !on {
        return Reading::all_full(served, "use_index_cache is not set: every layer").warn_if(
            !asked(served).is_empty(),
            format!("ignores {}", asked(served).join(", ")),
            "set use_index_cache to true",
        );
    }
    match chosen(served, freq) {
        Ok((rule, shared)) => Reading::of(served, &served.sites(), rule, shared),
        Err(failure) => Reading::fails("indexer_types", failure),
    }
}

/// Whether a layer is Shared.
type Shared = Box<dyn Fn(usize) -> bool>;

fn chosen(served: &Served, freq: f64) -> Result<(&'static str, Shared), Failure> {
    let sites = served.sites();
    let ordinal = move |layer: usize| sites.iter().position(|&site| site == layer).unwrap_or_default();
    let list = |key: &str| given(served.late(key)).map(|value| entries(value, key, BUILD)).transpose();
    if served.family == Family::MinimaxM3 {
        let offset = number(given(served.late("index_skip_topk_offset")), 0., "index_skip_topk_offset", BUILD)?;
        let shared = move |layer| !Formula::A.is_full(ordinal(layer), freq, offset);
        return Ok(("index_topk_freq: A over sparse layers", Box::new(shared)));
    }
    if served.family.is_plain()
        && let Some(words) = list("indexer_types")?
    {
        return Ok(("indexer_types", Box::new(move |l| words.get(l).is_some_and(|word| word == "shared"))));
    }
    if let Some(letters) = list("index_topk_pattern")? {
        return Ok(("index_topk_pattern, by layer", Box::new(move |l| letters.get(l).is_some_and(|c| c == "S"))));
    }
    if served.family == Family::DeepseekV4 {
        return Ok((
            "index_topk_freq: P over layers of ratio 4",
            Box::new(move |layer| !Formula::P.is_full(ordinal(layer), freq, 0.)),
        ));
    }
    let offset = number(given(served.late("index_skip_topk_offset")), 1., "index_skip_topk_offset", BUILD)?;
    Ok((
        "index_topk_freq: F where max(l − offset, 0) mod freq = 0",
        Box::new(move |l| !Formula::A.is_full(l, freq, offset)),
    ))
}
