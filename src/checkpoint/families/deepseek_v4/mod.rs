//! DeepSeek-V4: windows, compressed entries, residual streams, experts chosen by token id.
//!
//! Written from transformers 5.23 (`deepseek_v4`); both its saved spelling of config.json and the Hub's are read. Absent
//! sizes take its defaults, which are those of V4-Flash. Ignored, as by the reference: `attention_bias`,
//! `norm_topk_prob`, `n_shared_experts`, `topk_method`, `num_nextn_predict_layers`.

mod names;
mod tensors;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::config::{Attention, Config, Family, MlpKind, wrong};
use crate::checkpoint::fingerprint;
use crate::checkpoint::rope::RawRope;
use crate::checkpoint::{CheckpointError, Rope, RopeScaling};
use crate::domain::{IndexSource, MAX_LAYERS, PatternError, Role};

pub(in crate::checkpoint) use names::{canonical, spelt, unpacked};
pub(in crate::checkpoint) use tensors::{demands, indexer};

/// How a layer compresses its keys besides the window over raw tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Compression {
    /// Not at all: the layer sees the window only.
    None,
    /// Overlapping entries of so many tokens, of which each query selects some (CSA); such a layer is a site.
    Selected(usize),
    /// Entries of so many tokens, all of which are seen (HCA).
    All(usize),
}

impl Compression {
    /// Returns the tokens of an entry.
    pub fn rate(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Selected(rate) | Self::All(rate) => Some(rate),
        }
    }
}

/// What turns the router's logits into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Scoring {
    /// 1 / (1 + e^−x).
    Sigmoid,
    /// e^x over their sum.
    Softmax,
    /// √ln(1 + e^x).
    SqrtSoftplus,
}

/// The sizes that only DeepSeek-V4 has; field names are those of config.json.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeepseekV4 {
    /// Width of a head, and of the row that is key and value of all heads; the last `qk_rope_head_dim` are rotated.
    pub head_dim: usize,
    /// Groups of heads of the output projection.
    pub o_groups: usize,
    /// Width of one group's latent.
    pub o_lora_rank: usize,
    /// How each layer compresses its keys.
    pub layers: Vec<Compression>,
    /// Whether each layer chooses experts by a table over token ids.
    pub hashed: Vec<bool>,
    /// Rotary embedding of the layers that compress; [`Config::rope`] is that of the others.
    pub compress_rope: Rope,
    /// Raw tokens that a query sees, itself included.
    pub sliding_window: usize,
    /// Residual streams.
    pub hc_mult: usize,
    /// Normalisations of the matrix that mixes the streams, pairs of rows and columns.
    pub hc_sinkhorn_iters: usize,
    /// Added inside those normalisations.
    pub hc_eps: f64,
    /// Scores of the router.
    pub scoring: Scoring,
    /// Bound of gate and up inside experts; `None` where there is none.
    pub swiglu_limit: Option<f64>,
}

impl DeepseekV4 {
    /// Returns the layers that select entries.
    pub fn sites(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().enumerate().filter(|(_, kind)| matches!(kind, Compression::Selected(_))).map(|(l, _)| l)
    }

    /// Returns what changes the forward and is not seen in the tensors' shapes, for fingerprints.
    pub(in crate::checkpoint) fn key(&self) -> String {
        let hashed: String = self.hashed.iter().map(|&hashed| if hashed { 'h' } else { '-' }).collect();
        format!(
            "{:?};{hashed};{};{};{};{};{:?};{:?};{:?}",
            self.layers,
            fingerprint::rope(&self.compress_rope),
            self.o_groups,
            self.sliding_window,
            self.hc_sinkhorn_iters,
            self.hc_eps,
            self.scoring,
            self.swiglu_limit
        )
    }

    /// Returns the tokens of a selectable entry.
    pub fn entry(&self) -> usize {
        let rate =
            self.layers.iter().find_map(|kind| if let Compression::Selected(m) = kind { Some(*m) } else { None });
        rate.unwrap_or(1)
    }
}

