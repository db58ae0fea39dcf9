//! The model that an export is for.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::served::{Family, Served};
use super::{ExportError, SimulateError};
use crate::checkpoint::{self, CONFIG_FILE, Checkpoint};
use crate::domain::{Constraints, LayerSet, Pattern, Sites, Stages};
use crate::input;

/// The model that an export is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// How the model is named where it is served: a folder, or an id.
    pub model: String,
    /// `model_type` of config.json.
    pub model_type: String,
    /// k.
    pub index_topk: usize,
    /// How many letters a pattern has, and which of them cannot be F.
    pub constraints: Constraints,
    /// config.json as it is.
    pub(super) config: Map<String, Value>,
    /// Layers whose indexer weights are there; `None` where only the config is known.
    pub(super) indexers: Option<LayerSet>,
}

impl Target {
    /// Describes an opened checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let dir = checkpoint.dir().map(|dir| dir.display().to_string());
        let config = checkpoint.config();
        let model_type = config.family.model_type();
        let layers = config.num_hidden_layers;
        let written = checkpoint.config_json().and_then(|text| serde_json::from_str(text).ok());
        // A dense GGUF file has no config.json: these keys are all that engines read.
        let known = || {
            let keys =
                json!({ "model_type": model_type, "num_hidden_layers": layers, "index_topk": config.index_topk });
            keys.as_object().cloned().unwrap_or_default()
        };
        Self {
            model: dir.unwrap_or_else(|| checkpoint.name().to_owned()),
            model_type: model_type.to_owned(),
            index_topk: config.index_topk,
            constraints: checkpoint.constraints(),
            config: written.unwrap_or_else(known),
            indexers: Some((0..layers).filter(|&layer| checkpoint.stores_indexer(layer)).collect()),
        }
    }

    /// Describes a model of which only config.json, or its folder, is read; which layers have weights is not known then.
    ///
    /// # Errors
    /// [`ExportError::Io`] and [`ExportError::Malformed`], naming the file.
    pub fn of_config(path: &Path) -> Result<Self, ExportError> {
        let path = &if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
        let text = input::named_text(path, input::TEXT).map_err(|e| ExportError::io(path, e))?;
        let config: Map<String, Value> = serde_json::from_str(&text).map_err(|e| ExportError::malformed(path, e))?;
        let served = Served::new(config.clone()).map_err(|e| ExportError::malformed(path, e))?;
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let letters = if served.family == Family::DeepseekV4 { served.sites().len() } else { served.layers };
        Ok(Self {
            model: folder.unwrap_or(Path::new("MODEL")).display().to_string(),
            model_type: served.model_type.clone(),
            index_topk: served.index_topk.unwrap_or_default() as usize,
            constraints: Constraints::every(letters),
            config,
            indexers: None,
        })
    }

    /// Returns the layers that a pattern has a letter for.
    pub fn sites(&self) -> Sites {
        self.constraints.sites
    }

    /// Refuses a dense model, which no engine runs with indexers.
    pub(super) fn refuse_dense(&self) -> Result<(), ExportError> {
        let family = checkpoint::Family::from_model_type(&self.model_type);
        if family.is_some_and(checkpoint::Family::is_dense) {
            return Err(ExportError::Dense(self.model_type.clone()));
        }
        Ok(())
    }

    /// Returns the config's own pattern, as transformers reads it, or all-Full where that says nothing.
    ///
    /// # Errors
    /// [`ExportError::Pattern`] where it makes the first layer Shared, [`ExportError::Simulate`] where it is wrong.
    pub fn native(&self) -> Result<Pattern, ExportError> {
        let served = Served::new(self.config.clone()).map_err(ExportError::Simulate)?;
        let letters = super::simulate::read_by(super::Engine::Transformers.row(), &served).letters();
        if letters.len() == self.constraints.len() && !letters.contains('-') {
            return Ok(letters.parse::<Pattern>()?);
        }
        Ok(Pattern::all_full(self.constraints.len())?)
    }

    /// Returns the model served with `keys` written into its config.json.
    pub(super) fn serving(&self, keys: Map<String, Value>, stages: &Stages) -> Result<Served, SimulateError> {
        let mut config = self.config.clone();
        super::config::patch(&mut config, keys);
        self.served(config, stages)
    }

    /// Returns the model served with `overrides` on its command line.
    pub(super) fn overriding(&self, overrides: &str, stages: &Stages) -> Result<Served, SimulateError> {
        self.served(self.config.clone(), stages)?.with_overrides(overrides)
    }

    fn served(&self, config: Map<String, Value>, stages: &Stages) -> Result<Served, SimulateError> {
        let served = Served::new(config)?.with_stages(stages.clone())?;
        Ok(match self.indexers {
            Some(indexers) => served.with_indexers(indexers),
            None => served,
        })
    }

    /// Returns the keys of config.json for a pattern.
    pub(super) fn keys(&self, pattern: Pattern) -> Map<String, Value> {
        let mut keys = super::config::keys(pattern, &self.model_type);
        if self.model_type == "deepseek_v4" {
            // Its letters count the layers that have an indexer, which `indexer_types` does not.
            keys.remove("indexer_types");
        }
        keys
    }

    /// Returns overrides as JSON, nested where the config is.
    pub(super) fn nest(&self, keys: &Map<String, Value>) -> String {
        let nested = self.config.get("text_config").is_some_and(Value::is_object);
        if nested { json!({ "text_config": keys }).to_string() } else { json!(keys).to_string() }
    }
}
