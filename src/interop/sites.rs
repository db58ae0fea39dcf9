//! Which layers select keys: those that own an indexer or reuse indices. Engines number these, or all layers.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::python::is_truthy;
use super::served::{Family, Served};
use super::strip::Mark;
use crate::domain::Pattern;

/// Older names of layer types, as transformers 5.23.0 renames them when it loads a config (`configuration_utils.py`).
const RENAMED: [(&str, &str); 4] = [
    ("mamba", "linear_attention"),
    ("attention", "full_attention"),
    ("deepseek_sparse_attention", "indexed_attention"),
    ("qwen_sparse_attention", "indexed_attention"),
];

/// Returns the present name of a layer type.
pub(super) fn renamed(word: &str) -> &str {
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
            (Family::Dots3, Some(list)) => has(list, layer, &["full_attention", "indexed_attention"]),
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

    /// Returns what every layer does under a pattern, whose letters count the layers that select keys.
    pub fn marks(&self, pattern: Pattern) -> Vec<Mark> {
        let mut marks = vec![Mark::None; self.layers];
        for (ordinal, layer) in self.sites().into_iter().enumerate() {
            marks[layer] = if ordinal < pattern.len() && pattern.is_full(ordinal) { Mark::Full } else { Mark::Shared };
        }
        marks
    }

    /// Returns what an index stands for, and how many of them a query keeps; `None` where the config does not say.
    pub fn budget(&self) -> Option<Budget> {
        let number = |key: &str| self.late(key).and_then(Value::as_u64);
        let of = |unit, tokens, keeps| Budget { unit, tokens, keeps };
        let topk = self.index_topk;
        match self.family {
            Family::MinimaxM3 => {
                let sparse = |key: &str| self.late("sparse_attention_config").and_then(|c| c.get(key)?.as_u64());
                let tokens = sparse("sparse_block_size").or(number("index_block_size")).unwrap_or(128);
                let keeps = sparse("sparse_topk_blocks").or(number("index_topk_blocks")).unwrap_or(16);
                Some(of("block", tokens, keeps))
            }
            Family::DeepseekV4 => {
                let rates = self.late("compress_rates").and_then(|rates| rates.get("compressed_sparse_attention"));
                let tokens = rates.and_then(Value::as_u64).unwrap_or(4);
                topk.map(|k| of("entry", tokens, k))
            }
            // Its layers differ: the finest entries are the first of which there are more than a query keeps.
            Family::DeepseekV41 => {
                let finest = self.sites().into_iter().filter_map(|layer| self.ratio(layer)).min().unwrap_or(1);
                topk.map(|k| of("entry", finest, k))
            }
            Family::Glm5Next => {
                let tokens = number("index_kpool").unwrap_or(16).max(1);
                topk.map(|k| of("pool", tokens, k / tokens))
            }
            _ => topk.map(|k| of("token", 1, k)),
        }
    }
}

/// The unit of a selection, and how many a query keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// `token`, `entry` (compressed tokens), `block` or `pool`.
    pub unit: &'static str,
    /// Tokens of one.
    pub tokens: u64,
    /// How many a query keeps.
    pub keeps: u64,
}

impl Budget {
    /// Returns the number of visible tokens up to which a query keeps all that it sees, so that every pattern gives the
    /// same output. Entries and pools count once they are complete; a block counts with its first token.
    pub fn dense_up_to(self) -> u64 {
        match self.unit {
            "block" => self.keeps * self.tokens,
            _ => self.keeps * self.tokens + self.tokens - 1,
        }
    }
}

impl fmt::Display for Budget {
    /// Writes `index_topk 2048` for tokens, else `512 entries of 4 tokens`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.tokens == 1 { "" } else { "s" };
        match self.unit {
            "token" => write!(f, "index_topk {}", self.keeps),
            "entry" => write!(f, "{} entries of {} token{plural}", self.keeps, self.tokens),
            unit => write!(f, "{} {unit}s of {} token{plural}", self.keeps, self.tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn served(config: Value) -> Served {
        Served::parse(&config.to_string()).unwrap()
    }

    #[test]
    fn every_family_counts_its_own_layers_and_units() {
        let m3 = json!({"model_type": "minimax_m3_vl", "text_config": {"num_hidden_layers": 6, "sparse_attention_config":
            {"sparse_attention_freq": [0, 0, 0, 1, 1, 1], "sparse_topk_blocks": 16, "sparse_block_size": 128}}});
        let v4 = json!({"model_type": "deepseek_v4", "num_hidden_layers": 4, "index_topk": 512, "compress_ratios": [0, 4, 128, 4]});
        let v41 = json!({"model_type": "deepseek_v41", "text_config": {"num_hidden_layers": 3, "index_topk": 512, "compress_ratios": [0, 2, 1]}});
        let glm5_next = json!({"model_type": "glm5_next", "text_config": {"num_hidden_layers": 4, "index_topk": 2048, "index_kpool": 4,
            "layer_types": ["linear_attention", "deepseek_sparse_attention", "full_attention", "linear_attention"]}});
        let hy = json!({"model_type": "hy_v4", "num_hidden_layers": 2, "index_topk": 2048});
        for (config, sites, budget, dense) in [
            (m3, vec![3, 4, 5], "16 blocks of 128 tokens", 2048),
            (v4, vec![1, 3], "512 entries of 4 tokens", 2051),
            (v41, vec![1, 2], "512 entries of 1 token", 512),
            (glm5_next, vec![1, 2], "512 pools of 4 tokens", 2051),
            (hy, vec![0, 1], "index_topk 2048", 2048),
        ] {
            let served = served(config);
            let kept = served.budget().unwrap();
            assert_eq!((served.sites(), kept.to_string().as_str(), kept.dense_up_to()), (sites, budget, dense));
        }
    }
}
