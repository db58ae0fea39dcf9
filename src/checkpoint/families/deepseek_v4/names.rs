//! Three spellings of tensor names, and the one that the program uses.
//!
//! The Hub's (`layers.3.attn.wq_a.weight`), what transformers 5 saves (the same behind `model.`, with a few exceptions),
//! and the names of its modules (`model.layers.3.self_attn.q_a_proj.weight`). The program's own are the places of other
//! families (`model.layers.3.self_attn.`, `.mlp.`) with the Hub's leaves. Layers for multi-token prediction follow the
//! main layers; scales of quantised weights get the ending that those of other families have.

use crate::checkpoint::dtype::Tensors;
use crate::checkpoint::{Dtype, TensorInfo};

/// Tensors outside the layers: what they are called, and their name here.
const ENDS: [(&str, &str); 10] = [
    ("embed.weight", "model.embed_tokens.weight"),
    ("embed_tokens.weight", "model.embed_tokens.weight"),
    ("norm.weight", "model.norm.weight"),
    ("head.weight", "lm_head.weight"),
    ("hc_head_fn", "model.hc_head.fn"),
    ("hc_head_base", "model.hc_head.base"),
    ("hc_head_scale", "model.hc_head.scale"),
    ("hc_head.hc_fn", "model.hc_head.fn"),
    ("hc_head.hc_base", "model.hc_head.base"),
    ("hc_head.hc_scale", "model.hc_head.scale"),
];

