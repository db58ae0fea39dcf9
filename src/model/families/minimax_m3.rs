//! MiniMax-M3, the text part: grouped-query attention to blocks of keys, each group of heads with a selection of its own.
//!
//! The specification is transformers 5.23 (`minimax_m3_vl`). Layers that are no sites attend to every visible key.

use candle_core::Tensor;

use crate::checkpoint::{Attention, Config, MiniMaxM3};
use crate::model::clock::Clock;
use crate::model::feed::Feed;
use crate::model::gqa::Gqa;
use crate::model::heads::Heads;
use crate::model::inputs::Inputs;
use crate::model::layer::Block;
use crate::model::norm::Norm;
use crate::model::ops::{
    Allowed, BlockIndexer, Blocks, Indices, MlaShape, Pairing, Rotary, block_attention, mla_attention, rope,
    select_blocks,
};
use crate::model::pass::{Attend, LayerOutput, Ops, Pass};
use crate::model::weights::{Linear, Scope};
use crate::model::{ModelError, Result, rope as tables};

/// The weights of one layer, with its indexer if it is a site.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    layer: usize,
    attention_norm: Norm,
    heads: Gqa,
    out: Linear,
    indexer: Option<Indexer>,
    feed_norm: Norm,
    feed: Feed,
    blocks: Blocks,
    shape: MlaShape,
    scale: f64,
    family: &'static str,
}

/// The indexer of one site: a query head per group, one key head; scores are plain dot products.
#[derive(Clone, Debug)]
struct Indexer {
    query: Linear,
    key: Linear,
    query_norm: Norm,
    key_norm: Norm,
    dim: usize,
}

/// What attention gives beside its output.
#[derive(Default)]
struct Selected {
    used: Option<Indices>,
    own: Option<Indices>,
}

impl Decoder {
    /// Loads layer `l` of the model at `root`.
    pub(super) fn load(root: &Scope, config: &Config, l: usize) -> Result<Self> {
        let family = config.family.model_type();
        let Attention::MiniMaxM3(own) = config.attention else {
            return Err(ModelError::Unsupported { family, what: "other attention than that of MiniMax-M3" });
        };
        let MiniMaxM3 { num_key_value_heads: groups, head_dim, .. } = own;
        let (heads, hidden) = (config.num_attention_heads, config.hidden_size);
        let scope = root.at("model.layers").at(l);
        let attention = scope.at("self_attn");
        let indexer = own.sites.contains(l).then(|| Indexer::load(&attention.at("indexer"), config));
        Ok(Self {
            layer: l,
            attention_norm: Norm::load(&scope, "input_layernorm.weight", hidden, config)?,
            heads: Gqa::load(&attention, config, groups)?,
            out: Linear::load(&attention, "o_proj", (hidden, heads * head_dim), false)?,
            indexer: indexer.transpose()?.flatten(),
            feed_norm: Norm::load(&scope, "post_attention_layernorm.weight", hidden, config)?,
            feed: Feed::load(&scope, config, l)?,
            blocks: Blocks {
                groups,
                size: own.index_block_size,
                topk: config.index_topk,
                local: own.index_local_blocks,
            },
            shape: MlaShape { heads, nope: head_dim, rope: 0, value: head_dim },
            scale: tables::softmax_scale(config),
            family,
        })
    }

    /// Attends from the normed input `x` `[B, T, hidden]`.
    fn attend(&self, x: &Tensor, rotary: &Rotary, pass: &mut Pass, clock: &mut Clock) -> Result<(Tensor, Selected)> {
        if pass.want_scores || pass.want_probs {
            return Err(ModelError::Unsupported { family: self.family, what: "scores of single keys" });
        }
        let (_, q) = self.heads.queries(x, rotary)?;
        let (kv, nothing) = self.heads.keys(x, rotary)?;
        let (kv, nothing) = match &mut pass.cache {
            Some(cache) => cache.append(&kv, &nothing)?,
            None => (kv, nothing),
        };
        clock.lap(|t| &mut t.attention)?;
        let mut selected = Selected::default();
        match (&self.indexer, pass.attend) {
            (_, Attend::Dense) => {}
            (_, Attend::Given(indices)) => selected.used = Some(indices.clone()),
            (Some(indexer), Attend::Own) => selected.used = Some(self.select(indexer, x, rotary, pass, clock)?),
            (None, Attend::Own) => return Err(ModelError::NoIndexer(self.layer)),
        }
        if let Some(indexer) = self.indexer.as_ref().filter(|_| pass.shadow && !matches!(pass.attend, Attend::Own)) {
            selected.own = Some(self.select(indexer, x, rotary, pass, clock)?);
        }
        pass.check()?;
        let heads = match &selected.used {
            Some(indices) => {
                block_attention(&q, &kv, self.blocks, self.scale, indices, pass.ops == Ops::Fast, pass.stop)?
            }
            None => mla_attention(&q, &kv, &nothing, self.shape, self.scale, &Allowed::Causal, false)?.0,
        };
        pass.check()?;
        let out = self.out.forward(&heads)?;
        clock.lap(|t| &mut t.attention)?;
        Ok((out, selected))
    }

