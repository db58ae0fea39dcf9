//! What a running server tells of its forwards: index sets (SGLang) and log-probabilities of prompts (SGLang, vLLM).
//!
//! A file holds the server's responses as they came: one JSON object, an array of them, or one per line.
//!
//! - **SGLang** 0.5.23, `/generate` or `Engine.generate`: `meta_info.indexer_topk` (`return_indexer_topk`),
//!   `meta_info.input_token_logprobs` and `input_top_logprobs` (`return_logprob`, `logprob_start_len` 0).
//!   The OpenAI APIs have the same `meta_info` in each choice (`return_meta_info`).
//! - **vLLM** 0.33.0, `/v1/completions` and chat: `prompt_logprobs`, and `prompt_token_ids` (`return_token_ids`).
//!
//! - **Others**, `/v1/completions` with `echo` and `logprobs`: `choices[].logprobs.token_logprobs`, with tokens as
//!   `token_id:N` (`return_tokens_as_token_ids`) or ids from elsewhere.
//!
//! Each may stand under `response` beside the `request` that it answers, as logs keep it, or in the `body` of a batch's
//! output.
//!
//! The formats were read in these releases' sources; nothing here was tried on a server.

mod error;
mod indices;
mod losses;
mod response;

pub use error::ImportError;
pub use indices::{Importer, ServedSets, read_by_sglang};
pub use losses::{Pair, Prompt, PromptToken, compare};
pub use response::{Response, responses};
