//! Gradients on the demo's own architecture, and whole runs of a tiny recipe.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};

use super::data::Sequence;
use super::loss::{Losses, gradients, losses};
use super::params::{Kind, Params};
use super::state::STATE_FILE;
use super::{Event, Recipe, Stage, TrainError, Trainer};
use crate::checkpoint::{Checkpoint, Config, SINGLE_FILE};
use crate::domain::Rng;
use crate::model::{Indices, Model};

/// The demo's recipe with small sizes.
fn tiny(steps: [u64; 3]) -> String {
    let model = r#"
seed = 5
[data]
sequence_length = 12
corpus = [{ file = "corpus.txt" }]
monitor = "corpus.txt"
[optimizer]
batch = 4
micro_batch = 2
matrix_lr = 0.02
embedding_lr = 0.01
norm_lr = 0.01
indexer_lr = 0.01
weight_decay = 0.1
clip = 1.0
balance = 0.01
[model]
model_type = "glm_moe_dsa"
vocab_size = 270
hidden_size = 16
num_hidden_layers = 3
num_attention_heads = 2
q_lora_rank = 12
kv_lora_rank = 8
qk_nope_head_dim = 6
qk_rope_head_dim = 4
v_head_dim = 6
intermediate_size = 24
moe_intermediate_size = 8
n_routed_experts = 2
n_shared_experts = 1
num_experts_per_tok = 2
n_group = 1
topk_group = 1
routed_scaling_factor = 1.0
mlp_layer_types = ["dense", "dense", "sparse"]
rms_norm_eps = 1e-5
index_topk = 4
index_n_heads = 2
index_head_dim = 8
indexer_types = ["full", "full", "full"]
tie_word_embeddings = true
"#;
    let stage = |(kind, steps)| format!("[[stage]]\nkind = \"{kind}\"\nsteps = {steps}\n");
    let stages = ["dense", "warmup", "sparse"].into_iter().zip(steps).map(stage);
    model.replace("[model]", &(stages.collect::<String>() + "[model]"))
}

/// Weights without any that are 0 or 1, and two random sequences.
fn generic() -> (Config, Params, Vec<Sequence>) {
    let recipe = Recipe::parse(&tiny([1, 1, 1])).unwrap();
    let config = Config::parse(&recipe.config_json()).unwrap();
    let mut params = Params::init(&config, recipe.seed);
    let mut rng = Rng::new(9, 9);
    for param in params.0.iter_mut().filter(|p| p.kind != Kind::Balance) {
        param.value.iter_mut().for_each(|w| *w += (rng.normal() * 0.25) as f32);
    }
    let sequence = |rng: &mut Rng| {
        let tokens: Vec<u32> = (0..13).map(|_| rng.below(config.vocab_size) as u32).collect();
        Sequence { ids: tokens[..12].to_vec(), targets: tokens[1..].to_vec() }
    };
    let sequences = vec![sequence(&mut rng), sequence(&mut rng)];
    (config, params, sequences)
}

fn forward(config: &Config, params: &Params, stage: Stage, on: &[Sequence], given: &[Option<Indices>]) -> Losses {
    let leaves = params.leaves(None).unwrap();
    let model = Model::new(config.clone(), &leaves, &Device::Cpu, DType::F32).unwrap();
    losses(&model, stage, on, given).unwrap()
}

fn value(loss: Option<&Tensor>) -> f64 {
    f64::from(loss.unwrap().to_scalar::<f32>().unwrap())
}

/// Compares the gradient of every tensor that the stage trains with central differences along two directions.
fn check_gradients(stage: Stage) {
    let (config, params, sequences) = generic();
    // The choice of keys is no smooth function: hold it while weights are shifted.
    let given = forward(&config, &params, stage, &sequences, &[]).indices;
    let (_, grads) = gradients(&params, &config, stage, &sequences, 1.0).unwrap();
    let mut rng = Rng::new(1, 1);
    for (index, (param, grad)) in params.0.iter().zip(&grads).enumerate() {
        assert_eq!(grad.is_some(), param.kind.is_trained(stage), "{} in the {} stage", param.name, stage.name());
        let Some(grad) = grad else { continue };
        let norm = grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 1e-2, "{} has a gradient of norm {norm}", param.name);
        let steepest: Vec<f64> = grad.iter().map(|g| f64::from(*g) / norm).collect();
        let random: Vec<f64> = grad.iter().map(|_| rng.normal() / (grad.len() as f64).sqrt()).collect();
        for direction in [steepest, random] {
            let shifted = |by: f64| {
                let mut params = params.clone();
                let weights = params.0[index].value.iter_mut().zip(&direction);
                weights.for_each(|(w, d)| *w = (f64::from(*w) + by * d) as f32);
                let losses = forward(&config, &params, stage, &sequences, &given);
                value(if param.kind == Kind::Indexer { losses.kl.as_ref() } else { losses.lm.as_ref() })
            };
            // Fourth order: the curvature along a steep direction is felt at any step that f32 can resolve.
            let step = 2e-3;
            let central = |h: f64| (shifted(h) - shifted(-h)) / (2.0 * h);
            let measured = (4.0 * central(step) - central(2.0 * step)) / 3.0;
            let want: f64 = grad.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
            // Rounding of the losses in f32 costs up to 0.01 of the norm.
            assert!((measured - want).abs() < 0.03 * norm, "{}: {measured} measured, {want} computed", param.name);
        }
    }
}

