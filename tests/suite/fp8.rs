//! FP8 checkpoints: a stored fixture is quantised here, and what is loaded is held against a dequantisation of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use indexscope::checkpoint::{Checkpoint, Dtype, Part};
use indexscope::model::{Attend, CheckpointSource, Model, Pass, TensorSource};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny")
}

/// The value of an e4m3 code, by its definition.
fn value(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = if exponent == 0 { mantissa / 512.0 } else { (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7) };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The code nearest to a number of at most 448.
fn nearest(number: f64) -> u8 {
    static TABLE: std::sync::LazyLock<Vec<f64>> = std::sync::LazyLock::new(|| (0..=255u8).map(value).collect());
    let distance = |code: &u8| (TABLE[*code as usize] - number).abs();
    (0..=255u8).filter(|code| code & 0x7f != 0x7f).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
}

/// Codes, scales and their shape, and the values that they stand for.
struct Quantised {
    codes: Vec<u8>,
    scales: Vec<f32>,
    grid: [usize; 2],
    values: Vec<f32>,
}

fn quantise(weight: &[f32], [out, input]: [usize; 2], [rows, columns]: [usize; 2]) -> Quantised {
    let grid = [out.div_ceil(rows), input.div_ceil(columns)];
    let block = |i: usize| i / input / rows * grid[1] + i % input / columns;
    let mut scales = vec![0f32; grid[0] * grid[1]];
    for (i, w) in weight.iter().enumerate() {
        scales[block(i)] = scales[block(i)].max(w.abs() / 448.0);
    }
    let scale = |i: usize| f64::from(scales[block(i)]);
    let codes: Vec<u8> = weight.iter().enumerate().map(|(i, &w)| nearest(f64::from(w) / scale(i))).collect();
    let values = codes.iter().enumerate().map(|(i, &code)| (value(code) * scale(i)) as f32).collect();
    Quantised { codes, scales, grid, values }
}

/// What published checkpoints quantise: matrices, but not embedding, head, router and the indexer's head weights.
fn is_quantised(name: &str, shape: &[usize]) -> bool {
    let kept = ["embed_tokens", "lm_head", "mlp.gate.weight", "weights_proj", "eh_proj", "shared_head"];
    shape.len() == 2 && !kept.iter().any(|piece| name.contains(piece))
}

fn write(dir: &Path, config: &Value, tensors: &[(String, safetensors::Dtype, Vec<usize>, Vec<u8>)]) -> Checkpoint {
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let views =
        tensors.iter().map(|(n, dtype, shape, data)| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    Checkpoint::open(dir).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// An FP8 checkpoint, and one that stores in f32 what the first stands for.
struct Pair {
    fp8: Checkpoint,
    plain: Checkpoint,
    values: HashMap<String, Vec<f32>>,
    _dir: tempfile::TempDir,
}

impl Pair {
    fn of(block: Option<[usize; 2]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config: Value = serde_json::from_slice(&std::fs::read(fixture().join("config.json")).unwrap()).unwrap();
        let plain_config = config.clone();
        config["quantization_config"] = json!({"quant_method": "fp8", "fmt": "e4m3"});
        if let Some(block) = block {
            config["quantization_config"]["weight_block_size"] = json!(block);
        }
        let stored = std::fs::read(fixture().join("model.safetensors")).unwrap();
        let (mut fp8, mut plain, mut values) = (Vec::new(), Vec::new(), HashMap::new());
        for (name, view) in safetensors::SafeTensors::deserialize(&stored).unwrap().tensors() {
            let (f32, shape) = (safetensors::Dtype::F32, view.shape().to_vec());
            let kept = (name.clone(), f32, shape.clone(), view.data().to_vec());
            if !is_quantised(&name, &shape) {
                fp8.push(kept.clone());
                plain.push(kept);
                continue;
            }
            let weight: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(*b.first_chunk().unwrap())).collect();
            let q = quantise(&weight, [shape[0], shape[1]], block.unwrap_or([128, 128]));
            fp8.push((format!("{name}_scale_inv"), f32, q.grid.to_vec(), bytes(&q.scales)));
            fp8.push((name.clone(), safetensors::Dtype::F8_E4M3, shape.clone(), q.codes));
            plain.push((name.clone(), f32, shape, bytes(&q.values)));
            values.insert(name, q.values);
        }
        Self {
            fp8: write(&dir.path().join("fp8"), &config, &fp8),
            plain: write(&dir.path().join("plain"), &plain_config, &plain),
            values,
            _dir: dir,
        }
    }

    fn source(checkpoint: &Checkpoint) -> CheckpointSource {
        CheckpointSource { checkpoint: checkpoint.clone(), device: Device::Cpu, defer_experts: false }
    }
}

#[test]
fn loaded_weights_are_codes_times_scales() {
    // Blocks that divide no matrix, blocks larger than most, and the default.
    for block in [Some([24, 20]), Some([64, 32]), None] {
        let pair = Pair::of(block);
        pair.fp8.check().unwrap();
        let mut compared = 0;
        for (name, info) in pair.fp8.tensors().filter(|(_, info)| info.dtype == Dtype::F8E4M3) {
            let tensor = Pair::source(&pair.fp8).get(name, &info.shape, DType::F32).unwrap();
            let got: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(got, pair.values[name], "{name} in blocks {block:?}");
            let half = Pair::source(&pair.fp8).get(name, &info.shape, DType::BF16).unwrap();
            assert_eq!(half.dtype(), DType::BF16);
            compared += 1;
        }
        assert_eq!(compared, 6 * 7 + 3 + 5 * (8 + 1) * 3);
    }
}

/// Indexers trained for an FP8 checkpoint are stored in FP8 with scales of their own, the rest stays as it is.
#[test]
fn trained_indexers_take_their_places_in_an_fp8_checkpoint() {
    let pair = Pair::of(Some([24, 20]));
    let from = pair.fp8.dir().unwrap();
    let (out, tokens) = (from.with_file_name("distilled"), from.with_file_name("tokens.json"));
    std::fs::write(&tokens, json!([(0..64).map(|i| i * 7 % 128).collect::<Vec<u32>>()]).to_string()).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let [from, out, tokens] = [from, &out, &tokens].map(|path| path.to_str().unwrap());
    let few =
        ["--seq-len", "16", "--steps", "4", "--sparse-steps", "2", "--rows", "8", "--lr", "2e-2", "--index-topk", "6"];
    let train =
        ["train", "distill", from, "--pattern", "FSSFSS", "--out", out, "--tokens", tokens, "--json", "--quiet"];
    let report = run(&[&train[..], &few].concat());
    // Two indexers of five tensors each, of which two are quantised.
    assert_eq!(report["checkpoint"]["report"]["replaced"], 2 * (5 + 2));

    let (before, after) = (&pair.fp8, Checkpoint::open(Path::new(out)).unwrap());
    let sidecar = indexscope::checkpoint::Sidecar::open(Path::new(&format!("{out}.indexers.safetensors"))).unwrap();
    let with = before.with_sidecar(&sidecar).unwrap();
    let mut quantised = 0;
    for (name, info) in after.tensors() {
        let trained = sidecar.tensors().find(|(trained, ..)| *trained == name);
        if trained.is_none() {
            let is_kept = !name.contains("indexer") && after.bytes(name).unwrap() == before.bytes(name).unwrap();
            assert!(is_kept || name.ends_with("_scale_inv") || name.contains("layers.6."), "{name}");
            continue;
        }
        assert_eq!(info.dtype, before.tensor(name).unwrap().dtype, "{name}");
        let values = |checkpoint: &Checkpoint| -> Vec<f32> {
            let tensor = Pair::source(checkpoint).get(name, &info.shape, DType::F32).unwrap();
            tensor.flatten_all().unwrap().to_vec1().unwrap()
        };
        let (wanted, got) = (values(&with), values(&after));
        let largest = wanted.iter().fold(0f32, |a, b| a.max(b.abs()));
        let is_fp8 = info.dtype == Dtype::F8E4M3;
        quantised += usize::from(is_fp8);
        for (got, wanted) in got.iter().zip(&wanted) {
            let step = if is_fp8 { (wanted.abs() / 16.0).max(largest / 1024.0) } else { 0.0 };
            assert!((got - wanted).abs() <= step, "{name}: {got} for {wanted}");
        }
    }
    assert_eq!(quantised, 2 * 2);
    after.check().unwrap();
    assert_eq!(after.native().unwrap().to_string(), "FSSFSS");
    let eval = run(&["eval", out, "--tokens", tokens, "--pattern", "native", "--json"]);
    assert!(eval["results"][0]["loss"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_fp8_model_computes_what_its_values_compute() {
    let pair = Pair::of(Some([24, 20]));
    let logits = |checkpoint: &Checkpoint| -> Vec<f32> {
        let model = Model::load(checkpoint, &Device::Cpu, DType::F32).unwrap();
        let ids: Vec<u32> = (0..40).map(|i| i * 7 % 128).collect();
        let (inputs, mut x) = (model.inputs(std::slice::from_ref(&ids), 0).unwrap(), model.embed(&[ids]).unwrap());
        for layer in 0..6 {
            x = model.layer(layer, &x, &inputs, &mut Pass::new(Attend::Own)).unwrap().hidden;
        }
        model.logits(&x).and_then(|l: Tensor| Ok(l.flatten_all()?.to_vec1()?)).unwrap()
    };
    assert_eq!(logits(&pair.fp8), logits(&pair.plain));
}

#[test]
fn scales_weigh_with_their_weights_and_are_no_parameters() {
    let pair = Pair::of(None);
    let (fp8, plain) = (pair.fp8.parts(), pair.plain.parts());
    assert!(fp8.iter().all(|p| p.part != Part::Other), "{fp8:?}");
    assert_eq!(
        fp8.iter().map(|p| (p.part, p.params)).collect::<Vec<_>>(),
        plain.iter().map(|p| (p.part, p.params)).collect::<Vec<_>>()
    );
    let attention =
        |parts: &[indexscope::checkpoint::PartSize]| parts.iter().find(|p| p.part == Part::Attention).unwrap().bytes;
    // One byte each, and one scale of four bytes for each of five matrices of six layers.
    assert_eq!(attention(&fp8), attention(&plain) / 4 + 6 * 5 * 4);
    assert_eq!(pair.fp8.needed_bytes(4), pair.plain.needed_bytes(4));
}
