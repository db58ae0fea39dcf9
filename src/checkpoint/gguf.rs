//! GGUF files: their header, and the names that tensors have in Hugging Face checkpoints.
//!
//! The layout (version 2 and 3, little-endian): magic, version, counts, metadata, tensor entries, then the tensors'
//! bytes from the next multiple of `general.alignment`. Dimensions come innermost first.

use std::collections::BTreeMap;

use super::dtype::Tensors;
use super::{CheckpointError, Dtype, Quantisation, TensorInfo};

/// What the file begins with.
const MAGIC: &[u8; 4] = b"GGUF";
/// Where `general.alignment` says nothing.
const ALIGNMENT: usize = 32;

/// One value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Self>),
}

/// The metadata by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// Returns the metadata of these keys and values.
    #[cfg(test)]
    pub(super) fn of(values: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self(values.into_iter().collect())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn size(&self, key: &str) -> Option<usize> {
        match self.0.get(key)? {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        match self.0.get(key)? {
            Value::Float(x) => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Returns the values of a list, whatever their type.
    pub(super) fn list(&self, key: &str) -> Option<&[Value]> {
        match self.0.get(key)? {
            Value::List(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
        match self.0.get(key)? {
            Value::List(values) => values.iter().map(text).collect(),
            _ => None,
        }
    }

    pub(super) fn ints(&self, key: &str) -> Option<Vec<i64>> {
        let int = |value: &Value| if let Value::Int(n) = value { Some(*n) } else { None };
        match self.0.get(key)? {
            Value::List(values) => values.iter().map(int).collect(),
            _ => None,
        }
    }
}

/// Reads the header; tensors get the names of Hugging Face checkpoints.
pub(super) fn read_header(file: &str, bytes: &[u8]) -> Result<(Metadata, Tensors), CheckpointError> {
    let bad = |reason: String| CheckpointError::malformed(file, reason);
    let mut reader = Reader { bytes, at: 0 };
    let cut = || bad("it ends within its header".to_owned());
    if reader.take(4) != Some(MAGIC) {
        return Err(bad("it does not begin with 'GGUF'".to_owned()));
    }
    let version = reader.u32().ok_or_else(cut)?;
    if !(2..=3).contains(&version) {
        return Err(bad(format!("its version {version} is neither 2 nor 3 (little-endian)")));
    }
    let (tensors, values) = (reader.length().ok_or_else(cut)?, reader.length().ok_or_else(cut)?);
    let mut metadata = Metadata::default();
    for _ in 0..values {
        let key = reader.text().ok_or_else(cut)?;
        let kind = reader.u32().ok_or_else(cut)?;
        metadata.0.insert(key, reader.value(kind, 0).ok_or_else(cut)?);
    }
    let mut entries = Vec::new();
    for _ in 0..tensors {
        entries.push(reader.entry().ok_or_else(cut)?);
    }
    let alignment = metadata.size("general.alignment").unwrap_or(ALIGNMENT).max(1);
    let data = reader.at.next_multiple_of(alignment);
    let mut all = Tensors::new();
    for (name, shape, kind, offset) in entries {
        let dtype = dtype(kind).ok_or_else(|| bad(format!("tensor '{name}' has the unknown type {kind}")))?;
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let len = elements.and_then(|n| byte_len(&dtype, n));
        let extent = len.and_then(|len| Some((data.checked_add(offset)?, data.checked_add(offset)?.checked_add(len)?)));
        let Some((start, end)) = extent else {
            return Err(bad(format!("tensor '{name}' of shape {shape:?} is no whole number of {dtype} blocks")));
        };
        if end > bytes.len() {
            let (need, have) = (end as u64, bytes.len() as u64);
            return Err(CheckpointError::Truncated { shard: file.to_owned(), need, have });
        }
        all.insert(hub_name(&name), TensorInfo { dtype, shape, shard: 0, start, end });
    }
    Ok((metadata, all))
}

/// Returns the dtype of a ggml type; `None` for those that cannot be read.
fn dtype(kind: u32) -> Option<Dtype> {
    match kind {
        0 => Some(Dtype::F32),
        1 => Some(Dtype::F16),
        28 => Some(Dtype::F64),
        30 => Some(Dtype::BF16),
        _ => Quantisation::from_ggml(kind).map(Dtype::Quantised),
    }
}

fn byte_len(dtype: &Dtype, elements: usize) -> Option<usize> {
    let Dtype::Quantised(kind) = dtype else { return elements.checked_mul(dtype.size()?) };
    let (block, bytes) = kind.block();
    elements.is_multiple_of(block).then(|| elements / block * bytes)
}

/// Returns the name of a tensor in Hugging Face checkpoints; its own where it has none there.
fn hub_name(name: &str) -> String {
    let of_layer = |name: &str| -> Option<String> {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let part = match part {
            "attn_norm" => "input_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "exp_probs_b" => return Some(format!("model.layers.{layer}.mlp.gate.e_score_correction_bias")),
            "attn_q_a" => "self_attn.q_a_proj",
            "attn_q_a_norm" => "self_attn.q_a_layernorm",
            "attn_q_b" => "self_attn.q_b_proj",
            "attn_kv_a_mqa" => "self_attn.kv_a_proj_with_mqa",
            "attn_kv_a_norm" => "self_attn.kv_a_layernorm",
            "attn_kv_b" => "self_attn.kv_b_proj",
            // The converter of MLA splits `kv_b_proj`.
            "attn_k_b" => "self_attn.k_b_proj",
            "attn_v_b" => "self_attn.v_b_proj",
            "indexer.attn_q_b" => "self_attn.indexer.wq_b",
            "indexer.attn_k" => "self_attn.indexer.wk",
            "indexer.k_norm" => "self_attn.indexer.k_norm",
            "indexer.proj" => "self_attn.indexer.weights_proj",
            "ffn_gate_inp" => "mlp.gate",
            "ffn_gate_exps" => "mlp.experts.gate_proj",
            "ffn_up_exps" => "mlp.experts.up_proj",
            "ffn_down_exps" => "mlp.experts.down_proj",
            "ffn_gate_shexp" => "mlp.shared_experts.gate_proj",
            "ffn_up_shexp" => "mlp.shared_experts.up_proj",
            "ffn_down_shexp" => "mlp.shared_experts.down_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            other if other.starts_with("nextn.") => other,
            _ => return None,
        };
        Some(format!("model.layers.{layer}.{part}.{kind}"))
    };
    match name {
        "token_embd.weight" => "model.embed_tokens.weight".to_owned(),
        "output_norm.weight" => "model.norm.weight".to_owned(),
        "output.weight" => "lm_head.weight".to_owned(),
        _ => of_layer(name).unwrap_or_else(|| name.to_owned()),
    }
}

/// Reads the header piece by piece; `None` where it ends too early or makes no sense.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let piece = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(piece)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a 64-bit count or offset.
    fn length(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.length()?;
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Option<Value> {
        Some(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.take(1)? != [0]),
            8 => Value::Text(self.text()?),
            // A list of lists is allowed, but nothing nests deeper than that.
            9 if depth < 2 => {
                let (kind, n) = (self.u32()?, self.length()?);
                Value::List((0..n).map(|_| self.value(kind, depth + 1)).collect::<Option<_>>()?)
            }
            10 => Value::Int(i64::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(i64::MAX)),
            11 => Value::Int(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return None,
        })
    }

    /// Reads a tensor's name, shape (outermost dimension first), type and offset.
    fn entry(&mut self) -> Option<(String, Vec<usize>, u32, usize)> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        let mut shape = (0..dimensions).map(|_| self.length()).collect::<Option<Vec<_>>>()?;
        shape.reverse();
        Some((name, shape, self.u32()?, self.length()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_get_the_names_of_the_hub() {
        for (name, want) in [
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            ("blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
            ("blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"),
            ("blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.4.indexer.attn_q_b.weight", "model.layers.4.self_attn.indexer.wq_b.weight"),
            ("blk.4.indexer.k_norm.bias", "model.layers.4.self_attn.indexer.k_norm.bias"),
            ("blk.4.exp_probs_b.bias", "model.layers.4.mlp.gate.e_score_correction_bias"),
            ("blk.4.nextn.eh_proj.weight", "model.layers.4.nextn.eh_proj.weight"),
            ("rope_freqs.weight", "rope_freqs.weight"),
        ] {
            assert_eq!(hub_name(name), want);
        }
    }

    #[test]
    fn a_header_that_is_cut_or_foreign_is_told() {
        let error = |bytes: &[u8]| read_header("x.gguf", bytes).unwrap_err().to_string();
        assert!(error(b"PK..").contains("does not begin with 'GGUF'"));
        assert!(error(b"GGUF\x03\0\0\0").contains("ends within its header"));
        assert!(error(b"GGUF\0\0\0\x03").contains("neither 2 nor 3"));
        // A text that claims to be longer than the file.
        let mut long = b"GGUF\x03\0\0\0".to_vec();
        long.extend([0u64.to_le_bytes(), 1u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat());
        assert!(error(&long).contains("ends within its header"));
    }
}
