//! The sizes of a checkpoint in the terms of the cost model.

use crate::analysis::cost::Geometry;
use crate::checkpoint::{Config, MlpKind};

/// Returns the sizes that decide the cost of a forward.
pub fn geometry(config: &Config) -> Geometry {
    let sparse_layers = config.mlp.iter().filter(|&&kind| kind == MlpKind::Sparse).count();
    Geometry {
        dense_layers: config.num_hidden_layers - sparse_layers,
        sparse_layers,
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        q_lora: config.q_lora_rank,
        kv_lora: config.kv_lora_rank,
        nope: config.qk_nope_head_dim,
        rope: config.qk_rope_head_dim,
        value: config.v_head_dim,
        dense_width: config.intermediate_size,
        experts: config.n_routed_experts,
        experts_per_token: config.num_experts_per_tok,
        expert_width: config.moe_intermediate_size,
        shared_width: config.n_shared_experts * config.moe_intermediate_size,
        vocab: config.vocab_size,
        topk: config.index_topk,
        index_heads: config.index_n_heads,
        index_dim: config.index_head_dim,
    }
}
