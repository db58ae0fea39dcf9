//! What an engine is started with: config.json, command-line overrides, pipeline stages, and which weights there are.

use serde_json::{Map, Value};

use super::SimulateError;
use crate::domain::{LayerSet, MAX_LAYERS, Stages};

/// The architectures whose readers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `glm_moe_dsa`: GLM-5 to 5.3.
    Glm,
    /// `deepseek_v32`.
    DeepseekV32,
    /// `deepseek_v3`: without an indexer, or a V3.2 under the older name.
    DeepseekV3,
    /// `glm5_next`: GLM-5.3-Flash.
    Glm5Next,
    /// `mistral_large4`.
    MistralLarge4,
    /// `hy_v4`.
    HyV4,
    /// `deepseek_v4`.
    DeepseekV4,
    /// `deepseek_v41`.
    DeepseekV41,
    /// `minimax_m3_vl`.
    MinimaxM3,
    /// `longcat_flash`.
    Longcat,
    /// `dots3_note`.
    Dots3,
    /// Any other.
    Other,
}

impl Family {
    pub(super) fn of(model_type: &str) -> Self {
        match model_type.strip_suffix("_text").unwrap_or(model_type) {
            "glm_moe_dsa" => Self::Glm,
            "deepseek_v32" => Self::DeepseekV32,
            "deepseek_v3" => Self::DeepseekV3,
            "glm5_next" => Self::Glm5Next,
            "mistral_large4" => Self::MistralLarge4,
            "hy_v4" => Self::HyV4,
            "deepseek_v4" => Self::DeepseekV4,
            "deepseek_v41" => Self::DeepseekV41,
            "minimax_m3_vl" => Self::MinimaxM3,
            "longcat_flash" => Self::Longcat,
            "dots3_note" => Self::Dots3,
            _ => Self::Other,
        }
    }

    /// Returns whether patterns are read for this family as for DeepSeek-V3.2: one letter per layer.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Glm | Self::DeepseekV32)
    }
}

/// The config that an engine is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// The architecture.
    pub family: Family,
    /// `model_type` as written.
    pub model_type: String,
    /// Attention layers, without MTP.
    pub layers: usize,
    /// k, where the config says.
    pub index_topk: Option<u64>,
    /// Whether the language model's keys lie in `text_config`.
    pub nested: bool,
    /// The split over pipeline stages.
    pub stages: Stages,
    /// Layers whose indexer weights the checkpoint has; `None` where nobody looked.
    pub indexers: Option<LayerSet>,
    /// Layers whose stored indexer only repeats that of their source layer.
    pub copied: LayerSet,
    /// Keys of `overrides` that do not reach a nested config.
    pub stray: Vec<String>,
    /// Whether `overrides` hold a `text_config` for which the engine's config has no such part.
    pub replaces_text_config: bool,
    file: Map<String, Value>,
    overrides: Map<String, Value>,
}

impl Served {
    /// Reads config.json as the engines find it; keys of a nested `text_config` are those of the model.
    ///
    /// # Errors
    /// [`SimulateError::Config`] where it is no JSON object or its number of layers cannot be told.
    pub fn parse(json: &str) -> Result<Self, SimulateError> {
        let wrong = |reason: String| SimulateError::Config(reason);
        let top: Map<String, Value> = serde_json::from_str(json).map_err(|e| wrong(e.to_string()))?;
        Self::new(top)
    }

    /// Returns the same for a config that was parsed before.
    ///
    /// # Errors
    /// As [`Served::parse`].
    pub fn new(mut top: Map<String, Value>) -> Result<Self, SimulateError> {
        let text = |map: &Map<String, Value>| map.get("model_type").and_then(Value::as_str).map(str::to_owned);
        let outer = text(&top);
        let (file, nested) = match top.remove("text_config") {
            // DeepSeek-V4.1's config classes flatten it; what lies outside wins.
            Some(Value::Object(mut inner)) if outer.as_deref().map(Family::of) == Some(Family::DeepseekV41) => {
                inner.extend(top);
                (inner, true)
            }
            Some(Value::Object(inner)) => (inner, true),
            _ => (top, false),
        };
        let model_type = match (outer.as_deref().map(Family::of), text(&file)) {
            (None | Some(Family::Other), Some(inner)) => Some(inner),
            _ => outer,
        };
        let model_type = model_type.unwrap_or_default();
        let family = Family::of(&model_type);
        let layers = count(family, |key| file.get(key))?;
        Ok(Self {
            family,
            model_type,
            layers,
            index_topk: file.get("index_topk").and_then(Value::as_u64),
            nested,
            stages: Stages::one(layers),
            indexers: None,
            copied: LayerSet::default(),
            stray: Vec::new(),
            replaces_text_config: false,
            file,
            overrides: Map::new(),
        })
    }

