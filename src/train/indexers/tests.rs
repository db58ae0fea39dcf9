//! Gradients of the served layers' loss, and whole runs on the fixtures' tiny checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor, Var};

use super::recipe::tests::recipe;
use super::run::Setup;
use super::step::step;
use super::{IndexerEvent, IndexerRecipe, IndexerRun};
use crate::checkpoint::{Checkpoint, IndexerShape, Sidecar};
use crate::domain::{Rng, Targets};
use crate::model::Model;
use crate::model::ops::{RowTargets, indexer_kl};
use crate::train::TrainError;
use crate::train::params::Params;

pub(super) fn checkpoint(name: &str) -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn own_shape(checkpoint: &Checkpoint) -> IndexerShape {
    let config = checkpoint.config();
    IndexerShape { heads: config.index_n_heads, dim: config.index_head_dim, rope_dims: config.index_rope_head_dim }
}

/// A text with something to learn: each token decides the next one, but for some noise.
pub(super) fn text(vocab: usize) -> Vec<(String, Vec<u32>)> {
    let mut rng = Rng::new(4, 4);
    let next = |rng: &mut Rng, last: u32| {
        if rng.below(4) == 0 { rng.below(vocab) as u32 } else { (last * 5 + 3) % vocab as u32 }
    };
    let mut ids = vec![1];
    for _ in 0..600 {
        ids.push(next(&mut rng, ids[ids.len() - 1]));
    }
    vec![("text".to_owned(), ids)]
}

pub(super) fn prepare(
    base: &Checkpoint,
    recipe: &IndexerRecipe,
    out: &Path,
    resume: bool,
) -> Result<IndexerRun, TrainError> {
    let (shape, texts) = (own_shape(base), text(base.config().vocab_size));
    IndexerRun::prepare(Setup {
        checkpoint: base,
        recipe: recipe.clone(),
        shape,
        texts,
        start: None,
        out: Some(out),
        model: None,
        resume,
    })
}

pub(super) fn all(run: &IndexerRun) -> Vec<&[f32]> {
    run.params().iter().flat_map(|p| &p.0).map(|p| p.value.as_slice()).collect()
}

/// Runs to the end and returns each step's mean KL.
pub(super) fn finish(run: &mut IndexerRun) -> Vec<f64> {
    let mut kl = Vec::new();
    let done = run.run(&AtomicBool::new(false), &mut |event| {
        if let IndexerEvent::Step(step) = event {
            kl.push(step.mean().kl);
        }
    });
    assert!(done.unwrap());
    kl
}

#[test]
fn the_loss_of_several_layers_has_the_gradient_of_their_average() {
    let (rows, keys) = (Arc::new(vec![3usize, 9, 11]), 12);
    let random = |shape: &[usize], seed: u64| {
        let mut rng = Rng::new(seed, 0);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        Var::from_slice(&values, shape, &Device::Cpu).unwrap()
    };
    let operands = [random(&[3, 8], 1), random(&[keys, 4], 2), random(&[3, 2], 3)];
    let layer = |seed| -> Vec<f32> {
        let p = random(&[3, keys], seed);
        let mut p: Vec<f32> = p.flatten_all().unwrap().exp().unwrap().to_vec1().unwrap();
        for (p, &row) in p.chunks_mut(keys).zip(rows.iter()) {
            p[row + 1..].fill(0.0);
            let mass: f32 = p.iter().sum();
            p.iter_mut().for_each(|p| *p /= mass);
        }
        p
    };
    let layers: Vec<Vec<f32>> = (10..13).map(layer).collect();
    let gradients = |probs: Vec<f32>| -> (f64, Vec<Vec<f32>>) {
        let target = RowTargets { rows: Arc::clone(&rows), probs: Arc::new(probs), support: None };
        let [q, k, w] = operands.each_ref().map(Var::as_tensor);
        let loss = indexer_kl(q, k, w, 0.5, &target).unwrap();
        let store = loss.backward().unwrap();
        let grads = [q, k, w].map(|x: &Tensor| store.get(x).unwrap().flatten_all().unwrap().to_vec1().unwrap());
        (f64::from(loss.to_scalar::<f32>().unwrap()), grads.to_vec())
    };
    let mut average = super::step::Average::new(3 * keys);
    layers.iter().for_each(|p| average.add(p, keys, None, false));
    let (mean, floor) = average.finish(3);
    let (of_average, grads) = gradients(mean);
    let each: Vec<_> = layers.into_iter().map(gradients).collect();
    let multi = each.iter().map(|(loss, _)| loss).sum::<f64>() / 3.0;
    assert!(floor > 0.05 && (multi - of_average - floor).abs() < 1e-5, "{multi} is not {of_average} + {floor}");
    for (operand, grads) in grads.iter().enumerate() {
        let largest = grads.iter().fold(0f32, |largest, g| largest.max(g.abs()));
        for (i, g) in grads.iter().enumerate() {
            let mean = each.iter().map(|(_, all)| all[operand][i]).sum::<f32>() / 3.0;
            assert!((g - mean).abs() < 1e-5 * largest, "operand {operand}, element {i}: {g} is not {mean}");
        }
    }
}

