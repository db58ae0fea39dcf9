//! The architecture and the vocabulary that a GGUF file describes.

use super::dense::RawDense;
use super::gguf::Metadata;
use super::gguf_dsa;
use super::rope::RopeScaling;
use super::weights::Weights;
use super::{Attention, CheckpointError, Config, Dtype, Family};

/// The tokenizer of a GGUF file, as its metadata has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// Kind: `gpt2` is byte-level BPE.
    pub model: String,
    /// How text is split before BPE, such as `smollm` or `qwen2`.
    pub pre: String,
    /// Tokens by id.
    pub tokens: Vec<String>,
    /// Kind of each token: 1 normal, 3 control, 4 user-defined.
    pub kinds: Vec<i64>,
    /// Pairs that BPE joins, best first, each with a space between.
    pub merges: Vec<String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends one.
    pub eos: Option<u32>,
    /// The template by which conversations become text.
    pub chat_template: Option<String>,
    /// Whether a text begins with BOS; `None` where the file does not say.
    pub add_bos: Option<bool>,
}

impl Vocabulary {
    pub(super) fn read(metadata: &Metadata) -> Self {
        let at = |key: &str| format!("tokenizer.ggml.{key}");
        let text = |key: &str| metadata.text(&at(key)).unwrap_or_default().to_owned();
        Self {
            model: text("model"),
            pre: text("pre"),
            tokens: metadata.texts(&at("tokens")).unwrap_or_default(),
            kinds: metadata.ints(&at("token_type")).unwrap_or_default(),
            merges: metadata.texts(&at("merges")).unwrap_or_default(),
            bos: metadata.size(&at("bos_token_id")).map(|id| id as u32),
            eos: metadata.size(&at("eos_token_id")).map(|id| id as u32),
            chat_template: metadata.text("tokenizer.chat_template").map(str::to_owned),
            add_bos: metadata.flag(&at("add_bos_token")),
        }
    }
}

/// Returns the architecture of a file, and for a DSA model its description in the words of config.json.
pub(super) fn config(
    file: &str,
    metadata: &Metadata,
    weights: &Weights,
) -> Result<(Config, Option<String>), CheckpointError> {
    let kind = metadata.text("general.architecture").unwrap_or("(none given)");
    if let Some(json) = gguf_dsa::config_json(file, metadata, &weights.tensors)? {
        let config = Config::parse(&json).map_err(|e| CheckpointError::malformed(file, e.to_string()))?;
        return Ok((config, Some(json)));
    }
    let family = Family::from_model_type(kind).filter(|family| family.is_dense());
    let family = family.ok_or_else(|| CheckpointError::ModelType(kind.to_owned()))?;
    let bad = |reason: String| CheckpointError::malformed(file, reason);
    let size = |key: &str| metadata.size(&format!("{kind}.{key}"));
    let need = |key: &str| size(key).ok_or_else(|| bad(format!("its metadata lacks '{kind}.{key}'")));
    if let Some(experts) = size("expert_count").filter(|&n| n > 0) {
        return Err(bad(format!("{kind}.expert_count is {experts}, but only models without experts are supported")));
    }
    let embedding = weights.tensors.get("model.embed_tokens.weight");
    let raw = RawDense {
        vocab_size: embedding.and_then(|info| info.shape.first().copied()).or(size("vocab_size")),
        hidden_size: Some(need("embedding_length")?),
        intermediate_size: Some(need("feed_forward_length")?),
        num_hidden_layers: Some(need("block_count")?),
        num_attention_heads: Some(need("attention.head_count")?),
        num_key_value_heads: size("attention.head_count_kv"),
        head_dim: size("attention.key_length").or(size("rope.dimension_count")),
        max_position_embeddings: Some(need("context_length")?),
        rms_norm_eps: metadata.float(&format!("{kind}.attention.layer_norm_rms_epsilon")),
        tie_word_embeddings: Some(!weights.tensors.contains_key("lm_head.weight")),
        rope_theta: metadata.float(&format!("{kind}.rope.freq_base")),
        ..RawDense::default()
    };
    let mut config = raw.read(family).map_err(|e| bad(e.to_string()))?;
    let bias = |name: &str| weights.tensors.contains_key(&format!("model.layers.0.self_attn.{name}.bias"));
    config.attention_bias = bias("o_proj");
    if let Attention::Gqa { qkv_bias, rope_interleaved, .. } = &mut config.attention {
        *qkv_bias |= bias("q_proj");
        // The converter of llama orders the rows of queries and keys so that neighbours rotate together.
        *rope_interleaved = family == Family::Llama;
    }
    config.rope.scaling = scaling(kind, metadata, weights).map_err(bad)?;
    config.validate().map_err(|e| bad(e.to_string()))?;
    Ok((config, None))
}

/// Returns how rotary frequencies are stretched: by the factors of `rope_freqs.weight`, or not at all.
fn scaling(kind: &str, metadata: &Metadata, weights: &Weights) -> Result<RopeScaling, String> {
    match metadata.text(&format!("{kind}.rope.scaling.type")) {
        None | Some("none") => {}
        Some(other) => return Err(format!("{kind}.rope.scaling.type is '{other}', but only 'none' is supported")),
    }
    let Some(info) = weights.tensors.get("rope_freqs.weight") else { return Ok(RopeScaling::Default) };
    if info.dtype != Dtype::F32 {
        return Err(format!("tensor 'rope_freqs.weight' has dtype {}, not F32", info.dtype));
    }
    let bytes = &weights.shards[info.shard][info.start..info.end];
    let factors = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok(RopeScaling::Divided(factors.collect()))
}
