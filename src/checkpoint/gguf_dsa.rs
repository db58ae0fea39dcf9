//! GGUF files of DSA models (`glm-dsa`, `deepseek32`, `deepseek2` with indexers): their metadata in the words of config.json.
//!
//! `block_count` counts the MTP blocks. llama.cpp writes `attention.indexer.types` as booleans, other writers as numbers or
//! words, or as a frequency. Files without any are read as llama.cpp reads them: GLM-5.2's and GLM-5.3's pattern at a context of
//! 1 M tokens, all Full at GLM-5's of 202,752.

use serde_json::{Map, Value, json};

use super::CheckpointError;
use super::dtype::Tensors;
use super::gguf::{self, Metadata};
use crate::domain::MAX_LAYERS;

/// `context_length` of GLM-5 and GLM-5.1, whose layers all run their indexer.
const GLM_5_CONTEXT: usize = 202_752;
/// YaRN's constant within the logarithmic multiplier that llama.cpp stores.
const YARN_LOG: f64 = 0.1;

/// Returns config.json of the model that a file describes; `None` where it has no lightning indexers.
///
/// # Errors
/// [`CheckpointError::Malformed`] for keys that are missing or make no sense.
pub(super) fn config_json(
    file: &str,
    metadata: &Metadata,
    tensors: &Tensors,
) -> Result<Option<String>, CheckpointError> {
    let arch = metadata.text("general.architecture").unwrap_or_default();
    let size = |key: &str| metadata.size(&format!("{arch}.{key}"));
    let model_type = match arch {
        "glm-dsa" => "glm_moe_dsa",
        "deepseek32" => "deepseek_v32",
        "deepseek2" if size("attention.indexer.top_k").is_some() => "deepseek_v32",
        _ => return Ok(None),
    };
    let bad = |reason: String| CheckpointError::malformed(file, reason);
    let need = |key: &str| size(key).ok_or_else(|| bad(format!("its metadata lacks '{arch}.{key}'")));
    let float = |key: &str| metadata.float(&format!("{arch}.{key}"));
    let (blocks, mtp) = (need("block_count")?, size("nextn_predict_layers").unwrap_or(0));
    let layers = blocks.checked_sub(mtp).filter(|layers| (1..=MAX_LAYERS).contains(layers)).ok_or_else(|| {
        bad(format!("'{arch}.block_count' is {blocks}, and {mtp} of them are for multi-token prediction; 1 to {MAX_LAYERS} layers must be left"))
    })?;
    let rope = need("rope.dimension_count")?;
    // Before MLA was stored in two parts, these were the widths of whole heads.
    let head = size("attention.key_length_mla").map_or_else(|| need("attention.key_length"), Ok)?;
    let value = size("attention.value_length_mla").map_or_else(|| need("attention.value_length"), Ok)?;
    let nope = head.checked_sub(rope).ok_or_else(|| bad(format!("heads of {head} cannot have {rope} rotated")))?;
    let heads = need("attention.head_count")?;
    let embedding = tensors.get("model.embed_tokens.weight").and_then(|info| info.shape.first().copied());
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            config.insert(key.to_owned(), value);
        }
    };
    set("model_type", json!(model_type));
    set("num_hidden_layers", json!(layers));
    set("num_nextn_predict_layers", json!(mtp));
    set("vocab_size", json!(embedding.or(size("vocab_size"))));
    set("hidden_size", json!(need("embedding_length")?));
    set("intermediate_size", json!(need("feed_forward_length")?));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(heads));
    set("q_lora_rank", json!(size("attention.q_lora_rank")));
    set("kv_lora_rank", json!(need("attention.kv_lora_rank")?));
    set("qk_rope_head_dim", json!(rope));
    set("qk_nope_head_dim", json!(nope));
    set("v_head_dim", json!(value));
    set("max_position_embeddings", json!(size("context_length")));
    set("rms_norm_eps", json!(float("attention.layer_norm_rms_epsilon")));
    set("first_k_dense_replace", json!(size("leading_dense_block_count").unwrap_or(0)));
    set("moe_intermediate_size", json!(size("expert_feed_forward_length")));
    set("n_routed_experts", json!(size("expert_count")));
    set("num_experts_per_tok", json!(size("expert_used_count")));
    set("n_shared_experts", json!(size("expert_shared_count")));
    set("n_group", json!(size("expert_group_count").unwrap_or(1)));
    set("topk_group", json!(size("expert_group_used_count").unwrap_or(1)));
    set("routed_scaling_factor", json!(float("expert_weights_scale")));
    set("norm_topk_prob", json!(metadata.flag(&format!("{arch}.expert_weights_norm"))));
    set("index_n_heads", json!(need("attention.indexer.head_count")?));
    set("index_head_dim", json!(need("attention.indexer.key_length")?));
    set("index_topk", json!(need("attention.indexer.top_k")?));
    set("tie_word_embeddings", json!(!tensors.contains_key("lm_head.weight")));
    set("rope_parameters", rope_parameters(arch, metadata));
    if model_type == "glm_moe_dsa" {
        // GGUF has no key for it; GLM's indexers were trained so.
        set("indexer_rope_interleave", json!(true));
    }
    let types = format!("{arch}.attention.indexer.types");
    if let Some(values) = metadata.list(&types) {
        let words = values.iter().map(word).collect::<Option<Vec<_>>>().filter(|words| words.len() >= layers);
        let words = words.ok_or_else(|| {
            bad(format!("'{types}' has {} entries for {layers} layers, or some that are no role", values.len()))
        })?;
        set("indexer_types", json!(words[..layers]));
    } else if let Some(freq) = size("attention.indexer.top_k_frequency") {
        set("index_topk_freq", json!(freq));
        set("index_skip_topk_offset", json!(size("attention.indexer.skip_top_k_offset")));
    } else if model_type == "glm_moe_dsa" && size("context_length") != Some(GLM_5_CONTEXT) {
        let full = |layer: usize| layer < 2 || (layer - 2).is_multiple_of(4);
        let words: Vec<&str> = (0..layers).map(|layer| if full(layer) { "full" } else { "shared" }).collect();
        set("indexer_types", json!(words));
    }
    Ok(Some(format!("{:#}", Value::Object(config))))
}

