//! The rest of the model: its gradients against one graph of the whole model, and runs that train both.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device};

use super::recipe::tests::recipe;
use super::rest::Rest;
use super::step::{Trail, step};
use super::tests::{all, checkpoint, finish, prepare, text};
use super::{IndexerEvent, IndexerRecipe};
use crate::checkpoint::Checkpoint;
use crate::model::Model;
use crate::train::data::Sequence;
use crate::train::loss::losses;
use crate::train::{Stage, TrainError};

fn recipe_of(base: &Checkpoint, steps: (u64, u64)) -> IndexerRecipe {
    let layers = base.config().num_hidden_layers;
    let (steps, sparse_steps) = steps;
    IndexerRecipe { steps, sparse_steps, lm_lr: Some(3e-3), ..recipe(&"FSS".repeat(layers)[..layers]) }
}

#[test]
fn gradients_layer_by_layer_are_those_of_one_graph() {
    for name in ["glm_dsa_tiny", "deepseek_groups_yarn", "glm_bf16_tied"] {
        let base = checkpoint(name);
        let recipe = recipe_of(&base, (0, 4));
        let folder = tempfile::tempdir().unwrap();
        let run = prepare(&base, &recipe, &folder.path().join("s"), false).unwrap();
        let tokens = &text(base.config().vocab_size)[0].1;
        let (ids, targets) = (tokens[..300].to_vec(), tokens[1..301].to_vec());
        let config = crate::checkpoint::Config { index_topk: recipe.index_topk, ..base.config().clone() };
        let mut rest = Rest::open(&base, &config).unwrap();
        let model = rest.model(&config).unwrap();
        let (mut trail, on) = (Trail::default(), (ids.as_slice(), &[5usize, 200][..], true));
        let with = step(&model, &config, &recipe, run.params(), on, &|| false, Some(&mut trail)).unwrap();
        let without = step(&model, &config, &recipe, run.params(), on, &|| false, None).unwrap();
        assert!(with == without, "{name}: the trail changes nothing for indexers");
        let inputs = model.inputs(std::slice::from_ref(&ids), 0).unwrap();
        let (loss, found) = rest.gradients(&model, &trail, (&ids, &targets), &inputs, &|| false).unwrap();

        let leaves = rest.params.leaves(Some(Stage::Sparse)).unwrap();
        let mut tensors = rest.fixed_tensors().clone();
        tensors.extend(leaves.clone());
        let whole = Model::new(config.clone(), &tensors, &Device::Cpu, DType::F32).unwrap();
        let given: Vec<_> = trail.layers().map(|(_, indices)| indices.cloned()).collect();
        assert!(given.iter().all(Option::is_some), "{name}: every layer attends to selected keys");
        let sequence = Sequence { ids, targets };
        let lm = losses(&whole, Stage::Sparse, &[sequence], &given).unwrap().lm.unwrap();
        let want = f64::from(lm.to_scalar::<f32>().unwrap());
        assert!((loss - want).abs() < 1e-4, "{name}: {loss} is not {want}");
        let store = lm.backward().unwrap();
        for (param, found) in rest.params.0.iter().zip(found) {
            let found = found.unwrap();
            let want = match store.get(&leaves[&param.name]) {
                Some(grad) => grad.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                // An expert that no token was routed to.
                None => vec![0.0; found.len()],
            };
            let scale = want.iter().map(|g| g.abs()).fold(1e-4, f32::max);
            let worst = found.iter().zip(&want).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{name}: {} differs by {worst} of its largest element", param.name);
        }
    }
}

#[test]
fn both_learn_and_a_stopped_run_goes_on_with_the_same_bits() {
    let base = checkpoint("glm_dsa_tiny");
    let recipe = recipe_of(&base, (2, 30));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut losses = Vec::new();
    let mut whole = prepare(&base, &recipe, &path("whole"), false).unwrap();
    let done = whole.run(&AtomicBool::new(false), &mut |event| {
        if let IndexerEvent::Step(step) = event {
            losses.push(step.lm);
        }
    });
    assert!(done.unwrap());
    assert!(losses[..2].iter().all(Option::is_none), "the warm-up leaves the model alone");
    let losses: Vec<f64> = losses.into_iter().flatten().collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(losses.len() == 30 && mean(&losses[24..]) < mean(&losses[..6]) - 0.1, "{losses:?}");
    assert!(!path("whole").exists(), "indexers for a model that is no more are no sidecar of the one that was");

    for stop_at in [1, 9] {
        let stop = AtomicBool::new(false);
        let mut part = prepare(&base, &recipe, &path("parts"), stop_at > 1).unwrap();
        part.run(&stop, &mut |event| {
            if let IndexerEvent::Step(step) = event {
                stop.store(step.step.0 >= stop_at, Ordering::Relaxed);
            }
        })
        .unwrap();
    }
    let mut last = prepare(&base, &recipe, &path("parts"), true).unwrap();
    assert_eq!(finish(&mut last).len(), 23);
    assert!(last.weights() == whole.weights(), "every weight, of indexers and the rest");
    assert!((last.lm().unwrap() - whole.lm().unwrap()).abs() < 1e-12);
    assert!(path("parts.state").exists(), "until the checkpoint is written, the state is all there is");
    last.discard_state().unwrap();
    assert!(!path("parts.state").exists());

    // Another rate is another run.
    let frozen = IndexerRecipe { lm_lr: None, ..recipe };
    assert!(prepare(&base, &frozen, &path("whole"), true).is_err());
}

#[test]
fn a_loss_that_is_not_finite_changes_neither() {
    let base = checkpoint("glm_dsa_tiny");
    let recipe = recipe_of(&base, (0, 6));
    let folder = tempfile::tempdir().unwrap();
    let mut run = prepare(&base, &recipe, &folder.path().join("s"), false).unwrap();
    run.step(&|| false).unwrap();
    run.spoil();
    let before: Vec<Vec<f32>> = all(&run).into_iter().map(<[f32]>::to_vec).collect();
    let error = run.step(&|| false).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { what: "language-model loss", step: 1, .. }), "{error}");
    assert!(all(&run) == before, "no indexer has moved");
}

#[test]
fn what_could_not_be_written_or_would_do_nothing_is_refused() {
    let base = checkpoint("llama_rope3");
    let layers = base.config().num_hidden_layers;
    let recipe = IndexerRecipe { lm_lr: Some(1e-3), ..recipe(&"F".repeat(layers)) };
    let error = prepare(&base, &recipe, Path::new("never"), false).err().unwrap().to_string();
    assert!(error.contains("DSA checkpoint"), "{error}");
    let recipe = recipe_of(&checkpoint("glm_dsa_tiny"), (3, 0));
    let error = prepare(&checkpoint("glm_dsa_tiny"), &recipe, Path::new("never"), false).err().unwrap().to_string();
    assert!(error.contains("which has no steps"), "{error}");
}
