//! The model that an export is for.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::rules::Formula;
use super::served::{Family, Served};
use super::{Engine, ExportError, SimulateError, config};
use crate::checkpoint::{self, CONFIG_FILE, Checkpoint};
use crate::domain::{Constraints, LayerSet, Pattern, Role, Site, Sites, Stages};
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
        let spec = checkpoint.config();
        let model_type = spec.family.model_type();
        let layers = spec.num_hidden_layers;
        let written = checkpoint.config_json().and_then(|text| serde_json::from_str(text).ok());
        // A dense GGUF file has no config.json: these keys are all that engines read.
        let known = || {
            let keys = json!({ "model_type": model_type, "num_hidden_layers": layers, "index_topk": spec.index_topk });
            keys.as_object().cloned().unwrap_or_default()
        };
        Self {
            model: dir.unwrap_or_else(|| checkpoint.name().to_owned()),
            model_type: model_type.to_owned(),
            index_topk: spec.index_topk,
            constraints: checkpoint.constraints(),
            config: written.unwrap_or_else(known),
            indexers: Some((0..layers).filter(|&layer| checkpoint.stores_indexer(layer)).collect()),
        }
    }

    /// Describes a model of which only config.json, or its folder, is read; which layers have weights is not known then.
    ///
    /// # Errors
    /// [`ExportError::Io`] and [`ExportError::Malformed`], naming the file; [`ExportError::NoSites`] where no layer selects
    /// keys.
    pub fn of_config(path: &Path) -> Result<Self, ExportError> {
        let path = &if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
        let text = input::named_text(path, input::TEXT).map_err(|e| ExportError::io(path, e))?;
        let config: Map<String, Value> = serde_json::from_str(&text).map_err(|e| ExportError::malformed(path, e))?;
        let served = Served::new(config.clone()).map_err(|e| ExportError::malformed(path, e))?;
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let Ok(sites) = Sites::new(served.layers, served.sites()) else {
            return Err(ExportError::NoSites { model_type: served.model_type });
        };
        Ok(Self {
            model: folder.unwrap_or(Path::new("MODEL")).display().to_string(),
            model_type: served.model_type.clone(),
            index_topk: served.index_topk.unwrap_or_default() as usize,
            constraints: Constraints { sites, locked_shared: LayerSet::default() },
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

    /// Returns the config's own pattern, as the first reader that knows the model reads it.
    ///
    /// # Errors
    /// [`ExportError::Pattern`] where it makes the first layer Shared, [`ExportError::Simulate`] where it is wrong.
    pub fn native(&self) -> Result<Pattern, ExportError> {
        let served = Served::new(self.config.clone()).map_err(ExportError::Simulate)?;
        for engine in [Engine::Transformers, Engine::Sglang, Engine::Vllm] {
            let letters = super::simulate::read_by(engine.row(), &served).letters().replace('-', "");
            if letters.len() == self.constraints.len() {
                return Ok(letters.parse::<Pattern>()?);
            }
        }
        Ok(Pattern::all_full(self.constraints.len())?)
    }

    /// Returns the model's family.
    pub(super) fn family(&self) -> Family {
        Family::of(&self.model_type)
    }

    /// Returns the layers that are Shared, by their numbers.
    pub(super) fn shared(&self, pattern: Pattern) -> Vec<usize> {
        let sites = self.sites().iter().enumerate();
        sites.filter(|&(site, _)| !pattern.is_full(site)).map(|(_, layer)| layer).collect()
    }

    /// Returns the first layers of pipeline stages that are Shared, by their numbers.
    pub(super) fn shared_heads(&self, pattern: Pattern, stages: &Stages) -> Vec<usize> {
        let sites = self.sites();
        let first = stages.heads().iter().map(|head| sites.before(head)).filter(|&site| site < pattern.len());
        first.filter(|&site| !pattern.is_full(site)).filter_map(|site| sites.layer(Site(site))).collect()
    }

    /// Returns one role per layer: layers that select no keys count as Full, which no engine reads there.
    pub(super) fn roles(&self, pattern: Pattern) -> Vec<Role> {
        let role = |layer: usize| self.sites().site(layer).map_or(Role::Full, |site| pattern.role(site.0));
        (0..self.sites().layers()).map(role).collect()
    }

    /// Returns `index_topk_pattern` for a pattern: one letter per layer, or per layer of ratio 4 for DeepSeek-V4.
    pub(super) fn letters(&self, pattern: Pattern) -> String {
        if self.family() == Family::DeepseekV4 {
            return pattern.to_string();
        }
        config::letters(&self.roles(pattern))
    }

    /// Returns `indexer_types` for a pattern.
    pub(super) fn words(&self, pattern: Pattern) -> Vec<&'static str> {
        config::words(&self.roles(pattern))
    }

    /// Returns the model served with `keys` written into its config.json.
    pub(super) fn serving(&self, keys: Map<String, Value>, stages: &Stages) -> Result<Served, SimulateError> {
        let mut config = self.config.clone();
        config::patch(&mut config, keys);
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

    /// Returns the keys of config.json for a pattern, in the form that the family's readers take.
    pub(super) fn keys(&self, pattern: Pattern) -> Map<String, Value> {
        let keys = match self.family() {
            Family::DeepseekV4 => json!({ "index_topk_pattern": self.letters(pattern), "use_index_cache": true }),
            Family::DeepseekV41 => {
                let is_full = |&(site, _): &(usize, usize)| pattern.is_full(site);
                let sources: Vec<usize> =
                    self.sites().iter().enumerate().filter(is_full).map(|(_, layer)| layer).collect();
                json!({ "index_source_layer_ids": sources })
            }
            // No reader takes a pattern.
            Family::MinimaxM3 => match Formula::A.solve(pattern) {
                Some((freq, offset)) => {
                    json!({ "use_index_cache": true, "index_topk_freq": freq, "index_skip_topk_offset": offset })
                }
                None => json!({}),
            },
            _ => return config::keys(&self.roles(pattern), &self.model_type),
        };
        keys.as_object().cloned().unwrap_or_default()
    }

    /// Returns whether the language model's keys lie in `text_config` once the config is loaded.
    pub(super) fn is_nested(&self) -> bool {
        // Engines flatten DeepSeek-V4.1's.
        self.config.get("text_config").is_some_and(Value::is_object) && self.family() != Family::DeepseekV41
    }

    /// Returns overrides as JSON, nested where the config is.
    pub(super) fn nest(&self, keys: &Map<String, Value>) -> String {
        if self.is_nested() { json!({ "text_config": keys }).to_string() } else { json!(keys).to_string() }
    }
}
