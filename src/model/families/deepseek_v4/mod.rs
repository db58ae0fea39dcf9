//! DeepSeek-V4, top to bottom: several residual streams, attention over a window and compressed entries, experts.
//!
//! The residual stream is `[B, T, streams, hidden]`. Every layer mixes the streams into one, attends, spreads the result
//! over the streams again, and does the same with its experts. Sites, the layers that select, see a window of raw tokens
//! and k entries of a few tokens each; other layers see the window alone, or every entry of many tokens.

mod attention;
mod entries;
mod indexer;
mod streams;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

use self::attention::Attention;
pub(in crate::model) use self::streams::Collapse;
use self::streams::Connection;
use crate::checkpoint::{Config, DeepseekV4};
use crate::model::clock::Clock;
use crate::model::inputs::Inputs;
use crate::model::layer::Block;
use crate::model::moe::Moe;
use crate::model::norm::Norm;
use crate::model::pass::{LayerOutput, Pass};
use crate::model::weights::Scope;
use crate::model::{ModelError, Result};

/// `model_type` in errors.
const FAMILY: &str = "deepseek_v4";

/// The weights of one layer.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    attention_streams: Connection,
    attention_norm: Norm,
    attention: Attention,
    feed_streams: Connection,
    feed_norm: Norm,
    feed: Moe,
}

impl Decoder {
    /// Loads layer `l` of the model at `root`.
    pub(super) fn load(root: &Scope, config: &Config, l: usize) -> Result<Self> {
        let v4 = sizes(config)?;
        if config.index.is_oracle() {
            return Err(unsupported("the oracle's selection"));
        }
        let scope = root.at("model.layers").at(l);
        let norm = |name| Norm::load(&scope, name, config.hidden_size, config);
        let feed = scope.at("mlp");
        Ok(Self {
            attention_streams: Connection::load(&scope.at("attn_hc"), config, v4)?,
            attention_norm: norm("input_layernorm.weight")?,
            attention: Attention::load(&scope.at("self_attn"), config, v4, l)?,
            feed_streams: Connection::load(&scope.at("ffn_hc"), config, v4)?,
            feed_norm: norm("post_attention_layernorm.weight")?,
            feed: if v4.hashed[l] { Moe::load_hashed(&feed, config)? } else { Moe::load(&feed, config)? },
        })
    }
}

impl Block for Decoder {
    fn family(&self) -> &'static str {
        FAMILY
    }

    fn can_select(&self) -> bool {
        self.attention.can_select()
    }

    fn forward(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<LayerOutput> {
        if pass.cache.is_some() {
            return Err(unsupported("decoding with a cache"));
        }
        if pass.want_scores || pass.want_probs {
            return Err(unsupported("training of indexers"));
        }
        let times = pass.times.take();
        let mut clock = Clock::new(times, x.device());
        let mixed = self.attention_streams.enter(x, pass.ops)?;
        let normed = self.attention_norm.forward(&mixed.input)?;
        clock.lap(|t| &mut t.rest)?;
        let attended = self.attention.forward(&normed, inputs, pass, &mut clock)?;
        let x = mixed.leave(x, &attended.out, pass.ops)?;
        let mixed = self.feed_streams.enter(&x, pass.ops)?;
        let normed = self.feed_norm.forward(&mixed.input)?;
        clock.lap(|t| &mut t.rest)?;
        let (fed, expert_load) = self.feed.forward(&normed, &inputs.ids, pass)?;
        clock.lap(|t| &mut t.mlp)?;
        let hidden = mixed.leave(&x, &fed, pass.ops)?;
        clock.lap(|t| &mut t.rest)?;
        Ok(LayerOutput { hidden, indices: attended.indices, own: attended.own, scores: None, probs: None, expert_load })
    }
}

/// Returns what only this family has.
fn sizes(config: &Config) -> Result<&DeepseekV4> {
    config.deepseek_v4.as_deref().ok_or_else(|| unsupported("a config of another family"))
}

fn unsupported(what: &'static str) -> ModelError {
    ModelError::Unsupported { family: FAMILY, what }
}
