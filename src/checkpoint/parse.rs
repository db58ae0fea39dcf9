//! config.json by its model type: DSA and dense models are read by a file each.

use serde::Deserialize;

use super::config::wrong;
use super::dense::{self, RawDense};
use super::dsa::{self, RawDsa};
use super::families::{deepseek_v4, minimax_m3};
use super::{Attention, CheckpointError, Config, Family, MiniMaxM3};

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
        let config = match family {
            Family::MiniMaxM3 => minimax_m3::read(json)?,
            Family::DeepseekV4 => deepseek_v4::read(json)?,
            dense if dense.is_dense() => serde_json::from_str::<RawDense>(json)?.read(family)?,
            _ => serde_json::from_str::<RawDsa>(json)?.read(family)?,
        };
        config.validate()?;
        Ok(config)
    }

    /// Refuses what the architecture does not allow.
    pub(super) fn validate(&self) -> Result<(), CheckpointError> {
        self.bound()?;
        match &self.attention {
            Attention::Mla => dsa::validate(self),
            Attention::Gqa { .. } => dense::validate(self),
            Attention::MiniMaxM3(own) => minimax_m3::validate(self, own),
            Attention::SharedRows => deepseek_v4::validate(self),
        }
    }

    /// Refuses sizes beyond any model's, before anything is allocated or counted by them; with these bounds no product
    /// of sizes exceeds 2⁶³.
    fn bound(&self) -> Result<(), CheckpointError> {
        let (kv_heads, head_dim) = match self.attention {
            Attention::Mla | Attention::SharedRows => (0, 0),
            Attention::Gqa { num_key_value_heads, head_dim, .. }
            | Attention::MiniMaxM3(MiniMaxM3 { num_key_value_heads, head_dim, .. }) => (num_key_value_heads, head_dim),
        };
        let sizes = [
            ("vocab_size", self.vocab_size, 36),
            ("hidden_size", self.hidden_size, 20),
            ("num_attention_heads", self.num_attention_heads, 14),
            ("num_key_value_heads", kv_heads, 14),
            ("head_dim", head_dim, 16),
            ("q_lora_rank", self.q_lora_rank, 20),
            ("kv_lora_rank", self.kv_lora_rank, 20),
            ("qk_nope_head_dim", self.qk_nope_head_dim, 16),
            ("qk_rope_head_dim", self.qk_rope_head_dim, 16),
            ("v_head_dim", self.v_head_dim, 16),
            ("intermediate_size", self.intermediate_size, 24),
            ("moe_intermediate_size", self.moe_intermediate_size, 20),
            ("n_routed_experts", self.n_routed_experts, 16),
            ("n_shared_experts", self.n_shared_experts, 10),
            ("index_topk", self.index_topk, 31),
            ("index_n_heads", self.index_n_heads, 14),
            ("index_head_dim", self.index_head_dim, 16),
            ("max_position_embeddings", self.max_position_embeddings, 40),
        ];
        match sizes.into_iter().find(|&(_, size, bits)| size > 1 << bits) {
            None => Ok(()),
            Some((key, size, bits)) => wrong(key, size, &format!("no model has more than {}", 1u64 << bits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_machine_holds_are_refused_by_key() {
        for key in ["vocab_size", "kv_lora_rank", "n_routed_experts", "index_topk", "moe_intermediate_size"] {
            for value in ["137438953472", "18446744073709551615"] {
                let json = format!(r#"{{"model_type": "glm_moe_dsa", "{key}": {value}}}"#);
                let error = Config::parse(&json).unwrap_err().to_string();
                assert!(error.contains(key) && error.contains("no model has more"), "{error}");
            }
        }
        for wrong in ["-1", "1e30", "\"9\"", "[]", "18446744073709551616"] {
            assert!(Config::parse(&format!(r#"{{"model_type": "llama", "num_hidden_layers": {wrong}}}"#)).is_err());
        }
    }
}