    /// Adds command-line overrides (`--hf-overrides`, `--json-model-override-args`), which engines set after loading.
    ///
    /// Those of a nested config count where they are nested, too; DeepSeek-V4.1 is flattened when it is loaded.
    ///
    /// # Errors
    /// [`SimulateError::Overrides`] where they are no JSON object, [`SimulateError::Config`] where no layers are left.
    pub fn with_overrides(mut self, json: &str) -> Result<Self, SimulateError> {
        let mut flat: Map<String, Value> =
            serde_json::from_str(json).map_err(|e| SimulateError::Overrides(e.to_string()))?;
        let is_flattened = !self.nested || self.family == Family::DeepseekV41;
        let inner = flat.remove("text_config");
        self.replaces_text_config = is_flattened && inner.is_some();
        let mut inner = inner.and_then(|v| v.as_object().cloned()).unwrap_or_default();
        if !is_flattened {
            self.stray = flat.keys().cloned().collect();
        } else if self.nested {
            inner.extend(flat);
        } else {
            inner = flat;
        }
        self.overrides = inner;
        let one = self.stages == Stages::one(self.layers);
        self.layers = count(self.family, |key| self.late(key))?;
        self.index_topk = self.late("index_topk").and_then(Value::as_u64);
        if one {
            self.stages = Stages::one(self.layers);
        }
        Ok(self)
    }

    /// Returns the same for a reader that takes no overrides.
    pub(super) fn as_saved(&self) -> Self {
        let mut saved = Self { overrides: Map::new(), ..self.clone() };
        saved.layers = count(saved.family, |key| saved.late(key)).unwrap_or(saved.layers);
        saved
    }

    /// Adds the split over pipeline stages.
    ///
    /// # Errors
    /// [`SimulateError::Stages`] where it holds another number of layers.
    pub fn with_stages(mut self, stages: Stages) -> Result<Self, SimulateError> {
        stages.check(self.layers)?;
        self.stages = stages;
        Ok(self)
    }

    /// Adds the layers whose indexer weights the checkpoint has.
    pub fn with_indexers(mut self, indexers: LayerSet) -> Self {
        self.indexers = Some(indexers);
        self
    }

    /// Adds the layers whose stored indexer only repeats that of their source layer, which the config calls shared.
    pub fn with_copied_indexers(mut self, layers: LayerSet) -> Self {
        self.copied = layers;
        self
    }

    /// Returns the number of indexer heads; 0 where the config does not say.
    pub fn index_heads(&self) -> usize {
        self.file("index_n_heads").and_then(Value::as_u64).unwrap_or(0) as usize
    }

    /// Returns the value of a key in the file alone, as a config class sees it; `None` where it is absent.
    pub(super) fn file(&self, key: &str) -> Option<&Value> {
        self.file.get(key)
    }

    /// Returns the value of a key after overrides; `None` where it is absent.
    pub(super) fn late(&self, key: &str) -> Option<&Value> {
        self.overrides.get(key).or_else(|| self.file.get(key))
    }

    /// Returns an overridden value.
    pub(super) fn overridden(&self, key: &str) -> Option<&Value> {
        self.overrides.get(key)
    }

    /// Returns where [`Served::late`] found a key.
    pub(super) fn origin(&self, key: &str) -> &'static str {
        match (self.overrides.contains_key(key), self.file.contains_key(key)) {
            (true, _) => "override",
            (false, true) => "config.json",
            (false, false) => "default",
        }
    }
}

/// Returns the number of attention layers that `get` says.
fn count<'a>(family: Family, get: impl Fn(&str) -> Option<&'a Value>) -> Result<usize, SimulateError> {
    let number = |key: &str| get(key).and_then(Value::as_u64);
    let layers = match family {
        // Every block of LongCat has two attentions.
        Family::Longcat => number("num_layers").map(|n| 2 * n).or(number("num_hidden_layers")),
        Family::Glm => Some(number("num_hidden_layers").unwrap_or(78)),
        Family::DeepseekV32 | Family::DeepseekV3 => Some(number("num_hidden_layers").unwrap_or(61)),
        _ => number("num_hidden_layers"),
    };
    match layers {
        Some(n) if (1..=MAX_LAYERS as u64).contains(&n) => Ok(n as usize),
        Some(n) => Err(SimulateError::Config(format!("it has {n} layers, and 1 to {MAX_LAYERS} are possible"))),
        None => Err(SimulateError::Config("it does not say num_hidden_layers".to_owned())),
    }
}
