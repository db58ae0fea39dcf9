//! MiniMax-M3, the text part: config.json in the spellings of the Hub and of transformers, and the names of its tensors.
//!
//! Absent keys take the defaults of transformers 5.23. `sparse_attention_config` wins over the flat keys. Values that no
//! file has and this program does not compute are refused by key and value. Vision, projector and MTP are skipped.

use serde::{Deserialize, Serialize};

use super::Stored;
use crate::checkpoint::config::{Attention, Config, Family, MlpKind, wrong};
use crate::checkpoint::layout::List;
use crate::checkpoint::rope::RawRope;
use crate::checkpoint::{CheckpointError, Demand, Rope};
use crate::domain::{IndexSource, LayerSet, MAX_LAYERS, PatternError, Role};

/// Base of the rotary frequencies where config.json gives none.
const DEFAULT_THETA: f64 = 5e6;

/// What only this family has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MiniMaxM3 {
    /// Heads of keys and values; each has a selection of its own.
    pub num_key_value_heads: usize,
    /// Width of a head of queries, keys or values; the leading `qk_rope_head_dim` dimensions are rotated.
    pub head_dim: usize,
    /// The layers that select blocks of keys; the others attend to every visible key.
    pub sites: LayerSet,
    /// Keys per block.
    pub index_block_size: usize,
    /// Blocks up to the query's own that are always selected; they count against `index_topk`.
    pub index_local_blocks: usize,
    /// Width of the shared expert.
    pub shared_intermediate_size: usize,
    /// Factor inside the sigmoid of the MLP's activation.
    pub swiglu_alpha: f64,
    /// Bound of the MLP's gate and up projections.
    pub swiglu_limit: f64,
}

/// config.json, of the whole model or of its text part alone.
#[derive(Deserialize)]
struct RawWhole {
    text_config: Option<Raw>,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    flat: Raw,
}

/// The keys that are read or refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    dense_intermediate_size: Option<usize>,
    shared_intermediate_size: Option<usize>,
    num_local_experts: Option<usize>,
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    n_shared_experts: Option<usize>,
    routed_scaling_factor: Option<f64>,
    swiglu_alpha: Option<f64>,
    swiglu_limit: Option<f64>,
    rms_norm_eps: Option<f64>,
    rope_parameters: Option<RawRope>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    rotary_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    layer_types: Option<Vec<String>>,
    mlp_layer_types: Option<Vec<String>>,
    moe_layer_freq: Option<Vec<usize>>,
    index_n_heads: Option<usize>,
    index_head_dim: Option<usize>,
    index_block_size: Option<usize>,
    index_topk_blocks: Option<usize>,
    index_local_blocks: Option<usize>,
    sparse_attention_config: Option<RawSparse>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    scoring_func: Option<String>,
    qk_norm_type: Option<String>,
    use_gemma_norm: Option<bool>,
    use_qk_norm: Option<bool>,
    use_routing_bias: Option<bool>,
    attention_output_gate: Option<bool>,
}

/// The nested spelling of the indexer's keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawSparse {
    use_sparse_attention: Option<bool>,
    sparse_num_index_heads: Option<usize>,
    sparse_index_dim: Option<usize>,
    sparse_block_size: Option<usize>,
    sparse_topk_blocks: Option<usize>,
    sparse_local_block: Option<usize>,
    sparse_init_block: Option<usize>,
    sparse_score_type: Option<String>,
    sparse_attention_freq: Option<Vec<usize>>,
    sparse_disable_index_value: Option<Vec<usize>>,
}

/// Reads config.json.
pub(in crate::checkpoint) fn read(json: &str) -> Result<Config, CheckpointError> {
    let RawWhole { text_config, tie_word_embeddings, flat } = serde_json::from_str(json)?;
    let mut raw = text_config.unwrap_or(flat);
    raw.tie_word_embeddings = raw.tie_word_embeddings.or(tie_word_embeddings);
    raw.read()
}

