//! What to paste so that an engine runs a pattern.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

use super::engines::{automodel, megatron, sglang, transformers, vllm, vllm_ascend};
use super::recipe::Route;
use super::served::Served;
use super::simulate::{read_by, rope_warning};
use super::strip::{Mark, Strip};
use super::{ExportError, Target, config, list};
use crate::checkpoint::CONFIG_FILE;
use crate::domain::{Pattern, Role, Stages};

/// An engine that an export can be written for: one whose rule was read in a released source, and that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Hugging Face transformers.
    Transformers,
    /// vLLM on Ascend NPUs.
    VllmAscend,
    /// NVIDIA NeMo Automodel.
    Automodel,
    /// megatron-core.
    Megatron,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 6] =
        [Self::Vllm, Self::Sglang, Self::Transformers, Self::VllmAscend, Self::Automodel, Self::Megatron];

    /// Returns the name as given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Transformers => "transformers",
            Self::VllmAscend => "vllm-ascend",
            Self::Automodel => "automodel",
            Self::Megatron => "megatron",
        }
    }

    /// Returns the name of its row in a [`super::Simulation`].
    pub fn row(self) -> &'static str {
        match self {
            Self::Vllm => vllm::READER.name,
            Self::Sglang => sglang::READER.name,
            Self::Transformers => transformers::READER.name,
            Self::VllmAscend => vllm_ascend::READER.name,
            Self::Automodel => automodel::READER.name,
            Self::Megatron => megatron::READER.name,
        }
    }

    /// Returns the version whose source the export was written from.
    pub fn version(self) -> &'static str {
        match self {
            Self::Vllm => vllm::VERSION,
            Self::Sglang => sglang::VERSION,
            Self::Transformers => transformers::VERSION,
            Self::VllmAscend => vllm_ascend::VERSION,
            Self::Automodel => automodel::VERSION,
            Self::Megatron => megatron::VERSION,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Engine {
    type Err = ExportError;

    fn from_str(text: &str) -> Result<Self, ExportError> {
        Self::ALL.into_iter().find(|e| e.name() == text).ok_or_else(|| ExportError::Engine(text.to_owned()))
    }
}

/// Changes to one JSON file of the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilePatch {
    /// The file, within the checkpoint's folder.
    pub path: String,
    /// Keys to set.
    pub set: Map<String, Value>,
    /// Keys to remove.
    pub remove: Vec<String>,
}

/// What makes an engine run a pattern.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Export {
    /// The engine.
    pub engine: Engine,
    /// The version whose source this was written from.
    pub version: &'static str,
    /// What to paste: a command-line argument, code, or keys of a config.
    pub argument: String,
    /// The same as changes to files, for those who prefer to keep it in the checkpoint.
    pub files: Vec<FilePatch>,
    /// What to know before serving.
    pub warnings: Vec<String>,
    /// Environment variables that go with it.
    pub environment: BTreeMap<&'static str, String>,
    /// A whole command line; `None` for what is no program.
    pub launch: Option<String>,
    /// What was verified about all this, and what was not.
    pub verified: Vec<String>,
}

