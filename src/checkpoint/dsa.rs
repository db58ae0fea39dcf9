//! config.json of `glm_moe_dsa` and `deepseek_v32`, in the spellings of the Hub and of transformers 5.
//!
//! Absent keys take the defaults of transformers 5.23 for their model type. Ignored, as by the reference: `head_dim`,
//! `qk_head_dim`, `mlp_bias`, `scoring_func`, `topk_method`, `moe_layer_freq`, `rope_interleave`,
//! `indexer_rope_interleave`, `use_index_cache`.

use serde::Deserialize;

use super::config::{Attention, Config, Family, MlpKind, wrong};
use super::roles::RawRoles;
use super::rope::RawRope;
use super::{CheckpointError, Rope};
use crate::domain::{IndexSource, MAX_LAYERS, PatternError};

#[derive(Deserialize)]
pub(super) struct RawDsa {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    q_lora_rank: Option<usize>,
    kv_lora_rank: Option<usize>,
    qk_nope_head_dim: Option<usize>,
    qk_rope_head_dim: Option<usize>,
    v_head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    moe_intermediate_size: Option<usize>,
    n_routed_experts: Option<usize>,
    num_local_experts: Option<usize>,
    num_experts: Option<usize>,
    n_shared_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    norm_topk_prob: Option<bool>,
    routed_scaling_factor: Option<f64>,
    first_k_dense_replace: Option<usize>,
    mlp_layer_types: Option<Vec<String>>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    attention_bias: Option<bool>,
    index_topk: Option<usize>,
    index_n_heads: Option<usize>,
    index_head_dim: Option<usize>,
    rope_parameters: Option<RawRope>,
    rope_scaling: Option<RawRope>,
    rope_theta: Option<f64>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    roles: RawRoles,
}

/// Refuses sizes that the architecture cannot have.
pub(super) fn validate(config: &Config) -> Result<(), CheckpointError> {
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("num_attention_heads", config.num_attention_heads),
        ("q_lora_rank", config.q_lora_rank),
        ("kv_lora_rank", config.kv_lora_rank),
        ("qk_rope_head_dim", config.qk_rope_head_dim),
        ("v_head_dim", config.v_head_dim),
        ("index_topk", config.index_topk),
    ];
    if let Some((key, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
        return wrong(key, 0, "it must be at least 1");
    }
    if !config.qk_rope_head_dim.is_multiple_of(2) {
        return wrong("qk_rope_head_dim", config.qk_rope_head_dim, "rotary dimensions come in pairs");
    }
    config.validate_indexer()?;
    if config.mlp.contains(&MlpKind::Sparse) { validate_experts(config) } else { Ok(()) }
}

fn validate_experts(config: &Config) -> Result<(), CheckpointError> {
    let (experts, groups) = (config.n_routed_experts, config.n_group);
    if groups == 0 || !experts.is_multiple_of(groups) || experts / groups < 2 {
        return wrong("n_group", groups, &format!("{experts} experts cannot be split so that each group has two"));
    }
    if config.topk_group == 0 || config.topk_group > groups {
        return wrong("topk_group", config.topk_group, &format!("there are {groups} groups (n_group)"));
    }
    let reachable = experts / groups * config.topk_group;
    if config.num_experts_per_tok == 0 || config.num_experts_per_tok > reachable {
        let reason = format!("a token can choose from 1 to {reachable} experts");
        return wrong("num_experts_per_tok", config.num_experts_per_tok, &reason);
    }
    Ok(())
}

impl RawDsa {
    pub(super) fn read(self, family: Family) -> Result<Config, CheckpointError> {
        let pick = |glm, deepseek| if family == Family::GlmMoeDsa { glm } else { deepseek };
        let layers = self.num_hidden_layers.unwrap_or(pick(78, 61));
        if layers == 0 || layers > MAX_LAYERS {
            return Err(PatternError::Size(layers).into());
        }
        let num_attention_heads = self.num_attention_heads.unwrap_or(pick(64, 128));
        if let Some(heads) = self.num_key_value_heads.filter(|&heads| heads != num_attention_heads) {
            let reason = format!("MLA expands keys to all {num_attention_heads} attention heads");
            return wrong("num_key_value_heads", heads, &reason);
        }
        if let Some(act) = self.hidden_act.as_ref().filter(|act| act.as_str() != "silu") {
            return wrong("hidden_act", format!("'{act}'"), "only 'silu' is supported");
        }
        let max_position_embeddings = self.max_position_embeddings.unwrap_or(pick(202_752, 163_840));
        let rope = Rope::read(self.rope_parameters, self.rope_scaling, self.rope_theta, max_position_embeddings)?;
        let qk_rope_head_dim = self.qk_rope_head_dim.unwrap_or(64);
        Ok(Config {
            family,
            attention: Attention::Mla,
            vocab_size: self.vocab_size.unwrap_or(pick(154_880, 129_280)),
            hidden_size: self.hidden_size.unwrap_or(pick(6144, 7168)),
            num_hidden_layers: layers,
            num_attention_heads,
            q_lora_rank: self.q_lora_rank.unwrap_or(pick(2048, 1536)),
            kv_lora_rank: self.kv_lora_rank.unwrap_or(512),
            qk_nope_head_dim: self.qk_nope_head_dim.unwrap_or(pick(192, 128)),
            qk_rope_head_dim,
            v_head_dim: self.v_head_dim.unwrap_or(pick(256, 128)),
            intermediate_size: self.intermediate_size.unwrap_or(pick(12_288, 18_432)),
            moe_intermediate_size: self.moe_intermediate_size.unwrap_or(2048),
            n_routed_experts: self.num_experts.or(self.n_routed_experts).or(self.num_local_experts).unwrap_or(256),
            n_shared_experts: self.n_shared_experts.unwrap_or(1),
            num_experts_per_tok: self.num_experts_per_tok.unwrap_or(8),
            n_group: self.n_group.unwrap_or(pick(1, 8)),
            topk_group: self.topk_group.unwrap_or(pick(1, 4)),
            norm_topk_prob: self.norm_topk_prob.unwrap_or(true),
            routed_scaling_factor: self.routed_scaling_factor.unwrap_or(2.5),
            mlp: mlp_kinds(self.mlp_layer_types, self.first_k_dense_replace.unwrap_or(3), layers)?,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(if family == Family::GlmMoeDsa { 1e-5 } else { 1e-6 }),
            attention_bias: self.attention_bias.unwrap_or(false),
            index: IndexSource::Checkpoint,
            index_topk: self.index_topk.unwrap_or(2048),
            index_n_heads: self.index_n_heads.unwrap_or(pick(32, 64)),
            index_head_dim: self.index_head_dim.unwrap_or(128),
            index_rope_head_dim: qk_rope_head_dim,
            index_rope_interleaved: family == Family::GlmMoeDsa,
            rope,
            max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            roles: self.roles.read(layers)?,
            deepseek_v4: None,
        })
    }
}