const SLIDING: &str = "sliding_attention";
const SELECTED: &str = "compressed_sparse_attention";
const ALL: &str = "heavily_compressed_attention";

/// Rotary embedding of each kind of layer, the final spelling, or one dictionary for those that compress.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawRopes {
    Nested { main: Box<RawRope>, compress: Box<RawRope> },
    Flat(Box<RawRope>),
}

/// Reads config.json.
pub(in crate::checkpoint) fn read(json: &str) -> Result<Config, CheckpointError> {
    serde_json::from_str::<RawV4>(json)?.read()
}

#[derive(Deserialize)]
struct RawV4 {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    qk_rope_head_dim: Option<usize>,
    partial_rotary_factor: Option<f64>,
    q_lora_rank: Option<usize>,
    o_groups: Option<usize>,
    o_lora_rank: Option<usize>,
    layer_types: Option<Vec<String>>,
    compress_ratios: Option<Vec<i64>>,
    compress_rates: Option<BTreeMap<String, usize>>,
    compress_rate_csa: Option<usize>,
    compress_rate_hca: Option<usize>,
    mlp_layer_types: Option<Vec<String>>,
    num_hash_layers: Option<usize>,
    rope_parameters: Option<RawRopes>,
    rope_scaling: Option<RawRopes>,
    rope_theta: Option<f64>,
    compress_rope_theta: Option<f64>,
    sliding_window: Option<usize>,
    index_n_heads: Option<usize>,
    index_head_dim: Option<usize>,
    index_topk: Option<usize>,
    hc_mult: Option<usize>,
    hc_sinkhorn_iters: Option<usize>,
    hc_eps: Option<f64>,
    n_routed_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    scoring_func: Option<String>,
    routed_scaling_factor: Option<f64>,
    swiglu_limit: Option<f64>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    max_position_embeddings: Option<usize>,
}