/// Returns what makes `engine` run `pattern` on `target`, split over `stages`.
///
/// What is handed out was simulated: the engine's rule, applied to it, gives the pattern back.
///
/// # Errors
/// [`ExportError::Pattern`] and [`ExportError::Stages`] where the model cannot have them, [`ExportError::NotRead`] where
/// the engine ignores sharing for this model type, [`ExportError::StageHead`] where it cannot begin a stage with a Shared
/// layer, [`ExportError::NotExpressible`] where it cannot be told this pattern, [`ExportError::Dense`] for models that no
/// engine runs with indexers.
pub fn export(engine: Engine, target: &Target, pattern: Pattern, stages: &Stages) -> Result<Export, ExportError> {
    target.refuse_dense()?;
    target.constraints.check(pattern)?;
    let recipe = match engine {
        Engine::Vllm => vllm::export(target, pattern, stages)?,
        Engine::Sglang => sglang::export(target, pattern),
        Engine::Transformers => transformers::export(target, pattern),
        Engine::VllmAscend => vllm_ascend::export(target, pattern),
        Engine::Automodel => automodel::export(target, pattern),
        Engine::Megatron => megatron::export(target, pattern, stages)?,
    };
    let served = match &recipe.route {
        Route::Overrides(keys) => target.overriding(&target.nest(keys), stages),
        Route::File => target.serving(target.keys(pattern), stages),
    };
    let served = served.map_err(ExportError::Simulate)?;
    let strip = checked(recipe.row, target, pattern, &served)?;
    let mut warnings: Vec<String> = strip
        .warnings
        .iter()
        .map(|w| format!("{} {}: {}; {}", strip.engine, strip.version, w.what, w.advice))
        .collect();
    warnings.extend(recipe.warnings);
    warnings.extend(rope_warning(&served).map(|w| format!("{}; {}", w.what, w.advice)));
    if target.indexers.is_none() && pattern.shared_count() > 0 {
        warnings.push(
            "only config.json was looked at: whether Full layers have indexer weights, and Shared ones have none where \
             that matters, is not known"
                .to_owned(),
        );
    }
    if let [first, ..] = regained(target, pattern)[..] {
        warnings.push(format!(
            "{} Full here and shared in the config: checkpoints such as GLM-5.2 and GLM-5.3 have no indexer weights there, \
             and layer {first} would run without any",
            list(&regained(target, pattern))
        ));
    }
    if pattern.shared_count() > 0
        && let Some(budget) = served.budget().filter(|budget| budget.keeps > 0)
    {
        warnings.push(format!(
            "with at most {} visible tokens ({budget}) every pattern gives the same output; test with longer prompts",
            budget.dense_up_to()
        ));
    }
    let keys = target.keys(pattern);
    let patch = || FilePatch {
        path: CONFIG_FILE.to_owned(),
        set: keys.clone(),
        remove: config::STALE.into_iter().filter(|key| !keys.contains_key(*key)).map(str::to_owned).collect(),
    };
    let split = recipe.stages.filter(|_| stages.sizes().len() > 1);
    let sizes: Vec<String> = stages.sizes().iter().map(ToString::to_string).collect();
    let environment: BTreeMap<_, _> = split.iter().map(|split| (split.variable, sizes.join(","))).collect();
    let launch = recipe.command.map(|command| {
        let before: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        let after = split.map(|split| format!(" {} {}", split.option, sizes.len())).unwrap_or_default();
        format!("{}{command} {}{after}", before.concat(), recipe.argument)
    });
    let mut verified = vec![
        format!("the rule was read in the released source of {} {}: {}", strip.engine, strip.version, strip.source),
        "simulated: that rule gives the pattern back".to_owned(),
        "not verified: nothing was run on this engine".to_owned(),
    ];
    if let Some(split) = split.filter(|split| !split.verified) {
        verified
            .push(format!("not verified: {} and {}, from the engine's documentation", split.variable, split.option));
    }
    Ok(Export {
        engine,
        version: engine.version(),
        argument: recipe.argument,
        // megatron-core reads no config.json.
        files: (engine != Engine::Megatron).then(patch).into_iter().collect(),
        warnings,
        environment,
        launch,
        verified,
    })
}

/// Returns the layers that the pattern makes Full and a bare config calls shared.
fn regained(target: &Target, pattern: Pattern) -> Vec<usize> {
    let Some(native) = target.native().ok().filter(|_| target.indexers.is_none()) else { return Vec::new() };
    let (own, asked) = (target.roles(native), target.roles(pattern));
    (0..own.len()).filter(|&layer| own[layer] == Role::Shared && asked[layer] == Role::Full).collect()
}

