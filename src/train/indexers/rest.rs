//! The rest of the model: every weight but the indexers' and the routers' biases, trained by the language-model loss in
//! the sparse stage.
//!
//! The gradient goes back layer by layer: each layer runs forward again from what had come into it, on the keys that had
//! been selected, so that the activations of one layer are held at a time. Indexers get nothing from this loss.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use super::recipe;
use super::step::Trail;
use crate::checkpoint::{Checkpoint, Config, demands, indexer_tensors, layer_of};
use crate::model::ops::cross_entropy;
use crate::model::{Attend, CheckpointSource, Inputs, Model, Pass, TensorSource};
use crate::train::optimizer::{self, Gradients};
use crate::train::params::{Kind, Param, Params};
use crate::train::{Stage, TrainError};

/// Positions whose logits are held at once.
pub(super) const ROWS: usize = 256;

/// Weights that go on learning, and the tensors that stay as they are.
pub(super) struct Rest {
    pub(super) params: Params,
    /// Indexers and routers' biases.
    fixed: HashMap<String, Tensor>,
    /// The weights as they were when the model was last built.
    leaves: HashMap<String, Tensor>,
}

impl Rest {
    /// Reads every weight of the checkpoint in f32.
    pub(super) fn open(checkpoint: &Checkpoint, config: &Config) -> Result<Self, TrainError> {
        let source = CheckpointSource { checkpoint: checkpoint.clone(), device: Device::Cpu, defer_experts: false };
        let (mut params, mut fixed) = (Vec::new(), HashMap::new());
        for demand in demands(config) {
            let tensor = source.get(&demand.name, &demand.shape, DType::F32)?;
            if demand.name.ends_with("e_score_correction_bias") {
                fixed.insert(demand.name, tensor);
            } else {
                let value = tensor.flatten_all()?.to_vec1()?;
                params.push(Param::new(demand.name, demand.shape, Kind::Tuned, value));
            }
        }
        for layer in (0..config.num_hidden_layers).filter(|&l| checkpoint.has_indexer(l)) {
            for demand in indexer_tensors(config, layer) {
                let tensor = source.get(&demand.name, &demand.shape, DType::F32)?;
                fixed.insert(demand.name, tensor);
            }
        }
        Ok(Self { params: Params(params), fixed, leaves: HashMap::new() })
    }

    /// Builds the model of the weights as they are now.
    pub(super) fn model(&mut self, config: &Config) -> Result<Model, TrainError> {
        self.leaves = self.params.leaves(Some(Stage::Sparse))?;
        let mut all = self.fixed.clone();
        all.extend(self.leaves.iter().map(|(name, leaf)| (name.clone(), leaf.clone())));
        Ok(Model::new(config.clone(), &all, &Device::Cpu, DType::F32)?)
    }

    /// Returns the mean loss of a sequence, nats per token, and its gradients; `model` is the one last built.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] once `stop` says so, which is asked before each layer.
    pub(super) fn gradients(
        &self,
        model: &Model,
        trail: &Trail,
        (ids, targets): (&[u32], &[u32]),
        inputs: &Inputs,
        stop: &dyn Fn() -> bool,
    ) -> Result<(f64, Gradients), TrainError> {
        let mut found: Gradients = self.params.0.iter().map(|p| Some(vec![0.0; p.value.len()])).collect();
        let (mut loss, mut parts) = (0.0, Vec::new());
        for (block, targets) in targets.chunks(ROWS).enumerate() {
            let x = Var::from_tensor(&trail.end()?.narrow(1, block * ROWS, targets.len())?.contiguous()?)?; // 1 R H
            let nll = cross_entropy(&model.logits(&x)?.squeeze(0)?, targets)?.sum_all()?;
            loss += f64::from(nll.to_scalar::<f32>()?);
            let mut store = (nll / ids.len() as f64)?.backward()?;
            parts.push(of(&mut store, &x)?);
            self.collect(store, None, &mut found)?;
        }
        let mut slope = Tensor::cat(&parts, 1)?; // 1 T H: the loss's slope in the residual stream
        for (layer, (x, indices)) in trail.layers().enumerate().rev() {
            if stop() {
                return Err(TrainError::Stopped);
            }
            let x = Var::from_tensor(x)?;
            let mut pass = Pass::new(Attend::to(indices));
            let y = model.layer(layer, &x, inputs, &mut pass)?.hidden;
            let mut store = (y * slope)?.sum_all()?.backward()?;
            slope = of(&mut store, &x)?;
            self.collect(store, Some(layer), &mut found)?;
        }
        let store = (model.embed(&[ids.to_vec()])? * slope)?.sum_all()?.backward()?;
        self.collect(store, None, &mut found)?;
        Ok((loss / ids.len() as f64, found))
    }

    /// Changes the weights by one step of `AdamW`.
    pub(super) fn update(&mut self, grads: Gradients, rate: f64) -> Result<(), TrainError> {
        optimizer::update(&mut self.params, grads, &recipe::optimizer(), rate)
    }

    /// Returns indexers and routers' biases.
    #[cfg(test)]
    pub(super) fn fixed_tensors(&self) -> &HashMap<String, Tensor> {
        &self.fixed
    }

    /// Adds what a store holds for the weights of a layer, or of the model's ends.
    fn collect(&self, mut store: GradStore, layer: Option<usize>, found: &mut Gradients) -> Result<(), TrainError> {
        for (param, found) in self.params.0.iter().zip(found) {
            if layer_of(&param.name) != layer {
                continue;
            }
            if let (Some(found), Some(grad)) = (found, store.remove(&self.leaves[&param.name])) {
                let grad: Vec<f32> = grad.flatten_all()?.to_vec1()?;
                found.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g);
            }
        }
        Ok(())
    }
}

/// Takes the gradient of what came in.
fn of(store: &mut GradStore, x: &Var) -> Result<Tensor, TrainError> {
    let grad = store.remove(x).ok_or_else(|| candle_core::Error::Msg("the loss does not depend on its input".into()));
    Ok(grad?.detach())
}
