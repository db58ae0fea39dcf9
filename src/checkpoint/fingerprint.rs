//! What tells one checkpoint from another, whatever else the program learns to read.
//!
//! A fingerprint is a digest of the config keys that change the forward, of every tensor's name, dtype and shape, and of
//! the first bytes of every tensor but the experts. Its text begins with its version. Keys are listed here one by one,
//! so that a new field of [`Config`] changes no fingerprint; a key that is added later is left out where it has the value
//! that all earlier checkpoints had.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{Attention, Checkpoint, Config, MlpKind, Part, Rope, RopeScaling};
use crate::domain::IndexSource;

/// Bytes of each tensor that enter a fingerprint.
const SAMPLE: usize = 256;

/// Returns the fingerprint of a checkpoint: `v2:` and 16 hex digits.
pub(super) fn fingerprint(checkpoint: &Checkpoint) -> String {
    let mut text = String::new();
    for (key, value) in keys(checkpoint.config()) {
        let _ = writeln!(text, "{key}={value}");
    }
    format!("v2:{}", digest(checkpoint, &text))
}

/// Returns the fingerprint that versions before 0.2 gave: 16 hex digits.
pub(super) fn before_0_2(checkpoint: &Checkpoint) -> String {
    digest(checkpoint, &format!("{:?}", old::Config::of(checkpoint.config())))
}

fn digest(checkpoint: &Checkpoint, config: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(config);
    for (name, (info, bytes)) in checkpoint.identifying() {
        hash.update(format!("{name} {} {:?}", info.dtype, info.shape));
        if Part::of(checkpoint.config(), name) != Part::Experts {
            hash.update(&bytes[..bytes.len().min(SAMPLE)]);
        }
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns an index source without the name of a sidecar: another name is no other model, and its tensors are hashed.
fn unnamed(index: &IndexSource) -> IndexSource {
    match index {
        IndexSource::Sidecar(_) => IndexSource::Sidecar(String::new()),
        other => other.clone(),
    }
}

/// Returns what of a config changes the forward and is not seen in the tensors' shapes, in a fixed order.
fn keys(c: &Config) -> Vec<(&'static str, String)> {
    let own = c.deepseek_v4.as_ref().map(|v4| ("deepseek_v4", v4.key()));
    let all = vec![
        ("model_type", c.family.model_type().to_owned()),
        ("attention", attention(c.attention)),
        ("num_hidden_layers", c.num_hidden_layers.to_string()),
        ("num_attention_heads", c.num_attention_heads.to_string()),
        ("qk_nope_head_dim", c.qk_nope_head_dim.to_string()),
        ("qk_rope_head_dim", c.qk_rope_head_dim.to_string()),
        ("v_head_dim", c.v_head_dim.to_string()),
        ("num_experts_per_tok", c.num_experts_per_tok.to_string()),
        ("n_group", c.n_group.to_string()),
        ("topk_group", c.topk_group.to_string()),
        ("norm_topk_prob", c.norm_topk_prob.to_string()),
        ("routed_scaling_factor", format!("{:?}", c.routed_scaling_factor)),
        ("mlp", c.mlp.iter().map(|kind| if *kind == MlpKind::Dense { 'D' } else { 'S' }).collect()),
        ("rms_norm_eps", format!("{:?}", c.rms_norm_eps)),
        ("index", unnamed(&c.index).to_string()),
        ("index_topk", c.index_topk.to_string()),
        ("index_n_heads", c.index_n_heads.to_string()),
        ("index_rope_head_dim", c.index_rope_head_dim.to_string()),
        ("index_rope_interleaved", c.index_rope_interleaved.to_string()),
        ("rope", rope(&c.rope)),
        ("tie_word_embeddings", c.tie_word_embeddings.to_string()),
        ("roles", c.roles.iter().map(|role| role.letter()).collect()),
    ];
    all.into_iter().chain(own).collect()
}

fn attention(attention: Attention) -> String {
    match attention {
        Attention::Mla => "mla".to_owned(),
        Attention::SharedRows => "shared_rows".to_owned(),
        Attention::Gqa { num_key_value_heads, head_dim, qkv_bias, qk_norm, rope_interleaved } => {
            format!("gqa,{num_key_value_heads},{head_dim},{qkv_bias},{qk_norm},{rope_interleaved}")
        }
        Attention::MiniMaxM3(own) => {
            let sites: Vec<usize> = own.sites.iter().collect();
            format!(
                "minimax_m3,{},{},{sites:?},{},{},{:?},{:?}",
                own.num_key_value_heads,
                own.head_dim,
                own.index_block_size,
                own.index_local_blocks,
                own.swiglu_alpha,
                own.swiglu_limit
            )
        }
    }
}

pub(super) fn rope(Rope { theta, scaling }: &Rope) -> String {
    let scaling = match scaling {
        RopeScaling::Default => "default".to_owned(),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            original_max_position_embeddings,
            attention_factor,
            truncate,
        } => format!(
            "yarn,{factor:?},{beta_fast:?},{beta_slow:?},{mscale:?},{mscale_all_dim:?},\
             {original_max_position_embeddings},{attention_factor:?},{truncate}"
        ),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            format!("llama3,{factor:?},{low_freq_factor:?},{high_freq_factor:?},{original_max_position_embeddings}")
        }
        RopeScaling::Divided(factors) => format!("divided,{factors:?}"),
    };
    format!("{theta:?},{scaling}")
}

