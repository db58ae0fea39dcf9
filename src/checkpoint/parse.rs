//! config.json by its model type: DSA and dense models are read by a file each.

use serde::Deserialize;

use super::dense::{self, RawDense};
use super::dsa::{self, RawDsa};
use super::{Attention, CheckpointError, Config, Family};

impl Config {
    /// Parses config.json.
    ///
    /// # Errors
    /// Other model types by name; values that the architecture does not allow by key and value.
    pub fn parse(json: &str) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: Option<String>,
        }
        // The type first: other architectures may spell other keys in ways that `Raw` cannot hold.
        let kind: Kind = serde_json::from_str(json)?;
        let kind = kind.model_type.unwrap_or_else(|| "(none given)".to_owned());
        let family = Family::from_model_type(&kind).ok_or(CheckpointError::ModelType(kind))?;
        let config = if family.is_dense() {
            serde_json::from_str::<RawDense>(json)?.read(family)?
        } else {
            serde_json::from_str::<RawDsa>(json)?.read(family)?
        };
        config.validate()?;
        Ok(config)
    }

    /// Refuses what the architecture does not allow.
    pub(super) fn validate(&self) -> Result<(), CheckpointError> {
        if self.attention != Attention::Mla {
            return dense::validate(self);
        }
        dsa::validate(self)
    }
}
