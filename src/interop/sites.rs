//! Which layers select keys: those that own an indexer or reuse indices. Engines number these, or all layers.

use serde_json::Value;

use super::python::is_truthy;
use super::served::{Family, Served};

/// Older names of layer types, as transformers 5.23.0 renames them when it loads a config (`configuration_utils.py`).
const RENAMED: [(&str, &str); 4] = [
    ("mamba", "linear_attention"),
    ("attention", "full_attention"),
    ("deepseek_sparse_attention", "indexed_attention"),
    ("qwen_sparse_attention", "indexed_attention"),
];

/// Returns the present name of a layer type.
fn renamed(word: &str) -> &str {
    RENAMED.iter().find(|(old, _)| *old == word).map_or(word, |(_, new)| new)
}

impl Served {
    /// Returns the layers that can own an indexer, in order, as the model's own implementation has them.
    ///
    /// Released models give `layer_types`, `compress_ratios` or a list of sparse layers; each family has its default.
    pub fn sites(&self) -> Vec<usize> {
        let types = |key: &str| self.late(key).and_then(Value::as_array);
        let has = |list: &[Value], layer: usize, wanted: &[&str]| {
            list.get(layer).and_then(Value::as_str).is_some_and(|word| wanted.contains(&renamed(word)))
        };
        let layer_types = types("layer_types");
        let owns = |layer: usize| match (self.family, layer_types) {
            (Family::Glm5Next, Some(list)) => has(list, layer, &["indexed_attention", "full_attention"]),
            (Family::Glm5Next, None) => layer % 4 == 3,
            (Family::Dots3, Some(list)) => has(list, layer, &["full_attention"]),
            (Family::DeepseekV4, Some(list)) => has(list, layer, &["compressed_sparse_attention"]),
            (Family::DeepseekV4, None) if types("compress_ratios").is_some() => self.ratio(layer) == Some(4),
            (Family::DeepseekV4, None) => layer >= 2 && layer % 2 == 1,
            (Family::DeepseekV41, _) => self.ratio(layer).unwrap_or(0) != 0,
            (Family::MinimaxM3, Some(list)) => has(list, layer, &["minimax_m3_sparse"]),
            (Family::MinimaxM3, None) => self.is_sparse(layer),
            (Family::DeepseekV3 | Family::Longcat | Family::Other, _) => self.late("index_topk").is_some(),
            _ => true,
        };
        (0..self.layers).filter(|&layer| owns(layer)).collect()
    }

    /// Returns the tokens per entry of a layer of DeepSeek-V4; `None` where `compress_ratios` does not reach.
    pub(super) fn ratio(&self, layer: usize) -> Option<u64> {
        self.late("compress_ratios").and_then(|list| list.get(layer)).and_then(Value::as_u64)
    }

    /// Returns whether MiniMax-M3's `sparse_attention_config` makes a layer sparse.
    pub(super) fn is_sparse(&self, layer: usize) -> bool {
        let frequencies = self.late("sparse_attention_config").and_then(|config| config.get("sparse_attention_freq"));
        is_truthy(frequencies.and_then(|list| list.get(layer)))
    }

    /// Returns the stages' first layers among `sites`: those that an engine without transport needs to be Full.
    pub(super) fn heads(&self, sites: &[usize]) -> Vec<usize> {
        let first = |head: usize| sites.iter().copied().find(|&site| site >= head);
        let mut heads: Vec<usize> = self.stages.heads().iter().filter_map(first).collect();
        heads.dedup();
        heads
    }
}
