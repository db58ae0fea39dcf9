//! GGUF files written here from the folders whose logits are known.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use indexscope::checkpoint::{Attention, Checkpoint};
use indexscope::model::{Attend, Model, Pass};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A GGUF file in the making: its metadata and its tensors.
#[derive(Default)]
struct Gguf {
    values: Vec<u8>,
    count: u64,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

impl Gguf {
    fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) {
        self.values.extend([&text(key), &kind.to_le_bytes()[..], bytes].concat());
        self.count += 1;
    }

    fn size(&mut self, key: &str, value: usize) {
        self.value(key, 4, &(value as u32).to_le_bytes());
    }

    fn write(&self, path: &Path) {
        let mut bytes = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &(self.tensors.len() as u64).to_le_bytes()].concat();
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(&self.values);
        let mut data: Vec<u8> = Vec::new();
        for (name, shape, kind, values) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&d| bytes.extend((d as u64).to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(values);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        std::fs::write(path, bytes).unwrap();
    }
}

fn gguf_name(name: &str) -> String {
    let pairs = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ];
    pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Orders the rows of a query or key projection as llama's converter does: pairs that rotate together are neighbours.
fn permute(weight: &Tensor, heads: usize) -> Tensor {
    let (rows, width) = weight.dims2().unwrap();
    let split = weight.reshape((heads, 2, rows / heads / 2, width)).unwrap();
    split.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, width)).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes a folder's model as a GGUF file; matrices in Q8_0 where asked for.
fn convert(name: &str, path: &Path, quantised: bool) {
    let checkpoint = Checkpoint::open(&folder(name)).unwrap();
    let config = checkpoint.config();
    let Attention::Gqa { num_key_value_heads, head_dim, .. } = config.attention else { panic!("a dense model") };
    let kind = config.family.model_type();
    let mut gguf = Gguf::default();
    gguf.value("general.architecture", 8, &text(kind));
    for (key, value) in [
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("block_count", config.num_hidden_layers),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", num_key_value_heads),
        ("attention.key_length", head_dim),
        ("context_length", config.max_position_embeddings),
    ] {
        gguf.size(&format!("{kind}.{key}"), value);
    }
    gguf.value(&format!("{kind}.attention.layer_norm_rms_epsilon"), 6, &(config.rms_norm_eps as f32).to_le_bytes());
    gguf.value(&format!("{kind}.rope.freq_base"), 6, &(config.rope.theta as f32).to_le_bytes());
    let tokens = [text("a"), text("b")].concat();
    let list = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &tokens].concat();
    gguf.value("tokenizer.ggml.tokens", 9, &list);
    if kind == "llama" {
        // Llama 3's stretching, by wavelength: 8 × from 16 tokens on, bounds 1 and 4 (see make_dense_fixtures.py).
        let factor = |j: usize| {
            let wavelength = std::f64::consts::TAU * config.rope.theta.powf((2 * j) as f64 / head_dim as f64);
            match wavelength {
                w if w < 16.0 / 4.0 => 1.0,
                w if w > 16.0 / 1.0 => 8.0,
                w => {
                    let smooth = (16.0 / w - 1.0) / (4.0 - 1.0);
                    1.0 / ((1.0 - smooth) / 8.0 + smooth)
                }
            }
        };
        let factors = (0..head_dim / 2).flat_map(|j| (factor(j) as f32).to_le_bytes()).collect();
        gguf.tensors.push(("rope_freqs.weight".into(), vec![head_dim / 2], 0, factors));
    }
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(folder(name).join("model.safetensors"), &Device::Cpu).unwrap();
    for (name, tensor) in tensors {
        let tensor = match (kind, name.contains("q_proj"), name.contains("k_proj")) {
            ("llama", true, _) => permute(&tensor, config.num_attention_heads),
            ("llama", _, true) => permute(&tensor, num_key_value_heads),
            _ => tensor,
        };
        // A row of Q8_0 is a whole number of blocks of 32.
        let (number, bytes) = if quantised && tensor.rank() == 2 && tensor.dim(1).unwrap() % 32 == 0 {
            (8, QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap().data().unwrap().into_owned())
        } else {
            (0, floats(&tensor))
        };
        gguf.tensors.push((gguf_name(&name), tensor.dims().to_vec(), number, bytes));
    }
    gguf.write(path);
}

fn logits(checkpoint: &Checkpoint) -> Tensor {
    checkpoint.check().unwrap();
    let model = Model::load(checkpoint, &Device::Cpu, DType::F32).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + i * i * 5) % 64).collect();
    let inputs = model.inputs(std::slice::from_ref(&ids), 0).unwrap();
    let mut x = model.embed(&[ids]).unwrap();
    for layer in 0..model.config().num_hidden_layers {
        x = model.layer(layer, &x, &inputs, &mut Pass::new(Attend::Dense)).unwrap().hidden;
    }
    model.logits(&x).unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn each_family_is_the_model_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["llama_rope3", "qwen2_bias_tied", "qwen3_norm"] {
        let path = dir.path().join(format!("{name}.gguf"));
        convert(name, &path, false);
        let (file, hub) = (Checkpoint::open(&path).unwrap(), Checkpoint::open(&folder(name)).unwrap());
        assert_eq!((file.name(), file.config().vocab_size), (name, 64));
        assert_eq!(file.config().tie_word_embeddings, hub.config().tie_word_embeddings, "{name}");
        assert_eq!(file.vocabulary().unwrap().tokens, ["a", "b"]);
        let difference = worst(&logits(&file), &logits(&hub));
        // Logits of the tied model are of the order of 20.
        assert!(difference < 5e-4, "{name}: logits differ by {difference:e}");
    }
}

#[test]
fn blocks_are_dequantised_on_load() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q8.gguf");
    convert("qwen3_norm", &path, true);
    let file = Checkpoint::open(&path).unwrap();
    let stored: Vec<&str> = file.tensors().map(|(_, info)| info.dtype.name()).collect();
    assert!(stored.contains(&"Q8_0") && stored.contains(&"F32"));
    let hub = logits(&Checkpoint::open(&folder("qwen3_norm")).unwrap());
    let difference = worst(&logits(&file), &hub);
    assert!(difference > 0.0 && difference < 0.2, "logits differ by {difference:e}");
}

#[test]
fn what_is_missing_or_cut_off_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    convert("qwen3_norm", &path, false);
    let bytes = std::fs::read(&path).unwrap();
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(&path).and_then(|c| c.check()).unwrap_err().to_string()
    };
    assert!(error(&bytes[..bytes.len() - 64]).contains("truncated"));
    assert!(error(&bytes[..200]).contains("ends within its header"));
    let mut gguf = Gguf::default();
    gguf.value("general.architecture", 8, &text("qwen3"));
    gguf.write(&path);
    let lacking = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(lacking.contains("'cut'") && lacking.contains("qwen3.embedding_length"), "{lacking}");
    let mut gguf = Gguf::default();
    gguf.value("general.architecture", 8, &text("gemma3"));
    gguf.write(&path);
    assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("'gemma3'"));
}
