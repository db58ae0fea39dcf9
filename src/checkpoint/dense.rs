//! config.json of dense language models: `llama`, `qwen2` and `qwen3`.
//!
//! Absent keys take the defaults of transformers 5.23. Every layer counts as Full: a dense model has no pattern of its
//! own, and where its indices come from is an [`IndexSource`]. Refused are `mlp_bias` and sliding windows.

use serde::Deserialize;

use super::config::wrong;
use super::rope::RawRope;
use super::{Attention, CheckpointError, Config, Family, MlpKind, Rope};
use crate::domain::{IndexSource, MAX_LAYERS, PatternError, Role};

/// k of a dense model where none is given.
pub const DENSE_TOPK: usize = 128;

/// The keys that are read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawDense {
    pub(super) vocab_size: Option<usize>,
    pub(super) hidden_size: Option<usize>,
    pub(super) intermediate_size: Option<usize>,
    pub(super) num_hidden_layers: Option<usize>,
    pub(super) num_attention_heads: Option<usize>,
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) hidden_act: Option<String>,
    pub(super) max_position_embeddings: Option<usize>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) tie_word_embeddings: Option<bool>,
    pub(super) rope_parameters: Option<RawRope>,
    pub(super) rope_scaling: Option<RawRope>,
    pub(super) rope_theta: Option<f64>,
    pub(super) attention_bias: Option<bool>,
    pub(super) mlp_bias: Option<bool>,
    pub(super) use_sliding_window: Option<bool>,
    pub(super) layer_types: Option<Vec<String>>,
}

impl RawDense {
    /// Returns the architecture, with the oracle as its index source.
    pub(super) fn read(self, family: Family) -> Result<Config, CheckpointError> {
        self.refuse()?;
        let layers = self.num_hidden_layers.unwrap_or(32);
        if layers == 0 || layers > MAX_LAYERS {
            return Err(PatternError::Size(layers).into());
        }
        let pick = |llama, qwen| if family == Family::Llama { llama } else { qwen };
        let (hidden_size, heads) = (self.hidden_size.unwrap_or(4096), self.num_attention_heads.unwrap_or(32));
        let usual = if family == Family::Qwen3 { 128 } else { hidden_size / heads.max(1) };
        let head_dim = self.head_dim.unwrap_or(usual);
        let max_position_embeddings = self.max_position_embeddings.unwrap_or(pick(2048, 32_768));
        let rope = Rope::read(self.rope_parameters, self.rope_scaling, self.rope_theta, max_position_embeddings)?;
        let biased = self.attention_bias.unwrap_or(false);
        Ok(Config {
            family,
            attention: Attention::Gqa {
                num_key_value_heads: self.num_key_value_heads.unwrap_or(heads),
                head_dim,
                qkv_bias: biased || family == Family::Qwen2,
                qk_norm: family == Family::Qwen3,
                rope_interleaved: false,
            },
            vocab_size: self.vocab_size.unwrap_or(pick(32_000, 151_936)),
            hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            q_lora_rank: 0,
            kv_lora_rank: 0,
            qk_nope_head_dim: 0,
            qk_rope_head_dim: head_dim,
            v_head_dim: head_dim,
            intermediate_size: self.intermediate_size.unwrap_or(pick(11_008, 22_016)),
            moe_intermediate_size: 0,
            n_routed_experts: 0,
            n_shared_experts: 0,
            num_experts_per_tok: 0,
            n_group: 1,
            topk_group: 1,
            norm_topk_prob: false,
            routed_scaling_factor: 1.0,
            mlp: vec![MlpKind::Dense; layers],
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            attention_bias: biased && family != Family::Qwen2,
            index: IndexSource::Oracle,
            index_topk: DENSE_TOPK,
            index_n_heads: 0,
            index_head_dim: 0,
            index_rope_head_dim: 0,
            index_rope_interleaved: false,
            rope,
            max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            roles: vec![Role::Full; layers],
            deepseek_v4: None,
        })
    }

