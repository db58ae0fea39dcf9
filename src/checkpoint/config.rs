//! The architecture of a checkpoint, whatever its config was read from.

use serde::Serialize;

use super::families::minimax_m3::MiniMaxM3;
use super::{CheckpointError, DeepseekV4, Rope};
use crate::domain::{IndexSource, Role, SelectionUnit, Sites, TopK};

/// The supported architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Family {
    /// GLM-5 and its like.
    GlmMoeDsa,
    /// DeepSeek-V3.2 and its like.
    DeepseekV32,
    /// Llama, and what is built like it (`SmolLM2`, Mistral without windows).
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3 without experts.
    Qwen3,
    /// The text part of MiniMax-M3.
    MiniMaxM3,
    /// DeepSeek-V4 and its like.
    DeepseekV4,
}

impl Family {
    /// Returns `model_type` of config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::GlmMoeDsa => "glm_moe_dsa",
            Self::DeepseekV32 => "deepseek_v32",
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::MiniMaxM3 => "minimax_m3_vl",
            Self::DeepseekV4 => "deepseek_v4",
        }
    }

    /// Returns the family of a `model_type`; `None` for those that are not supported.
    pub fn from_model_type(text: &str) -> Option<Self> {
        if matches!(text, "minimax_m3_vl_text" | "minimax_m3_text") {
            return Some(Self::MiniMaxM3);
        }
        [Self::GlmMoeDsa, Self::DeepseekV32, Self::Llama, Self::Qwen2, Self::Qwen3, Self::MiniMaxM3, Self::DeepseekV4]
            .into_iter()
            .find(|family| family.model_type() == text)
    }

    /// Returns whether models of this type are made without lightning indexers.
    pub fn is_dense(self) -> bool {
        matches!(self, Self::Llama | Self::Qwen2 | Self::Qwen3)
    }
}

/// How layers attend.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Attention {
    /// Multi-head latent attention.
    Mla,
    /// Grouped-query attention: each head of keys and values serves several query heads.
    Gqa {
        /// Heads of keys and values.
        num_key_value_heads: usize,
        /// Width of a head of queries, keys or values.
        head_dim: usize,
        /// Whether `q_proj`, `k_proj` and `v_proj` have a bias.
        qkv_bias: bool,
        /// Whether each head of queries and keys is RMS-normalised before the rotation.
        qk_norm: bool,
        /// Whether rotation pairs (2j, 2j+1), as in GGUF files of llama, or (j, j + half).
        rope_interleaved: bool,
    },
    /// Grouped-query attention over blocks of keys, as MiniMax-M3 has it.
    MiniMaxM3(MiniMaxM3),
    /// One row per token that is key and value of all heads, beside compressed entries; sizes in [`Config::deepseek_v4`].
    SharedRows,
}

/// The kind of a layer's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum MlpKind {
    /// One SwiGLU MLP.
    Dense,
    /// Routed and shared experts.
    Sparse,
}

/// The architecture of a checkpoint; field names are those of config.json.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The architecture, which decides the pairing of the indexer's rotary dimensions.
    pub family: Family,
    /// How layers attend; the ranks and widths of MLA are 0 under GQA but for those of rotation and values.
    pub attention: Attention,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Main layers, without MTP.
    pub num_hidden_layers: usize,
    /// Query heads; MLA expands keys and values to as many.
    pub num_attention_heads: usize,
    /// Width of the query latent, which is also the indexer's query input.
    pub q_lora_rank: usize,
    /// Width of the key-value latent.
    pub kv_lora_rank: usize,
    /// Per-head width of queries and keys without rotation.
    pub qk_nope_head_dim: usize,
    /// Rotated width of an attention head.
    pub qk_rope_head_dim: usize,
    /// Per-head width of values.
    pub v_head_dim: usize,
    /// Width of dense MLPs.
    pub intermediate_size: usize,
    /// Width of one routed expert.
    pub moe_intermediate_size: usize,
    /// Routed experts per sparse layer.
    pub n_routed_experts: usize,
    /// Shared experts; their common width is this times `moe_intermediate_size`.
    pub n_shared_experts: usize,
    /// Experts that a token is routed to.
    pub num_experts_per_tok: usize,
    /// Groups of experts.
    pub n_group: usize,
    /// Groups that a token may choose from.
    pub topk_group: usize,
    /// Whether the chosen experts' weights are normalised.
    pub norm_topk_prob: bool,
    /// Factor on the chosen experts' weights.
    pub routed_scaling_factor: f64,
    /// The kind of each layer's MLP.
    pub mlp: Vec<MlpKind>,
    /// Epsilon of the layer norms and the final norm; the latents' norms use 1e-6.
    pub rms_norm_eps: f64,
    /// Whether `o_proj` has a bias; under MLA also `q_a_proj` and `kv_a_proj_with_mqa`.
    pub attention_bias: bool,
    /// Where the indices of Full layers come from.
    pub index: IndexSource,
    /// k: keys that a query attends to.
    pub index_topk: usize,
    /// Indexer heads; 0 where there are no indexers.
    pub index_n_heads: usize,
    /// Per-head width of the indexer.
    pub index_head_dim: usize,
    /// Rotated width of an indexer head: every n-th frequency of attention, n = attention's width / this.
    pub index_rope_head_dim: usize,
    /// Whether the indexer rotates the pairs (2j, 2j+1), as GLM does, or (j, j + half), as DeepSeek does.
    pub index_rope_interleaved: bool,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Longest context.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Each site's role as the reference reads it; the first may be Shared here.
    pub roles: Vec<Role>,
    /// What only DeepSeek-V4 has.
    pub deepseek_v4: Option<Box<DeepseekV4>>,
}

