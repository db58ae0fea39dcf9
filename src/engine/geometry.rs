//! The sizes of a checkpoint in the terms of the cost model.

use crate::analysis::cost::{AttentionSizes, Geometry, IndexSizes, Reads};
use crate::checkpoint::{Attention, Compression, Config, DeepseekV4, MiniMaxM3, MlpKind};

/// Returns the sizes that decide the cost of a forward.
pub fn geometry(config: &Config) -> Geometry {
    let sparse_layers = config.mlp.iter().filter(|&&kind| kind == MlpKind::Sparse).count();
    let (attention, reads, index) = match (&config.attention, config.deepseek_v4.as_deref()) {
        (Attention::MiniMaxM3(own), _) => grouped(config, own),
        (_, Some(own)) => shared_rows(config, own),
        _ => latent(config),
    };
    Geometry {
        dense_layers: config.num_hidden_layers - sparse_layers,
        sparse_layers,
        hidden: config.hidden_size,
        attention,
        reads,
        dense_width: config.intermediate_size,
        experts: config.n_routed_experts,
        experts_per_token: config.num_experts_per_tok,
        expert_width: config.moe_intermediate_size,
        shared_width: config.shared_width(),
        vocab: config.vocab_size,
        index,
    }
}

/// An indexer whose heads are summed, over keys of `unit` tokens.
fn index(config: &Config, unit: usize, weights: usize) -> IndexSizes {
    IndexSizes {
        sites: config.sites().len(),
        weights,
        heads: config.index_n_heads,
        dim: config.index_head_dim,
        unit,
        sums_heads: true,
        pooled: 1,
        is_fp8: true,
        topk: config.index_topk,
    }
}

/// MLA in its latent form: every layer reads the keys that it selects.
fn latent(config: &Config) -> (AttentionSizes, Vec<Reads>, IndexSizes) {
    let Config { hidden_size: hidden, num_attention_heads: heads, q_lora_rank, kv_lora_rank, v_head_dim, .. } = *config;
    let row = kv_lora_rank + config.qk_rope_head_dim;
    let queries = hidden * q_lora_rank + q_lora_rank * heads * config.qk_head_dim();
    let absorbed = heads * kv_lora_rank * (config.qk_nope_head_dim + v_head_dim);
    let weights = queries + hidden * row + absorbed + heads * v_head_dim * hidden;
    let (index_heads, index_dim) = (config.index_n_heads, config.index_head_dim);
    let index_weights = q_lora_rank * index_heads * index_dim + hidden * (index_dim + index_heads);
    let reads = Reads { layers: config.num_hidden_layers, unit: 1, most: Some(config.index_topk), weights: 0 };
    (AttentionSizes { weights, row, pair: heads * (row + kv_lora_rank) }, vec![reads], index(config, 1, index_weights))
}

/// DeepSeek-V4: a window in every layer, and in most the entries that a compressor makes, all or those selected.
fn shared_rows(config: &Config, own: &DeepseekV4) -> (AttentionSizes, Vec<Reads>, IndexSizes) {
    let (hidden, heads, dim, rank) = (config.hidden_size, config.num_attention_heads, own.head_dim, config.q_lora_rank);
    let output = heads * dim * own.o_lora_rank + own.o_groups * own.o_lora_rank * hidden;
    // Of every layer but for its compressor; the mixing of the streams counts.
    let streams = 2 * (2 + own.hc_mult) * own.hc_mult * own.hc_mult * hidden;
    let weights = hidden * rank + rank * heads * dim + hidden * dim + output + streams;
    let layers = |kind: fn(&Compression) -> bool| own.layers.iter().filter(|&layer| kind(layer)).count();
    // Keys and gates; overlapping entries have both twice.
    let selected = layers(|kind| matches!(kind, Compression::Selected(_)));
    let unit = own.entry();
    let mut reads = vec![
        Reads { layers: config.num_hidden_layers, unit: 1, most: Some(own.sliding_window), weights: 0 },
        Reads { layers: selected, unit, most: Some(config.index_topk), weights: 4 * dim * hidden },
    ];
    if let Some(Compression::All(rate)) = own.layers.iter().find(|kind| matches!(kind, Compression::All(_))) {
        let layers = layers(|kind| matches!(kind, Compression::All(_)));
        reads.push(Reads { layers, unit: *rate, most: None, weights: 2 * dim * hidden });
    }
    let (index_heads, index_dim) = (config.index_n_heads, config.index_head_dim);
    let index_weights = rank * index_heads * index_dim + hidden * index_heads + 4 * index_dim * hidden;
    (AttentionSizes { weights, row: dim, pair: 2 * heads * dim }, reads, index(config, unit, index_weights))
}