impl RawV4 {
    fn read(self) -> Result<Config, CheckpointError> {
        let layers = self.num_hidden_layers.unwrap_or(43);
        if layers == 0 || layers > MAX_LAYERS {
            return Err(PatternError::Size(layers).into());
        }
        if let Some(heads) = self.num_key_value_heads.filter(|&heads| heads != 1) {
            return wrong("num_key_value_heads", heads, "all heads have one row of keys and values in common");
        }
        if let Some(act) = self.hidden_act.as_ref().filter(|act| act.as_str() != "silu") {
            return wrong("hidden_act", format!("'{act}'"), "only 'silu' is supported");
        }
        if self.mlp_bias == Some(true) {
            return wrong("mlp_bias", true, "experts with biases are not supported");
        }
        let head_dim = self.head_dim.unwrap_or(512);
        // Rounded: the product of 30/44 and 44 may be just below 30.
        let rotated = self.partial_rotary_factor.map_or(64, |part| (head_dim as f64 * part).round() as usize);
        let qk_rope_head_dim = self.qk_rope_head_dim.unwrap_or(rotated);
        let max_position_embeddings = self.max_position_embeddings.unwrap_or(1_048_576);
        let kinds = self.kinds(layers)?;
        let hashed = self.hashed(layers)?;
        let scoring = match self.scoring_func.as_deref() {
            None | Some("sqrtsoftplus") => Scoring::SqrtSoftplus,
            Some("sigmoid") => Scoring::Sigmoid,
            Some("softmax") => Scoring::Softmax,
            Some(other) => {
                let reason = "only 'sqrtsoftplus', 'sigmoid' and 'softmax' are supported";
                return wrong("scoring_func", format!("'{other}'"), reason);
            }
        };
        let (main, compress) = match self.rope_parameters.or(self.rope_scaling) {
            Some(RawRopes::Nested { main, compress }) => (Some(*main), Some(*compress)),
            Some(RawRopes::Flat(compress)) => (None, Some(*compress)),
            None => (None, None),
        };
        let theta = self.rope_theta.or(Some(10_000.0));
        let compress_theta = self.compress_rope_theta.or(Some(160_000.0));
        // 0 switches the bound off, as in DeepSeek's own code.
        let swiglu_limit = Some(self.swiglu_limit.unwrap_or(10.0)).filter(|limit| *limit != 0.0);
        let v4 = DeepseekV4 {
            head_dim,
            o_groups: self.o_groups.unwrap_or(8),
            o_lora_rank: self.o_lora_rank.unwrap_or(1024),
            hashed,
            compress_rope: unscaled(Rope::read(None, compress, compress_theta, max_position_embeddings)?)?,
            sliding_window: self.sliding_window.unwrap_or(128),
            hc_mult: self.hc_mult.unwrap_or(4),
            hc_sinkhorn_iters: self.hc_sinkhorn_iters.unwrap_or(20),
            hc_eps: self.hc_eps.unwrap_or(1e-6),
            scoring,
            swiglu_limit,
            layers: kinds,
        };
        Ok(Config {
            family: Family::DeepseekV4,
            attention: Attention::SharedRows,
            vocab_size: self.vocab_size.unwrap_or(129_280),
            hidden_size: self.hidden_size.unwrap_or(4096),
            num_hidden_layers: layers,
            num_attention_heads: self.num_attention_heads.unwrap_or(64),
            q_lora_rank: self.q_lora_rank.unwrap_or(1024),
            kv_lora_rank: 0,
            qk_nope_head_dim: head_dim.saturating_sub(qk_rope_head_dim),
            qk_rope_head_dim,
            v_head_dim: head_dim,
            intermediate_size: 0,
            moe_intermediate_size: self.moe_intermediate_size.unwrap_or(2048),
            n_routed_experts: self.n_routed_experts.unwrap_or(256),
            n_shared_experts: 1,
            num_experts_per_tok: self.num_experts_per_tok.unwrap_or(6),
            n_group: 1,
            topk_group: 1,
            norm_topk_prob: true,
            routed_scaling_factor: self.routed_scaling_factor.unwrap_or(1.5),
            mlp: vec![MlpKind::Sparse; layers],
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            attention_bias: false,
            index: IndexSource::Checkpoint,
            index_topk: self.index_topk.unwrap_or(512),
            index_n_heads: self.index_n_heads.unwrap_or(64),
            index_head_dim: self.index_head_dim.unwrap_or(128),
            index_rope_head_dim: qk_rope_head_dim,
            index_rope_interleaved: true,
            rope: unscaled(Rope::read(None, main, theta, max_position_embeddings)?)?,
            max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            roles: vec![Role::Full; v4.sites().count()],
            deepseek_v4: Some(Box::new(v4)),
        })
    }

    /// Returns how each layer compresses: `layer_types` wins over `compress_ratios`, whose entries beyond the last layer
    /// are those of MTP layers.
    fn kinds(&self, layers: usize) -> Result<Vec<Compression>, CheckpointError> {
        let rate = |kind: &str, flat: Option<usize>, default| {
            self.compress_rates.as_ref().and_then(|rates| rates.get(kind).copied()).or(flat).unwrap_or(default)
        };
        let (selected, all) = (rate(SELECTED, self.compress_rate_csa, 4), rate(ALL, self.compress_rate_hca, 128));
        if selected == 0 || all == 0 {
            return wrong("compress_rates", 0, "an entry has at least one token");
        }
        let (selected, all) = (Compression::Selected(selected), Compression::All(all));
        let short = |key, got| wrong(key, format!("of length {got}"), &format!("the model has {layers} layers"));
        match (&self.layer_types, &self.compress_ratios) {
            (Some(types), _) if types.len() < layers => short("layer_types", types.len()),
            (Some(types), _) => types
                .iter()
                .take(layers)
                .map(|kind| match kind.as_str() {
                    SLIDING => Ok(Compression::None),
                    SELECTED => Ok(selected),
                    ALL => Ok(all),
                    other => wrong(
                        "layer_types",
                        format!("'{other}'"),
                        &format!("only {SLIDING}, {SELECTED} and {ALL} are known"),
                    ),
                })
                .collect(),
            (None, Some(ratios)) if ratios.len() < layers => short("compress_ratios", ratios.len()),
            (None, Some(ratios)) => ratios
                .iter()
                .take(layers)
                .map(|ratio| match ratio {
                    0 => Ok(Compression::None),
                    4 => Ok(selected),
                    128 => Ok(all),
                    other => wrong("compress_ratios", format!("an entry of {other}"), "only 0, 4 and 128 are known"),
                })
                .collect(),
            // The reference's default belongs to no released model.
            (None, None) => {
                wrong("compress_ratios", "missing", "it or layer_types must say which layers compress their keys")
            }
        }
    }