    /// Refuses what the families allow, but this program does not compute.
    fn refuse(&self) -> Result<(), CheckpointError> {
        if let Some(act) = self.hidden_act.as_ref().filter(|act| act.as_str() != "silu") {
            return wrong("hidden_act", format!("'{act}'"), "only 'silu' is supported");
        }
        if self.mlp_bias == Some(true) {
            return wrong("mlp_bias", true, "only MLPs without bias are supported");
        }
        if self.use_sliding_window == Some(true) {
            return wrong("use_sliding_window", true, "only attention to the whole context is supported");
        }
        match self.layer_types.iter().flatten().find(|kind| kind.as_str() != "full_attention") {
            Some(kind) => wrong("layer_types", format!("'{kind}'"), "only 'full_attention' is supported"),
            None => Ok(()),
        }
    }
}

/// Refuses sizes that grouped-query attention cannot have.
pub(super) fn validate(config: &Config) -> Result<(), CheckpointError> {
    let Attention::Gqa { num_key_value_heads, head_dim, .. } = config.attention else { return Ok(()) };
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", num_key_value_heads),
        ("head_dim", head_dim),
    ];
    if let Some((key, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
        return wrong(key, 0, "it must be at least 1");
    }
    if !head_dim.is_multiple_of(2) {
        return wrong("head_dim", head_dim, "rotary dimensions come in pairs");
    }
    if !config.num_attention_heads.is_multiple_of(num_key_value_heads) {
        let reason = format!("the {} attention heads cannot share them evenly", config.num_attention_heads);
        return wrong("num_key_value_heads", num_key_value_heads, &reason);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RopeScaling;

    fn gqa(json: &str) -> (usize, usize, bool, bool) {
        match Config::parse(json).unwrap().attention {
            Attention::Gqa { num_key_value_heads, head_dim, qkv_bias, qk_norm, .. } => {
                (num_key_value_heads, head_dim, qkv_bias, qk_norm)
            }
            other => panic!("a dense model attends by GQA, not {other:?}"),
        }
    }

    #[test]
    fn each_family_has_its_own_defaults() {
        assert_eq!(gqa(r#"{"model_type": "llama"}"#), (32, 128, false, false));
        assert_eq!(gqa(r#"{"model_type": "llama", "attention_bias": true, "head_dim": 64}"#), (32, 64, true, false));
        assert_eq!(
            gqa(r#"{"model_type": "qwen2", "hidden_size": 896, "num_attention_heads": 14}"#),
            (14, 64, true, false)
        );
        assert_eq!(
            gqa(r#"{"model_type": "qwen3", "hidden_size": 1024, "num_key_value_heads": 8}"#),
            (8, 128, false, true)
        );
        let qwen2 = Config::parse(r#"{"model_type": "qwen2", "attention_bias": true}"#).unwrap();
        assert!(!qwen2.attention_bias, "the output projection of qwen2 never has a bias");
    }

    #[test]
    fn llama_3_1_is_read_as_the_hub_spells_it() {
        let config = Config::parse(
            r#"{"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "rope_theta": 500000.0, "pretraining_tp": 1,
                "max_position_embeddings": 131072, "eos_token_id": [128001, 128008], "rope_scaling": {"factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#,
        )
        .unwrap();
        assert_eq!(config.rope.theta, 5e5);
        assert_eq!(
            config.rope.scaling,
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192
            }
        );
        assert_eq!((config.index, config.index_topk), (IndexSource::Oracle, DENSE_TOPK));
        assert!(config.roles.iter().all(|&role| role == Role::Full));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_key_and_value() {
        for (json, words) in [
            (r#"{"model_type": "llama", "mlp_bias": true}"#, "mlp_bias is true"),
            (r#"{"model_type": "llama", "hidden_act": "gelu"}"#, "hidden_act is 'gelu'"),
            (r#"{"model_type": "qwen2", "use_sliding_window": true}"#, "use_sliding_window is true"),
            (r#"{"model_type": "qwen3", "layer_types": ["sliding_attention"]}"#, "'sliding_attention'"),
            (r#"{"model_type": "llama", "num_key_value_heads": 5}"#, "num_key_value_heads is 5"),
            (r#"{"model_type": "llama", "head_dim": 9}"#, "head_dim is 9"),
            (r#"{"model_type": "qwen3", "num_attention_heads": 0}"#, "num_attention_heads is 0"),
        ] {
            let error = Config::parse(json).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
