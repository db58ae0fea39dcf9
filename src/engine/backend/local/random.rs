//! Models of a given geometry with random weights: for timing, where no checkpoint is at hand or would fit on a disk.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::LocalBackend;
use crate::checkpoint::{Config, demands};
use crate::domain::Diagnostic;
use crate::domain::{Constraints, LayerSet, Pattern};
use crate::engine::{BackendError, Calibration, ModelInfo, Settings};
use crate::model::{Model, TensorSource};

/// The geometries that come with the program: name and config.json.
pub const GEOMETRIES: [(&str, &str); 3] = [
    ("glm-4.7-flash-dsa", include_str!("../../../../assets/geometries/glm-4.7-flash-dsa.json")),
    ("glm-5", include_str!("../../../../assets/geometries/glm-5.json")),
    ("deepseek-v3.2", include_str!("../../../../assets/geometries/deepseek-v3.2.json")),
];

/// Sizes of a model without weights.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomModel {
    /// Name for people, with what was changed.
    pub name: String,
    /// The architecture.
    pub config: Config,
}

impl RandomModel {
    /// Reads a geometry that comes with the program, or a file in the form of config.json, and changes keys of it.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where there is no such geometry, a change is not KEY=VALUE, or config.json forbids it.
    pub fn read(asked: &str, changes: &[String]) -> Result<Self, BackendError> {
        let failed =
            |message: String, hint: &str| BackendError::Failed(Diagnostic { message, hint: Some(hint.to_owned()) });
        let text = match GEOMETRIES.iter().find(|(name, _)| *name == asked) {
            Some((_, json)) => (*json).to_owned(),
            None if Path::new(asked).is_file() => std::fs::read_to_string(asked)
                .map_err(|e| failed(format!("cannot read '{asked}': {e}"), "give a file in the form of config.json"))?,
            None => {
                let names: Vec<&str> = GEOMETRIES.iter().map(|(name, _)| *name).collect();
                let hint = format!("use {}, or a file in the form of config.json", names.join(", "));
                return Err(failed(format!("'{asked}' is neither a known geometry nor a file"), &hint));
            }
        };
        let wrong =
            |e: &dyn std::fmt::Display| failed(format!("'{asked}': {e}"), "see config.json of a DSA checkpoint");
        let mut json: Value = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
        for change in changes {
            let Some((key, value)) = change.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(failed(format!("--set '{change}' is not KEY=VALUE"), "for example --set index_topk=1024"));
            };
            // Numbers, lists and booleans as JSON; whatever else as text.
            json[key] = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        }
        let config = Config::parse(&json.to_string()).map_err(|e| wrong(&e))?;
        let name = [&[asked.to_owned()], changes].concat().join(" ");
        Ok(Self { name, config })
    }

    /// Returns the pattern that the geometry itself has.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where layer 0 is not Full.
    pub fn native(&self) -> Result<Pattern, BackendError> {
        let roles = &self.config.roles;
        Pattern::from_fn(roles.len(), |site| roles[site])
            .map_err(|e| BackendError::Failed(Diagnostic { message: e.to_string(), hint: Some(e.hint().to_owned()) }))
    }

    /// Returns which patterns are possible: all that begin with a Full layer.
    pub fn constraints(&self) -> Constraints {
        Constraints { sites: self.config.sites(), locked_shared: LayerSet::default() }
    }

    /// Returns the bytes of the weights at `bytes_per_element`.
    pub fn needed_bytes(&self, bytes_per_element: usize) -> u64 {
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        demands(&self.config).iter().map(|demand| elements(&demand.shape)).sum::<u64>() * bytes_per_element as u64
    }
}

impl LocalBackend {
    /// Makes a model with random weights on the device.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the device has no room.
    pub fn random(model: &RandomModel, calibration: Calibration, settings: Settings) -> Result<Self, BackendError> {
        let (config, placement) = (&model.config, &settings.placement);
        let name = format!("{} (random weights)", model.name);
        let info =
            ModelInfo::of_config(&name, config, (model.native()?, model.constraints()), &calibration, &settings)?;
        let source = RandomSource { device: placement.device.clone() };
        let built = Model::new(config.clone(), &source, &placement.device, placement.dtype)?;
        Self::assemble(info, built, calibration, settings)
    }
}

/// Gives norms of ones, biases of zeros, and matrices that keep the size of what they multiply.
#[derive(Debug)]
struct RandomSource {
    device: Device,
}

impl TensorSource for RandomSource {
    fn get(&self, name: &str, shape: &[usize], dtype: DType) -> crate::model::Result<Tensor> {
        if dtype == DType::U32 {
            // A table of experts: each row holds different ones, and there are at least as many as a row has.
            let (rows, width) = (shape.first().copied().unwrap_or(1), shape.last().copied().unwrap_or(1));
            let ids = (0..rows).flat_map(|_| 0..width as u32);
            return Ok(Tensor::from_iter(ids, &Device::Cpu)?.reshape(shape)?);
        }
        let tensor = if name.ends_with("norm.weight") {
            Tensor::ones(shape, dtype, &self.device)?
        } else if name.ends_with("bias") {
            Tensor::zeros(shape, dtype, &self.device)?
        } else {
            let inputs = shape.last().copied().unwrap_or(1).max(1);
            Tensor::randn(0f32, (inputs as f32).powf(-0.5), shape, &self.device)?.to_dtype(dtype)?
        };
        Ok(tensor)
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_geometry_is_read_and_can_be_changed() {
        for (name, _) in GEOMETRIES {
            let model = RandomModel::read(name, &[]).unwrap();
            assert_eq!(model.native().unwrap().full_count(), model.config.num_hidden_layers, "{name}");
            // All are of more than 25 · 10^9 weights.
            assert!(model.needed_bytes(1) > 25_000_000_000, "{name}");
        }
        let changes = ["index_topk=64", "num_hidden_layers=2"].map(str::to_owned);
        let model = RandomModel::read("glm-5", &changes).unwrap();
        assert_eq!((model.config.index_topk, model.config.num_hidden_layers), (64, 2));
        assert_eq!(model.name, "glm-5 index_topk=64 num_hidden_layers=2");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let told = |asked: &str, changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(|&c| c.to_owned()).collect();
            RandomModel::read(asked, &changes).unwrap_err().to_string()
        };
        assert_eq!(told("glm-9", &[]), "'glm-9' is neither a known geometry nor a file");
        assert_eq!(told("glm-5", &["topk"]), "--set 'topk' is not KEY=VALUE");
        assert!(told("glm-5", &["index_topk=0"]).contains("index_topk"));
    }
}
