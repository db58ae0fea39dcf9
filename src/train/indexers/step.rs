//! One step: the frozen model runs layer by layer, and each trained indexer meets the attention that it should predict.

use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::recipe::{IndexerRecipe, SparseTarget};
use crate::checkpoint::Config;
use crate::domain::{Selection, Subject};
use crate::model::ops::RowTargets;
use crate::model::{
    At, Entry, Forward, Indexer, IndexerInput, Indices, Model, Ops, Order, Ran, Rotary, Route, Visitor, Walk, Weights,
};
use crate::train::TrainError;
use crate::train::optimizer::Gradients;
use crate::train::params::Params;

/// What a step found for one indexer, nats per row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Mean over the served layers of KL(p_j ‖ q): what training lowers.
    pub kl: f64,
    /// The part of it that no indexer could lower, mean KL(p_j ‖ p̄) to the layers' average; 0 for a single layer.
    pub floor: f64,
}

/// What a step found: for each trained indexer its divergence and its gradients.
pub type Found = Vec<(Divergence, Gradients)>;

/// What came into every layer of a forward, and which keys it attended to: what a way back needs.
#[derive(Default)]
pub(super) struct Trail {
    /// `[1, T, hidden]` each; the last one left the last layer.
    streams: Vec<Tensor>,
    /// `None` under dense attention.
    indices: Vec<Option<Indices>>,
}

impl Trail {
    /// Returns what came into each layer, and the keys.
    pub(super) fn layers(&self) -> impl DoubleEndedIterator<Item = (&Tensor, Option<&Indices>)> + ExactSizeIterator {
        self.streams.iter().zip(self.indices.iter().map(Option::as_ref))
    }

    /// Returns what left the last layer.
    ///
    /// # Errors
    /// Where no layer has run.
    pub(super) fn end(&self) -> Result<&Tensor, TrainError> {
        self.streams.last().ok_or_else(|| candle_core::Error::Msg("no layer has run".into()).into())
    }
}

/// The average of the served layers' attention, as it comes in.
pub(super) struct Average {
    /// Σ over layers so far of p_j, renormalised over each row's support.
    sum: Vec<f32>,
    /// Σ over layers and rows of Σ p ln p.
    entropy: f64,
    layers: usize,
}

/// An indexer whose layers are passing.
struct Open {
    /// Its place in the recipe's list of layers.
    index: usize,
    indexer: Indexer,
    leaves: Vec<Tensor>,
    input: IndexerInput,
    support: Option<Arc<Selection>>,
    average: Average,
}

/// Returns Σ p ln p.
fn negentropy(p: &[f32]) -> f64 {
    p.iter().filter(|p| **p > 0.0).map(|&p| f64::from(p) * f64::from(p).ln()).sum()
}

impl Average {
    pub(super) fn new(len: usize) -> Self {
        Self { sum: vec![0.0; len], entropy: 0.0, layers: 0 }
    }

    /// Adds a layer's attention `[R, T]`, renormalised over each row's support.
    pub(super) fn add(&mut self, probs: &[f32], width: usize, support: Option<&Selection>, alone: bool) {
        if alone {
            // The loss renormalises; a single layer needs no average.
            self.sum.copy_from_slice(probs);
            self.layers = 1;
            return;
        }
        let mut kept = Vec::new();
        for (r, (sum, p)) in self.sum.chunks_mut(width).zip(probs.chunks(width)).enumerate() {
            match support {
                None => {
                    sum.iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
                    self.entropy += negentropy(p);
                }
                Some(selection) => {
                    let keys = selection.row(r);
                    kept.clear();
                    kept.extend(keys.iter().map(|&j| p[j as usize]));
                    let mass: f32 = kept.iter().sum();
                    if mass > 0.0 {
                        kept.iter_mut().for_each(|p| *p /= mass);
                        keys.iter().zip(&kept).for_each(|(&j, p)| sum[j as usize] += p);
                        self.entropy += negentropy(&kept);
                    }
                }
            }
        }
        self.layers += 1;
    }

    /// Returns the mean over layers, and the mean per row of mean KL(p_j ‖ p̄) for `rows` rows that count.
    pub(super) fn finish(mut self, rows: usize) -> (Vec<f32>, f64) {
        if self.layers < 2 {
            return (self.sum, 0.0);
        }
        let layers = self.layers as f32;
        self.sum.iter_mut().for_each(|p| *p /= layers);
        let floor = (self.entropy / f64::from(layers) - negentropy(&self.sum)) / rows.max(1) as f64;
        (self.sum, floor)
    }
}