#[test]
fn gradients_of_the_dense_stage_agree_with_differences() {
    check_gradients(Stage::Dense);
}

#[test]
fn gradients_of_the_warmup_agree_with_differences() {
    check_gradients(Stage::Warmup);
}

#[test]
fn gradients_of_the_sparse_stage_agree_with_differences() {
    check_gradients(Stage::Sparse);
}

#[test]
fn neither_loss_reaches_what_the_other_trains() {
    let (config, params, sequences) = generic();
    let leaves: HashMap<String, Tensor> = params.leaves(Some(Stage::Sparse)).unwrap();
    let model = Model::new(config.clone(), &leaves, &Device::Cpu, DType::F32).unwrap();
    let Losses { lm, kl, .. } = losses(&model, Stage::Sparse, &sequences, &[]).unwrap();
    let (lm, kl) = (lm.unwrap().backward().unwrap(), kl.unwrap().backward().unwrap());
    for param in params.0.iter().filter(|p| p.kind != Kind::Balance) {
        let leaf = &leaves[&param.name];
        let reached = (lm.get(leaf).is_some(), kl.get(leaf).is_some());
        let indexer = param.kind == Kind::Indexer;
        assert_eq!(reached, (!indexer, indexer), "{}", param.name);
    }
}

/// Writes the tiny recipe with a text into a folder.
fn project(folder: &Path, recipe: &str) -> std::path::PathBuf {
    let mut rng = Rng::new(2, 2);
    let words = ["the", "layer", "keeps", "its", "own", "index", "set", "naïve", "top"];
    let text: Vec<&str> = (0..900).map(|_| words[rng.below(words.len())]).collect();
    std::fs::write(folder.join("corpus.txt"), text.join(" ")).unwrap();
    let path = folder.join("recipe.toml");
    std::fs::write(&path, recipe).unwrap();
    path
}

fn trainer(recipe: &Path, run: &str, resume: bool, threads: usize) -> Result<Trainer, TrainError> {
    let folder = recipe.parent().unwrap().join(run);
    std::fs::create_dir_all(&folder).unwrap();
    let tokenizer = recipe.parent().unwrap().join("tokenizer.json");
    if tokenizer.exists() {
        std::fs::copy(&tokenizer, folder.join("tokenizer.json")).unwrap();
    }
    let trainer = Trainer::prepare(recipe, &folder, resume, threads, &mut |_| {})?;
    std::fs::copy(folder.join("tokenizer.json"), tokenizer).unwrap();
    Ok(trainer)
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = project(folder.path(), &tiny([6, 3, 4]));
    let never = AtomicBool::new(false);
    let mut whole = trainer(&recipe, "whole", false, 1).unwrap();
    let mut losses = Vec::new();
    let mut keep = |event| {
        if let Event::Step(report) = event {
            losses.push(report.measured.lm.or(report.measured.kl).unwrap());
        }
    };
    assert!(whole.run(&never, &mut keep).unwrap());
    assert_eq!(losses.len(), 13);
    assert!(losses[5] < losses[0] && losses[8] < losses[6], "{losses:?}");

    // Stopped after four steps with its state saved, then killed one step into the warm-up, then once more.
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    let mut after_four = |event| {
        steps += usize::from(matches!(event, Event::Step(_)));
        stop.store(steps >= 4, std::sync::atomic::Ordering::Relaxed);
    };
    assert!(!trainer(&recipe, "parts", false, 2).unwrap().run(&stop, &mut after_four).unwrap());
    let refused = trainer(&recipe, "parts", false, 2).err().unwrap().to_string();
    assert!(refused.contains("already holds a run"), "{refused}");
    let mut second = trainer(&recipe, "parts", true, 2).unwrap();
    assert_eq!((second.position().stage, second.position().step), (0, 4));
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        second.run(&never, &mut |event| {
            if let Event::Step(report) = event {
                assert!(report.stage == Stage::Dense, "the kill");
            }
        })
    }));
    assert!(killed.is_err());
    let mut last = trainer(&recipe, "parts", true, 1).unwrap();
    assert_eq!((last.position().stage, last.position().step), (1, 0));
    assert!(last.run(&never, &mut |_| {}).unwrap());
    assert_eq!(last.params(), whole.params());
    let bytes = |run: &str| std::fs::read(folder.path().join(run).join(SINGLE_FILE)).unwrap();
    assert_eq!(bytes("whole"), bytes("parts"));

    // What was written is a checkpoint that loads and predicts as the trainer does, up to bf16.
    let checkpoint = Checkpoint::open(&folder.path().join("whole")).unwrap();
    checkpoint.check().unwrap();
    Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state() {
    let folder = tempfile::tempdir().unwrap();
    let text = tiny([3, 4, 2]).replace("kind = \"warmup\"", "kind = \"warmup\"\npeak = 1e30");
    let recipe = project(folder.path(), &text);
    let mut run = trainer(&recipe, "run", false, 1).unwrap();
    let mut saved = 0;
    let mut count = |event| saved += usize::from(matches!(event, Event::Saved(_)));
    let error = run.run(&AtomicBool::new(false), &mut count).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { step: 1, stage: "warmup", .. }), "{error}");
    assert_eq!(saved, 1);
    assert!(folder.path().join("run").join(STATE_FILE).exists());
    let again = trainer(&recipe, "run", true, 1).unwrap();
    assert_eq!((again.position().stage, again.position().step), (1, 0));
    assert!(again.params().0.iter().all(|p| p.value.iter().all(|w| w.is_finite())));
}