impl Raw {
    fn read(self) -> Result<Config, CheckpointError> {
        self.refuse()?;
        let layers = self.num_hidden_layers.unwrap_or(60);
        if layers == 0 || layers > MAX_LAYERS {
            return Err(PatternError::Size(layers).into());
        }
        let head_dim = self.head_dim.unwrap_or(128);
        let rotated = self.rotated(head_dim)?;
        let (sites, mlp) = (self.sites(layers)?, self.mlp(layers)?);
        let max_position_embeddings = self.max_position_embeddings.unwrap_or(524_288);
        let theta = self.rope_theta.or(Some(DEFAULT_THETA));
        if let Some(kind) = self.rope_parameters.as_ref().map(RawRope::kind).filter(|&kind| kind != "default") {
            return wrong("rope_type", format!("'{kind}'"), "only 'default' is supported for minimax_m3_vl");
        }
        let rope = Rope::read(self.rope_parameters, None, theta, max_position_embeddings)?;
        let sparse = self.sparse_attention_config.unwrap_or_default();
        Ok(Config {
            family: Family::MiniMaxM3,
            attention: Attention::MiniMaxM3(MiniMaxM3 {
                num_key_value_heads: self.num_key_value_heads.unwrap_or(4),
                head_dim,
                sites,
                index_block_size: sparse.sparse_block_size.or(self.index_block_size).unwrap_or(128),
                index_local_blocks: sparse.sparse_local_block.or(self.index_local_blocks).unwrap_or(1),
                shared_intermediate_size: self.shared_intermediate_size.unwrap_or(3072),
                swiglu_alpha: self.swiglu_alpha.unwrap_or(1.702),
                swiglu_limit: self.swiglu_limit.unwrap_or(7.0),
            }),
            vocab_size: self.vocab_size.unwrap_or(200_064),
            hidden_size: self.hidden_size.unwrap_or(6144),
            num_hidden_layers: layers,
            num_attention_heads: self.num_attention_heads.unwrap_or(64),
            q_lora_rank: 0,
            kv_lora_rank: 0,
            qk_nope_head_dim: head_dim.saturating_sub(rotated),
            qk_rope_head_dim: rotated,
            v_head_dim: head_dim,
            intermediate_size: self.dense_intermediate_size.unwrap_or(12_288),
            moe_intermediate_size: self.intermediate_size.unwrap_or(3072),
            n_routed_experts: self.num_local_experts.or(self.num_experts).unwrap_or(128),
            n_shared_experts: 1,
            num_experts_per_tok: self.num_experts_per_tok.unwrap_or(4),
            n_group: 1,
            topk_group: 1,
            norm_topk_prob: true,
            routed_scaling_factor: self.routed_scaling_factor.unwrap_or(2.0),
            mlp,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            attention_bias: false,
            index: IndexSource::Checkpoint,
            index_topk: sparse.sparse_topk_blocks.or(self.index_topk_blocks).unwrap_or(16),
            index_n_heads: sparse.sparse_num_index_heads.or(self.index_n_heads).unwrap_or(4),
            index_head_dim: sparse.sparse_index_dim.or(self.index_head_dim).unwrap_or(128),
            index_rope_head_dim: rotated,
            index_rope_interleaved: false,
            rope,
            max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            deepseek_v4: None,
            roles: vec![Role::Full; sites.len()],
        })
    }

    /// Returns how many leading dimensions of a head are rotated; `rotary_dim` counts where there is no factor.
    fn rotated(&self, head_dim: usize) -> Result<usize, CheckpointError> {
        let inside = self.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
        let Some(factor) = inside.or(self.partial_rotary_factor) else {
            return Ok(self.rotary_dim.unwrap_or(head_dim));
        };
        if !(factor > 0.0 && factor <= 1.0) {
            return wrong("partial_rotary_factor", factor, "it must be above 0 and at most 1");
        }
        let rotated = (head_dim as f64 * factor) as usize;
        match self.rotary_dim {
            Some(dim) if dim != rotated => {
                let reason = format!("partial_rotary_factor {factor} of head_dim {head_dim} is {rotated}");
                wrong("rotary_dim", dim, &reason)
            }
            _ => Ok(rotated),
        }
    }

