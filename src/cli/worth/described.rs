//! Sizes of models that are described and not run: HY-V4, Mistral-Large-4, GLM-5.3-Flash.
//!
//! Keys that config.json lacks take the defaults of the config classes in transformers 5.23.0. Not counted: the state of
//! linear attention, and that layers of Mistral-Large-4 share keys and values.

use std::path::Path;

use serde_json::{Map, Value};

use super::Subject;
use crate::analysis::cost::{AttentionSizes, Geometry, IndexSizes, Reads};
use crate::cli::CliError;
use crate::domain::SelectionUnit;
use crate::interop::{Family, Served, Target};

/// Keys with their defaults for HY-V4, Mistral-Large-4 and GLM-5.3-Flash; 0 is without.
const DEFAULTS: [(&str, [usize; 3]); 22] = [
    ("vocab_size", [120_832, 204_800, 154_880]),
    ("hidden_size", [2816, 6144, 4096]),
    ("intermediate_size", [6912, 24_576, 12_288]),
    ("moe_intermediate_size", [768, 6144, 2048]),
    ("first_k_dense_replace", [1, 1, 3]),
    ("num_attention_heads", [32, 64, 64]),
    ("n_routed_experts", [256, 128, 288]),
    ("n_shared_experts", [1, 1, 1]),
    ("num_experts_per_tok", [8, 4, 8]),
    ("q_lora_rank", [1536, 0, 1536]),
    ("kv_lora_rank", [512, 512, 512]),
    ("qk_nope_head_dim", [192, 64, 256]),
    ("qk_rope_head_dim", [64, 64, 0]),
    ("v_head_dim", [256, 128, 256]),
    ("index_topk", [2048, 2048, 2048]),
    ("index_head_dim", [128, 128, 128]),
    ("index_n_heads", [16, 32, 32]),
    ("index_kpool", [1, 1, 16]),
    ("hc_mult", [4, 0, 4]),
    ("linear_num_heads", [0, 0, 64]),
    ("linear_head_dim", [0, 0, 128]),
    // Whether values pass a gate before the output projection.
    ("gated_mla", [1, 0, 0]),
];

/// Reads the sizes of a model of these families; `None` for any other.
///
/// # Errors
/// When the config cannot be used.
pub(super) fn read(path: &Path, text: &str) -> Result<Option<Subject>, CliError> {
    let served = Served::parse(text)?;
    let column = match served.family {
        Family::HyV4 => 0,
        Family::MistralLarge4 => 1,
        Family::Glm5Next => 2,
        _ => return Ok(None),
    };
    let top: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let keys = top.get("text_config").and_then(Value::as_object).unwrap_or(&top);
    let size = |key: &str| {
        let default = DEFAULTS.iter().find(|(name, _)| *name == key).map_or(0, |(_, defaults)| defaults[column]);
        keys.get(key).and_then(Value::as_u64).map_or(default, |value| value as usize)
    };
    let unit = size("index_kpool").max(1);
    let target = Target::of_config(path)?;
    Ok(Some(Subject {
        geometry: geometry(&served, keys, size),
        native: target.native()?.full_count(),
        unit: if unit == 1 { SelectionUnit::Token } else { SelectionUnit::Entry(unit as u32) },
        model_type: served.model_type,
    }))
}

