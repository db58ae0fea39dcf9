//! The names and shapes of the tensors that an architecture demands.

use super::families::{deepseek_v4, minimax_m3};
use super::{Attention, Config, MlpKind};

/// A tensor that the config demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Whether it holds whole numbers.
    pub integers: bool,
}

/// Returns the layer of a name `model.layers.N.…`; `None` for tensors outside the layers.
pub fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// Returns whether a tensor belongs to a lightning indexer.
pub fn is_indexer_tensor(name: &str) -> bool {
    name.contains(".self_attn.indexer.")
}

/// Returns the tensors of the indexer of `layer`.
pub fn indexer_tensors(config: &Config, layer: usize) -> Vec<Demand> {
    if let Attention::MiniMaxM3(_) = config.attention {
        return minimax_m3::indexer(config, layer);
    }
    if config.attention == Attention::SharedRows {
        return deepseek_v4::indexer(config, layer);
    }
    let (heads, dim, hidden) = (config.index_n_heads, config.index_head_dim, config.hidden_size);
    let at = |tail: &str, shape: &[usize]| Demand {
        name: format!("model.layers.{layer}.self_attn.indexer.{tail}"),
        shape: shape.to_vec(),
        integers: false,
    };
    vec![
        at("wq_b.weight", &[heads * dim, config.index_query_width()]),
        at("wk.weight", &[dim, hidden]),
        at("k_norm.weight", &[dim]),
        at("k_norm.bias", &[dim]),
        at("weights_proj.weight", &[heads, hidden]),
    ]
}

/// Returns every tensor that each layer and the ends of the model need, indexers apart.
pub fn demands(config: &Config) -> Vec<Demand> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut all = List::default();
    all.push("model.embed_tokens.weight", &[vocab, hidden]);
    all.push("model.norm.weight", &[hidden]);
    if !config.tie_word_embeddings {
        all.push("lm_head.weight", &[vocab, hidden]);
    }
    if config.attention == Attention::SharedRows {
        deepseek_v4::demands(config, &mut all);
        return all.demands;
    }
    for (layer, &kind) in config.mlp.iter().enumerate() {
        all.prefix = format!("model.layers.{layer}.");
        all.push("input_layernorm.weight", &[hidden]);
        all.push("post_attention_layernorm.weight", &[hidden]);
        match config.attention {
            Attention::Mla | Attention::SharedRows => mla(config, &mut all),
            Attention::MiniMaxM3(own) => minimax_m3::attention(config, &own, &mut all),
            Attention::Gqa { num_key_value_heads, head_dim, qkv_bias, qk_norm, .. } => {
                let widths =
                    [("q", config.num_attention_heads), ("k", num_key_value_heads), ("v", num_key_value_heads)];
                for (name, heads) in widths {
                    all.push(&format!("self_attn.{name}_proj.weight"), &[heads * head_dim, hidden]);
                    if qkv_bias {
                        all.push(&format!("self_attn.{name}_proj.bias"), &[heads * head_dim]);
                    }
                }
                all.push("self_attn.o_proj.weight", &[hidden, config.num_attention_heads * head_dim]);
                if config.attention_bias {
                    all.push("self_attn.o_proj.bias", &[hidden]);
                }
                if qk_norm {
                    all.push("self_attn.q_norm.weight", &[head_dim]);
                    all.push("self_attn.k_norm.weight", &[head_dim]);
                }
            }
        }
        match kind {
            MlpKind::Dense => mlp("mlp", config.intermediate_size, hidden, &mut all),
            MlpKind::Sparse => experts(config, &mut all),
        }
    }
    all.demands
}

/// Tensors under one place of the checkpoint's tree of names.
#[derive(Default)]
pub(super) struct List {
    pub(super) prefix: String,
    pub(super) demands: Vec<Demand>,
}

impl List {
    /// Returns an empty list of tensors whose names begin with `prefix`.
    pub(super) fn at(prefix: String) -> Self {
        Self { prefix, demands: Vec::new() }
    }

    pub(super) fn push(&mut self, tail: &str, shape: &[usize]) {
        self.demands.push(Demand { name: format!("{}{tail}", self.prefix), shape: shape.to_vec(), integers: false });
    }

    /// Adds a tensor of whole numbers.
    pub(super) fn push_ids(&mut self, tail: &str, shape: &[usize]) {
        self.push(tail, shape);
        self.demands.iter_mut().last().into_iter().for_each(|demand| demand.integers = true);
    }
}

fn mla(config: &Config, all: &mut List) {
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let (q_rank, kv_rank) = (config.q_lora_rank, config.kv_lora_rank);
    let kv_a = kv_rank + config.qk_rope_head_dim;
    all.push("self_attn.q_a_proj.weight", &[q_rank, hidden]);
    all.push("self_attn.q_a_layernorm.weight", &[q_rank]);
    all.push("self_attn.q_b_proj.weight", &[heads * config.qk_head_dim(), q_rank]);
    all.push("self_attn.kv_a_proj_with_mqa.weight", &[kv_a, hidden]);
    all.push("self_attn.kv_a_layernorm.weight", &[kv_rank]);
    all.push("self_attn.kv_b_proj.weight", &[heads * (config.qk_nope_head_dim + config.v_head_dim), kv_rank]);
    all.push("self_attn.o_proj.weight", &[hidden, heads * config.v_head_dim]);
    if config.attention_bias {
        all.push("self_attn.q_a_proj.bias", &[q_rank]);
        all.push("self_attn.kv_a_proj_with_mqa.bias", &[kv_a]);
        all.push("self_attn.o_proj.bias", &[hidden]);
    }
}

fn experts(config: &Config, all: &mut List) {
    let (hidden, width) = (config.hidden_size, config.moe_intermediate_size);
    all.push("mlp.gate.weight", &[config.n_routed_experts, hidden]);
    all.push("mlp.gate.e_score_correction_bias", &[config.n_routed_experts]);
    for expert in 0..config.n_routed_experts {
        mlp(&format!("mlp.experts.{expert}"), width, hidden, all);
    }
    mlp("mlp.shared_experts", config.shared_width(), hidden, all);
}

pub(super) fn mlp(at: &str, width: usize, hidden: usize, all: &mut List) {
    all.push(&format!("{at}.gate_proj.weight"), &[width, hidden]);
    all.push(&format!("{at}.up_proj.weight"), &[width, hidden]);
    all.push(&format!("{at}.down_proj.weight"), &[hidden, width]);
}
