//! Engines that give back the memory of a Shared layer's index keys.

use serde::Serialize;

use super::engines::{sglang, transformers, vllm, vllm_ascend};

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

/// Engines that are known to allocate index keys only for layers that run their indexer; of others it is not known.
pub const INDEX_KEYS: [IndexKeys; 7] = [
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
