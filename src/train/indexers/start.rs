//! What a run starts from, once it is known to make sense.

use candle_core::{DType, Device};

use super::recipe::IndexerRecipe;
use crate::checkpoint::{Checkpoint, Config, Sidecar, indexer_tensors};
use crate::domain::{Rng, SelectionUnit};
use crate::model::{CheckpointSource, TensorSource};
use crate::train::TrainError;
use crate::train::params::{Kind, Param, Params};

/// Stream of random numbers of the initial weights; the data use small numbers.
const WEIGHTS: u64 = 1 << 32;

/// Refuses what makes no sense.
pub(super) fn check(recipe: &IndexerRecipe, base: &Checkpoint, config: &Config) -> Result<(), TrainError> {
    let refuse = |reason: String, hint| Err(TrainError::Indexers { reason, hint });
    let (layers, own) = (config.num_hidden_layers, base.config());
    if own.unit() != SelectionUnit::Token {
        let (kind, units) = (own.family.model_type(), own.unit().plural());
        let reason = format!("models of type {kind} select {units}, and only indexers of single keys can be trained");
        return refuse(reason, "train on a checkpoint of GLM-5, DeepSeek-V3.2 or a dense model");
    }
    if recipe.layers.is_empty() || recipe.rows == 0 || recipe.all_steps() == 0 {
        let reason = "there is nothing to train: layers, rows and steps must be at least 1".to_owned();
        return refuse(reason, "give --steps or --sparse-steps, and a pattern with Full layers");
    }
    if recipe.lm_lr.is_some() && recipe.sparse_steps == 0 {
        let reason = "the rest of the model learns in the sparse stage, which has no steps".to_owned();
        return refuse(reason, "give --sparse-steps, or leave --lm-lr out");
    }
    if let Some(layer) = recipe.layers.iter().find(|&&l| l >= layers) {
        let reason = format!("layer {layer} does not exist; the model has layers 0 to {}", layers - 1);
        return refuse(reason, "'indexscope info MODEL' lists the layers");
    }
    if let Some(layer) = recipe.layers.iter().find(|&&l| !recipe.pattern.is_full(l)) {
        let reason = format!("layer {layer} is Shared in the pattern {}, so it has no indexer", recipe.pattern);
        return refuse(reason, "make that layer Full, or leave it out");
    }
    if recipe.lm_lr.is_some() && own.family.is_dense() {
        let reason = "the rest of the model is trained only where it is a DSA checkpoint".to_owned();
        return refuse(reason, "leave --lm-lr out: the indexers of a dense model are trained beside it");
    }
    let has_own = !own.family.is_dense() && (0..layers).any(|l| base.has_indexer(l));
    let (mine, theirs) = ((config.index_n_heads, config.index_head_dim), (own.index_n_heads, own.index_head_dim));
    if has_own && mine != theirs {
        let reason = format!(
            "the model's indexers have {} heads of {}, and all of one model must be alike, but {} of {} were asked for",
            theirs.0, theirs.1, mine.0, mine.1
        );
        return refuse(reason, "leave --heads and --dim out");
    }
    Ok(())
}

/// Returns the weights that an indexer starts from: the sidecar's, the checkpoint's own, or random ones.
pub(super) fn initial(
    checkpoint: &Checkpoint,
    start: Option<&Sidecar>,
    config: &Config,
    layer: usize,
    seed: u64,
) -> Result<Params, TrainError> {
    let started = match start {
        Some(sidecar) if sidecar.header().layers.contains(&layer) => Some(checkpoint.with_sidecar(sidecar)?),
        _ if !checkpoint.config().index.is_oracle() && checkpoint.has_indexer(layer) => Some(checkpoint.clone()),
        _ => None,
    };
    let source = started.map(|checkpoint| CheckpointSource { checkpoint, device: Device::Cpu, defer_experts: false });
    let mut rng = Rng::new(seed, WEIGHTS + layer as u64);
    let tensors = indexer_tensors(config, layer).into_iter().map(|demand| {
        let len = demand.shape.iter().product();
        let value = match &source {
            Some(source) => source.get(&demand.name, &demand.shape, DType::F32)?.flatten_all()?.to_vec1()?,
            None if demand.name.ends_with("norm.weight") => vec![1.0; len],
            None if demand.shape.len() < 2 => vec![0.0; len],
            None => {
                let scale = (demand.shape[1] as f64).sqrt().recip();
                (0..len).map(|_| (rng.normal() * scale) as f32).collect()
            }
        };
        Ok(Param::new(demand.name, demand.shape, Kind::Indexer, value))
    });
    Ok(Params(tensors.collect::<Result<_, TrainError>>()?))
}
