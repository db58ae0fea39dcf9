//! GLM-5, DeepSeek-V3.2 and dense models: attention (MLA or GQA) with a lightning indexer or the oracle, and a dense or
//! sparse MLP, each behind a norm and added to the residual stream.

use std::sync::Arc;

use candle_core::Tensor;

use crate::checkpoint::Config;
use crate::domain::Selection;
use crate::model::Result;
use crate::model::attention::Attention;
use crate::model::clock::Clock;
use crate::model::feed::Feed;
use crate::model::indexer::{Indexer, IndexerInput};
use crate::model::inputs::Inputs;
use crate::model::layer::Block;
use crate::model::ops::{Rotary, rms_norm};
use crate::model::pass::{LayerOutput, Pass};
use crate::model::weights::Scope;

/// The weights of one layer, with its indexer if the checkpoint has one.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    attention_norm: Tensor,
    attention: Attention,
    feed_norm: Tensor,
    feed: Feed,
    eps: f64,
    family: &'static str,
}

impl Decoder {
    /// Loads layer `l` of the model at `root`.
    pub(super) fn load(root: &Scope, config: &Config, l: usize) -> Result<Self> {
        let scope = root.at("model.layers").at(l);
        let hidden = config.hidden_size;
        Ok(Self {
            attention_norm: scope.get("input_layernorm.weight", &[hidden])?,
            attention: Attention::load(&scope.at("self_attn"), config, l)?,
            feed_norm: scope.get("post_attention_layernorm.weight", &[hidden])?,
            feed: Feed::load(&scope, config, l)?,
            eps: config.rms_norm_eps,
            family: config.family.model_type(),
        })
    }
}

impl Block for Decoder {
    fn family(&self) -> &'static str {
        self.family
    }

    fn can_select(&self) -> bool {
        self.attention.can_select()
    }

    fn forward(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<LayerOutput> {
        let times = pass.times.take();
        let mut clock = Clock::new(times, x.device());
        let normed = rms_norm(x, &self.attention_norm, self.eps)?;
        clock.lap(|t| &mut t.rest)?;
        let (attended, extras) = self.attention.forward(&normed, &inputs.rotary, pass, &mut clock)?;
        let x = (x + attended)?;
        let normed = rms_norm(&x, &self.feed_norm, self.eps)?;
        clock.lap(|t| &mut t.rest)?;
        let (fed, expert_load) = self.feed.forward(&normed, pass)?;
        clock.lap(|t| &mut t.mlp)?;
        let hidden = (x + fed)?;
        clock.lap(|t| &mut t.rest)?;
        Ok(LayerOutput {
            hidden,
            indices: extras.indices,
            own: extras.own,
            scores: extras.scores,
            probs: extras.probs,
            expert_load,
        })
    }

    fn attention(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<Tensor> {
        let mut clock = Clock::new(None, x.device());
        let normed = rms_norm(x, &self.attention_norm, self.eps)?;
        Ok(self.attention.forward(&normed, &inputs.rotary, pass, &mut clock)?.0)
    }

    fn mean_attention(&self, x: &Tensor, rotary: &Rotary, rows: &[usize]) -> Result<Tensor> {
        self.attention.mean_attention(&rms_norm(x, &self.attention_norm, self.eps)?, rotary, rows, None)
    }

    fn mean_attention_within(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        rows: &[usize],
        support: &Selection,
    ) -> Result<Tensor> {
        self.attention.mean_attention(&rms_norm(x, &self.attention_norm, self.eps)?, rotary, rows, Some(support))
    }

    fn indexer_input(&self, x: &Tensor) -> Result<IndexerInput> {
        self.attention.indexer_input(rms_norm(x, &self.attention_norm, self.eps)?)
    }

    fn with_indexer(&self, indexer: Indexer) -> Result<Arc<dyn Block>> {
        let mut changed = self.clone();
        changed.attention.set_indexer(indexer);
        Ok(Arc::new(changed))
    }
}