    /// Returns the layers that select: `layer_types`, or else the list of the nested spelling; without both there are none.
    fn sites(&self, layers: usize) -> Result<LayerSet, CheckpointError> {
        let sparse = self.sparse_attention_config.as_ref();
        let sites: LayerSet = match (&self.layer_types, sparse.and_then(|s| s.sparse_attention_freq.as_ref())) {
            (Some(types), _) => {
                let known = ["full_attention", "minimax_m3_sparse"];
                set(each("layer_types", types, known, layers)?.into_iter().map(|at| at == 1))
            }
            (None, Some(freq)) => {
                length("sparse_attention_freq", freq.len(), layers)?;
                set(freq.iter().map(|&n| n != 0))
            }
            (None, None) => LayerSet::default(),
        };
        if let Some(disabled) = sparse.and_then(|s| s.sparse_disable_index_value.as_ref())
            && let Some(layer) = sites.iter().find(|&layer| disabled.get(layer) != Some(&1))
        {
            let reason = format!("layer {layer} selects blocks, and index values are not supported");
            return wrong("sparse_disable_index_value", format!("{disabled:?}"), &reason);
        }
        Ok(sites)
    }

    fn mlp(&self, layers: usize) -> Result<Vec<MlpKind>, CheckpointError> {
        let kind = |sparse| if sparse { MlpKind::Sparse } else { MlpKind::Dense };
        match (&self.mlp_layer_types, &self.moe_layer_freq) {
            (Some(types), _) => {
                let at = each("mlp_layer_types", types, ["dense", "sparse"], layers)?;
                Ok(at.into_iter().map(|at| kind(at == 1)).collect())
            }
            (None, Some(freq)) => {
                length("moe_layer_freq", freq.len(), layers)?;
                Ok(freq.iter().take(layers).map(|&n| kind(n != 0)).collect())
            }
            (None, None) => Ok(vec![MlpKind::Sparse; layers]),
        }
    }

    /// Refuses values that no known file has and this program does not compute.
    fn refuse(&self) -> Result<(), CheckpointError> {
        if let Some(act) = self.hidden_act.as_ref().filter(|act| !["silu", "swigluoai"].contains(&act.as_str())) {
            return wrong("hidden_act", format!("'{act}'"), "only 'swigluoai' and 'silu' are supported");
        }
        let sparse = self.sparse_attention_config.as_ref();
        let words = [
            ("scoring_func", self.scoring_func.as_deref(), "sigmoid"),
            ("qk_norm_type", self.qk_norm_type.as_deref(), "per_head"),
            ("sparse_score_type", sparse.and_then(|s| s.sparse_score_type.as_deref()), "max"),
        ];
        for (key, value, only) in words {
            if let Some(value) = value.filter(|&value| value != only) {
                return wrong(key, format!("'{value}'"), &format!("only '{only}' is supported"));
            }
        }
        let switches = [
            ("use_gemma_norm", self.use_gemma_norm, true),
            ("use_qk_norm", self.use_qk_norm, true),
            ("use_routing_bias", self.use_routing_bias, true),
            ("attention_output_gate", self.attention_output_gate, false),
            ("use_sparse_attention", sparse.and_then(|s| s.use_sparse_attention), true),
        ];
        for (key, value, only) in switches {
            if let Some(value) = value.filter(|&value| value != only) {
                return wrong(key, value, &format!("only {only} is supported"));
            }
        }
        let numbers = [
            ("n_shared_experts", self.n_shared_experts, 1),
            ("sparse_init_block", sparse.and_then(|s| s.sparse_init_block), 0),
        ];
        for (key, value, only) in numbers {
            if let Some(value) = value.filter(|&value| value != only) {
                return wrong(key, value, &format!("only {only} is supported"));
            }
        }
        Ok(())
    }
}

/// Returns the layers whose flags are set.
fn set(flags: impl Iterator<Item = bool>) -> LayerSet {
    flags.enumerate().filter_map(|(layer, flag)| flag.then_some(layer)).collect()
}

/// Returns which of two words each layer's entry is.
fn each(key: &'static str, words: &[String], known: [&str; 2], layers: usize) -> Result<Vec<usize>, CheckpointError> {
    length(key, words.len(), layers)?;
    let place = |word: &String| match known.iter().position(|k| k == word) {
        Some(at) => Ok(at),
        None => wrong(key, format!("'{word}'"), &format!("only '{}' and '{}' are supported", known[0], known[1])),
    };
    words.iter().take(layers).map(place).collect()
}

fn length(key: &'static str, got: usize, layers: usize) -> Result<(), CheckpointError> {
    if got == layers {
        return Ok(());
    }
    wrong(key, format!("of length {got}"), &format!("the model has {layers} layers"))
}

