//! Formulas and config classes that several engines have in common.
//!
//! l is the 0-based layer; Python's rules for `None`, indices and remainders hold, since that is what runs.

use serde_json::{Value, json};

use super::python::{has_item, int, list, number};
use super::served::{Family, Served};
use super::sites::renamed;
use super::strip::{Failure, Reading};
use crate::domain::Pattern;

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
    pub fn is_full(self, layer: usize, freq: f64, offset: f64) -> bool {
        let layer = layer as f64;
        let steps = match self {
            Self::V | Self::M => layer + 1. - offset,
            Self::A => layer - offset,
            Self::P => layer,
        };
        steps.max(0.) % freq == 0.
    }

    /// Returns the frequency and offset under which [`Self::A`] or [`Self::M`] gives `pattern`; `None` where none does.
    pub fn solve(self, pattern: Pattern) -> Option<(usize, usize)> {
        let fulls = (0..pattern.len()).take_while(|&at| pattern.is_full(at)).count();
        let offset = if self == Self::A { fulls - 1 } else { fulls };
        let gives = |&(freq, offset): &(usize, usize)| {
            let is_full = |at| self.is_full(at, freq as f64, offset as f64);
            (0..pattern.len()).all(|at| is_full(at) == pattern.is_full(at))
        };
        let all_full = if self == Self::A { (1, 0) } else { (1, 1) };
        (1..=pattern.len()).map(|freq| if freq == 1 { all_full } else { (freq, offset) }).find(gives)
    }

    /// Returns the rule in words.
    pub fn text(self, freq: f64, offset: f64) -> String {
        match self {
            Self::V => format!("F where max(l − {offset} + 1, 0) mod {freq} = 0"),
            Self::A => format!("F where max(l − {offset}, 0) mod {freq} = 0"),
            Self::P => format!("F where l mod {freq} = 0"),
            Self::M => format!("F where max(l + 1 − {offset}, 0) mod {freq} = 0"),
        }
    }
}

/// Whether a layer is Shared under the keys that decided.
pub(super) type Shared = Box<dyn Fn(usize) -> Result<bool, Failure>>;

/// Returns a value that is not null.
pub(super) fn given(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| !v.is_null())
}

/// Returns the entries of a list, or the letters of a string, as text.
pub(super) fn entries(value: &Value, key: &str, when: &'static str) -> Result<Vec<String>, Failure> {
    let text = |item: Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
    Ok(list(value, key, when)?.into_iter().map(text).collect())
}

/// `indexer_types` as a config class leaves it, and the rule that it followed.
pub(super) struct Filled {
    /// What the attribute holds: a list of words where the class checks it, anything else otherwise.
    pub types: Value,
    /// Which keys decided.
    pub rule: String,
}

/// How a config class reads the sharing keys.
pub(super) struct ConfigClass {
    /// Whether it checks types, as those of transformers do (`@strict`).
    pub is_strict: bool,
    /// Whether `index_skip_topk_offset` is read; 2 where not.
    pub reads_offset: bool,
}

/// The config classes of transformers that derive `indexer_types`: `glm_moe_dsa`, `glm5_next`, `mistral_large4`.
///
/// 5.16.1, 5.19.0, 5.20.0, 5.23.0 and 5.24.0 do the same (verified in released source, and executed).
pub(super) const TRANSFORMERS: ConfigClass = ConfigClass { is_strict: true, reads_offset: true };

impl ConfigClass {
    /// Fills `indexer_types` from config.json: the key itself beats `index_topk_pattern` beats the frequency (V).
    pub fn fill(&self, served: &Served) -> Result<Filled, Failure> {
        let filled = self.filled(served)?;
        if self.is_strict { check_layer_types(served).map(|()| filled) } else { Ok(filled) }
    }