/// Where the parts of a layer are.
const PLACES: [(&str, &str); 8] = [
    ("attn.", "self_attn."),
    ("ffn.", "mlp."),
    ("attn_norm.", "input_layernorm."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("hc_attn_", "attn_hc."),
    ("hc_ffn_", "ffn_hc."),
    ("self_attn.compressor.indexer.scorer.", "self_attn.indexer."),
    ("self_attn.compressor.indexer.q_b_proj.", "self_attn.indexer.wq_b."),
];

/// What the parts of attention and of the router are called.
const LEAVES: [(&str, &str); 14] = [
    ("self_attn.compressor.indexer.", "self_attn.indexer.compressor."),
    ("self_attn.norm.", "self_attn.kv_norm."),
    ("self_attn.q_a_proj.", "self_attn.wq_a."),
    ("self_attn.q_a_norm.", "self_attn.q_norm."),
    ("self_attn.q_b_proj.", "self_attn.wq_b."),
    ("self_attn.kv_proj.", "self_attn.wkv."),
    ("self_attn.o_a_proj.", "self_attn.wo_a."),
    ("self_attn.o_b_proj.", "self_attn.wo_b."),
    ("self_attn.sinks", "self_attn.attn_sink"),
    ("compressor.kv_proj.", "compressor.wkv."),
    ("compressor.gate_proj.", "compressor.wgate."),
    ("compressor.position_bias", "compressor.ape"),
    ("compressor.kv_norm.", "compressor.norm."),
    ("mlp.gate.bias", "mlp.gate.e_score_correction_bias"),
];

/// What the matrices of an expert are called.
const EXPERT: [(&str, &str); 3] = [(".w1.", ".gate_proj."), (".w3.", ".up_proj."), (".w2.", ".down_proj.")];

/// Returns the name that a tensor has here; `layers` is the number of main layers.
pub(in crate::checkpoint) fn canonical(name: &str, layers: usize) -> String {
    let bare = name.strip_prefix("model.").unwrap_or(name);
    if let Some((_, known)) = ENDS.iter().find(|(spelt, _)| *spelt == bare) {
        return (*known).to_owned();
    }
    let numbered = |rest: &str| {
        let (number, tail) = rest.split_once('.')?;
        Some((number.parse::<usize>().ok()?, tail.to_owned()))
    };
    let main = bare.strip_prefix("layers.").and_then(numbered);
    let mtp = || bare.strip_prefix("mtp.").and_then(numbered).map(|(j, tail)| (layers + j, tail));
    match main.or_else(mtp) {
        Some((layer, tail)) => format!("model.layers.{layer}.{}", in_layer(tail)),
        None => name.to_owned(),
    }
}

fn in_layer(mut tail: String) -> String {
    for (spelt, known) in PLACES {
        if let Some(rest) = tail.strip_prefix(spelt) {
            tail = format!("{known}{rest}");
        }
    }
    for (spelt, known) in LEAVES {
        tail = tail.replace(spelt, known);
    }
    if tail.starts_with("mlp.") {
        for (spelt, known) in EXPERT {
            tail = tail.replace(spelt, known);
        }
    }
    // Hyper-connections have a `scale` of their own.
    let quantised = tail.starts_with("self_attn.") || tail.starts_with("mlp.");
    match tail.strip_suffix(".scale").filter(|_| quantised) {
        Some(weight) => format!("{weight}.weight_scale_inv"),
        None => tail,
    }
}

/// Returns the name that the Hub gives a tensor, for errors.
pub(in crate::checkpoint) fn spelt(name: &str) -> String {
    let Some((layer, tail)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        // The first spelling of each is the Hub's.
        return ENDS.iter().find(|(_, known)| *known == name).map_or(name, |(spelt, _)| spelt).to_owned();
    };
    let mut tail = tail.replace(".weight_scale_inv", ".scale");
    if tail.starts_with("mlp.") {
        tail = tail.replace(".gate.e_score_correction_bias", ".gate.bias");
        tail = EXPERT.iter().fold(tail, |tail, (spelt, known)| tail.replace(known, spelt));
    }
    for (spelt, known) in PLACES.iter().take(6) {
        if let Some(rest) = tail.strip_prefix(known) {
            tail = format!("{spelt}{rest}");
        }
    }
    format!("layers.{layer}.{tail}")
}

/// Returns the tensors that a stored one holds: stacked experts one by one, packed FP4 matrices with their whole width.
pub(in crate::checkpoint) fn unpacked(name: String, info: TensorInfo) -> Tensors {
    if let Some(experts) = split_fused(&name, &info) {
        return experts.into_iter().collect();
    }
    let packed = name.contains(".mlp.experts.") && info.dtype.name() == "I8";
    let info = match *info.shape {
        [out, half] if packed => TensorInfo { dtype: Dtype::F4E2M1, shape: vec![out, 2 * half], ..info },
        _ => info,
    };
    Tensors::from([(name, info)])
}

/// Returns the experts that one stacked tensor `[E, out, in]` holds; `None` for other tensors.
fn split_fused(name: &str, info: &TensorInfo) -> Option<Vec<(String, TensorInfo)>> {
    let (at, parts): (_, &[&str]) = if let Some(at) = name.strip_suffix(".experts.gate_up_proj") {
        (at, &["gate_proj", "up_proj"])
    } else {
        (name.strip_suffix(".experts.down_proj")?, &["down_proj"])
    };
    let &[experts, out, input] = info.shape.as_slice() else { return None };
    let count = experts * parts.len();
    if count == 0 || !out.is_multiple_of(parts.len()) || !info.byte_len().is_multiple_of(count) {
        return None;
    }
    let bytes = info.byte_len() / count;
    let piece = |n: usize| {
        let start = info.start + n * bytes;
        let shape = vec![out / parts.len(), input];
        let name = format!("{at}.experts.{}.{}.weight", n / parts.len(), parts[n % parts.len()]);
        (name, TensorInfo { shape, start, end: start + bytes, ..info.clone() })
    };
    Some((0..count).map(piece).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dtype;

    #[test]
    fn three_spellings_are_one() {
        for (hub, saved, module, here) in [
            ("embed.weight", "model.embed_tokens.weight", "model.embed_tokens.weight", "model.embed_tokens.weight"),
            ("head.weight", "head.weight", "lm_head.weight", "lm_head.weight"),
            ("hc_head_scale", "model.hc_head.hc_scale", "model.hc_head.hc_scale", "model.hc_head.scale"),
            (
                "layers.2.attn.kv_norm.weight",
                "model.layers.2.attn.norm.weight",
                "model.layers.2.self_attn.kv_norm.weight",
                "model.layers.2.self_attn.kv_norm.weight",
            ),
            (
                "layers.2.attn.compressor.norm.weight",
                "model.layers.2.attn.compressor.norm.weight",
                "model.layers.2.self_attn.compressor.kv_norm.weight",
                "model.layers.2.self_attn.compressor.norm.weight",
            ),
            (
                "layers.2.attn.indexer.compressor.wgate.weight",
                "model.layers.2.attn.indexer.compressor.wgate.weight",
                "model.layers.2.self_attn.compressor.indexer.gate_proj.weight",
                "model.layers.2.self_attn.indexer.compressor.wgate.weight",
            ),
            (
                "layers.2.attn.indexer.compressor.ape",
                "model.layers.2.attn.indexer.compressor.ape",
                "model.layers.2.self_attn.compressor.indexer.position_bias",
                "model.layers.2.self_attn.indexer.compressor.ape",
            ),
            (
                "layers.2.attn.indexer.wq_b.weight",
                "model.layers.2.attn.indexer.wq_b.weight",
                "model.layers.2.self_attn.compressor.indexer.q_b_proj.weight",
                "model.layers.2.self_attn.indexer.wq_b.weight",
            ),
            (
                "layers.2.attn.indexer.weights_proj.weight",
                "model.layers.2.attn.indexer.weights_proj.weight",
                "model.layers.2.self_attn.compressor.indexer.scorer.weights_proj.weight",
                "model.layers.2.self_attn.indexer.weights_proj.weight",
            ),
            (
                "layers.10.attn.attn_sink",
                "model.layers.10.attn.attn_sink",
                "model.layers.10.self_attn.sinks",
                "model.layers.10.self_attn.attn_sink",
            ),
            (
                "layers.3.ffn.gate.bias",
                "model.layers.3.ffn.gate.bias",
                "model.layers.3.mlp.gate.e_score_correction_bias",
                "model.layers.3.mlp.gate.e_score_correction_bias",
            ),
            (
                "layers.3.ffn.shared_experts.w2.weight",
                "model.layers.3.ffn.shared_experts.w2.weight",
                "model.layers.3.mlp.shared_experts.down_proj.weight",
                "model.layers.3.mlp.shared_experts.down_proj.weight",
            ),
            (
                "layers.3.hc_ffn_scale",
                "model.layers.3.hc_ffn_scale",
                "model.layers.3.ffn_hc.scale",
                "model.layers.3.ffn_hc.scale",
            ),
            (
                "layers.3.attn_norm.weight",
                "model.layers.3.attn_norm.weight",
                "model.layers.3.input_layernorm.weight",
                "model.layers.3.input_layernorm.weight",
            ),
        ] {
            for spelling in [hub, saved, module, here] {
                assert_eq!(canonical(spelling, 43), here, "{spelling}");
            }
            assert_eq!(spelt(here), hub);
        }
        assert_eq!(canonical("mtp.0.attn.wkv.weight", 43), "model.layers.43.self_attn.wkv.weight");
        assert_eq!(
            canonical("layers.0.ffn.experts.7.w3.scale", 43),
            "model.layers.0.mlp.experts.7.up_proj.weight_scale_inv"
        );
        assert_eq!(canonical("rotary.inv_freq", 43), "rotary.inv_freq");
    }

    #[test]
    fn stacked_experts_are_taken_apart_where_they_lie() {
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![2, 6, 5], shard: 1, start: 100, end: 100 + 240 };
        let parts = split_fused("model.layers.1.mlp.experts.gate_up_proj", &info).unwrap();
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[1], "model.layers.1.mlp.experts.0.up_proj.weight");
        assert_eq!(names[2], "model.layers.1.mlp.experts.1.gate_proj.weight");
        assert_eq!((parts[2].1.start, parts[2].1.end, parts[2].1.shape.clone()), (220, 280, vec![3, 5]));
        assert_eq!(split_fused("model.layers.1.mlp.experts.0.gate_proj.weight", &info), None);
    }
}