    /// Returns which layers choose experts by token id: `mlp_layer_types` wins over `num_hash_layers`.
    fn hashed(&self, layers: usize) -> Result<Vec<bool>, CheckpointError> {
        let Some(types) = &self.mlp_layer_types else {
            let count = self.num_hash_layers.unwrap_or(3);
            return Ok((0..layers).map(|l| l < count).collect());
        };
        if types.len() < layers {
            let value = format!("of length {}", types.len());
            return wrong("mlp_layer_types", value, &format!("the model has {layers} layers"));
        }
        types
            .iter()
            .take(layers)
            .map(|kind| match kind.as_str() {
                "hash_moe" => Ok(true),
                "moe" => Ok(false),
                other => wrong("mlp_layer_types", format!("'{other}'"), "only 'moe' and 'hash_moe' are known"),
            })
            .collect()
    }
}

/// Returns the embedding with cosines and sines as they are: YaRN's own factor on them is 1 unless it is given.
fn unscaled(mut rope: Rope) -> Result<Rope, CheckpointError> {
    match &mut rope.scaling {
        RopeScaling::Default => {}
        RopeScaling::Yarn { attention_factor, .. } => *attention_factor = attention_factor.or(Some(1.0)),
        other => return wrong("rope_type", format!("{other:?}"), "only 'default' and 'yarn' are supported"),
    }
    Ok(rope)
}

