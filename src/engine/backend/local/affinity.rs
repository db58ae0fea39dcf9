//! How well layers could lend each other their indices, measured under the reference: what rules without a loss go by.

use std::time::Instant;

use candle_core::{D, DType, Tensor};

use super::LocalBackend;
use super::forward::Batch;
use crate::analysis::mass_recall;
use crate::domain::{Query, Selection, Site, Subject};
use crate::engine::{BackendError, Cancel};
use crate::model::{At, Attend, Entry, Forward, Indices, Order, Pass, Ran, Stop, Walk, Weights};
use crate::search::{Affinity, AffinityKind};

/// Tokens that are enough for a mean per pair of layers; whole batches are run.
const TOKENS: usize = 4096;
/// Queries per sequence whose dense attention is looked at.
const QUERIES: usize = 64;

/// Measures an affinity on the first sequences of the calibration set.
pub(super) fn affinity(
    backend: &mut LocalBackend,
    kind: AffinityKind,
    cancel: &Cancel,
) -> Result<Affinity, BackendError> {
    let started = Instant::now();
    let layers = backend.info.constraints.len();
    let mut mass = mass_recall::Accumulator::new(layers, backend.info.index_topk);
    let mut cosines = Cosines { layers, sums: vec![0.0; layers * layers], queries: 0 };
    let (mut tokens, mut sequences) = (0, 0);
    let (subjects, stale) = ([Subject::Pattern(backend.info.reference)], || cancel.is_stale());
    for batch in 0..backend.runner.batches.len() {
        if tokens >= TOKENS {
            break;
        }
        let ids = &backend.runner.batches[batch].ids;
        if ids[0].len() <= backend.info.topk().first() {
            continue;
        }
        tokens += ids.iter().map(Vec::len).sum::<usize>();
        sequences += ids.len();
        let mut sets: Vec<Indices> = Vec::new();
        let mut add = |at: &At, ran: &Ran| {
            let Some(Site(site)) = at.site else { return Ok(()) };
            sets.extend(ran.output.indices.clone());
            match kind {
                AffinityKind::MassRecall => add_mass(backend, at, site, &sets, &mut mass),
                AffinityKind::OutputCosine => cosines.add(backend, at, site, &sets),
            }
        };
        let Batch { ids, inputs, .. } = &backend.runner.batches[batch];
        let mut forward = [Forward::new(batch, inputs, 1, (0, Entry::first(backend.runner.model.embed(ids)?)))];
        let walk = Walk { stop: Stop::when(&stale), ..Walk::new(&subjects, backend.settings.ops) };
        walk.run(Weights::Resident(&backend.runner.model), Order::Sequences, &mut forward, &mut add)?;
    }
    let values = match kind {
        AffinityKind::MassRecall => {
            let mass = mass.finish(QUERIES, 0);
            let value = |at: usize| mass.get(at % layers, at / layers).map_or(0.0, |e| e.value);
            (0..layers * layers).map(value).collect()
        }
        AffinityKind::OutputCosine => cosines.sums.iter().map(|sum| sum / cosines.queries.max(1) as f64).collect(),
    };
    let share = sequences as f64 / backend.info.sequences as f64;
    // A cosine runs the attention of a layer once per possible lender; that is counted as if it were the whole layer.
    let runs = match kind {
        AffinityKind::MassRecall => layers,
        AffinityKind::OutputCosine => layers + layers * (layers + 1) / 2,
    };
    Ok(Affinity { layers, values, layer_forwards: share * runs as f64, seconds: started.elapsed().as_secs_f64() })
}

fn add_mass(
    backend: &LocalBackend,
    at: &At,
    site: usize,
    sets: &[Indices],
    mass: &mut mass_recall::Accumulator,
) -> Result<(), BackendError> {
    let x = &at.entry.hidden;
    let (sequences, tokens, _) = x.dims3()?;
    let topk = backend.info.topk().first();
    // Evenly spread over the queries that see more than k keys.
    let drawn = QUERIES.min(tokens - topk);
    let rows: Vec<usize> = (0..drawn).map(|i| topk + i * (tokens - topk) / drawn).collect();
    for sequence in 0..sequences {
        let attention = at.weights.mean_attention(&x.narrow(0, sequence, 1)?, &at.inputs.rotary, &rows)?;
        let attention: Vec<f32> = attention.flatten_all()?.to_vec1()?;
        let queries: Vec<Query> =
            rows.iter().map(|&p| Query { sequence: sequence as u32, position: p as u32 }).collect();
        let picked: Vec<Selection> = sets.iter().map(|set| set.picked(sequence, &rows)).collect::<Result<_, _>>()?;
        mass.add(site, &queries, &attention, &picked);
    }
    Ok(())
}

struct Cosines {
    layers: usize,
    sums: Vec<f64>,
    queries: usize,
}

impl Cosines {
    /// Compares the layer's attention output under every earlier layer's set with that under its own.
    fn add(&mut self, backend: &LocalBackend, at: &At, site: usize, sets: &[Indices]) -> Result<(), BackendError> {
        let x = &at.entry.hidden;
        let (sequences, tokens, _) = x.dims3()?;
        let topk = backend.info.topk().first();
        let output = |set: &Indices| -> Result<Tensor, BackendError> {
            let mut pass = Pass { ops: backend.settings.ops, ..Pass::new(Attend::to(Some(set))) };
            let output = at.weights.attention(x, at.inputs, &mut pass)?;
            Ok(output.narrow(1, topk, tokens - topk)?.to_dtype(DType::F32)?)
        };
        let own = output(&sets[site])?;
        for (lender, set) in sets.iter().enumerate() {
            let other = output(set)?;
            let dot = |a: &Tensor, b: &Tensor| (a * b)?.sum(D::Minus1);
            let cosine = (dot(&own, &other)? / (dot(&own, &own)? * dot(&other, &other)?)?.sqrt()?)?;
            let sum = f64::from(cosine.sum_all()?.to_scalar::<f32>()?);
            self.sums[site * self.layers + lender] += sum;
        }
        if site + 1 == self.layers {
            self.queries += sequences * (tokens - topk);
        }
        Ok(())
    }
}
