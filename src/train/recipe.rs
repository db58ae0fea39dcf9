//! The recipe: one TOML file that says everything that decides the result.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::input;

/// What to train, on what, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Decides the initial weights and the order of the data.
    pub seed: u64,
    /// Text and its cutting.
    pub data: DataRecipe,
    /// Learning rates and batch.
    pub optimizer: OptimizerRecipe,
    /// The stages in order.
    pub stage: Vec<StageRecipe>,
    /// The checkpoint's config.json, field by field.
    pub model: toml::Table,
}

/// Text and its cutting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Tokens that each sequence predicts.
    pub sequence_length: usize,
    /// Training texts.
    pub corpus: Vec<CorpusRecipe>,
    /// A text that is never trained on; its loss is shown now and then.
    pub monitor: PathBuf,
}

/// One training text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusRecipe {
    /// A UTF-8 text, or one compressed as `.xz`; relative to the recipe.
    pub file: PathBuf,
    /// How often an epoch goes through it.
    #[serde(default = "once")]
    pub repeat: usize,
}

fn once() -> usize {
    1
}

/// Learning rates and batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Sequences per step.
    pub batch: usize,
    /// Sequences that go through the model at a time; the unit of parallel work.
    pub micro_batch: usize,
    /// Muon's rate, for the hidden matrices.
    pub matrix_lr: f64,
    /// `AdamW`'s rate for embedding and router.
    pub embedding_lr: f64,
    /// `AdamW`'s rate for norms.
    pub norm_lr: f64,
    /// `AdamW`'s rate for indexers.
    pub indexer_lr: f64,
    /// Decay of the hidden matrices per step, as a multiple of the rate.
    pub weight_decay: f64,
    /// Largest norm of the gradient, for the model and for the indexers apart.
    pub clip: f64,
    /// Step of the router's balancing bias.
    pub balance: f64,
}

/// What a stage trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The language model, with dense attention; no indexers.
    Dense,
    /// The indexers alone, towards the head-averaged dense attention.
    Warmup,
    /// Both under top-k attention: the model on the LM loss, the indexers on KL over the selected keys.
    Sparse,
}

impl Stage {
    /// Returns the name that recipes use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Warmup => "warmup",
            Self::Sparse => "sparse",
        }
    }
}

/// One stage: what, how long, and how the learning rates move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecipe {
    /// What it trains.
    pub kind: Stage,
    /// Steps of `optimizer.batch` sequences each.
    pub steps: u64,
    /// Steps over which the rates rise from 0 to their peak.
    #[serde(default)]
    pub warmup: u64,
    /// Peak of the rates, as a multiple of those under `[optimizer]`.
    #[serde(default = "whole")]
    pub peak: f64,
    /// Steps at the end over which the rates fall linearly from `peak` to `end`.
    #[serde(default)]
    pub decay: u64,
    /// The multiple that is reached at the end.
    #[serde(default)]
    pub end: f64,
}

fn whole() -> f64 {
    1.0
}

