//! Formulas and config classes that several engines have in common.
//!
//! l is the 0-based layer; Python's rules for `None`, indices and remainders hold, since that is what runs.

use serde_json::Value;

use super::served::Served;
use super::strip::{Failure, Reading};

/// At load of config.json.
pub(super) const LOAD: &str = "when the config is loaded";
/// At construction of the model.
pub(super) const BUILD: &str = "when the model is built";
/// At start of the server.
pub(super) const START: &str = "at start";
/// At the first forward.
pub(super) const FORWARD: &str = "in the first forward";

/// When a layer is Full under a frequency; the formulas look alike and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Formula {
    /// max(l − offset + 1, 0) mod freq = 0: vLLM, SGLang, transformers.
    V,
    /// max(l − offset, 0) mod freq = 0: ATOM, vLLM's MiniMax-M3.
    A,
    /// l mod freq = 0: prime-rl, SGLang's LongCat.
    P,
    /// max(l + 1 − offset, 0) mod freq = 0, the offset as it is: slime, and megatron-core after raising it to 1.
    M,
}

impl Formula {
    /// Returns whether `layer` runs its indexer; `freq` must not be 0.
    pub fn is_full(self, layer: usize, freq: i64, offset: i64) -> bool {
        let layer = layer as i64;
        let steps = match self {
            Self::V | Self::M => layer + 1 - offset,
            Self::A => layer - offset,
            Self::P => layer,
        };
        steps.max(0) % freq == 0
    }

    /// Returns the rule in words.
    pub fn text(self, freq: i64, offset: i64) -> String {
        match self {
            Self::V => format!("F where max(l − {offset} + 1, 0) mod {freq} = 0"),
            Self::A => format!("F where max(l − {offset}, 0) mod {freq} = 0"),
            Self::P => format!("F where l mod {freq} = 0"),
            Self::M => format!("F where max(l + 1 − {offset}, 0) mod {freq} = 0"),
        }
    }
}

/// Whether a layer is Shared under the keys that decided.
pub(super) type Shared = Box<dyn Fn(usize) -> bool>;

/// Returns a value that is not null.
pub(super) fn given(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| !v.is_null())
}

/// Returns a whole number as Python would use it; an absent key takes `default`, anything else is a TypeError.
pub(super) fn int(value: Option<&Value>, default: i64, key: &str, when: &'static str) -> Result<i64, Failure> {
    match value {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(i64::from(*flag)),
        Some(Value::Number(n)) if n.is_i64() => Ok(n.as_i64().unwrap_or(default)),
        Some(other) => Err(Failure::new("TypeError", when, format!("{key} is {other}"))),
    }
}

/// Returns the entries of a list, or the letters of a string; anything else is a TypeError.
pub(super) fn entries(value: &Value, key: &str, when: &'static str) -> Result<Vec<String>, Failure> {
    match value {
        Value::String(text) => Ok(text.chars().map(String::from).collect()),
        Value::Array(list) => {
            Ok(list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect())
        }
        other => Err(Failure::new("TypeError", when, format!("{key} is {other}"))),
    }
}

/// `indexer_types` as a config class filled it, and the rule that it followed.
pub(super) struct Filled {
    /// One word per entry.
    pub words: Vec<String>,
    /// Which keys decided.
    pub rule: String,
}

/// Fills `indexer_types` as transformers' `GlmMoeDsaConfig` does, and its like in `glm5_next` and `mistral_large4`.
///
/// `indexer_types` beats `index_topk_pattern` beats the frequency; overrides have not arrived yet. transformers 5.16.1,
/// 5.19.0, 5.20.0 and 5.23.0 do the same (verified in released source).
pub(super) fn filled(served: &Served) -> Result<Filled, Failure> {
    fill(served, |key, default| int(served.file(key), default, key, LOAD))
}

/// The same with a reader of the frequency's numbers, by key and default.
pub(super) fn fill(served: &Served, number: impl Fn(&str, i64) -> Result<i64, Failure>) -> Result<Filled, Failure> {
    if let Some(types) = given(served.file("indexer_types")) {
        let words = entries(types, "indexer_types", LOAD)?;
        return Ok(Filled { words, rule: "indexer_types (config.json)".to_owned() });
    }
    if let Some(pattern) = given(served.file("index_topk_pattern")) {
        let mut words = entries(pattern, "index_topk_pattern", LOAD)?;
        if pattern.is_string() {
            for (at, word) in words.iter_mut().enumerate() {
                *word = match word.as_str() {
                    "F" => "full".to_owned(),
                    "S" => "shared".to_owned(),
                    other => {
                        let reason = format!("'{other}' at position {at} of index_topk_pattern");
                        return Err(Failure::new("KeyError", LOAD, reason));
                    }
                };
            }
        }
        return Ok(Filled { words, rule: "index_topk_pattern (config.json)".to_owned() });
    }
    let freq = number("index_topk_freq", 1)?.max(1);
    let offset = number("index_skip_topk_offset", 2)?;
    let word = |layer| if Formula::V.is_full(layer, freq, offset) { "full" } else { "shared" };
    let words = (0..served.layers).map(|layer| word(layer).to_owned()).collect();
    let rule = if freq == 1 {
        "no sharing keys: every layer".to_owned()
    } else {
        format!("index_topk_freq {freq}: {} (config.json)", Formula::V.text(freq, offset))
    };
    Ok(Filled { words, rule })
}

/// The four keys of index sharing.
pub(super) const SHARING: [&str; 4] =
    ["indexer_types", "index_topk_pattern", "index_topk_freq", "index_skip_topk_offset"];

/// Returns the sharing keys that ask for something: not null, and not the frequency 1.
pub(super) fn asked(served: &Served) -> Vec<&'static str> {
    let asks = |key: &&str| match given(served.late(key)) {
        Some(value) => *key != "index_skip_topk_offset" && value.as_i64() != Some(1),
        None => false,
    };
    SHARING.into_iter().filter(asks).collect()
}

/// Fills `indexer_types` as the config classes of HY-V4 do where the key is absent: layer 0 and every (l − 1) mod 4 = 0.
pub(super) fn hy_v4_default(served: &Served) -> Filled {
    let word = |layer: usize| if layer == 0 || (layer - 1).is_multiple_of(4) { "full" } else { "shared" };
    Filled {
        words: (0..served.layers).map(|layer| word(layer).to_owned()).collect(),
        rule: "HY-V4's default: F at 0 and where (l − 1) mod 4 = 0".to_owned(),
    }
}

/// Reads DeepSeek-V4.1's `index_source_layer_ids`: a consumer uses the largest source at or before its own layer.
pub(super) fn source_lists(served: &Served) -> Reading {
    let rule = format!("index_source_layer_ids ({})", served.origin("index_source_layer_ids"));
    let Some(Value::Array(sources)) = served.late("index_source_layer_ids") else {
        let reason = "index_source_layer_ids is missing";
        return Reading::fails(rule, Failure::new("ValueError", BUILD, reason));
    };
    let sources: Vec<usize> = sources.iter().filter_map(Value::as_u64).map(|n| n as usize).collect();
    let sites = served.sites();
    if let Some(layer) = sites.iter().find(|&&site| !sources.iter().any(|&source| source <= site)) {
        let reason = format!("layer {layer} comes before the first source");
        return Reading::fails(rule, Failure::new("ValueError", BUILD, reason));
    }
    Reading::of(served, &sites, rule, |layer| !sources.contains(&layer)).warn(
        "sharing is part of this model and covers KV and candidate sets too (kv_source_layer_ids)",
        "change all lists together, and retrain",
    )
}