/// Refuses sizes that the architecture cannot have.
pub(in crate::checkpoint) fn validate(config: &Config) -> Result<(), CheckpointError> {
    let Some(v4) = &config.deepseek_v4 else { return Ok(()) };
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("num_attention_heads", config.num_attention_heads),
        ("q_lora_rank", config.q_lora_rank),
        ("o_lora_rank", v4.o_lora_rank),
        ("head_dim", v4.head_dim),
        ("sliding_window", v4.sliding_window),
        ("index_topk", config.index_topk),
        ("hc_mult", v4.hc_mult),
        ("hc_sinkhorn_iters", v4.hc_sinkhorn_iters),
        ("moe_intermediate_size", config.moe_intermediate_size),
        ("n_routed_experts", config.n_routed_experts),
    ];
    if let Some((key, _)) = sizes.into_iter().find(|&(_, size)| size == 0) {
        return wrong(key, 0, "it must be at least 1");
    }
    let most = [
        ("o_lora_rank", v4.o_lora_rank, 20),
        ("o_groups", v4.o_groups, 14),
        ("hc_mult", v4.hc_mult, 8),
        ("hc_sinkhorn_iters", v4.hc_sinkhorn_iters, 16),
        ("sliding_window", v4.sliding_window, 31),
        ("compress_rates", v4.layers.iter().filter_map(|kind| kind.rate()).max().unwrap_or(1), 20),
    ];
    if let Some((key, size, bits)) = most.into_iter().find(|&(_, size, bits)| size > 1 << bits) {
        return wrong(key, size, &format!("no model has more than {}", 1u64 << bits));
    }
    let rotated = config.qk_rope_head_dim;
    if rotated == 0 || !rotated.is_multiple_of(2) || rotated > v4.head_dim {
        return wrong("qk_rope_head_dim", rotated, &format!("it must be even and at most head_dim ({})", v4.head_dim));
    }
    if v4.o_groups == 0 || !config.num_attention_heads.is_multiple_of(v4.o_groups) {
        let reason = format!("it must divide num_attention_heads ({})", config.num_attention_heads);
        return wrong("o_groups", v4.o_groups, &reason);
    }
    if config.num_experts_per_tok == 0 || config.num_experts_per_tok > config.n_routed_experts {
        let reason = format!("a token can choose from 1 to {} experts", config.n_routed_experts);
        return wrong("num_experts_per_tok", config.num_experts_per_tok, &reason);
    }
    if v4.swiglu_limit.is_some_and(|limit| limit.is_nan() || limit < 0.0) {
        return wrong("swiglu_limit", v4.swiglu_limit.unwrap_or_default(), "a bound is a positive number, 0 for none");
    }
    if v4.sites().next().is_none() {
        return wrong("layer_types", "without a compressed_sparse_attention layer", "no layer selects anything");
    }
    config.validate_indexer()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLASH: &str = r#"{"model_type": "deepseek_v4", "num_hidden_layers": 5, "compress_ratios": [0, 0, 4, 128, 4, 0],
        "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
        "original_max_position_embeddings": 65536}, "rope_theta": 10000}"#;

    #[test]
    fn the_hub_spelling_cuts_mtp_and_stretches_only_layers_that_compress() {
        let config = Config::parse(FLASH).unwrap();
        let v4 = config.deepseek_v4.as_deref().unwrap();
        let (s, a) = (Compression::Selected(4), Compression::All(128));
        assert_eq!(v4.layers, [Compression::None, Compression::None, s, a, s]);
        assert_eq!(
            (v4.sites().collect::<Vec<_>>(), v4.entry(), v4.hashed.clone()),
            (vec![2, 4], 4, vec![true, true, true, false, false])
        );
        assert_eq!((config.rope.theta, config.rope.scaling.clone()), (10_000.0, RopeScaling::Default));
        assert_eq!(v4.compress_rope.theta, 160_000.0);
        assert!(matches!(
            v4.compress_rope.scaling,
            RopeScaling::Yarn { factor: 16.0, attention_factor: Some(1.0), .. }
        ));
        assert_eq!((config.index_topk, v4.hc_mult, v4.sliding_window, v4.head_dim), (512, 4, 128, 512));
    }

    #[test]
    fn what_the_architecture_cannot_have_is_named() {
        for (from, to, want) in [
            ("[0, 0, 4, 128, 4, 0]", "[0, 0, 8, 128, 4, 0]", "compress_ratios is an entry of 8"),
            ("[0, 0, 4, 128, 4, 0]", "[0, 4]", "compress_ratios is of length 2"),
            ("[0, 0, 4, 128, 4, 0]", "[0, 0, 0, 0, 0, 0]", "no layer selects"),
            (r#""compress_ratios": [0, 0, 4, 128, 4, 0],"#, "", "compress_ratios is missing"),
            (r#""rope_theta": 10000"#, r#""num_key_value_heads": 2"#, "num_key_value_heads is 2"),
            (r#""rope_theta": 10000"#, r#""o_groups": 7"#, "o_groups is 7"),
            (r#""rope_theta": 10000"#, r#""scoring_func": "relu""#, "scoring_func is 'relu'"),
            (r#""rope_theta": 10000"#, r#""qk_rope_head_dim": 513"#, "qk_rope_head_dim is 513"),
            (r#""rope_theta": 10000"#, r#""index_head_dim": 32"#, "index_head_dim is 32"),
            (r#""rope_theta": 10000"#, r#""swiglu_limit": -1"#, "swiglu_limit is -1"),
            (r#""rope_theta": 10000"#, r#""mlp_layer_types": ["dense"]"#, "mlp_layer_types is of length 1"),
        ] {
            let error = Config::parse(&FLASH.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(want), "{to}: {error}");
        }
    }

    #[test]
    fn the_rotated_width_is_rounded_where_only_its_share_is_given() {
        let json =
            FLASH.replace(r#""rope_theta": 10000"#, r#""head_dim": 44, "partial_rotary_factor": 0.6818181818181818"#);
        assert_eq!(Config::parse(&json).unwrap().qk_rope_head_dim, 30);
    }
}
