//! Rotary position embedding as config.json spells it, in the old way and the new.

use serde::{Deserialize, Serialize};

use super::CheckpointError;

/// Base used when config.json gives none, as the reference does for both model types.
const DEFAULT_THETA: f64 = 10_000.0;

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum RopeScaling {
    /// No stretching.
    Default,
    /// `YaRN`, applied at every length.
    Yarn {
        /// Ratio of the stretched context to the original one.
        factor: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is divided by `factor`.
        beta_slow: f64,
        /// Weight of the logarithmic scale of cos and sin; 0 where absent.
        mscale: f64,
        /// The same over all dimensions, which also scales the softmax; 0 where absent.
        mscale_all_dim: f64,
        /// Context of the unstretched training.
        original_max_position_embeddings: usize,
        /// Explicit factor on cos and sin.
        attention_factor: Option<f64>,
        /// Whether the bounds of the ramp are rounded to whole dimensions.
        truncate: bool,
    },
    /// Llama 3.1: low frequencies are divided, high ones kept, those between blended; at every length.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Turns above which it is high.
        high_freq_factor: f64,
        /// Context of the unstretched training.
        original_max_position_embeddings: usize,
    },
    /// Each frequency is divided by its own factor, as GGUF files store the stretching of Llama 3.1.
    Divided(Vec<f32>),
}

/// Rotary position embedding of the model, shared by attention and indexer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Stretching for long contexts.
    pub scaling: RopeScaling,
}

/// The dictionary under `rope_parameters` (new) or `rope_scaling` (old).
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawRope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f64>,
    /// Share of a head's width that is rotated; only of families that say so.
    pub(super) partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
    truncate: Option<bool>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
}

impl RawRope {
    /// Returns the kind of stretching.
    pub(super) fn kind(&self) -> &str {
        self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default")
    }

    fn llama3(&self) -> Result<RopeScaling, CheckpointError> {
        let need = |key, value: Option<f64>| match value {
            Some(value) if value > 0.0 && value.is_finite() => Ok(value),
            Some(value) => Err(wrong(key, value, "it must be a positive number")),
            None => Err(wrong(key, "missing", "rope_type 'llama3' needs it")),
        };
        let (low, high) =
            (need("low_freq_factor", self.low_freq_factor)?, need("high_freq_factor", self.high_freq_factor)?);
        if low >= high {
            return Err(wrong("low_freq_factor", low, "it must be below high_freq_factor"));
        }
        let original = self.original_max_position_embeddings.map(|n| n as f64);
        Ok(RopeScaling::Llama3 {
            factor: need("rope factor", self.factor)?,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: need("original_max_position_embeddings", original)? as usize,
        })
    }
}

impl Rope {
    /// Reads either spelling: `rope_scaling`, if not null, replaces `rope_parameters`; a base inside the dictionary
    /// wins over the `rope_theta` beside it.
    pub(super) fn read(
        parameters: Option<RawRope>,
        scaling: Option<RawRope>,
        theta: Option<f64>,
        max_positions: usize,
    ) -> Result<Self, CheckpointError> {
        let raw = scaling.or(parameters).unwrap_or_default();
        let theta = raw.rope_theta.or(theta).unwrap_or(DEFAULT_THETA);
        if !(theta > 0.0 && theta.is_finite()) {
            return Err(wrong("rope_theta", theta, "the base must be a positive number"));
        }
        let scaling = match raw.kind() {
            "default" => RopeScaling::Default,
            "yarn" => {
                let original = raw.original_max_position_embeddings.unwrap_or(max_positions);
                let factor = raw.factor.unwrap_or(max_positions as f64 / original as f64);
                if !(factor >= 1.0 && factor.is_finite()) {
                    return Err(wrong("rope factor", factor, "yarn needs a factor of at least 1"));
                }
                RopeScaling::Yarn {
                    factor,
                    beta_fast: raw.beta_fast.unwrap_or(32.0),
                    beta_slow: raw.beta_slow.unwrap_or(1.0),
                    mscale: raw.mscale.unwrap_or(0.0),
                    mscale_all_dim: raw.mscale_all_dim.unwrap_or(0.0),
                    original_max_position_embeddings: original,
                    attention_factor: raw.attention_factor,
                    truncate: raw.truncate.unwrap_or(true),
                }
            }
            "llama3" => raw.llama3()?,
            other => {
                let reason = "only 'default', 'yarn' and 'llama3' are supported";
                return Err(wrong("rope_type", format!("'{other}'"), reason));
            }
        };
        Ok(Self { theta, scaling })
    }
}

fn wrong(key: &'static str, value: impl ToString, reason: &str) -> CheckpointError {
    CheckpointError::Value { key, value: value.to_string(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Rope, CheckpointError> {
        #[derive(Deserialize)]
        #[allow(clippy::struct_field_names)]
        struct Raw {
            rope_parameters: Option<RawRope>,
            rope_scaling: Option<RawRope>,
            rope_theta: Option<f64>,
        }
        let raw: Raw = serde_json::from_str(json).expect("test JSON");
        Rope::read(raw.rope_parameters, raw.rope_scaling, raw.rope_theta, 163_840)
    }

    #[test]
    fn both_spellings_of_yarn_are_the_same() {
        let fields = r#""factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096"#;
        let old = read(&format!(r#"{{"rope_theta": 10000, "rope_scaling": {{"type": "yarn", {fields}}}}}"#)).unwrap();
        let new = read(&format!(r#"{{"rope_parameters": {{"rope_type": "yarn", "rope_theta": 10000.0, {fields}}}}}"#))
            .unwrap();
        assert_eq!(old, new);
        assert!(matches!(old.scaling, RopeScaling::Yarn { factor: 40.0, truncate: true, .. }));
    }

    #[test]
    fn the_base_is_looked_up_inside_then_beside_then_defaulted() {
        let theta = |json| read(json).unwrap().theta;
        assert_eq!(theta("{}"), 10_000.0);
        assert_eq!(theta(r#"{"rope_theta": 5e5, "rope_scaling": null}"#), 5e5);
        assert_eq!(theta(r#"{"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6}}"#), 1e6);
        assert_eq!(theta(r#"{"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}}"#), 5e5);
    }

    #[test]
    fn a_missing_original_context_is_the_whole_context() {
        let rope = read(r#"{"rope_scaling": {"rope_type": "yarn", "factor": 4}}"#).unwrap();
        let RopeScaling::Yarn { original_max_position_embeddings, mscale, .. } = rope.scaling else {
            panic!("yarn expected");
        };
        assert_eq!((original_max_position_embeddings, mscale), (163_840, 0.0));
    }

    #[test]
    fn other_kinds_are_rejected_by_name() {
        let error = read(r#"{"rope_scaling": {"type": "linear", "factor": 2}}"#).unwrap_err();
        assert!(error.to_string().contains("'linear'"), "{error}");
    }
}
