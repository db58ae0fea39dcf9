//! Attention of one layer with its index source, the same for MLA and GQA.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::clock::Clock;
use super::gqa::Gqa;
use super::heads::Heads;
use super::indexer::{Indexer, IndexerInput, Projected};
use super::mla::Mla;
use super::ops::{
    Allowed, Indices, MlaShape, Picked, Rotary, indexer_scores, mean_attention, mean_attention_within, mla_attention,
    prefers_grouped, prefers_latent, runs_sparse, select, sparse_expanded, sparse_grouped, sparse_latent, top_k_rows,
};
use super::pass::{Attend, Ops, Pass};
use super::weights::{Linear, Scope};
use super::{ModelError, Result, rope};
use crate::checkpoint::{self, Config};
use crate::domain::Selection;

/// Query rows whose attention is held at once while the oracle chooses.
const ORACLE_ROWS: usize = 256;

/// Attention weights of one layer.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    layer: usize,
    heads: Arc<dyn Heads>,
    out: Linear,
    indexer: Option<Indexer>,
    /// Whether the layer's own attention chooses, rather than an indexer.
    oracle: bool,
    shape: MlaShape,
    scale: f64,
    topk: usize,
}

/// What attention gives besides its output.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) indices: Option<Indices>,
    pub(super) own: Option<Indices>,
    pub(super) scores: Option<Tensor>,
    pub(super) probs: Option<Tensor>,
}

/// What one forward works on.
struct Operands<'a> {
    /// The normed input.
    x: &'a Tensor,
    rotary: &'a Rotary,
    /// What the indexer's queries are made from.
    source: Tensor,
    q: Tensor,
    kept: Tensor,
    shared: Tensor,
}

impl Attention {
    pub(super) fn load(scope: &Scope, config: &Config, layer: usize) -> Result<Self> {
        let shape = MlaShape::of(config);
        let heads: Arc<dyn Heads> = match config.attention {
            checkpoint::Attention::Mla => Arc::new(Mla::load(scope, config, shape)?),
            checkpoint::Attention::Gqa { num_key_value_heads, .. } => {
                Arc::new(Gqa::load(scope, config, num_key_value_heads)?)
            }
            checkpoint::Attention::MiniMaxM3(_) | checkpoint::Attention::SharedRows => {
                return Err(ModelError::Unsupported {
                    family: config.family.model_type(),
                    what: "selection of tokens",
                });
            }
        };
        let oracle = config.index.is_oracle();
        Ok(Self {
            layer,
            heads,
            out: Linear::load(scope, "o_proj", (config.hidden_size, shape.heads * shape.value), config.attention_bias)?,
            indexer: if oracle { None } else { Indexer::load(&scope.at("indexer"), config)? },
            oracle,
            shape,
            scale: rope::softmax_scale(config),
            topk: config.index_topk,
        })
    }

    /// Returns what the layer's indexer works on, from the normed input `x`.
    pub(super) fn indexer_input(&self, x: Tensor) -> Result<IndexerInput> {
        let source = self.heads.source(&x)?;
        Ok(IndexerInput { x, source })
    }

    /// Puts another indexer in the place of this one.
    pub(super) fn set_indexer(&mut self, indexer: Indexer) {
        self.indexer = Some(indexer);
    }

    /// Returns whether the layer has something to select with.
    pub(super) fn can_select(&self) -> bool {
        self.oracle || self.indexer.is_some()
    }

