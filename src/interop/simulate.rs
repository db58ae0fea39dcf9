//! What every engine would make of a config.

use serde::Serialize;
use serde_json::Value;

use super::config::ROPE_KEY;
use super::engines::{NOT_SIMULATED, READERS, Reader, sglang, transformers, vllm};
use super::rules::{SHARING, asked, entries, given};
use super::served::{Family, Served};
use super::strip::{Mark, Strip, Warning};
use super::{Target, list};
use crate::domain::{Pattern, Stages, StagesError};

/// Why nothing can be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// config.json is no JSON object, or lacks what is needed.
    #[error("the config cannot be used: {0}")]
    Config(String),
    /// Overrides are no JSON object.
    #[error("the overrides are not a JSON object: {0}")]
    Overrides(String),
    /// The stages do not fit the model.
    #[error(transparent)]
    Stages(#[from] StagesError),
}

impl SimulateError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Config(_) => "give a config.json of a model with index sharing",
            Self::Overrides(_) => "give an object, such as '{\"index_topk_freq\": 4}'",
            Self::Stages(_) => "give the layers of every pipeline stage, such as 14,6x8,16",
        }
    }
}

/// Every engine's reading of one config.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Simulation {
    /// One strip per engine, released sources first.
    pub engines: Vec<Strip>,
    /// What holds whatever the engine.
    pub warnings: Vec<Warning>,
    /// Readers of the field that are not simulated, and why.
    pub not_simulated: Vec<(&'static str, &'static str)>,
}

impl Simulation {
    /// Returns what most engines run, of two equally common readings the one of the earlier engine.
    pub fn usual(&self) -> &[Mark] {
        let run = || self.engines.iter().map(|strip| strip.marks.as_slice()).filter(|marks| !marks.is_empty());
        let votes = |marks: &[Mark]| run().filter(|other| *other == marks).count();
        run().rev().max_by_key(|marks| votes(marks)).unwrap_or_default()
    }
}

/// Returns what every engine makes of `served`; engines that say nothing about its family come without a strip.
pub fn simulate(served: &Served) -> Simulation {
    let concerned = |reader: &&&Reader| reader.only.is_none_or(|family| family == served.family);
    let engines: Vec<Strip> = READERS.iter().filter(concerned).map(|reader| strip(reader, served)).collect();
    let warnings = general(served, &engines);
    Simulation { engines, warnings, not_simulated: NOT_SIMULATED.to_vec() }
}

/// Returns what one engine makes of `served`; the name is that of a row.
pub(super) fn read_by(name: &str, served: &Served) -> Strip {
    let reader = READERS.iter().find(|reader| reader.name == name).expect("exports name rows of the table");
    strip(reader, served)
}

fn strip(reader: &Reader, served: &Served) -> Strip {
    let mut reading = (reader.read)(served);
    let missing = missing(served, &reading.marks);
    if !missing.is_empty() {
        reading = reading.warn(
            format!("runs the indexer of {}, for which the checkpoint has no weights", list(&missing)),
            "make them Shared: nothing but training gives them an indexer",
        );
    }
    Strip {
        engine: reader.name,
        version: reader.version,
        verified: reader.verified,
        source: reader.source,
        marks: reading.marks,
        rule: reading.rule,
        failure: reading.failure,
        forward: reading.forward,
        warnings: reading.warnings,
    }
}

/// Returns what every engine makes of `target`'s config.json once [`super::export`]'s keys for `pattern` are in it.
///
/// It reads nothing and takes microseconds, so that a screen can ask with every edit.
///
/// # Errors
/// [`SimulateError::Stages`] where the stages hold another number of layers.
pub fn simulate_pattern(target: &Target, pattern: Pattern, stages: &Stages) -> Result<Simulation, SimulateError> {
    Ok(simulate(&target.serving(target.keys(pattern), stages)?))
}

/// Returns the Full layers whose weights are known to be missing.
fn missing(served: &Served, marks: &[Mark]) -> Vec<usize> {
    let Some(present) = served.indexers else { return Vec::new() };
    let full = marks.iter().enumerate().filter(|(_, mark)| **mark == Mark::Full);
    full.map(|(layer, _)| layer).filter(|&layer| !present.contains(layer)).collect()
}

/// Returns a warning where engines rotate the indexer's dimensions in different pairs.
pub(super) fn rope_warning(served: &Served) -> Option<Warning> {
    let by_key = || format!("vLLM {} and SGLang {}", vllm::VERSION, sglang::VERSION);
    let (transformers, key) = (transformers::VERSION, ROPE_KEY);
    let value = served.late(key);
    let is_true = value == Some(&Value::Bool(true));
    let effect = "beyond index_topk tokens they select other keys";
    let warning = match served.family {
        Family::Glm if !is_true => Warning::new(
            format!(
                "{key} is {}: {} rotate the indexer by halves, transformers {transformers} interleaved as GLM was \
                 trained; {effect}",
                value.map_or("absent".to_owned(), Value::to_string),
                by_key()
            ),
            format!("set \"{key}\": true in config.json"),
        ),
        Family::DeepseekV32 if is_true => Warning::new(
            format!(
                "{key} is true: {} rotate the indexer interleaved, transformers {transformers} by halves as DeepSeek-V3.2 \
                 was trained; {effect}",
                by_key()
            ),
            format!("remove {key} from config.json, unless this model was trained so"),
        ),
        _ => return None,
    };
    Some(warning)
}

