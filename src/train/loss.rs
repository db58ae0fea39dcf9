//! What each stage minimises, and its gradients.

use candle_core::{DType, Device, Tensor};

use super::data::Sequence;
use super::optimizer::Gradients;
use super::params::Params;
use super::{Stage, TrainError};
use crate::checkpoint::Config;
use crate::domain::{Pattern, Subject};
use crate::model::ops::{Allowed, cross_entropy, kl};
use crate::model::{At, Entry, Forward, Indices, Model, Ops, Order, Ran, Route, Visitor, Walk, Weights};

/// What a step, or a part of it, found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Mean loss of the language model, nats per token; `None` where it was not computed.
    pub lm: Option<f64>,
    /// KL from attention to the indexer, mean over layers, nats; `None` where it was not computed.
    pub kl: Option<f64>,
    /// Per layer: how often each expert was chosen; `None` for dense layers.
    pub load: Vec<Option<Vec<u32>>>,
}

/// Both losses of some sequences, as tensors of one graph.
pub struct Losses {
    /// Mean loss of the language model; `None` in the warm-up.
    pub lm: Option<Tensor>,
    /// KL summed over layers; `None` in the dense stage.
    pub kl: Option<Tensor>,
    /// As in [`Measured`].
    pub load: Vec<Option<Vec<u32>>>,
    /// Per layer: the keys attended to; `None` under dense attention. Tests hold them fixed.
    #[cfg_attr(not(test), allow(dead_code))]
    pub indices: Vec<Option<Indices>>,
}

/// Runs the model forward on sequences and returns the losses of `stage`.
///
/// In the sparse stage a layer attends to the `given` keys where there are any, to its own indexer's otherwise.
///
/// # Errors
/// [`TrainError::Model`].
pub fn losses(
    model: &Model,
    stage: Stage,
    sequences: &[Sequence],
    given: &[Option<Indices>],
) -> Result<Losses, TrainError> {
    let ids: Vec<Vec<u32>> = sequences.iter().map(|s| s.ids.clone()).collect();
    let x = model.embed(&ids)?;
    let inputs = model.inputs(&ids, 0)?;
    let subject = match stage {
        Stage::Sparse => Subject::Pattern(Pattern::all_full(model.config().num_hidden_layers)?),
        Stage::Dense | Stage::Warmup => Subject::Dense,
    };
    let walk = Walk { want_scores: stage != Stage::Dense, ..Walk::new(std::slice::from_ref(&subject), Ops::Reference) };
    let mut forward = [Forward::new(0, &inputs, 1, (0, Entry::first(x)))];
    let given = if stage == Stage::Sparse { given } else { &[] };
    let mut sums = Sums { given, kl: None, load: Vec::new(), indices: Vec::new() };
    walk.run(Weights::Resident(model), Order::Sequences, &mut forward, &mut sums)?;
    let Sums { kl, load, indices, .. } = sums;
    let [forward] = forward;
    let x = forward.into_hidden()?;
    let lm = match stage {
        Stage::Warmup => None,
        Stage::Dense | Stage::Sparse => {
            let logits = model.logits(&x)?.reshape(((), model.config().vocab_size))?;
            let targets: Vec<u32> = sequences.iter().flat_map(|s| s.targets.iter().copied()).collect();
            Some(cross_entropy(&logits, &targets)?.mean_all()?)
        }
    };
    Ok(Losses { lm, kl, load, indices })
}

/// Sums the divergences of the layers of a forward.
struct Sums<'a> {
    given: &'a [Option<Indices>],
    kl: Option<Tensor>,
    load: Vec<Option<Vec<u32>>>,
    indices: Vec<Option<Indices>>,
}

impl Visitor<TrainError> for Sums<'_> {
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, TrainError> {
        Ok(self.given.get(at.layer).and_then(Option::as_ref).map_or(route, Route::Given))
    }

    fn ran(&mut self, _: &At, ran: &Ran) -> Result<(), TrainError> {
        let out = &ran.output;
        if let (Some(scores), Some(probs)) = (&out.scores, &out.probs) {
            let support = out.indices.clone().map_or(Allowed::Causal, Allowed::Selected);
            let term = kl(scores, probs, &support)?;
            self.kl = Some(self.kl.take().map_or(Ok(term.clone()), |sum| term + sum)?);
        }
        self.load.push(out.expert_load.clone());
        self.indices.push(out.indices.clone());
        Ok(())
    }
}