/// Refuses sizes that the architecture cannot have.
pub(in crate::checkpoint) fn validate(config: &Config, own: &MiniMaxM3) -> Result<(), CheckpointError> {
    let (heads, groups, rotated) = (config.num_attention_heads, own.num_key_value_heads, config.qk_rope_head_dim);
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("num_attention_heads", heads),
        ("num_key_value_heads", groups),
        ("head_dim", own.head_dim),
        ("dense_intermediate_size", config.intermediate_size),
        ("intermediate_size", config.moe_intermediate_size),
        ("shared_intermediate_size", own.shared_intermediate_size),
        ("num_local_experts", config.n_routed_experts),
        ("index_block_size", own.index_block_size),
        ("index_topk_blocks", config.index_topk),
        ("rotary_dim", rotated),
    ];
    if let Some((key, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
        return wrong(key, 0, "it must be at least 1");
    }
    for (key, size) in
        [("index_block_size", own.index_block_size), ("shared_intermediate_size", own.shared_intermediate_size)]
    {
        if size > 1 << 20 {
            return wrong(key, size, &format!("no model has more than {}", 1 << 20));
        }
    }
    if own.sites.is_empty() {
        return wrong("layer_types", "without 'minimax_m3_sparse'", "a model without selection has nothing to share");
    }
    if !heads.is_multiple_of(groups) {
        let reason = format!("the {heads} attention heads cannot share them evenly");
        return wrong("num_key_value_heads", groups, &reason);
    }
    if config.index_n_heads != groups {
        let reason = format!("each of the {groups} groups of keys and values (num_key_value_heads) needs one");
        return wrong("index_n_heads", config.index_n_heads, &reason);
    }
    if !rotated.is_multiple_of(2) || rotated > own.head_dim {
        let reason = format!("rotary dimensions come in pairs, at most head_dim = {}", own.head_dim);
        return wrong("rotary_dim", rotated, &reason);
    }
    if config.index_head_dim < rotated {
        let reason = format!("the indexer rotates {rotated} dimensions");
        return wrong("index_head_dim", config.index_head_dim, &reason);
    }
    if own.index_local_blocks > config.index_topk {
        let reason = format!("only {} blocks are selected (index_topk_blocks)", config.index_topk);
        return wrong("index_local_blocks", own.index_local_blocks, &reason);
    }
    let (chosen, experts) = (config.num_experts_per_tok, config.n_routed_experts);
    if chosen == 0 || chosen > experts {
        return wrong("num_experts_per_tok", chosen, &format!("a token can choose from 1 to {experts} experts"));
    }
    if !(own.swiglu_limit > 0.0 && own.swiglu_limit.is_finite()) {
        return wrong("swiglu_limit", own.swiglu_limit, "it must be a positive number");
    }
    Ok(())
}

/// Pieces of stored names, and how the program calls them.
const PIECES: [(&str, &str); 6] = [
    (".block_sparse_moe.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"),
    (".block_sparse_moe.", ".mlp."),
    (".w1.", ".gate_proj."),
    (".w2.", ".down_proj."),
    (".w3.", ".up_proj."),
    (".self_attn.index_", ".self_attn.indexer."),
];

pub(super) fn stored(name: &str) -> Stored {
    let skipped = ["vision_tower.", "multi_modal_projector.", "patch_merge_mlp."];
    let text = name.strip_prefix("language_model.").unwrap_or(name);
    if skipped.iter().any(|at| name.starts_with(at)) || text.contains("mtp") {
        return Stored::Skipped;
    }
    Stored::Used(PIECES.iter().fold(text.to_owned(), |name, (stored, own)| name.replacen(stored, own, 1)))
}

pub(super) fn spelt(name: &str) -> String {
    let (bias, rest) = (&PIECES[0], &PIECES[2..]);
    let sparse = name.contains(".mlp.gate.") || name.contains("experts.");
    let name = if sparse {
        name.replacen(bias.1, bias.0, 1).replacen(".mlp.", ".block_sparse_moe.", 1)
    } else {
        name.to_owned()
    };
    let routed = name.contains(".experts.");
    rest.iter()
        .filter(|(_, own)| routed || own.contains("indexer"))
        .fold(name, |name, (stored, own)| name.replacen(own, stored, 1))
}