impl StageRecipe {
    /// Returns the multiple of the learning rates at `step`, counted from 0 within the stage.
    pub fn rate(&self, step: u64) -> f64 {
        let rising = (step + 1) as f64 / (self.warmup + 1) as f64;
        let left = self.steps.saturating_sub(step) as f64 / (self.decay + 1) as f64;
        self.peak * rising.min(1.0) - (self.peak - self.end) * (1.0 - left.min(1.0))
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] naming the file and the offending line, field or value.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let failed = |reason: String| TrainError::Recipe { path: path.into(), reason };
        let text = input::named_text(path, input::TEXT).map_err(|e| failed(e.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    /// Parses a recipe and checks its values.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let recipe: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        let o = &recipe.optimizer;
        let at_least_one = [
            ("data.sequence_length", recipe.data.sequence_length),
            ("data.corpus", recipe.data.corpus.len()),
            ("optimizer.batch", o.batch),
            ("optimizer.micro_batch", o.micro_batch),
            ("stage", recipe.stage.len()),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0 or empty"));
        }
        let repeats = recipe.data.corpus.iter().map(|part| part.repeat).max().unwrap_or(0);
        let bounds = [
            ("data.sequence_length", recipe.data.sequence_length, 1 << 24),
            ("data.corpus.repeat", repeats, 1 << 16),
            ("optimizer.batch", o.batch, 1 << 20),
        ];
        if let Some((name, value, most)) = bounds.iter().find(|(_, value, most)| value > most) {
            return Err(format!("{name} is {value}, more than {most}"));
        }
        if !o.batch.is_multiple_of(o.micro_batch) {
            return Err(format!(
                "optimizer.batch {} is not a multiple of optimizer.micro_batch {}",
                o.batch, o.micro_batch
            ));
        }
        Ok(recipe)
    }

    /// Returns the checkpoint's config.json.
    pub fn config_json(&self) -> String {
        // `{:#}` of a JSON value cannot fail; dates, which JSON lacks, become their text.
        let mut model = serde_json::json!(self.model);
        if model["model_type"] == "glm_moe_dsa" {
            // This is how it is trained; engines that read the key rotate by halves where it is absent.
            model["indexer_rope_interleave"] = true.into();
        }
        format!("{model:#}\n")
    }

    /// Returns why a run of `earlier`, stopped at `step` of stage number `stage`, cannot go on with this recipe.
    ///
    /// The steps of a stage may be changed as long as its decay has not begun: until there the run is the same.
    pub fn differs(&self, earlier: &Self, stage: usize, step: u64) -> Option<String> {
        let mut same = earlier.clone();
        for (index, (mine, theirs)) in self.stage.iter().zip(&mut same.stage).enumerate() {
            let decays = mine.steps.min(theirs.steps).saturating_sub(mine.decay.max(theirs.decay));
            if index > stage {
                *theirs = mine.clone();
            } else if index == stage && step <= decays {
                (theirs.steps, theirs.decay, theirs.end) = (mine.steps, mine.decay, mine.end);
            }
        }
        if *self == same {
            return None;
        }
        let parts = [
            ("seed", self.seed != same.seed),
            ("[data]", self.data != same.data),
            ("[optimizer]", self.optimizer != same.optimizer),
            ("[model]", self.model != same.model),
        ];
        let part = parts.iter().find(|(_, differs)| *differs).map_or("[[stage]]", |(name, _)| name);
        Some(format!("{part} is not what the run began with"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const RECIPE: &str = r#"
seed = 1
[data]
sequence_length = 16
corpus = [{ file = "corpus.txt" }]
monitor = "monitor.txt"
[optimizer]
batch = 4
micro_batch = 2
matrix_lr = 0.02
embedding_lr = 0.01
norm_lr = 0.01
indexer_lr = 0.01
weight_decay = 0.1
clip = 1.0
balance = 0.001
[[stage]]
kind = "dense"
steps = 6
warmup = 2
decay = 2
[[stage]]
kind = "warmup"
steps = 3
[[stage]]
kind = "sparse"
steps = 4
[model]
model_type = "glm_moe_dsa"
"#;

    #[test]
    fn rates_rise_hold_and_fall() {
        let stage = StageRecipe { kind: Stage::Dense, steps: 10, warmup: 1, peak: 2.0, decay: 3, end: 0.4 };
        let rates: Vec<f64> = (0..10).map(|s| stage.rate(s)).collect();
        let want = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.6, 1.2, 0.8];
        assert!(rates.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
    }

    #[test]
    fn mistakes_are_named() {
        let error = |from: &str, to: &str| Recipe::parse(&RECIPE.replace(from, to)).unwrap_err();
        assert!(error("micro_batch = 2", "micro_batch = 3").contains("batch 4 is not a multiple"));
        assert!(error("batch = 4", "batch = 0").contains("optimizer.batch is 0"));
        assert!(error("seed = 1", "sead = 1").contains("sead"));
        assert!(error("\"sparse\"", "\"spares\"").contains("spares"));
    }

    #[test]
    fn only_steps_that_have_not_mattered_may_change() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        let longer = Recipe::parse(&RECIPE.replace("steps = 6", "steps = 9")).unwrap();
        assert_eq!(longer.differs(&recipe, 0, 4), None);
        assert!(longer.differs(&recipe, 0, 5).unwrap().contains("[[stage]]"));
        assert!(longer.differs(&recipe, 1, 0).unwrap().contains("[[stage]]"));
        let later = Recipe::parse(&RECIPE.replace("steps = 4", "steps = 9\nwarmup = 1")).unwrap();
        assert_eq!(later.differs(&recipe, 1, 2), None);
        let other = Recipe::parse(&RECIPE.replace("seed = 1", "seed = 2")).unwrap();
        assert!(other.differs(&recipe, 0, 0).unwrap().contains("seed"));
    }

    #[test]
    fn the_model_table_becomes_config_json() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        assert_eq!(
            recipe.config_json(),
            "{\n  \"model_type\": \"glm_moe_dsa\",\n  \"indexer_rope_interleave\": true\n}\n"
        );
    }
}
