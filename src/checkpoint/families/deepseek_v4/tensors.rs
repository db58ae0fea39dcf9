//! The tensors that DeepSeek-V4 demands, by the names that the program uses.

use super::Compression;
use crate::checkpoint::layout::{List, mlp};
use crate::checkpoint::{Config, Demand};

/// Returns every tensor that each layer and the ends of the model need, indexers apart.
pub(in crate::checkpoint) fn demands(config: &Config, all: &mut List) {
    let Some(v4) = config.deepseek_v4.as_deref() else { return };
    let (hidden, streams) = (config.hidden_size, v4.hc_mult);
    let (heads, dim) = (config.num_attention_heads, v4.head_dim);
    all.push("model.hc_head.fn", &[streams, streams * hidden]);
    all.push("model.hc_head.base", &[streams]);
    all.push("model.hc_head.scale", &[1]);
    for (layer, kind) in v4.layers.iter().enumerate() {
        all.prefix = format!("model.layers.{layer}.");
        for name in ["attn_hc", "ffn_hc"] {
            let mixes = (2 + streams) * streams;
            all.push(&format!("{name}.fn"), &[mixes, streams * hidden]);
            all.push(&format!("{name}.base"), &[mixes]);
            all.push(&format!("{name}.scale"), &[3]);
        }
        all.push("input_layernorm.weight", &[hidden]);
        all.push("post_attention_layernorm.weight", &[hidden]);
        all.push("self_attn.wq_a.weight", &[config.q_lora_rank, hidden]);
        all.push("self_attn.q_norm.weight", &[config.q_lora_rank]);
        all.push("self_attn.wq_b.weight", &[heads * dim, config.q_lora_rank]);
        all.push("self_attn.wkv.weight", &[dim, hidden]);
        all.push("self_attn.kv_norm.weight", &[dim]);
        all.push("self_attn.attn_sink", &[heads]);
        all.push("self_attn.wo_a.weight", &[v4.o_groups * v4.o_lora_rank, heads * dim / v4.o_groups]);
        all.push("self_attn.wo_b.weight", &[hidden, v4.o_groups * v4.o_lora_rank]);
        compressor("self_attn.compressor", *kind, (dim, hidden), all);
        all.push("mlp.gate.weight", &[config.n_routed_experts, hidden]);
        if v4.hashed[layer] {
            all.push_ids("mlp.gate.tid2eid", &[config.vocab_size, config.num_experts_per_tok]);
        } else {
            all.push("mlp.gate.e_score_correction_bias", &[config.n_routed_experts]);
        }
        for expert in 0..config.n_routed_experts {
            mlp(&format!("mlp.experts.{expert}"), config.moe_intermediate_size, hidden, all);
        }
        mlp("mlp.shared_experts", config.moe_intermediate_size, hidden, all);
    }
}

/// Returns the tensors of the indexer of `layer`; none where the layer is no site.
pub(in crate::checkpoint) fn indexer(config: &Config, layer: usize) -> Vec<Demand> {
    let kind = config.deepseek_v4.as_deref().and_then(|v4| v4.layers.get(layer).copied());
    let Some(kind @ Compression::Selected(_)) = kind else { return Vec::new() };
    let (heads, dim, hidden) = (config.index_n_heads, config.index_head_dim, config.hidden_size);
    let mut all = List::at(format!("model.layers.{layer}.self_attn.indexer."));
    all.push("wq_b.weight", &[heads * dim, config.q_lora_rank]);
    all.push("weights_proj.weight", &[heads, hidden]);
    compressor("compressor", kind, (dim, hidden), &mut all);
    all.demands
}

fn compressor(at: &str, kind: Compression, (dim, hidden): (usize, usize), all: &mut List) {
    let (rate, width) = match kind {
        Compression::None => return,
        Compression::Selected(rate) => (rate, 2 * dim),
        Compression::All(rate) => (rate, dim),
    };
    all.push(&format!("{at}.wkv.weight"), &[width, hidden]);
    all.push(&format!("{at}.wgate.weight"), &[width, hidden]);
    all.push(&format!("{at}.ape"), &[rate, width]);
    all.push(&format!("{at}.norm.weight"), &[dim]);
}