#[test]
fn gradients_of_both_stages_agree_with_differences() {
    let base = checkpoint("glm_dsa_tiny");
    let model = Model::load(&base, &Device::Cpu, DType::F32).unwrap();
    let layers = base.config().num_hidden_layers;
    let mut recipe = recipe(&"FSF".repeat(layers.div_ceil(3))[..layers]);
    let folder = tempfile::tempdir().unwrap();
    let run = prepare(&base, &recipe, &folder.path().join("s"), false).unwrap();
    let ids: Vec<u32> = text(base.config().vocab_size)[0].1[..24].to_vec();
    let rows = [2, 9, 15, 23];
    for (sparse, index) in [(false, 0), (false, 1), (true, 1)] {
        // Only one indexer is trained, so that a shifted weight does not change what the others select.
        recipe.layers = vec![run_layers(&recipe)[index]];
        let params: Vec<Params> = vec![run.params()[index].clone()];
        let at = |params: &[Params]| {
            step(&model, base.config(), &recipe, params, (&ids, &rows, sparse), &|| false, None).unwrap()
        };
        let found = at(&params);
        assert_eq!(found.len(), 1);
        for (n, grad) in found[0].1.iter().enumerate() {
            let grad = grad.as_ref().unwrap();
            let norm = grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let shifted = |by: f64| {
                let mut params = params.clone();
                let weights = params[0].0[n].value.iter_mut().zip(grad);
                weights.for_each(|(w, g)| *w = (f64::from(*w) + by * f64::from(*g) / norm) as f32);
                at(&params)[0].0.kl
            };
            let measured = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
            let name = &params[0].0[n].name;
            assert!(norm > 1e-2, "{name}, sparse {sparse}: a gradient of norm {norm}");
            // A shift may move a key in or out of the selection; the sparse stage holds it for small ones only.
            assert!((measured - norm).abs() < 0.03 * norm, "{name}, sparse {sparse}: {measured}, not {norm}");
        }
        recipe.layers = run_layers(&recipe);
    }
}

/// Returns all Full layers of the pattern.
fn run_layers(recipe: &IndexerRecipe) -> Vec<usize> {
    (0..recipe.pattern.len()).filter(|&l| recipe.pattern.is_full(l)).collect()
}