/// Returns each layer's kind: `mlp_layer_types` wins over `first_k_dense_replace`.
fn mlp_kinds(types: Option<Vec<String>>, first_dense: usize, layers: usize) -> Result<Vec<MlpKind>, CheckpointError> {
    let Some(types) = types else {
        let kind = |l| if l < first_dense { MlpKind::Dense } else { MlpKind::Sparse };
        return Ok((0..layers).map(kind).collect());
    };
    if types.len() < layers {
        let value = format!("of length {}", types.len());
        return wrong("mlp_layer_types", value, &format!("the model has {layers} layers"));
    }
    types
        .iter()
        .take(layers)
        .map(|kind| match kind.as_str() {
            "dense" => Ok(MlpKind::Dense),
            "sparse" => Ok(MlpKind::Sparse),
            other => wrong("mlp_layer_types", format!("'{other}'"), "only 'dense' and 'sparse' are known"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RopeScaling;
    use crate::domain::{Pattern, Role};

    #[test]
    fn a_config_in_the_manner_of_glm_5_2_reads_its_explicit_roles() {
        let full = |l: usize| l < 3 || (l >= 6 && (l - 2).is_multiple_of(4));
        let types: Vec<String> = (0..78).map(|l| format!("\"{}\"", if full(l) { "full" } else { "shared" })).collect();
        let json = format!(
            r#"{{"model_type": "glm_moe_dsa", "head_dim": 192, "eos_token_id": [1, 2], "num_nextn_predict_layers": 1,
                "rope_parameters": {{"rope_theta": 8000000, "rope_type": "default"}}, "index_topk_freq": 4,
                "index_skip_topk_offset": 3, "index_topk_pattern": null, "indexer_types": [{}]}}"#,
            types.join(",")
        );
        let config = Config::parse(&json).unwrap();
        assert_eq!(config.roles, Pattern::freq(78, 4, 3).unwrap().roles().collect::<Vec<_>>());
        assert_eq!(config.roles.iter().filter(|&&role| role == Role::Full).count(), 21);
        assert_eq!((config.rope.theta, config.qk_head_dim(), config.v_head_dim), (8e6, 256, 256));
        assert!(config.index_rope_interleaved && config.rms_norm_eps == 1e-5);
        assert_eq!(config.mlp[2..4], [MlpKind::Dense, MlpKind::Sparse]);
    }

    #[test]
    fn a_config_in_the_manner_of_deepseek_v3_2_reads_its_old_spelling() {
        let config = Config::parse(
            r#"{"model_type": "deepseek_v32", "rope_theta": 10000, "num_local_experts": 64, "rope_scaling": {"type": "yarn",
                "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096}, "moe_layer_freq": 1, "indexer_rope_interleave": true}"#,
        )
        .unwrap();
        assert!(matches!(config.rope.scaling, RopeScaling::Yarn { factor: 40.0, mscale_all_dim: 1.0, .. }));
        assert_eq!((config.num_hidden_layers, config.num_attention_heads, config.index_n_heads), (61, 128, 64));
        assert_eq!((config.n_group, config.topk_group, config.n_routed_experts), (8, 4, 64));
        // The reference decides the pairing by the model type and ignores the key.
        assert!(!config.index_rope_interleaved && config.rms_norm_eps == 1e-6);
    }

    #[test]
    fn kinds_of_mlp_win_over_the_number_of_dense_layers() {
        let config = Config::parse(
            r#"{"model_type": "glm_moe_dsa", "num_hidden_layers": 3, "first_k_dense_replace": 3, "num_experts": 32,
                "n_routed_experts": 16, "mlp_layer_types": ["sparse", "dense", "sparse"]}"#,
        )
        .unwrap();
        assert_eq!(config.mlp, [MlpKind::Sparse, MlpKind::Dense, MlpKind::Sparse]);
        assert_eq!(config.n_routed_experts, 32, "the legacy key wins, as in the reference");
    }
}