/// Returns the reading of `served` by the row of that name, which must be `pattern` without any failure.
fn checked(row: &str, target: &Target, pattern: Pattern, served: &Served) -> Result<Strip, ExportError> {
    let strip = read_by(row, served);
    let name = || format!("{} {}", strip.engine, strip.version);
    if let Some(failure) = strip.end() {
        let reason = format!("{} {}: {}", failure.error, failure.when, failure.reason);
        return Err(ExportError::Refused { engine: name(), reason });
    }
    let wanted = served.marks(pattern);
    if wanted.iter().all(|mark| *mark == Mark::None) {
        return Err(ExportError::NoSites { model_type: target.model_type.clone() });
    }
    if strip.marks == wanted {
        return Ok(strip);
    }
    // The one engine that changes the role of such layers.
    let heads = served.heads(&served.sites());
    if let Some(&layer) = strip.differences(&wanted).iter().find(|layer| heads.contains(layer))
        && row == Engine::VllmAscend.row()
    {
        return Err(ExportError::StageHead { engine: name(), layer });
    }
    let reads = match strip.letters() {
        letters if letters.is_empty() => strip.rule.clone(),
        letters => format!("{}; it would run {letters}", strip.rule),
    };
    Err(ExportError::NotRead { engine: name(), model_type: target.model_type.clone(), reads })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Constraints, LayerSet};
    use serde_json::json;

    fn target(model_type: &str, locked: &[usize]) -> Target {
        Target {
            model: "/models/m".into(),
            model_type: model_type.into(),
            index_topk: 2048,
            constraints: Constraints {
                locked_shared: locked.iter().copied().collect::<LayerSet>(),
                ..Constraints::every(6)
            },
            config: json!({ "model_type": model_type, "num_hidden_layers": 6 }).as_object().cloned().unwrap(),
            indexers: Some((0..6).filter(|layer| !locked.contains(layer)).collect()),
        }
    }

    fn done(engine: Engine, target: &Target) -> Export {
        export(engine, target, "FSSFSS".parse().unwrap(), &Stages::one(6)).unwrap()
    }

    #[test]
    fn vllm_gets_the_pattern_that_it_reads_and_a_warning_about_tensors_that_it_cannot_load() {
        let out = done(Engine::Vllm, &target("glm_moe_dsa", &[1]));
        assert_eq!(out.argument, r#"--hf-overrides '{"index_topk_pattern":"FSSFSS"}'"#);
        assert!(out.warnings[0].contains("layers 2, 4, 5") && out.warnings[0].contains("--checkpoint"), "{out:?}");
        let without = done(Engine::Vllm, &target("glm_moe_dsa", &[1, 2, 4, 5]));
        assert!(without.warnings.iter().all(|w| !w.contains("--checkpoint")), "{without:?}");
    }

    #[test]
    fn sglang_gets_both_keys_because_the_config_class_fills_the_first() {
        let out = done(Engine::Sglang, &target("glm_moe_dsa", &[]));
        let json = out.argument.strip_prefix("--json-model-override-args '").unwrap().strip_suffix('\'').unwrap();
        let keys: Value = serde_json::from_str(json).unwrap();
        assert_eq!(keys["index_topk_pattern"], "FSSFSS");
        assert_eq!(keys["indexer_types"], serde_json::json!(["full", "shared", "shared", "full", "shared", "shared"]));
        assert!(out.warnings.iter().any(|w| w.contains("two-batch overlap")), "{out:?}");
    }

    #[test]
    fn transformers_gets_code_for_glm_and_a_refusal_for_deepseek() {
        let out = done(Engine::Transformers, &target("glm_moe_dsa", &[]));
        assert!(out.argument.contains(r#"for c in "FSSFSS"]"#), "{}", out.argument);
        let deepseek = target("deepseek_v32", &[]);
        let error = export(Engine::Transformers, &deepseek, "FSSFSS".parse().unwrap(), &Stages::one(6)).unwrap_err();
        assert!(error.to_string().contains("deepseek_v32") && error.hint().is_some(), "{error}");
        assert!(export(Engine::Transformers, &deepseek, "FFFFFF".parse().unwrap(), &Stages::one(6)).is_ok());
    }

    #[test]
    fn the_file_form_agrees_for_every_reader_and_holds_no_nulls() {
        // megatron-core reads no config.json.
        for engine in Engine::ALL.into_iter().filter(|engine| *engine != Engine::Megatron) {
            let out = done(engine, &target("glm_moe_dsa", &[]));
            let [patch] = &out.files[..] else { panic!("one file expected") };
            assert_eq!(
                patch.set.keys().collect::<Vec<_>>(),
                ["indexer_types", "index_topk_pattern", "use_index_cache", "indexer_rope_interleave"]
            );
            assert!(patch.set.values().all(|value| !value.is_null()));
            assert_eq!(patch.remove, ["index_topk_freq", "index_skip_topk_offset"]);
            assert_eq!(engine.name().parse::<Engine>().unwrap(), engine);
        }
        let error = "ollama".parse::<Engine>().unwrap_err();
        assert!(error.to_string().contains("'ollama'"), "{error}");
    }

    #[test]
    fn impossible_patterns_are_refused() {
        let error =
            export(Engine::Vllm, &target("glm_moe_dsa", &[3]), "FSSFSS".parse().unwrap(), &Stages::one(6)).unwrap_err();
        assert!(error.to_string().contains("layer 3"), "{error}");
        assert!(export(Engine::Vllm, &target("glm_moe_dsa", &[]), "FS".parse().unwrap(), &Stages::one(6)).is_err());
    }
}
