//! Serving engines: what to paste so that they run a pattern.
//!
//! Every engine reads index sharing in its own way and most are silent about what they ignore, so each gets the
//! explicit full-length pattern in the forms that it reads, and warnings about what it does with them. A frequency
//! alone is never exported: engines disagree about its formula.

mod config;
mod error;
mod prune;
mod sglang;
mod shard;
mod transformers;
mod vllm;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

pub use error::ExportError;
pub use prune::{Pruned, prune};

use crate::checkpoint::{CONFIG_FILE, Checkpoint, Family};
use crate::domain::{Constraints, Pattern, Role};

/// A serving engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Hugging Face transformers.
    Transformers,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 3] = [Self::Vllm, Self::Sglang, Self::Transformers];

    /// Returns the name as given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Transformers => "transformers",
        }
    }

    /// Returns the version whose source the export was written from.
    pub fn version(self) -> &'static str {
        match self {
            Self::Vllm => vllm::VERSION,
            Self::Sglang => sglang::VERSION,
            Self::Transformers => transformers::VERSION,
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

/// The model that an export is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// How the model is named where it is served: a folder, or an id.
    pub model: String,
    /// `model_type` of config.json.
    pub model_type: String,
    /// k.
    pub index_topk: usize,
    /// Which layers have no indexer.
    pub constraints: Constraints,
}

impl Target {
    /// Describes an opened checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let dir = checkpoint.dir().map(|dir| dir.display().to_string());
        Self {
            model: dir.unwrap_or_else(|| checkpoint.name().to_owned()),
            model_type: checkpoint.config().family.model_type().to_owned(),
            index_topk: checkpoint.config().index_topk,
            constraints: checkpoint.constraints(),
        }
    }

    /// Returns the Shared layers of `pattern` whose indexer tensors are still in the checkpoint.
    fn unused_indexers(&self, pattern: Pattern) -> Vec<usize> {
        let locked = self.constraints.locked_shared;
        (0..pattern.len()).filter(|&layer| !pattern.is_full(layer) && !locked.contains(layer)).collect()
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
    /// What to paste: a command-line argument, or code.
    pub argument: String,
    /// The same as changes to files, for those who prefer to keep it in the checkpoint.
    pub files: Vec<FilePatch>,
    /// What to know before serving.
    pub warnings: Vec<String>,
}

/// Returns what makes `engine` run `pattern` on `target`.
///
/// # Errors
/// [`ExportError::Pattern`] where the model cannot have the pattern, [`ExportError::NotRead`] where the engine ignores
/// sharing for this model type, [`ExportError::Dense`] for models that no engine runs with indexers.
pub fn export(engine: Engine, target: &Target, pattern: Pattern) -> Result<Export, ExportError> {
    if Family::from_model_type(&target.model_type).is_some_and(Family::is_dense) {
        return Err(ExportError::Dense(target.model_type.clone()));
    }
    target.constraints.check(pattern)?;
    let (argument, mut warnings) = match engine {
        Engine::Vllm => vllm::export(target, pattern),
        Engine::Sglang => sglang::export(pattern),
        Engine::Transformers => transformers::export(target, pattern)?,
    };
    if pattern.shared_count() > 0 {
        warnings.push(format!(
            "with at most {} visible tokens (index_topk) every pattern gives the same output; test with longer prompts",
            target.index_topk
        ));
    }
    let patch = FilePatch {
        path: CONFIG_FILE.to_owned(),
        set: config::keys(pattern),
        remove: config::STALE.map(str::to_owned).to_vec(),
    };
    Ok(Export { engine, version: engine.version(), argument, files: vec![patch], warnings })
}

/// Returns the roles in the words of `indexer_types`.
fn words(pattern: Pattern) -> Vec<&'static str> {
    pattern.roles().map(|role| if role == Role::Full { "full" } else { "shared" }).collect()
}

/// Returns layer numbers as a sentence holds them.
fn list(layers: &[usize]) -> String {
    let numbers: Vec<String> = layers.iter().map(ToString::to_string).collect();
    format!("{} {}", if layers.len() == 1 { "layer" } else { "layers" }, numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LayerSet;

    fn target(model_type: &str, locked: &[usize]) -> Target {
        Target {
            model: "/models/m".into(),
            model_type: model_type.into(),
            index_topk: 2048,
            constraints: Constraints { layers: 6, locked_shared: locked.iter().copied().collect::<LayerSet>() },
        }
    }

    fn done(engine: Engine, target: &Target) -> Export {
        export(engine, target, "FSSFSS".parse().unwrap()).unwrap()
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
        let error = export(Engine::Transformers, &deepseek, "FSSFSS".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("deepseek_v32") && error.hint().is_some(), "{error}");
        assert!(export(Engine::Transformers, &deepseek, "FFFFFF".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_file_form_agrees_for_every_reader_and_holds_no_nulls() {
        for engine in Engine::ALL {
            let out = done(engine, &target("glm_moe_dsa", &[]));
            let [patch] = &out.files[..] else { panic!("one file expected") };
            assert_eq!(
                patch.set.keys().collect::<Vec<_>>(),
                ["indexer_types", "index_topk_pattern", "use_index_cache"]
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
        let error = export(Engine::Vllm, &target("glm_moe_dsa", &[3]), "FSSFSS".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("layer 3"), "{error}");
        assert!(export(Engine::Vllm, &target("glm_moe_dsa", &[]), "FS".parse().unwrap()).is_err());
    }
}