/// Computes gradients of `stage`'s losses for one micro-batch, times `share`, its part of the batch.
///
/// The sum of both losses has the right gradients for both: the indexers' input is detached inside the model, so the
/// LM loss gives them nothing, and the KL gives the model nothing.
///
/// # Errors
/// [`TrainError::Model`].
pub fn gradients(
    params: &Params,
    config: &Config,
    stage: Stage,
    sequences: &[Sequence],
    share: f64,
) -> Result<(Measured, Gradients), TrainError> {
    let leaves = params.leaves(Some(stage))?;
    let model = Model::new(config.clone(), &leaves, &Device::Cpu, DType::F32)?;
    let Losses { lm, kl, load, .. } = losses(&model, stage, sequences, &[])?;
    let value = |loss: &Option<Tensor>| loss.as_ref().map(|l| l.to_scalar::<f32>().map(f64::from)).transpose();
    let layers = config.num_hidden_layers as f64;
    let measured = Measured { lm: value(&lm)?, kl: value(&kl)?.map(|sum| sum / layers), load };
    let total = match (lm, kl) {
        (Some(lm), Some(kl)) => Some((lm + kl)?),
        (one, other) => one.or(other),
    };
    let Some(total) = total else { return Ok((measured, vec![None; params.0.len()])) };
    let mut store = (total * share)?.backward()?;
    let grads = params.0.iter().map(|p| {
        let grad = leaves.get(&p.name).filter(|_| p.kind.is_trained(stage)).and_then(|leaf| store.remove(leaf));
        grad.map(|g| g.flatten_all()?.to_vec1::<f32>()).transpose()
    });
    Ok((measured, grads.collect::<Result<_, _>>()?))
}

/// Adds gradients of another part of the batch.
pub fn add(sum: &mut Gradients, part: Gradients) {
    for (sum, part) in sum.iter_mut().zip(part) {
        match (sum, part) {
            (Some(sum), Some(part)) => sum.iter_mut().zip(part).for_each(|(s, p)| *s += p),
            (sum @ None, part) => *sum = part,
            (Some(_), None) => {}
        }
    }
}

impl Measured {
    /// Averages the parts of a batch, which are of equal size, and sums their loads.
    pub fn mean(parts: &[Self]) -> Self {
        let mean = |value: fn(&Self) -> Option<f64>| {
            let values: Vec<f64> = parts.iter().filter_map(value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let mut load: Vec<Option<Vec<u32>>> = Vec::new();
        for part in parts {
            load.resize(part.load.len(), None);
            for (sum, part) in load.iter_mut().zip(&part.load) {
                match (sum, part) {
                    (Some(sum), Some(part)) => sum.iter_mut().zip(part).for_each(|(s, p)| *s += p),
                    (sum, part) => *sum = part.clone().or(sum.take()),
                }
            }
        }
        Self { lm: mean(|p| p.lm), kl: mean(|p| p.kl), load }
    }
}

/// Returns the summed loss, nats, and the number of targets of a text's sequences under `stage`'s attention.
///
/// # Errors
/// [`TrainError::Model`].
pub fn evaluate(model: &Model, stage: Stage, sequences: &[Sequence]) -> Result<(f64, usize), TrainError> {
    let stage = if stage == Stage::Sparse { Stage::Sparse } else { Stage::Dense };
    let mut sum = 0.0;
    for sequence in sequences {
        let lm = losses(model, stage, std::slice::from_ref(sequence), &[])?.lm;
        let lm = lm.map(|l| l.to_scalar::<f32>()).transpose()?.unwrap_or_default();
        sum += f64::from(lm) * sequence.targets.len() as f64;
    }
    Ok((sum, sequences.iter().map(|s| s.targets.len()).sum()))
}