    /// Returns the site's own selection.
    fn select(
        &self,
        indexer: &Indexer,
        x: &Tensor,
        rotary: &Rotary,
        pass: &mut Pass,
        clock: &mut Clock,
    ) -> Result<Indices> {
        let (q, k) = indexer.project(x, rotary)?;
        let k = match &mut pass.cache {
            Some(cache) => cache.append_index(self.layer, &k)?,
            None => k,
        };
        clock.lap(|t| &mut t.indexer)?;
        let on = BlockIndexer { q: &q, k: &k };
        let (indices, scoring, selecting) = select_blocks(on, self.blocks, pass.ops == Ops::Fast, pass.stop)?;
        clock.split(scoring, selecting);
        Ok(indices)
    }
}

impl Indexer {
    /// Loads the indexer at `scope`; `None` where the checkpoint has none.
    fn load(scope: &Scope, config: &Config) -> Result<Option<Self>> {
        if !scope.contains("q_proj.weight") {
            return Ok(None);
        }
        let (heads, dim, hidden) = (config.index_n_heads, config.index_head_dim, config.hidden_size);
        Ok(Some(Self {
            query: Linear::load(scope, "q_proj", (heads * dim, hidden), false)?,
            key: Linear::load(scope, "k_proj", (dim, hidden), false)?,
            query_norm: Norm::load(scope, "q_norm.weight", dim, config)?,
            key_norm: Norm::load(scope, "k_norm.weight", dim, config)?,
            dim,
        }))
    }

    /// Returns queries `[B, T, heads · dim]` and keys `[B, T, dim]` of the normed layer input, rotated as attention's are.
    fn project(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)> {
        let turned = |x: Tensor, norm: &Norm| -> Result<Tensor> {
            let (b, t, width) = x.dims3()?;
            let x = norm.forward(&x.reshape((b, t, width / self.dim, self.dim))?)?.reshape((b, t, width))?;
            Ok(rope(&x, rotary, self.dim, 0, Pairing::Half)?)
        };
        Ok((turned(self.query.forward(x)?, &self.query_norm)?, turned(self.key.forward(x)?, &self.key_norm)?))
    }
}

impl Block for Decoder {
    fn family(&self) -> &'static str {
        self.family
    }

    fn can_select(&self) -> bool {
        self.indexer.is_some()
    }

    fn forward(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<LayerOutput> {
        let times = pass.times.take();
        let mut clock = Clock::new(times, x.device());
        let normed = self.attention_norm.forward(x)?;
        clock.lap(|t| &mut t.rest)?;
        let (attended, selected) = self.attend(&normed, &inputs.rotary, pass, &mut clock)?;
        let x = (x + attended)?;
        let normed = self.feed_norm.forward(&x)?;
        clock.lap(|t| &mut t.rest)?;
        let (fed, expert_load) = self.feed.forward(&normed, pass)?;
        clock.lap(|t| &mut t.mlp)?;
        let hidden = (x + fed)?;
        clock.lap(|t| &mut t.rest)?;
        let Selected { used: indices, own } = selected;
        Ok(LayerOutput { hidden, indices, own, scores: None, probs: None, expert_load })
    }

    fn attention(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<Tensor> {
        let mut clock = Clock::new(None, x.device());
        Ok(self.attend(&self.attention_norm.forward(x)?, &inputs.rotary, pass, &mut clock)?.0)
    }
}
