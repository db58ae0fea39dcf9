//! The model against numbers that it did not make: what transformers 5.23 computes on small checkpoints.
//!
//! `tests/data/make_fixtures.py` and `make_dense_fixtures.py` say how they were made, and what the keys of `expected.safetensors` hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, IndexOp, Tensor};
use indexscope::checkpoint::Checkpoint;
use indexscope::domain::Pattern;
use indexscope::model::{Attend, Indices, Model, Ops, Pass};
use serde::Deserialize;

/// Below this distance of the k-th score to the next, rounding may decide which key is selected.
const CLEAR_MARGIN: f32 = 1e-5;

#[derive(Deserialize)]
struct Expected {
    patterns: BTreeMap<String, Losses>,
    /// Losses of dense attention by input; only for models without indexers.
    #[serde(default)]
    dense: BTreeMap<String, f64>,
    index_topk: usize,
    suggested_atol_logits: f32,
}

#[derive(Deserialize)]
struct Losses {
    loss: f64,
    short_loss: f64,
    second_loss: Option<f64>,
    full_layers: Vec<usize>,
}

struct Fixture {
    name: &'static str,
    model: Model,
    expected: Expected,
    tensors: std::collections::HashMap<String, Tensor>,
}

impl Fixture {
    fn open(name: &'static str) -> Self {
        let dir = data(name);
        let expected: Expected = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        let mut checkpoint = Checkpoint::open(&dir).unwrap();
        if checkpoint.config().family.is_dense() {
            checkpoint = checkpoint.with_topk(expected.index_topk).unwrap();
        }
        checkpoint.check().unwrap();
        assert_eq!(checkpoint.config().index_topk, expected.index_topk);
        let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
        let tensors = candle_core::safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
        Self { name, model, expected, tensors }
    }

    fn tensor(&self, key: &str) -> &Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    fn ids(&self, key: &str) -> Vec<u32> {
        let ids = self.tensor(key).to_dtype(DType::U32).unwrap();
        ids.to_vec2::<u32>().unwrap().remove(0)
    }

    /// Compares logits, loss and (unless short) every clear index set of one input under one pattern.
    fn compare(&self, input: &str, letters: &str, loss: f64) {
        for ops in [Ops::Reference, Ops::Fast] {
            self.compare_with(ops, input, letters, loss);
        }
    }

    fn compare_with(&self, ops: Ops, input: &str, letters: &str, loss: f64) {
        let at = format!("{} {input}{letters} ({ops})", self.name);
        let ids = self.ids(&format!("{input}input_ids"));
        let (logits, indices) = forward(&self.model, letters.parse().unwrap(), &ids, ops);
        let want = self.tensor(&format!("{input}logits.{letters}"));
        let worst = (&logits - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst <= self.expected.suggested_atol_logits, "{at}: logits differ by {worst:e}");
        let got = mean_loss(&logits, &ids);
        assert!((got - loss).abs() < 1e-4, "{at}: loss is {got}, not {loss}");
        if input != "short_" {
            self.compare_sets(&at, &format!("{input}topk.{letters}"), &format!("{input}margin.{letters}"), &indices);
        }
    }

    /// Compares logits and loss of dense attention.
    fn compare_dense(&self, input: &str, loss: f64) {
        let ids = self.ids(&format!("{input}input_ids"));
        let inputs = self.model.inputs(std::slice::from_ref(&ids), 0).unwrap();
        let mut x = self.model.embed(std::slice::from_ref(&ids)).unwrap();
        for layer in 0..self.model.config().num_hidden_layers {
            x = self.model.layer(layer, &x, &inputs, &mut Pass::new(Attend::Dense)).unwrap().hidden;
        }
        let logits = self.model.logits(&x).unwrap().i(0).unwrap();
        let want = self.tensor(&format!("{input}logits.dense"));
        let worst = (&logits - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst <= self.expected.suggested_atol_logits, "{} {input}dense: logits differ by {worst:e}", self.name);
        let got = mean_loss(&logits, &ids);
        assert!((got - loss).abs() < 1e-4, "{} {input}dense: loss is {got}, not {loss}", self.name);
    }