    fn filled(&self, served: &Served) -> Result<Filled, Failure> {
        if let Some(types) = given(served.file("indexer_types")) {
            self.check(types, LOAD)?;
            return Ok(Filled { types: types.clone(), rule: "indexer_types (config.json)".to_owned() });
        }
        if let Some(pattern) = given(served.file("index_topk_pattern")) {
            let mut types = list(pattern, "index_topk_pattern", LOAD)?;
            if pattern.is_string() {
                types = types.iter().enumerate().map(|(at, letter)| word(at, letter)).collect::<Result<_, _>>()?;
            }
            let types = Value::from(types);
            self.check(&types, LOAD)?;
            return Ok(Filled { types, rule: "index_topk_pattern (config.json)".to_owned() });
        }
        let read = if self.is_strict { number } else { int };
        let freq = read(served.file("index_topk_freq"), 1., "index_topk_freq", LOAD)?.max(1.);
        let offset = if self.reads_offset { served.file("index_skip_topk_offset") } else { None };
        let offset = number(offset, 2., "index_skip_topk_offset", LOAD)?;
        let word = |layer| if Formula::V.is_full(layer, freq, offset) { "full" } else { "shared" };
        let types = (0..served.as_saved().layers).map(word).collect::<Vec<_>>();
        let rule = if freq == 1. {
            "no sharing keys: every layer".to_owned()
        } else {
            format!("index_topk_freq {freq}: {} (config.json)", Formula::V.text(freq, offset))
        };
        Ok(Filled { types: json!(types), rule })
    }

    /// Checks a value that is set as `indexer_types`, null among them.
    pub fn check(&self, types: &Value, when: &'static str) -> Result<(), Failure> {
        let is_typed = types.is_null() || types.as_array().is_some_and(|words| words.iter().all(Value::is_string));
        if is_typed || !self.is_strict {
            return Ok(());
        }
        let reason = format!("indexer_types is {types}, no list of strings");
        Err(Failure::new("StrictDataclassFieldValidationError", when, reason))
    }

    /// Fills `indexer_types`, then sets an override of it on the loaded config.
    pub fn fill_then_override(&self, served: &Served, when: &'static str) -> Result<Filled, Failure> {
        self.overriding(served, self.fill(served)?, when)
    }

    /// Sets an override of `indexer_types` on the loaded config; overrides of the other keys come too late to matter.
    pub fn overriding(&self, served: &Served, filled: Filled, when: &'static str) -> Result<Filled, Failure> {
        let Some(types) = served.overridden("indexer_types") else { return Ok(filled) };
        self.check(types, when)?;
        Ok(Filled { types: types.clone(), rule: "indexer_types (override)".to_owned() })
    }

    /// Fills `indexer_types` as the config classes of HY-V4 do: layer 0 and every (l − 1) mod 4 = 0 where it is absent.
    pub fn fill_hy_v4(&self, served: &Served) -> Result<Filled, Failure> {
        if self.is_strict {
            check_layer_types(served)?;
        }
        if let Some(types) = given(served.file("indexer_types")) {
            self.check(types, LOAD)?;
            return Ok(Filled { types: types.clone(), rule: "indexer_types (config.json)".to_owned() });
        }
        let word = |layer: usize| if layer == 0 || (layer - 1).is_multiple_of(4) { "full" } else { "shared" };
        let types: Vec<&str> = (0..served.as_saved().layers).map(word).collect();
        let rule = "HY-V4's default: F at 0 and where (l − 1) mod 4 = 0".to_owned();
        Ok(Filled { types: json!(types), rule })
    }
}

/// What `layer_types` may hold in transformers 5.23.0 (`configuration_utils.py`, `ALLOWED_ATTN_LAYER_TYPES`).
const LAYER_TYPES: [&str; 14] = [
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "window_attention",
    "indexed_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
    "minimax_m3_sparse",
    "conv",
    "moe",
    "hybrid",
    "hybrid_sliding",
    "reference_sliding_attention",
    "linear_attention",
];
/// The same of DeepSeek-V4's class, which cuts a longer list off (`configuration_deepseek_v4.py`).
const LAYER_TYPES_V4: [&str; 3] = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"];