/// MiniMax-M3: the selected blocks in sites, every key in the other layers. Each index head selects for its group.
fn grouped(config: &Config, own: &MiniMaxM3) -> (AttentionSizes, Vec<Reads>, IndexSizes) {
    let (hidden, heads, dim) = (config.hidden_size, config.num_attention_heads, own.head_dim);
    let row = 2 * own.num_key_value_heads * dim;
    let weights = 2 * hidden * heads * dim + hidden * row;
    let sites = config.sites().len();
    let selected = Some(config.index_topk * own.index_block_size);
    let reads = vec![
        Reads { layers: sites, unit: 1, most: selected, weights: 0 },
        Reads { layers: config.num_hidden_layers - sites, unit: 1, most: None, weights: 0 },
    ];
    let index_weights = hidden * (config.index_n_heads + 1) * config.index_head_dim;
    let index = IndexSizes {
        sums_heads: false,
        pooled: own.index_block_size,
        is_fp8: false,
        ..index(config, 1, index_weights)
    };
    (AttentionSizes { weights, row, pair: 2 * heads * dim }, reads, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::cost::{Step, Widths};

    /// Weights that one token passes through before the head, in billions.
    fn active(geometry: &Geometry) -> f64 {
        let widths = Widths { weight: 1.0, latent: 2.0, index_key: 1.0 };
        let work = geometry.work(Step::Decode { context: 1, batch: 1 }, widths);
        let head = (geometry.hidden * geometry.vocab) as f64;
        (work.products.flops + work.index_projections.flops * geometry.index.sites as f64) / 2e9 - head / 1e9
    }

    fn of(json: &str) -> Geometry {
        geometry(&Config::parse(json).unwrap())
    }

    #[test]
    fn a_token_passes_through_as_many_weights_as_the_published_models_activate() {
        let sparse: Vec<usize> = (0..60).map(|layer| usize::from(layer >= 3)).collect();
        let sizes = format!(
            r#"{{"model_type": "minimax_m3_vl", "text_config": {{"model_type": "minimax_m3_vl_text", "num_hidden_layers": 60,
            "rope_parameters": {{"rope_theta": 5e6, "partial_rotary_factor": 0.5}}, "moe_layer_freq": {sparse:?},
            "sparse_attention_config": {{"sparse_attention_freq": {sparse:?}}}}}}}"#
        );
        let m3 = of(&sizes);
        assert_eq!((m3.index.sites, m3.reads[0].layers, m3.reads[1].layers), (57, 57, 3));
        assert!((active(&m3) - 23.0).abs() < 0.6, "{}", active(&m3));
        let ratios: Vec<usize> = (0..43)
            .map(|l| {
                if l < 2 {
                    0
                } else if l % 2 == 0 {
                    4
                } else {
                    128
                }
            })
            .collect();
        let v4 = of(&format!(r#"{{"model_type": "deepseek_v4", "compress_ratios": {ratios:?}}}"#));
        assert_eq!(
            v4.reads.iter().map(|reads| (reads.layers, reads.unit)).collect::<Vec<_>>(),
            [(43, 1), (21, 4), (20, 128)]
        );
        assert!((active(&v4) - 13.0).abs() < 0.6, "{}", active(&v4));
    }
}
