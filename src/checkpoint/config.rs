//! config.json of `glm_moe_dsa` and `deepseek_v32`, in the spellings of the Hub and of transformers 5; dense models are
//! read by their own file.
//!
//! Absent keys take the defaults of transformers 5.23 for their model type. Ignored, as by the reference: `head_dim`,
//! `qk_head_dim`, `mlp_bias`, `scoring_func`, `topk_method`, `moe_layer_freq`, `rope_interleave`,
//! `indexer_rope_interleave`, `use_index_cache`.

use serde::{Deserialize, Serialize};

use super::dense::{self, RawDense};
use super::roles::RawRoles;
use super::rope::RawRope;
use super::{CheckpointError, Rope};
use crate::domain::{IndexSource, MAX_LAYERS, PatternError, Role};

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
        }
    }

    /// Returns the family of a `model_type`; `None` for those that are not supported.
    pub fn from_model_type(text: &str) -> Option<Self> {
        [Self::GlmMoeDsa, Self::DeepseekV32, Self::Llama, Self::Qwen2, Self::Qwen3]
            .into_iter()
            .find(|family| family.model_type() == text)
    }

    /// Returns whether models of this type are made without lightning indexers.
    pub fn is_dense(self) -> bool {
        matches!(self, Self::Llama | Self::Qwen2 | Self::Qwen3)
    }
}

/// How layers attend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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
    /// Each layer's role as the reference reads it; layer 0 may be Shared here.
    pub roles: Vec<Role>,
}

#[derive(Deserialize)]
struct Raw {
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
        let config = if family.is_dense() {
            serde_json::from_str::<RawDense>(json)?.read(family)?
        } else {
            serde_json::from_str::<Raw>(json)?.read(family)?
        };
        config.validate()?;
        Ok(config)
    }

    /// Returns the width of what the indexer's queries are made from: the query latent, or the layer's input.
    pub fn index_query_width(&self) -> usize {
        match self.attention {
            Attention::Mla => self.q_lora_rank,
            Attention::Gqa { .. } => self.hidden_size,
        }
    }

    /// Returns the per-head width of queries and keys, rotated part included.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    pub(super) fn validate(&self) -> Result<(), CheckpointError> {
        if self.attention != Attention::Mla {
            return dense::validate(self);
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("q_lora_rank", self.q_lora_rank),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
            ("index_topk", self.index_topk),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
            return wrong(key, 0, "it must be at least 1");
        }
        if !self.qk_rope_head_dim.is_multiple_of(2) {
            return wrong("qk_rope_head_dim", self.qk_rope_head_dim, "rotary dimensions come in pairs");
        }
        self.validate_indexer()?;
        if self.mlp.contains(&MlpKind::Sparse) { self.validate_experts() } else { Ok(()) }
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

    fn validate_experts(&self) -> Result<(), CheckpointError> {
        let (experts, groups) = (self.n_routed_experts, self.n_group);
        if groups == 0 || !experts.is_multiple_of(groups) || experts / groups < 2 {
            return wrong("n_group", groups, &format!("{experts} experts cannot be split so that each group has two"));
        }
        if self.topk_group == 0 || self.topk_group > groups {
            return wrong("topk_group", self.topk_group, &format!("there are {groups} groups (n_group)"));
        }
        let reachable = experts / groups * self.topk_group;
        if self.num_experts_per_tok == 0 || self.num_experts_per_tok > reachable {
            let reason = format!("a token can choose from 1 to {reachable} experts");
            return wrong("num_experts_per_tok", self.num_experts_per_tok, &reason);
        }
        Ok(())
    }
}

pub(super) fn wrong<T>(key: &'static str, value: impl ToString, reason: &str) -> Result<T, CheckpointError> {
    Err(CheckpointError::Value { key, value: value.to_string(), reason: reason.to_owned() })
}

impl Raw {
    fn read(self, family: Family) -> Result<Config, CheckpointError> {
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
    use crate::domain::Pattern;

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