/// Runs one sequence through the frozen `model` and returns divergence and gradients of every trained indexer.
///
/// `rows` are the sampled query positions, ascending. In the sparse stage the trained layers select with `params`, the
/// layers that they serve use the same keys, Full layers that are not trained use their own indexer or, without one,
/// attend to everything. With a `trail`, all layers run and leave there what a way back through the model needs.
///
/// # Errors
/// [`TrainError::Model`]; [`TrainError::Stopped`] once `stop` says so, which is asked before each layer.
pub fn step(
    model: &Model,
    config: &Config,
    recipe: &IndexerRecipe,
    params: &[Params],
    (ids, rows, sparse): (&[u32], &[usize], bool),
    stop: &dyn Fn() -> bool,
    trail: Option<&mut Trail>,
) -> Result<Found, TrainError> {
    let inputs = model.inputs(&[ids.to_vec()], 0)?;
    let layers = model.config().num_hidden_layers;
    let last = recipe.layers.iter().map(|&l| recipe.served(l).end).max().unwrap_or(0);
    let subject = if sparse { Subject::Pattern(recipe.pattern) } else { Subject::Dense };
    let walk = Walk {
        detach: true,
        // What the last served layer gives is needed only by a way back.
        end: Some(if trail.is_some() { layers } else { last.saturating_sub(1) }),
        ..Walk::new(std::slice::from_ref(&subject), Ops::Fast)
    };
    let entry = Entry::first(model.embed(&[ids.to_vec()])?.detach());
    let mut forward = [Forward::new(0, &inputs, 1, (0, entry))];
    let (rows, width) = (Arc::new(rows.to_vec()), ids.len());
    let found = Vec::with_capacity(recipe.layers.len());
    let mut step =
        Step { model, config, recipe, params, rows, width, sparse, stop, own: None, open: None, found, trail };
    walk.run(Weights::Resident(model), Order::Sequences, &mut forward, &mut step)?;
    let [forward] = forward;
    if step.trail.is_none() && last > 0 {
        step.meet(last - 1, &forward.groups[0].entry.hidden, &inputs.rotary)?;
    }
    if let Some(trail) = step.trail {
        trail.streams.push(forward.into_hidden()?);
    }
    Ok(step.found)
}

/// A step under way.
struct Step<'a> {
    model: &'a Model,
    config: &'a Config,
    recipe: &'a IndexerRecipe,
    params: &'a [Params],
    rows: Arc<Vec<usize>>,
    width: usize,
    sparse: bool,
    stop: &'a dyn Fn() -> bool,
    /// What the indexer under training selected for the layer that is entered.
    own: Option<Indices>,
    open: Option<Open>,
    found: Found,
    trail: Option<&'a mut Trail>,
}

impl Step<'_> {
    /// Lets the indexer that is open meet the attention of a layer that is entered with `x`.
    fn meet(&mut self, layer: usize, x: &Tensor, rotary: &Rotary) -> Result<(), TrainError> {
        if (self.stop)() {
            return Err(TrainError::Stopped);
        }
        let Self { model, recipe, rows, width, .. } = self;
        self.own = None;
        if let Ok(index) = recipe.layers.binary_search(&layer) {
            let (indexer, leaves) = leaves(&self.params[index], self.config, layer)?;
            let input = model.indexer_input(layer, x)?;
            if self.sparse {
                self.own = Some(indexer.select(&input, rotary, recipe.index_topk)?);
            }
            let support = self.own.as_ref().map(|own| own.picked(0, rows)).transpose()?.map(Arc::new);
            let average = Average::new(rows.len() * *width);
            self.open = Some(Open { index, indexer, leaves, input, support, average });
        }
        let serves = |open: &Open| recipe.served(recipe.layers[open.index]);
        if let Some(current) = self.open.as_mut().filter(|open| serves(open).contains(&layer)) {
            let support = current.support.as_deref().filter(|_| recipe.sparse_target == SparseTarget::PerHead);
            let probs = model.mean_attention_within(layer, x, rotary, rows, support)?;
            let probs = probs.flatten_all()?.to_vec1::<f32>()?;
            let alone = serves(current).len() == 1;
            current.average.add(&probs, *width, current.support.as_deref(), alone);
        }
        if let Some(done) = self.open.take_if(|open| serves(open).end == layer + 1) {
            self.found.push(done.finish(rows, rotary)?);
        }
        Ok(())
    }
}

impl Visitor<TrainError> for Step<'_> {
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, TrainError> {
        self.meet(at.layer, &at.entry.hidden, &at.inputs.rotary)?;
        let source = self.recipe.pattern.source(at.layer);
        // What has neither a trained indexer nor one of its own attends to everything, and so do the layers it serves.
        let selects = self.recipe.layers.contains(&source) || self.model.has_indexer(source);
        Ok(self.own.as_ref().map_or(if selects { route } else { Route::Dense }, Route::Given))
    }

    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), TrainError> {
        if let Some(trail) = &mut self.trail {
            trail.streams.push(at.entry.hidden.clone());
            trail.indices.push(ran.output.indices.clone());
        }
        Ok(())
    }
}

/// Builds an indexer whose weights are leaves of a graph.
fn leaves(params: &Params, config: &Config, layer: usize) -> Result<(Indexer, Vec<Tensor>), TrainError> {
    let tensors = params.leaves(Some(crate::train::Stage::Warmup))?;
    let indexer = Indexer::of(&tensors, config, layer)?;
    Ok((indexer, params.0.iter().map(|p| tensors[&p.name].clone()).collect()))
}

impl Open {
    /// Computes loss and gradients, once every served layer has passed.
    fn finish(self, rows: &Arc<Vec<usize>>, rotary: &Rotary) -> Result<(Divergence, Gradients), TrainError> {
        let choice = |r: usize| self.support.as_ref().map_or(rows[r] + 1, |s| s.row(r).len()) > 1;
        let counted = (0..rows.len()).filter(|&r| choice(r)).count();
        let (probs, floor) = self.average.finish(counted);
        let target = RowTargets { rows: Arc::clone(rows), probs: Arc::new(probs), support: self.support };
        let loss = self.indexer.divergence(&self.input, rotary, &target)?;
        let mut store = loss.backward()?;
        let gradients = self
            .leaves
            .iter()
            .map(|leaf| store.remove(leaf).map(|g| g.flatten_all()?.to_vec1::<f32>()).transpose())
            .collect::<Result<_, _>>()?;
        let kl = f64::from(loss.to_scalar::<f32>()?) + floor;
        Ok((Divergence { kl, floor }, gradients))
    }
}