impl Config {
    /// Returns the width of what the indexer's queries are made from: the query latent, or the layer's input.
    pub fn index_query_width(&self) -> usize {
        match self.attention {
            Attention::Mla | Attention::SharedRows => self.q_lora_rank,
            Attention::Gqa { .. } | Attention::MiniMaxM3(_) => self.hidden_size,
        }
    }

    /// Returns the common width of the shared experts.
    pub fn shared_width(&self) -> usize {
        match self.attention {
            Attention::MiniMaxM3(own) => own.shared_intermediate_size,
            _ => self.moe_intermediate_size * self.n_shared_experts,
        }
    }

    /// Returns the numbers of a token's residual state: those of all streams, of a family that has several.
    pub fn residual_width(&self) -> usize {
        self.hidden_size * self.deepseek_v4.as_ref().map_or(1, |v4| v4.hc_mult)
    }

    /// Returns the layers that select keys; the others attend to every visible key, or to a window.
    pub fn sites(&self) -> Sites {
        let every = Sites::every(self.num_hidden_layers);
        match (self.attention, &self.deepseek_v4) {
            // A config without a site is refused when it is read.
            (Attention::MiniMaxM3(own), _) => Sites::new(self.num_hidden_layers, own.sites.iter()).unwrap_or(every),
            (_, Some(v4)) => Sites::new(self.num_hidden_layers, v4.sites()).unwrap_or(every),
            _ => every,
        }
    }

    /// Returns what one selected index stands for.
    pub fn unit(&self) -> SelectionUnit {
        match (self.attention, &self.deepseek_v4) {
            (Attention::MiniMaxM3(own), _) => SelectionUnit::Block(own.index_block_size as u32),
            (_, Some(v4)) => SelectionUnit::Entry(v4.entry() as u32),
            _ => SelectionUnit::Token,
        }
    }

    /// Returns how many units a query may select.
    pub fn topk(&self) -> TopK {
        TopK { unit: self.unit(), k: self.index_topk }
    }

    /// Returns the sets per query and site: one, or one per group of key-value heads.
    pub fn index_groups(&self) -> usize {
        match self.attention {
            Attention::MiniMaxM3(own) => own.num_key_value_heads,
            _ => 1,
        }
    }

    /// Returns how many of a query's units are selected whatever their scores; they count against k.
    pub fn index_forced(&self) -> usize {
        match self.attention {
            Attention::MiniMaxM3(own) => own.index_local_blocks,
            _ => 0,
        }
    }

    /// Returns the per-head width of queries and keys, rotated part included.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Refuses sizes that an indexer beside this attention cannot have.
    pub(super) fn validate_indexer(&self) -> Result<(), CheckpointError> {
        let (dim, width, rope) = (self.index_head_dim, self.index_rope_head_dim, self.qk_rope_head_dim);
        if self.index_n_heads == 0 {
            return wrong("index_n_heads", 0, "it must be at least 1");
        }
        if dim < width.max(1) {
            let reason = format!("the indexer rotates {width} dimensions (qk_rope_head_dim)");
            return wrong("index_head_dim", dim, &reason);
        }
        if width < 2 || !width.is_multiple_of(2) || !rope.is_multiple_of(width) {
            let reason = format!("it must be even and divide attention's rotated width {rope}");
            return wrong("the indexer's rotated width", width, &reason);
        }
        Ok(())
    }
}

pub(super) fn wrong<T>(key: &'static str, value: impl ToString, reason: &str) -> Result<T, CheckpointError> {
    Err(CheckpointError::Value { key, value: value.to_string(), reason: reason.to_owned() })
}