    fn compare_sets(&self, at: &str, topk: &str, margin: &str, indices: &BTreeMap<usize, Indices>) {
        let want = self.tensor(topk).to_dtype(DType::I64).unwrap().to_vec3::<i64>().unwrap();
        let margins = self.tensor(margin).to_vec2::<f32>().unwrap();
        assert_eq!(want.len(), indices.len(), "{at}: Full layers");
        let mut compared = 0;
        for ((layer, got), (want, margins)) in indices.iter().zip(want.iter().zip(&margins)) {
            for (query, row) in want.iter().enumerate().filter(|&(query, _)| margins[query] > CLEAR_MARGIN) {
                let want: Vec<u32> = row.iter().filter(|&&key| key >= 0).map(|&key| key as u32).collect();
                assert_eq!(got.sets().unwrap()[0].row(query), want, "{at}: layer {layer}, query {query}");
                compared += 1;
            }
        }
        assert!(compared * 100 >= indices.len() * margins[0].len() * 98, "{at}: only {compared} sets are clear");
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Runs the model under a pattern; returns logits `[T, V]` and the selection of every Full layer.
fn forward(model: &Model, pattern: Pattern, ids: &[u32], ops: Ops) -> (Tensor, BTreeMap<usize, Indices>) {
    let inputs = model.inputs(&[ids.to_vec()], 0).unwrap();
    let mut x = model.embed(&[ids.to_vec()]).unwrap();
    let (mut last, mut found): (Option<Indices>, _) = (None, BTreeMap::new());
    for layer in 0..pattern.len() {
        let attend = match &last {
            Some(indices) if !pattern.is_full(layer) => Attend::Given(indices),
            _ => Attend::Own,
        };
        let out = model.layer(layer, &x, &inputs, &mut Pass { ops, ..Pass::new(attend) }).unwrap();
        x = out.hidden;
        if pattern.is_full(layer) {
            last = out.indices;
            found.insert(layer, last.clone().expect("a Full layer selects"));
        }
    }
    (model.logits(&x).unwrap().i(0).unwrap(), found)
}

fn mean_loss(logits: &Tensor, ids: &[u32]) -> f64 {
    let rows = logits.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let nll = |row: &[f64], id: u32| {
        let top = row.iter().copied().fold(f64::MIN, f64::max);
        top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln() - row[id as usize]
    };
    rows.iter().zip(&ids[1..]).map(|(row, &id)| nll(row, id)).sum::<f64>() / (ids.len() - 1) as f64
}

/// Holds one checkpoint against all of its expected values.
fn hold(name: &'static str) {
    let fixture = Fixture::open(name);
    for (letters, losses) in &fixture.expected.patterns {
        let pattern: Pattern = letters.parse().unwrap();
        let full: Vec<usize> = (0..pattern.len()).filter(|&layer| pattern.is_full(layer)).collect();
        assert_eq!(full, losses.full_layers);
        fixture.compare("", letters, losses.loss);
        fixture.compare("short_", letters, losses.short_loss);
        if let Some(loss) = losses.second_loss {
            fixture.compare("second_", letters, loss);
        }
    }
    for (input, loss) in &fixture.expected.dense {
        fixture.compare_dense(input.trim_end_matches("loss"), *loss);
    }
    short_context_knows_no_pattern(&fixture);
}

/// With at most k visible keys everything is selected, so that every pattern gives the same bits.
fn short_context_knows_no_pattern(fixture: &Fixture) {
    let ids = fixture.ids("short_input_ids");
    let all: Vec<Vec<Vec<f32>>> = fixture
        .expected
        .patterns
        .keys()
        .map(|letters| forward(&fixture.model, letters.parse().unwrap(), &ids, Ops::Fast).0.to_vec2().unwrap())
        .collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{}: short contexts differ", fixture.name);
}

#[test]
fn glm_with_an_mtp_layer() {
    hold("glm_dsa_tiny");
}

#[test]
fn deepseek_with_grouped_routing() {
    hold("deepseek_v32_tiny");
}

#[test]
fn glm_in_shards_with_two_shared_experts() {
    hold("glm_sharded");
}

#[test]
fn deepseek_with_several_kept_groups_and_old_style_yarn() {
    hold("deepseek_groups_yarn");
}

#[test]
fn glm_stored_in_bf16_with_tied_embeddings() {
    hold("glm_bf16_tied");
}

#[test]
fn glm_without_indexers_on_shared_layers() {
    hold("glm_locked_shared");
}

#[test]
fn glm_with_attention_bias_and_yarn_that_scales_cos_and_sin() {
    hold("glm_bias_yarn");
}

#[test]
fn deepseek_in_bf16_shards_with_dense_mlps_only() {
    hold("deepseek_dense_bf16_sharded");
}

#[test]
fn llama_with_stretched_rope_chooses_by_its_own_attention() {
    hold("llama_rope3");
}

#[test]
fn qwen2_with_biases_one_key_head_and_tied_embeddings() {
    hold("qwen2_bias_tied");
}

#[test]
fn qwen3_with_normed_heads_and_biases() {
    hold("qwen3_norm");
}