    /// Attends from the normed input `x` `[B, T, hidden]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        pass: &mut Pass,
        clock: &mut Clock,
    ) -> Result<(Tensor, Extras)> {
        let (source, q) = self.heads.queries(x, rotary)?;
        let (kept, shared) = self.heads.keys(x, rotary)?;
        let (kept, shared) = match &mut pass.cache {
            Some(cache) => cache.append(&kept, &shared)?,
            None => (kept, shared),
        };
        let operands = Operands { x, rotary, source, q, kept, shared };
        clock.lap(|t| &mut t.attention)?;

        let mut extras = Extras::default();
        let allowed = match pass.attend {
            Attend::Dense => Allowed::Causal,
            Attend::Given(indices) => Allowed::Selected(indices.clone()),
            Attend::Own => Allowed::Selected(self.choose(&operands, pass, clock, &mut extras)?),
        };
        if let Allowed::Selected(indices) = &allowed {
            extras.indices = Some(indices.clone());
        }
        if !matches!(pass.attend, Attend::Own) {
            if pass.shadow && self.can_select() {
                extras.own = Some(self.choose(&operands, pass, clock, &mut extras)?);
            } else if pass.want_scores && self.indexer.is_some() {
                extras.scores = Some(self.scores(&operands, pass)?);
                clock.lap(|t| &mut t.indexer)?;
            }
        }
        pass.check()?;
        let Operands { q, kept, shared, .. } = &operands;
        let heads = match &allowed {
            Allowed::Selected(indices) if pass.ops == Ops::Fast && !pass.want_probs && self.runs_sparse(q, kept) => {
                self.sparse(q, kept, shared, Picked { indices, stop: pass.stop })?
            }
            _ => {
                let kv = self.heads.expand(kept)?;
                let (heads, probs) = mla_attention(q, &kv, shared, self.shape, self.scale, &allowed, pass.want_probs)?;
                extras.probs = probs;
                heads
            }
        };
        pass.check()?;
        let out = self.out.forward(&heads)?;
        clock.lap(|t| &mut t.attention)?;
        Ok((out, extras))
    }

    /// Returns the head-averaged dense attention `[R, T]` of the queries at `rows`, from the normed input `x` `[1, T, hidden]`.
    pub(super) fn mean_attention(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        rows: &[usize],
        support: Option<&Selection>,
    ) -> Result<Tensor> {
        let (x, rotary) = (x.detach(), Rotary { cos: rotary.cos.detach(), sin: rotary.sin.detach() });
        let at = Tensor::from_iter(rows.iter().map(|&r| r as u32), x.device())?;
        let (_, q) = self.heads.queries(&x.index_select(&at, 1)?, &rotary.select(rows)?)?;
        let (kept, shared) = self.heads.keys(&x, &rotary)?;
        let (q, keys) = self.heads.scored(&q.squeeze(0)?, &kept.squeeze(0)?, &shared.squeeze(0)?)?;
        Ok(mean_attention_within(&q, &keys, rows, self.scale, support)?)
    }

    fn runs_sparse(&self, q: &Tensor, kept: &Tensor) -> bool {
        runs_sparse(q, kept, self.shape, self.heads.latent().and_then(|weight| weight.dim(1).ok()))
    }

    /// Attends to the selected keys only, in the cheaper of the two forms.
    fn sparse(&self, q: &Tensor, kept: &Tensor, shared: &Tensor, picked: Picked) -> Result<Tensor> {
        if !q.device().is_cpu() {
            return Ok(match self.heads.latent() {
                Some(weight) => sparse_latent(q, kept, shared, weight, self.shape, self.scale, picked)?,
                None => sparse_grouped(q, &self.heads.expand(kept)?, self.shape, self.scale, picked)?,
            });
        }
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        let (q32, shared) = (wide(q)?, wide(shared)?);
        let out = match self.heads.latent() {
            Some(weight) if prefers_latent(self.shape, weight.dim(1)?) => {
                sparse_latent(&q32, &wide(kept)?, &shared, &wide(weight)?, self.shape, self.scale, picked)?
            }
            Some(_) => {
                let kv = wide(&self.heads.expand(kept)?)?;
                sparse_expanded(&q32, &kv, &shared, self.shape, self.scale, picked)?
            }
            None if prefers_grouped(kept.dim(1)?, self.topk) => {
                sparse_grouped(&q32, &wide(&self.heads.expand(kept)?)?, self.shape, self.scale, picked)?
            }
            None => {
                let (allowed, kv) = (Allowed::Selected(picked.indices.clone()), wide(&self.heads.expand(kept)?)?);
                mla_attention(&q32, &kv, &shared, self.shape, self.scale, &allowed, false)?.0
            }
        };
        Ok(out.to_dtype(q.dtype())?)
    }

    /// Returns the layer's own selection.
    fn choose(&self, o: &Operands, pass: &mut Pass, clock: &mut Clock, extras: &mut Extras) -> Result<Indices> {
        if self.oracle {
            return self.oracle(o, pass, clock);
        }
        if pass.want_scores {
            let scores = self.scores(o, pass)?;
            clock.lap(|t| &mut t.indexer)?;
            let indices = top_k_rows(&scores.detach(), self.topk)?;
            clock.lap(|t| &mut t.topk)?;
            extras.scores = Some(scores);
            return Ok(indices);
        }
        let stop = pass.stop;
        let (indexer, p) = self.project(o, pass)?;
        clock.lap(|t| &mut t.indexer)?;
        // In f32 the reference form selects as the oracle does, whatever the model's dtype.
        let form = |x: &Tensor| if pass.ops == Ops::Reference { x.to_dtype(DType::F32) } else { Ok(x.clone()) };
        let (q, k) = (form(&p.q)?, form(&p.k)?);
        let (indices, scoring, selecting) = select(&q, &k, &p.w, indexer.scale(), self.topk, stop, clock.runs())?;
        clock.split(scoring, selecting);
        Ok(indices)
    }

    /// Selects the keys to which the layer's own dense attention, averaged over heads, gives most.
    fn oracle(&self, o: &Operands, pass: &Pass, clock: &mut Clock) -> Result<Indices> {
        let (b, t, _) = o.q.dims3()?;
        let keys = o.kept.dim(1)?;
        let mut selections = Vec::with_capacity(b);
        for n in 0..b {
            let (q, kept, shared) =
                (sequence(&o.q, n)?.detach(), sequence(&o.kept, n)?.detach(), sequence(&o.shared, n)?.detach());
            let mut selection = Selection::with_capacity(t, self.topk.min(keys));
            for start in (0..t).step_by(ORACLE_ROWS) {
                pass.check()?;
                let rows = ORACLE_ROWS.min(t - start);
                let end = keys - t + start + rows;
                let (q, k) = self.heads.scored(
                    &q.narrow(0, start, rows)?,
                    &kept.narrow(0, 0, end)?,
                    &shared.narrow(0, 0, end)?,
                )?;
                let positions: Vec<usize> = (end - rows..end).collect();
                let mean = mean_attention(&q, &k, &positions, self.scale)?;
                clock.lap(|t| &mut t.indexer)?;
                top_k_rows(&mean.unsqueeze(0)?, self.topk)?.sets()?[0].rows().for_each(|row| selection.push(row));
                clock.lap(|t| &mut t.topk)?;
            }
            selections.push(selection);
        }
        Ok(selections.into())
    }

    /// Runs the indexer's projections; with a cache, the keys of earlier tokens come before those of this call.
    fn project(&self, o: &Operands, pass: &mut Pass) -> Result<(&Indexer, Projected)> {
        let indexer = self.indexer.as_ref().ok_or(ModelError::NoIndexer(self.layer))?;
        let mut projected = indexer.project(o.x, &o.source, o.rotary)?;
        if let Some(cache) = &mut pass.cache {
            projected.k = cache.append_index(self.layer, &projected.k)?;
        }
        Ok((indexer, projected))
    }

    fn scores(&self, o: &Operands, pass: &mut Pass) -> Result<Tensor> {
        let (indexer, p) = self.project(o, pass)?;
        Ok(indexer_scores(&p.q, &p.k, &p.w, indexer.scale())?)
    }
}

/// Returns one sequence, `[B, …]` to `[…]`, as a view: `Tensor::get` copies what has no columns, as what grouped heads
/// share, and a GPU allocates no zero bytes.
fn sequence(x: &Tensor, n: usize) -> candle_core::Result<Tensor> {
    x.narrow(0, n, 1)?.squeeze(0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_sequence_without_columns_is_a_view_and_allocates_nothing() {
        let x = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        for columns in [4, 0] {
            let one = sequence(&x.narrow(2, 0, columns).unwrap(), 1).unwrap();
            assert_eq!(one.dims(), [3, columns]);
            // A copy would begin at its own start.
            assert_eq!(one.layout().start_offset(), 12);
        }
    }
}
