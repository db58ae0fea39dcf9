//! The engines, one file each: how it reads index sharing, and what to paste for it where its source was read.

mod atom;
pub(super) mod automodel;
pub(super) mod megatron;
mod mlx;
mod patches;
mod prime_rl;
pub(super) mod sglang;
mod slime;
mod tensorrt;
pub(super) mod transformers;
pub(super) mod vllm;
pub(super) mod vllm_ascend;
mod xllm;

use super::served::{Family, Served};
use super::strip::Reading;

/// How one engine reads a config.
pub(super) struct Reader {
    /// The engine.
    pub name: &'static str,
    /// The version or snapshot that was read.
    pub version: &'static str,
    /// Whether that was the source of a release.
    pub verified: bool,
    /// File and function.
    pub source: &'static str,
    /// The only family that the row is about; `None` for any.
    pub only: Option<Family>,
    /// The rule.
    pub read: fn(&Served) -> Reading,
}

/// Every engine whose rule is known, released sources first.
pub(super) const READERS: [&Reader; 14] = [
    &transformers::READER,
    &vllm::READER,
    &vllm::ROCM,
    &sglang::READER,
    &vllm_ascend::READER,
    &automodel::READER,
    &megatron::READER,
    &mlx::READER,
    &tensorrt::READER,
    &atom::READER,
    &patches::READER,
    &xllm::READER,
    &prime_rl::READER,
    &slime::READER,
];

/// Readers of the field that are not simulated, and why.
pub(super) const NOT_SIMULATED: [(&str, &str); 6] = [
    ("Megatron-LM-FL, PaddleFleet", "only the names of their options are known, not their rules"),
    (
        "SGLang PRs #26274, #32771 and vLLM PRs #49085, #51209",
        "proposals for DeepSeek-V4 that are in no release read here",
    ),
    ("llama.cpp #25407, #26474, ik_llama 2063, exo #2208", "they read GLM-5.2's metadata only, and no config.json"),
    ("Mistral-Large-3", "vLLM and SGLang read it as deepseek_v32; its config names no model type that was recorded"),
    ("Kimi-K3, Qwen4-exp", "they have no key for sharing across layers"),
    (
        "SGLang's MiniMax-M3 on ROCm gfx95",
        "the environment variable SGLANG_MINIMAX_M3_INDEX_TOPK_FREQ decides, not the config",
    ),
];