/// Returns a layer's role as config.json spells it.
fn word(value: &gguf::Value) -> Option<&'static str> {
    Some(match value {
        gguf::Value::Bool(true) | gguf::Value::Int(1) => "full",
        gguf::Value::Bool(false) | gguf::Value::Int(0) => "shared",
        gguf::Value::Text(text) if text.eq_ignore_ascii_case("full") => "full",
        gguf::Value::Text(text) if text.eq_ignore_ascii_case("shared") => "shared",
        _ => return None,
    })
}

fn rope_parameters(arch: &str, metadata: &Metadata) -> Value {
    let float = |key: &str| metadata.float(&format!("{arch}.rope.{key}"));
    let theta = float("freq_base").unwrap_or(10_000.0);
    if metadata.text(&format!("{arch}.rope.scaling.type")) != Some("yarn") {
        return json!({"rope_type": "default", "rope_theta": theta});
    }
    let mut yarn = json!({"rope_type": "yarn", "rope_theta": theta, "factor": float("scaling.factor").unwrap_or(1.0),
        "original_max_position_embeddings": metadata.size(&format!("{arch}.rope.scaling.original_context_length"))});
    if let Some(multiplier) = float("scaling.yarn_log_multiplier") {
        yarn["mscale"] = json!(multiplier / YARN_LOG);
        yarn["mscale_all_dim"] = json!(multiplier / YARN_LOG);
    }
    yarn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Config;
    use crate::domain::Role;

    /// The metadata of a small model of 4 layers and one MTP block, as llama.cpp's converter writes it.
    fn metadata(arch: &str, more: &[(&str, gguf::Value)]) -> Metadata {
        let sizes = [
            ("block_count", 5),
            ("nextn_predict_layers", 1),
            ("context_length", 1024),
            ("embedding_length", 64),
            ("feed_forward_length", 96),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 1),
            ("leading_dense_block_count", 1),
            ("attention.q_lora_rank", 32),
            ("attention.kv_lora_rank", 32),
            ("attention.key_length", 40),
            ("attention.key_length_mla", 24),
            ("attention.value_length_mla", 24),
            ("expert_feed_forward_length", 32),
            ("expert_count", 4),
            ("expert_used_count", 2),
            ("expert_shared_count", 1),
            ("rope.dimension_count", 8),
            ("attention.indexer.head_count", 2),
            ("attention.indexer.key_length", 16),
            ("attention.indexer.top_k", 16),
            ("vocab_size", 260),
        ];
        let sizes = sizes.into_iter().map(|(key, size)| (format!("{arch}.{key}"), gguf::Value::Int(size)));
        let more = more.iter().map(|(key, value)| (format!("{arch}.{key}"), value.clone()));
        let name = ("general.architecture".to_owned(), gguf::Value::Text(arch.to_owned()));
        Metadata::of(sizes.chain(more).chain([name]))
    }

    fn config(arch: &str, more: &[(&str, gguf::Value)]) -> Result<Config, CheckpointError> {
        let json = config_json("x.gguf", &metadata(arch, more), &Tensors::new())?.expect("it has indexers");
        Config::parse(&json)
    }

    fn roles(arch: &str, more: &[(&str, gguf::Value)]) -> String {
        config(arch, more).unwrap().roles.into_iter().map(Role::letter).collect()
    }

    #[test]
    fn sizes_are_those_of_the_main_layers() {
        let config = config("glm-dsa", &[]).unwrap();
        assert_eq!((config.num_hidden_layers, config.index_topk, config.vocab_size), (4, 16, 260));
        assert_eq!((config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim), (16, 8, 24));
        assert_eq!((config.n_group, config.num_attention_heads), (1, 4));
    }

    #[test]
    fn roles_come_in_every_writers_form() {
        use gguf::Value::{Bool, Int, List, Text};
        let types = |values: Vec<gguf::Value>| [("attention.indexer.types", List(values))];
        for values in [
            [true, false, false, true].map(Bool).to_vec(),
            // One more for the MTP block.
            [1, 0, 0, 1, 1].map(Int).to_vec(),
            ["full", "shared", "shared", "full"].map(|word| Text(word.to_owned())).to_vec(),
        ] {
            assert_eq!(roles("glm-dsa", &types(values)), "FSSF");
        }
        let freq = [("attention.indexer.top_k_frequency", Int(2)), ("attention.indexer.skip_top_k_offset", Int(1))];
        assert_eq!(roles("glm-dsa", &freq), "FSFS");
        // Files without any: GLM-5.2's pattern, all Full at GLM-5's context and in DeepSeek's.
        assert_eq!(roles("glm-dsa", &[]), "FFFS");
        assert_eq!(roles("glm-dsa", &[("context_length", Int(202_752))]), "FFFF");
        assert_eq!((roles("deepseek32", &[]), roles("deepseek2", &[])), ("FFFF".to_owned(), "FFFF".to_owned()));
        for wrong in [vec![Bool(true)], [1, 2, 0, 0].map(Int).to_vec()] {
            let error = config("glm-dsa", &types(wrong)).unwrap_err().to_string();
            assert!(error.contains("attention.indexer.types"), "{error}");
        }
    }

    #[test]
    fn other_files_are_not_described() {
        let without = Metadata::of([("general.architecture".to_owned(), gguf::Value::Text("deepseek2".to_owned()))]);
        assert_eq!(config_json("x.gguf", &without, &Tensors::new()).unwrap(), None);
        let error = config("glm-dsa", &[("nextn_predict_layers", gguf::Value::Int(5))]).unwrap_err().to_string();
        assert!(error.contains("block_count' is 5"), "{error}");
    }
}