/// Checks `layer_types` of config.json as the classes of transformers do: known names after renaming, one per layer.
pub(super) fn check_layer_types(served: &Served) -> Result<(), Failure> {
    let Some(types) = given(served.file("layer_types")) else { return Ok(()) };
    let words: Option<Vec<&str>> = types.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    // Two classes have no such field, and check an attribute alone.
    let class = "StrictDataclassClassValidationError";
    let Some(words) = words else {
        let is_field = !matches!(served.family, Family::DeepseekV3 | Family::Longcat);
        let error = if is_field { "StrictDataclassFieldValidationError" } else { class };
        return Err(Failure::new(error, LOAD, format!("layer_types is {types}, no list of strings")));
    };
    let wrong = |reason: String| Err(Failure::new(class, LOAD, reason));
    let is_v4 = served.family == Family::DeepseekV4;
    let known = if is_v4 { &LAYER_TYPES_V4[..] } else { &LAYER_TYPES };
    let layers = served.file("num_hidden_layers").and_then(Value::as_u64).map(|layers| layers as usize);
    let words = if is_v4 { &words[..words.len().min(layers.unwrap_or(words.len()))] } else { &words[..] };
    if let Some(word) = words.iter().find(|word| !known.contains(&renamed(word))) {
        return wrong(format!("'{word}' in layer_types is no layer type that it knows"));
    }
    match layers {
        Some(layers) if layers != words.len() => {
            wrong(format!("layer_types has {} entries for {layers} layers", words.len()))
        }
        _ => Ok(()),
    }
}

/// Returns the word for a letter of `index_topk_pattern`.
fn word(at: usize, letter: &Value) -> Result<Value, Failure> {
    match letter.as_str() {
        Some("F") => Ok(Value::from("full")),
        Some("S") => Ok(Value::from("shared")),
        _ => Err(Failure::new("KeyError", LOAD, format!("{letter} at position {at} of index_topk_pattern"))),
    }
}

/// Returns the rule of vLLM and vllm-ascend on raw keys, and whether a layer is Shared: pattern, else frequency (V).
///
/// Exactly `S` is Shared; a short pattern leaves the rest Full.
pub(super) fn pattern_or_frequency(served: &Served) -> Result<(String, Shared), Failure> {
    if let Some(pattern) = given(served.late("index_topk_pattern")).cloned() {
        let rule = pattern_rule(served, &pattern);
        let key = "index_topk_pattern";
        return Ok((rule, Box::new(move |layer| has_item(&pattern, layer, "S", key, BUILD))));
    }
    let offset = number(served.late("index_skip_topk_offset"), 2., "index_skip_topk_offset", BUILD)?;
    let freq = number(served.late("index_topk_freq"), 1., "index_topk_freq", BUILD)?;
    if freq == 0. {
        return Err(Failure::new("ZeroDivisionError", BUILD, "index_topk_freq is 0"));
    }
    let rule = frequency_rule(served, freq, offset);
    Ok((rule, Box::new(move |layer| Ok(!Formula::V.is_full(layer, freq, offset)))))
}

/// Returns the rule of a pattern, with the length of one that is too short.
pub(super) fn pattern_rule(served: &Served, pattern: &Value) -> String {
    let entries = list(pattern, "", BUILD).map_or(served.layers, |entries| entries.len());
    let rest = match entries {
        short if short < served.layers => format!(", {short} of {} letters, the rest F", served.layers),
        _ => String::new(),
    };
    format!("index_topk_pattern ({}){rest}", served.origin("index_topk_pattern"))
}

/// Returns the rule of a frequency under formula V.
pub(super) fn frequency_rule(served: &Served, freq: f64, offset: f64) -> String {
    if freq == 1. {
        return "no pattern, no frequency: every layer".to_owned();
    }
    format!("index_topk_freq {freq}: {} ({})", Formula::V.text(freq, offset), served.origin("index_topk_freq"))
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

/// Returns the layers that a list of DeepSeek-V4.1 names.
pub(super) fn layer_ids(served: &Served, key: &str) -> Vec<usize> {
    let ids = served.late(key).and_then(Value::as_array);
    ids.into_iter().flatten().filter_map(Value::as_u64).map(|id| id as usize).collect()
}

/// Reads DeepSeek-V4.1's `index_source_layer_ids`: these layers run their indexer, the others reuse the last one's.
pub(super) fn source_lists(served: &Served) -> Reading {
    let sources = layer_ids(served, "index_source_layer_ids");
    let rule = format!("index_source_layer_ids ({})", served.origin("index_source_layer_ids"));
    Reading::of(served, &served.sites(), rule, |layer| !sources.contains(&layer)).warn(
        "sharing is part of this model and covers KV and candidate sets too (kv_source_layer_ids)",
        "change all lists together, and retrain",
    )
}
