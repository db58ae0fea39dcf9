//! Engines that give back the memory of a Shared layer's index keys.

use serde::Serialize;

use super::engines::{sglang, transformers, vllm, vllm_ascend};
use super::served::Family;

/// An engine whose layers that reuse indices hold no index keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IndexKeys {
    /// The engine.
    pub engine: &'static str,
    /// The version, or the pull request, that was read.
    pub version: &'static str,
    /// By what, and under which condition.
    pub how: &'static str,
}

/// Returns the engines that are known to allocate index keys only for layers that run their indexer, for models of this
/// type; of others it is not known.
///
/// For DeepSeek-V4 and MiniMax-M3, which few engines share indices of, it is known of none.
pub fn index_keys(model_type: &str) -> Vec<IndexKeys> {
    let family = Family::of(model_type);
    // The one of them that shares indices of GLM alone.
    let shares = |one: &IndexKeys| family == Family::Glm || one.engine != transformers::READER.name;
    INDEX_KEYS.into_iter().filter(|one| family.is_plain() && shares(one)).collect()
}

const INDEX_KEYS: [IndexKeys; 7] = [
    IndexKeys {
        engine: "vLLM",
        version: vllm::VERSION,
        how: "a layer that is built as Shared registers no cache of index keys",
    },
    IndexKeys {
        engine: "SGLang",
        version: sglang::VERSION,
        how: "the buffer of a Shared layer has no rows, unless HiSparse is on",
    },
    IndexKeys { engine: "transformers", version: transformers::VERSION, how: "a Shared layer has no indexer" },
    IndexKeys {
        engine: "vLLM Ascend",
        version: vllm_ascend::VERSION,
        how: "where indexer_types makes the layer Shared; by index_topk_pattern alone, the indexer stays loaded",
    },
    IndexKeys { engine: "TensorRT-LLM", version: "pull request 16558", how: "merged; no release was read" },
    IndexKeys { engine: "ROCm ATOM", version: "pull request 1858", how: "merged; no release was read" },
    IndexKeys {
        engine: "llama.cpp",
        version: "pull request 26474",
        how: "merged; by the roles that the GGUF file names",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engines_that_share_can_give_memory_back() {
        let names = |model_type| index_keys(model_type).into_iter().map(|one| one.engine).collect::<Vec<_>>();
        assert!(names("glm_moe_dsa").contains(&"transformers") && names("glm_moe_dsa").contains(&"vLLM"));
        assert!(!names("deepseek_v32").contains(&"transformers") && names("deepseek_v32").contains(&"SGLang"));
        assert!(names("deepseek_v4").is_empty() && names("minimax_m3_vl").is_empty());
    }
}
