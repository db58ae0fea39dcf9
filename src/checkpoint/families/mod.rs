//! The files of families whose config.json or tensor names differ from those of GLM-5 and DeepSeek-V3.2.
//!
//! Inside the program tensors have the names of GLM-5; a family that stores other names maps them when it is opened.

pub(super) mod deepseek_v4;
pub(super) mod minimax_m3;

use super::dtype::Tensors;
use super::{Config, Family, TensorInfo};

/// What becomes of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// The model uses it under this name.
    Used(String),
    /// No part of the language model.
    Skipped,
}

/// Returns what becomes of the tensor that a file calls `name`.
pub(super) fn stored(config: &Config, name: &str) -> Stored {
    match config.family {
        Family::MiniMaxM3 => minimax_m3::stored(name),
        Family::DeepseekV4 => Stored::Used(deepseek_v4::canonical(name, config.num_hidden_layers)),
        _ => Stored::Used(name.to_owned()),
    }
}

/// Returns how files of the family spell a tensor's `name`, for errors.
pub(super) fn spelt(config: &Config, name: &str) -> String {
    match config.family {
        Family::MiniMaxM3 => minimax_m3::spelt(name),
        Family::DeepseekV4 => deepseek_v4::spelt(name),
        _ => name.to_owned(),
    }
}

/// Returns the tensors that a stored one holds: itself, or several where the family stacks them.
pub(super) fn unpacked(config: &Config, name: String, info: TensorInfo) -> Tensors {
    match config.family {
        Family::DeepseekV4 => deepseek_v4::unpacked(name, info),
        _ => Tensors::from([(name, info)]),
    }
}