/// The config as it was printed into fingerprints before 0.2. Nothing here changes any more.
mod old {
    use crate::checkpoint::{Attention, Family, MlpKind, Rope, config};
    use crate::domain::{IndexSource, Role};

    #[expect(dead_code, reason = "only its debug print is used")]
    #[derive(Debug)]
    pub(super) struct Config<'a> {
        family: Family,
        attention: Attention,
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        q_lora_rank: usize,
        kv_lora_rank: usize,
        qk_nope_head_dim: usize,
        qk_rope_head_dim: usize,
        v_head_dim: usize,
        intermediate_size: usize,
        moe_intermediate_size: usize,
        n_routed_experts: usize,
        n_shared_experts: usize,
        num_experts_per_tok: usize,
        n_group: usize,
        topk_group: usize,
        norm_topk_prob: bool,
        routed_scaling_factor: f64,
        mlp: &'a [MlpKind],
        rms_norm_eps: f64,
        attention_bias: bool,
        index: IndexSource,
        index_topk: usize,
        index_n_heads: usize,
        index_head_dim: usize,
        index_rope_head_dim: usize,
        index_rope_interleaved: bool,
        rope: &'a Rope,
        max_position_embeddings: usize,
        tie_word_embeddings: bool,
        roles: &'a [Role],
    }

    impl<'a> Config<'a> {
        pub(super) fn of(c: &'a config::Config) -> Self {
            Self {
                family: c.family,
                attention: c.attention,
                vocab_size: c.vocab_size,
                hidden_size: c.hidden_size,
                num_hidden_layers: c.num_hidden_layers,
                num_attention_heads: c.num_attention_heads,
                q_lora_rank: c.q_lora_rank,
                kv_lora_rank: c.kv_lora_rank,
                qk_nope_head_dim: c.qk_nope_head_dim,
                qk_rope_head_dim: c.qk_rope_head_dim,
                v_head_dim: c.v_head_dim,
                intermediate_size: c.intermediate_size,
                moe_intermediate_size: c.moe_intermediate_size,
                n_routed_experts: c.n_routed_experts,
                n_shared_experts: c.n_shared_experts,
                num_experts_per_tok: c.num_experts_per_tok,
                n_group: c.n_group,
                topk_group: c.topk_group,
                norm_topk_prob: c.norm_topk_prob,
                routed_scaling_factor: c.routed_scaling_factor,
                mlp: &c.mlp,
                rms_norm_eps: c.rms_norm_eps,
                attention_bias: c.attention_bias,
                index: super::unnamed(&c.index),
                index_topk: c.index_topk,
                index_n_heads: c.index_n_heads,
                index_head_dim: c.index_head_dim,
                index_rope_head_dim: c.index_rope_head_dim,
                index_rope_interleaved: c.index_rope_interleaved,
                rope: &c.rope,
                max_position_embeddings: c.max_position_embeddings,
                tie_word_embeddings: c.tie_word_embeddings,
                roles: &c.roles,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::checkpoint::Checkpoint;

    fn open(name: &str) -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
    }

    /// Name, the fingerprint that the last build before 0.2 printed, today's: sessions and journals carry them.
    const BEFORE: [(&str, &str, &str); 11] = [
        ("deepseek_dense_bf16_sharded", "13bd4a759004b41e", "a4901ff90e64b2d1"),
        ("deepseek_groups_yarn", "eceb33e8ee6a4b2c", "c51a6f990ed9e5b4"),
        ("deepseek_v32_tiny", "6fc129e5988b3033", "3885778b504073b1"),
        ("glm_bf16_tied", "0e90b9c006c97915", "cce072ab91b7c8ba"),
        ("glm_bias_yarn", "5bc5739d59729893", "ccc8cf0c5670030f"),
        ("glm_dsa_tiny", "360ac07d0c89aafc", "302776aa150a8ee2"),
        ("glm_locked_shared", "08d088c02c172611", "f4f13e26dd36a284"),
        ("glm_sharded", "2f33ba83738dbd38", "970d971d2270c2fd"),
        ("llama_rope3", "260f00a6e322ef73", "2be9040569926f66"),
        ("qwen2_bias_tied", "e815358e5d41f5de", "16b3e3d42334d773"),
        ("qwen3_norm", "9d03ce313c643bb5", "5c04744839db7f2f"),
    ];

    #[test]
    fn fingerprints_of_released_versions_never_change() {
        let found: Vec<(&str, String, String)> = BEFORE
            .map(|(name, ..)| {
                let checkpoint = open(name);
                (name, checkpoint.former_fingerprints().remove(0), checkpoint.fingerprint().to_owned())
            })
            .to_vec();
        let wanted = BEFORE.map(|(name, before, now)| (name, before.to_owned(), format!("v2:{now}")));
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_changes_the_forward_changes_the_fingerprint() {
        let checkpoint = open("glm_dsa_tiny");
        let other = checkpoint.with_topk(checkpoint.config().index_topk - 1).unwrap();
        assert_ne!(checkpoint.fingerprint(), other.fingerprint());
        assert_ne!(checkpoint.fingerprint(), checkpoint.with_oracle().fingerprint());
    }
}