/// Adds the tensors of a layer's attention, its indexer apart.
pub(in crate::checkpoint) fn attention(config: &Config, own: &MiniMaxM3, all: &mut List) {
    let (hidden, heads, dim) = (config.hidden_size, config.num_attention_heads, own.head_dim);
    all.push("self_attn.q_proj.weight", &[heads * dim, hidden]);
    all.push("self_attn.k_proj.weight", &[own.num_key_value_heads * dim, hidden]);
    all.push("self_attn.v_proj.weight", &[own.num_key_value_heads * dim, hidden]);
    all.push("self_attn.o_proj.weight", &[hidden, heads * dim]);
    all.push("self_attn.q_norm.weight", &[dim]);
    all.push("self_attn.k_norm.weight", &[dim]);
}

/// Returns the tensors of a site's indexer.
pub(in crate::checkpoint) fn indexer(config: &Config, layer: usize) -> Vec<Demand> {
    let (heads, dim, hidden) = (config.index_n_heads, config.index_head_dim, config.hidden_size);
    let mut all = List::at(format!("model.layers.{layer}.self_attn.indexer."));
    all.push("q_proj.weight", &[heads * dim, hidden]);
    all.push("k_proj.weight", &[dim, hidden]);
    all.push("q_norm.weight", &[dim]);
    all.push("k_norm.weight", &[dim]);
    all.demands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(json: &str) -> (Config, MiniMaxM3) {
        let config = Config::parse(json).unwrap();
        let Attention::MiniMaxM3(own) = config.attention else { panic!("MiniMax-M3 expected") };
        (config, own)
    }

    #[test]
    fn absent_keys_take_the_defaults_of_the_published_model() {
        let (config, own) = own(r#"{"model_type": "minimax_m3_vl", "text_config": {"num_hidden_layers": 2,
            "sparse_attention_config": {"sparse_attention_freq": [0, 1]}}}"#);
        assert_eq!((config.hidden_size, config.num_attention_heads, own.num_key_value_heads), (6144, 64, 4));
        assert_eq!((config.intermediate_size, config.moe_intermediate_size), (12_288, 3072));
        assert_eq!((own.index_block_size, config.index_topk, own.index_local_blocks), (128, 16, 1));
        assert_eq!((config.rope.theta, config.qk_rope_head_dim), (5e6, 128));
        let error = Config::parse(r#"{"model_type": "minimax_m3_vl", "text_config": {}}"#).unwrap_err().to_string();
        assert!(error.contains("layer_types"), "without a list no layer selects: {error}");
    }

    #[test]
    fn the_nested_spelling_wins_and_makes_lists_that_are_absent() {
        let nested = r#""sparse_attention_config": {"sparse_topk_blocks": 5, "sparse_attention_freq": [0, 1, 1]}"#;
        let rest = r#""num_hidden_layers": 3, "index_topk_blocks": 9, "moe_layer_freq": [0, 1, 0]"#;
        let json = |more: &str| format!(r#"{{"model_type": "minimax_m3_vl_text", {rest}, {nested}{more}}}"#);
        let (config, flat) = own(&json(""));
        assert_eq!((config.index_topk, Vec::from(flat.sites)), (5, vec![1, 2]));
        assert_eq!(config.mlp, [MlpKind::Dense, MlpKind::Sparse, MlpKind::Dense]);
        let types = r#", "layer_types": ["full_attention", "minimax_m3_sparse", "full_attention"]"#;
        assert_eq!(Vec::from(own(&json(types)).1.sites), [1]);
    }

    #[test]
    fn the_rotated_width_comes_from_the_factor_or_else_from_rotary_dim() {
        let rotated = |keys: &str| {
            let sites = r#""num_hidden_layers": 1, "layer_types": ["minimax_m3_sparse"]"#;
            Config::parse(&format!(r#"{{"model_type": "minimax_m3_text", {sites}, "head_dim": 64{keys}}}"#))
                .map(|config| config.qk_rope_head_dim)
                .map_err(|e| e.to_string())
        };
        assert_eq!(rotated(""), Ok(64));
        assert_eq!(rotated(r#", "rotary_dim": 32"#), Ok(32));
        assert_eq!(rotated(r#", "partial_rotary_factor": 0.25"#), Ok(16));
        let inside = r#", "rope_parameters": {"partial_rotary_factor": 0.5}"#;
        assert_eq!(rotated(&format!(r#"{inside}, "partial_rotary_factor": 0.25"#)), Ok(32));
        let error = rotated(&format!(r#"{inside}, "rotary_dim": 16"#)).unwrap_err();
        assert!(error.contains("rotary_dim is 16") && error.contains("is 32"), "{error}");
    }

    #[test]
    fn what_is_not_computed_is_refused_by_key_and_value() {
        for (keys, words) in [
            (r#""use_gemma_norm": false"#, "use_gemma_norm is false"),
            (r#""use_qk_norm": false"#, "use_qk_norm is false"),
            (r#""use_routing_bias": false"#, "use_routing_bias is false"),
            (r#""attention_output_gate": true"#, "attention_output_gate is true"),
            (r#""scoring_func": "softmax""#, "scoring_func is 'softmax'"),
            (r#""qk_norm_type": "per_layer""#, "qk_norm_type is 'per_layer'"),
            (r#""n_shared_experts": 2"#, "n_shared_experts is 2"),
            (r#""hidden_act": "gelu""#, "hidden_act is 'gelu'"),
            (r#""layer_types": ["full_attention", "full_attention"]"#, "layer_types is without"),
            (r#""index_n_heads": 8"#, "index_n_heads is 8"),
            (r#""index_head_dim": 64"#, "index_head_dim is 64"),
            (r#""rotary_dim": 130"#, "rotary_dim is 130"),
            (r#""index_block_size": 4294967304"#, "index_block_size is 4294967304"),
            (r#""index_local_blocks": 17"#, "index_local_blocks is 17"),
            (r#""layer_types": ["full_attention", "sliding"]"#, "'sliding'"),
            (r#""layer_types": ["full_attention"]"#, "layer_types is of length 1"),
            (r#""rope_parameters": {"rope_type": "yarn", "factor": 4}"#, "rope_type is 'yarn'"),
            (r#""sparse_attention_config": {"use_sparse_attention": false}"#, "use_sparse_attention is false"),
            (r#""sparse_attention_config": {"sparse_init_block": 1}"#, "sparse_init_block is 1"),
            (r#""sparse_attention_config": {"sparse_score_type": "lse"}"#, "sparse_score_type is 'lse'"),
            (
                r#""sparse_attention_config": {"sparse_attention_freq": [0, 1], "sparse_disable_index_value": [0, 0]}"#,
                "sparse_disable_index_value is [0, 0]",
            ),
        ] {
            let sites = if keys.contains("layer_types") || keys.contains("attention_freq") {
                ""
            } else {
                r#""layer_types": ["full_attention", "minimax_m3_sparse"], "#
            };
            let rest = format!(r#""num_hidden_layers": 2, {sites}{keys}"#);
            let json = format!(r#"{{"model_type": "minimax_m3_vl", "text_config": {{{rest}}}}}"#);
            let error = Config::parse(&json).unwrap_err().to_string();
            assert!(error.contains(words), "{keys}: {error}");
        }
    }

    #[test]
    fn stored_names_are_mapped_and_spelt_back() {
        for (file, name) in [
            (
                "model.layers.3.block_sparse_moe.e_score_correction_bias",
                "model.layers.3.mlp.gate.e_score_correction_bias",
            ),
            ("model.layers.3.block_sparse_moe.gate.weight", "model.layers.3.mlp.gate.weight"),
            ("model.layers.3.block_sparse_moe.experts.7.w3.weight", "model.layers.3.mlp.experts.7.up_proj.weight"),
            (
                "model.layers.3.block_sparse_moe.shared_experts.up_proj.weight",
                "model.layers.3.mlp.shared_experts.up_proj.weight",
            ),
            ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj.weight"),
            ("model.layers.3.self_attn.index_q_norm.weight", "model.layers.3.self_attn.indexer.q_norm.weight"),
            ("model.layers.3.self_attn.k_norm.weight", "model.layers.3.self_attn.k_norm.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            for prefix in ["", "language_model."] {
                assert_eq!(stored(&format!("{prefix}{file}")), Stored::Used(name.to_owned()));
            }
            assert_eq!(spelt(name), file);
        }
        for name in [
            "vision_tower.a",
            "multi_modal_projector.linear_1.bias",
            "patch_merge_mlp.x",
            "language_model.mtp.layers.0.a",
        ] {
            assert_eq!(stored(name), Stored::Skipped, "{name}");
        }
    }
}