/// Returns a warning where engines would rotate the indexer of `target` in different pairs.
pub fn indexer_rope_warning(target: &Target) -> Option<Warning> {
    rope_warning(&Served::new(target.config.clone()).ok()?)
}

/// Returns what is wrong with the config itself.
fn general(served: &Served, strips: &[Strip]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = rope_warning(served).into_iter().collect();
    let mut warn = |what: String, advice: &str| warnings.push(Warning::new(what, advice));
    let n = served.layers;
    let listed = |key: &str| given(served.late(key)).and_then(|value| entries(value, key, "").ok());
    let (types, pattern) = (listed("indexer_types"), listed("index_topk_pattern"));
    if served.nested {
        warn(
            "the language model's keys lie in text_config".to_owned(),
            "nest overrides the same way: {\"text_config\": {…}}",
        );
    }
    if !served.stray.is_empty() {
        warn(format!("overrides {} are not nested in text_config", served.stray.join(", ")), "nest them");
    }
    if !served.copied.is_empty() {
        let copied: Vec<usize> = served.copied.iter().collect();
        let runs = |strip: &&Strip| copied.iter().any(|&layer| strip.marks.get(layer) == Some(&Mark::Full));
        let engines: Vec<&str> = strips.iter().filter(runs).map(|strip| strip.engine).collect();
        let which = if engines.is_empty() { String::new() } else { format!("; {} would run them", engines.join(", ")) };
        warn(
            format!("the checkpoint stores copies of the source layer's indexer in {}{which}", list(&copied)),
            "they were not trained for these layers: serve the native pattern, as 'indexscope export MODEL --pattern \
             native' writes it for every engine",
        );
    }
    match served.late("index_topk") {
        None if served.family == Family::DeepseekV32 => warn(
            "the config has no index_topk: vLLM raises AttributeError, SGLang runs dense attention".to_owned(),
            "write the number of keys that a query keeps",
        ),
        Some(k) if k.as_f64() == Some(0.) => warn(
            "index_topk 0 is no dense attention: vLLM asks whether the key exists and selects nothing".to_owned(),
            "remove the indexer from the model's code, or keep index_topk",
        ),
        _ => {}
    }
    let nulls: Vec<&str> = ["index_topk_freq", "index_skip_topk_offset"]
        .into_iter()
        .filter(|key| served.late(key) == Some(&Value::Null))
        .collect();
    if !nulls.is_empty() {
        warn(format!("{} null in the config: some readers raise TypeError", nulls.join(" and ")), "remove the keys");
    }
    let wanted = if served.family == Family::DeepseekV4 { served.sites().len() } else { n };
    for (key, entries) in [("indexer_types", &types), ("index_topk_pattern", &pattern)] {
        if let Some(got) = entries.as_ref().map(Vec::len).filter(|&got| got != wanted) {
            warn(
                format!("{key} has {got} entries for {wanted} layers: an error here, the rest Full there"),
                "give one per layer, none for MTP",
            );
        }
    }
    if let (Some(types), Some(pattern)) = (&types, &pattern) {
        let apart: Vec<usize> = (0..n.min(types.len()).min(pattern.len()))
            .filter(|&l| (types[l] == "shared") != matches!(pattern[l].as_str(), "S" | "s" | "shared"))
            .collect();
        if !apart.is_empty() {
            warn(
                format!("indexer_types and index_topk_pattern differ at {}, and engines prefer either", list(&apart)),
                "make both say the same: indexscope export --write-config",
            );
        }
    }
    if asked(served).contains(&"index_topk_freq") {
        warn(
            "index_topk_freq stands for four different formulas".to_owned(),
            "write index_topk_pattern and indexer_types in full",
        );
    }
    if SHARING.iter().any(|key| served.overridden(key).is_some()) && served.family == Family::Glm {
        warn(
            "overrides arrive after the config class has filled indexer_types: the command line and config.json differ"
                .to_owned(),
            "override indexer_types and index_topk_pattern together, or write both to config.json",
        );
    }
    let shares = strips.iter().any(|strip| strip.marks.contains(&Mark::Shared));
    let mtp = served.file("num_nextn_predict_layers").and_then(Value::as_u64).unwrap_or(0);
    if shares && mtp > 0 && served.family.is_plain() {
        warn(
            format!("the {mtp} MTP layer(s) after layer {} always run their own indexer", n - 1),
            "give them no letter, and keep their indexer weights",
        );
    }
    if served.family == Family::DeepseekV4 && !asked(served).is_empty() {
        warn(
            format!("DeepSeek-V4 has an indexer in {wanted} of its {n} layers, and engines count either"),
            "check the numbering of the engine that you use",
        );
    }
    if shares && let Some(budget) = served.budget().filter(|budget| budget.keeps > 0) {
        warn(
            format!(
                "with at most {} visible tokens ({budget}) every pattern gives the same output",
                budget.dense_up_to()
            ),
            "a shorter test cannot see a difference: use longer prompts",
        );
    }
    warnings
}
