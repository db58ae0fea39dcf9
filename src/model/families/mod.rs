//! The layers of each family, top to bottom; one file and one line of [`load`] per kind of layer.

mod deepseek_v4;
mod dsa;
mod minimax_m3;

use std::sync::Arc;

use super::Result;
use super::layer::Block;
use super::weights::Scope;
use crate::checkpoint::{Config, Family};

pub(super) use deepseek_v4::Collapse;

/// Loads layer `l` of the model at `root`, as its family computes it.
pub(super) fn load(root: &Scope, config: &Config, l: usize) -> Result<Arc<dyn Block>> {
    Ok(match config.family {
        Family::GlmMoeDsa | Family::DeepseekV32 | Family::Llama | Family::Qwen2 | Family::Qwen3 => {
            Arc::new(dsa::Decoder::load(root, config, l)?)
        }
        Family::DeepseekV4 => Arc::new(deepseek_v4::Decoder::load(root, config, l)?),
        Family::MiniMaxM3 => Arc::new(minimax_m3::Decoder::load(root, config, l)?),
    })
}