#[test]
fn a_resumed_run_ends_with_the_same_bits_and_a_lower_divergence() {
    let base = checkpoint("deepseek_v32_tiny");
    let layers = base.config().num_hidden_layers;
    let recipe = IndexerRecipe { targets: Targets::Own, steps: 30, sparse_steps: 6, ..recipe(&"F".repeat(layers)) };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut whole = prepare(&base, &recipe, &path("whole.safetensors"), false).unwrap();
    let kl = finish(&mut whole);
    let mean = |kl: &[f64]| kl.iter().sum::<f64>() / kl.len() as f64;
    assert!(kl.len() == 36 && mean(&kl[24..30]) < 0.9 * mean(&kl[..6]), "{kl:?}");

    // Stopped in either stage, with its state saved.
    let out = path("parts.safetensors");
    for stop_at in [11, 32] {
        let stop = AtomicBool::new(false);
        let mut part = prepare(&base, &recipe, &out, stop_at > 11).unwrap();
        let done = part.run(&stop, &mut |event| {
            let IndexerEvent::Step(step) = event else { return };
            stop.store(step.step.0 >= stop_at, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(!done.unwrap());
        let refused = prepare(&base, &recipe, &out, false).err().unwrap().to_string();
        assert!(refused.contains("already holds a run"), "{refused}");
        let other = IndexerRecipe { lr: 0.5, ..recipe.clone() };
        let refused = prepare(&base, &other, &out, true).err().unwrap().to_string();
        assert!(refused.contains("begun with other options"), "{refused}");
        let error = prepare(&checkpoint("glm_dsa_tiny"), &recipe_of("glm_dsa_tiny"), &out, true).err().unwrap();
        assert!(error.to_string().ends_with("cannot be resumed: it was begun for another model"), "{error}");
        assert!(error.to_string().contains(&out.display().to_string()) && error.hint().is_some(), "{error}");
    }
    let mut last = prepare(&base, &recipe, &out, true).unwrap();
    assert_eq!(finish(&mut last).len(), 4);
    assert_eq!(all(&last), all(&whole));

    // What was written is a sidecar that the model runs with; the state is gone.
    assert_eq!(names(folder.path()), ["parts.safetensors", "whole.safetensors"]);
    let sidecar = Sidecar::open(&out).unwrap();
    let trained = &sidecar.header().trained;
    assert_eq!((trained.tokens, trained.steps, trained.kl.len()), (36 * 24, (30, 6), layers));
    let model = Model::load(&base.with_sidecar(&sidecar).unwrap(), &Device::Cpu, DType::F32).unwrap();
    assert!((0..layers).all(|l| model.has_indexer(l)));
}

/// Returns the usual recipe with every layer Full.
fn recipe_of(name: &str) -> IndexerRecipe {
    recipe(&"F".repeat(checkpoint(name).config().num_hidden_layers))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_distillation_that_was_stopped_goes_on_with_the_same_bits() {
    let base = checkpoint("glm_dsa_tiny");
    let layers = base.config().num_hidden_layers;
    let recipe = IndexerRecipe { steps: 5, sparse_steps: 4, ..recipe(&"FSS".repeat(layers)[..layers]) };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut whole = prepare(&base, &recipe, &path("whole"), false).unwrap();
    finish(&mut whole);
    for stop_at in [3, 7] {
        let stop = AtomicBool::new(false);
        let mut part = prepare(&base, &recipe, &path("parts"), stop_at > 3).unwrap();
        part.run(&stop, &mut |event| {
            if let IndexerEvent::Step(step) = event {
                stop.store(step.step.0 >= stop_at, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .unwrap();
    }
    let mut last = prepare(&base, &recipe, &path("parts"), true).unwrap();
    assert_eq!(finish(&mut last).len(), 2);
    assert_eq!(all(&last), all(&whole));
    assert_eq!(last.divergences(), whole.divergences());
    // What the steps found is remembered, too, but for how fast they were.
    let found = |run: &IndexerRun| run.history().iter().map(|s| (s.step, s.layers.clone())).collect::<Vec<_>>();
    assert_eq!(found(&last), found(&whole));
    assert_eq!(found(&last).len(), 9);
    assert!(last.divergences().iter().all(|(_, d)| d.floor > 0.0 && d.kl > d.floor), "{:?}", last.divergences());
}

#[test]
fn a_step_that_fails_leaves_the_last_saved_state_to_go_on_from() {
    let base = checkpoint("glm_dsa_tiny");
    let layers = base.config().num_hidden_layers;
    let recipe = IndexerRecipe { steps: 4, sparse_steps: 2, ..recipe(&"FSS".repeat(layers)[..layers]) };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("s");
    let stop = AtomicBool::new(false);
    let mut run = prepare(&base, &recipe, &out, false).unwrap();
    run.run(&stop, &mut |_| stop.store(true, std::sync::atomic::Ordering::Relaxed)).unwrap();
    let saved = std::fs::read(folder.path().join("s.state")).unwrap();
    run.params_mut()[0].0[0].value[0] = f32::NAN;
    let error = run.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { .. }), "{error}");
    assert_eq!(std::fs::read(folder.path().join("s.state")).unwrap(), saved, "the state is that before");
    let mut again = prepare(&base, &recipe, &out, true).unwrap();
    assert_eq!(finish(&mut again).len(), 5, "it goes on after the step that was saved");
}

#[test]
fn locked_layers_get_an_indexer_of_their_own() {
    let base = checkpoint("glm_locked_shared");
    let locked = base.constraints().locked_shared.iter().next().unwrap();
    let pattern = base.native().unwrap().with(locked, crate::domain::Role::Full).unwrap();
    let recipe = IndexerRecipe {
        layers: vec![locked],
        targets: Targets::Own,
        steps: 4,
        sparse_steps: 2,
        ..recipe(&pattern.to_string())
    };
    let folder = tempfile::tempdir().unwrap();
    let out: PathBuf = folder.path().join("s.safetensors");
    finish(&mut prepare(&base, &recipe, &out, false).unwrap());
    let more = base.with_sidecar(&Sidecar::open(&out).unwrap()).unwrap();
    assert!(!base.has_indexer(locked) && more.has_indexer(locked));
    assert_eq!(more.constraints().locked_shared.len() + 1, base.constraints().locked_shared.len());
}

#[test]
fn a_loss_that_is_not_finite_stops_and_changes_nothing() {
    let base = checkpoint("glm_dsa_tiny");
    let layers = base.config().num_hidden_layers;
    let recipe = recipe(&"F".repeat(layers));
    let folder = tempfile::tempdir().unwrap();
    let mut run = prepare(&base, &recipe, &folder.path().join("s"), false).unwrap();
    run.step(&|| false).unwrap();
    assert!(matches!(run.step(&|| true), Err(TrainError::Stopped)), "told to stop, it has done nothing");
    run.params_mut()[1].0[0].value[3] = f32::NAN;
    let before: Vec<Vec<f32>> = all(&run).into_iter().map(<[f32]>::to_vec).collect();
    let error = run.run(&AtomicBool::new(false), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { stage: "warmup", step: 1, .. }), "{error}");
    assert!(names(folder.path()).is_empty(), "nothing was finished, and nothing is written");
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(all(&run).iter().zip(&before).all(|(a, b)| bits(a) == bits(b)), "no weight has moved");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let base = checkpoint("glm_dsa_tiny");
    let layers = base.config().num_hidden_layers;
    let good = recipe(&format!("FS{}", "F".repeat(layers - 2)));
    let folder = tempfile::tempdir().unwrap();
    let refused =
        |recipe: IndexerRecipe| prepare(&base, &recipe, &folder.path().join("s"), false).err().unwrap().to_string();
    assert!(refused(IndexerRecipe { layers: vec![1], ..good.clone() }).contains("layer 1 is Shared in the pattern FS"));
    let dense = checkpoint("llama_rope3");
    let pattern = "F".repeat(dense.config().num_hidden_layers);
    for (base, recipe) in [
        (&base, IndexerRecipe { sparse_steps: 0, lm_lr: Some(1e-4), ..good.clone() }),
        (&dense, IndexerRecipe { lm_lr: Some(1e-4), ..recipe(&pattern) }),
    ] {
        let error = prepare(base, &recipe, &folder.path().join("s"), false).err().unwrap();
        assert!(error.hint().is_some_and(|hint| hint.contains("--lm-lr")), "{error}");
    }
    assert!(refused(IndexerRecipe { layers: vec![99], ..good.clone() }).contains("layer 99 does not exist"));
    assert!(refused(IndexerRecipe { layers: vec![], ..good.clone() }).contains("nothing to train"));
    assert!(refused(IndexerRecipe { seq_len: 5000, ..good.clone() }).contains("a sequence needs 10001"));
    let shape = IndexerShape { heads: 9, ..own_shape(&base) };
    let texts = text(base.config().vocab_size);
    let out = folder.path().join("s");
    let setup = Setup {
        checkpoint: &base,
        recipe: good.clone(),
        shape,
        texts,
        start: None,
        out: Some(&out),
        model: None,
        resume: false,
    };
    assert!(IndexerRun::prepare(setup).err().unwrap().to_string().contains("9 of"));
    let mut small = good;
    assert!(small.limit((3 << 20, 10), Some(3 << 20)).unwrap_err().to_string().contains("needs 3.0 MiB"));
    small.limit((1000, 10), Some(1035)).unwrap();
    assert_eq!(small.rows, 3);
}