fn geometry(served: &Served, keys: &Map<String, Value>, size: impl Fn(&str) -> usize) -> Geometry {
    let (layers, sites) = (served.layers, served.sites().len());
    let kinds = keys.get("mlp_layer_types").and_then(Value::as_array);
    let dense_layers =
        kinds.map_or(size("first_k_dense_replace"), |kinds| kinds.iter().filter(|k| *k == "dense").count());
    let (hidden, heads, rank) = (size("hidden_size"), size("num_attention_heads"), size("q_lora_rank"));
    let (latent, value) = (size("kv_lora_rank"), size("v_head_dim"));
    let row = latent + size("qk_rope_head_dim");
    // Queries come of a latent, or of the layer's input.
    let (input, made) = if rank == 0 { (hidden, 0) } else { (rank, hidden * rank) };
    let queries = made + input * heads * (size("qk_nope_head_dim") + size("qk_rope_head_dim"));
    let absorbed = heads * latent * (size("qk_nope_head_dim") + value);
    let outputs = (1 + size("gated_mla")) * hidden * heads * value;
    let attends = queries + hidden * row + absorbed + outputs;
    let streams = size("hc_mult");
    // HY-V4 mixes no stream with another.
    let mixes = if served.family == Family::HyV4 { 2 } else { 2 + streams };
    let mixing = 2 * mixes * streams * streams * hidden;
    let (linear_heads, linear_dim) = (size("linear_num_heads"), size("linear_head_dim"));
    let width = linear_heads * linear_dim;
    let linear = 4 * hidden * width + 2 * linear_dim * (hidden + width) + hidden * linear_heads;
    let (index_heads, index_dim, unit) = (size("index_n_heads"), size("index_head_dim"), size("index_kpool").max(1));
    // Pools weigh their keys by a gate.
    let keyed = if unit == 1 { index_dim } else { 2 * index_dim };
    Geometry {
        dense_layers: dense_layers.min(layers),
        sparse_layers: layers.saturating_sub(dense_layers),
        hidden,
        attention: AttentionSizes { weights: mixing, row, pair: heads * (row + latent) },
        reads: vec![
            Reads { layers: sites, unit: 1, most: Some(size("index_topk")), weights: attends },
            Reads { layers: layers.saturating_sub(sites), unit: 1, most: Some(0), weights: linear },
        ],
        dense_width: size("intermediate_size"),
        experts: size("n_routed_experts"),
        experts_per_token: size("num_experts_per_tok"),
        expert_width: size("moe_intermediate_size"),
        shared_width: size("n_shared_experts") * size("moe_intermediate_size"),
        vocab: size("vocab_size"),
        index: IndexSizes {
            sites,
            weights: input * index_heads * index_dim + hidden * (keyed + index_heads),
            heads: index_heads,
            dim: index_dim,
            unit,
            sums_heads: true,
            pooled: 1,
            is_fp8: true,
            topk: size("index_topk") / unit,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::cost::{Step, Widths};

    fn subject(json: &str) -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        read(&path, json).unwrap().unwrap()
    }

    /// Weights that a step of so many sequences reads, in billions.
    fn weights(geometry: &Geometry, batch: usize) -> f64 {
        let widths = Widths { weight: 1.0, latent: 2.0, index_key: 1.0 };
        let work = geometry.work(Step::Decode { context: 1, batch }, widths);
        (work.products.bytes + work.index_projections.bytes * geometry.index.sites as f64) / 1e9
    }

    #[test]
    fn models_have_as_many_weights_as_published() {
        let flash =
            subject(r#"{"model_type": "glm5_next", "text_config": {"num_hidden_layers": 45, "index_kpool": 4}}"#);
        assert_eq!((flash.geometry.index.sites, flash.native, flash.unit), (11, 11, SelectionUnit::Entry(4)));
        assert_eq!((flash.geometry.index.topk, flash.geometry.reads[1].layers), (512, 34));
        assert!((weights(&flash.geometry, 1_000_000) - 321.0).abs() < 10.0, "{}", weights(&flash.geometry, 1_000_000));
        let large = subject(r#"{"model_type": "mistral_large4", "text_config": {"num_hidden_layers": 72}}"#);
        assert!((weights(&large.geometry, 1) - 52.0).abs() < 1.0, "{}", weights(&large.geometry, 1));
        assert!((weights(&large.geometry, 1_000_000) / 1050.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn the_default_pattern_of_hy_v4_is_native() {
        let hy = subject(r#"{"model_type": "hy_v4", "num_hidden_layers": 78, "hidden_size": 6144}"#);
        assert_eq!((hy.geometry.index.sites, hy.native, hy.geometry.dense_layers), (78, 21, 1));
        let json = r#"{"model_type": "deepseek_v4", "num_hidden_layers": 2}"#;
        assert!(read(Path::new("config.json"), json).unwrap().is_none());
    }
}
