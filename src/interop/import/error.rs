//! Why a server's responses cannot be used.

/// What is wrong with responses; they are counted from 0.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ImportError {
    /// No JSON, or no response of a known engine.
    #[error("response {response} cannot be understood: {reason}")]
    Malformed {
        /// The response.
        response: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file is empty.
    #[error("there is no response in it")]
    Empty,
    /// A response without index sets.
    #[error("response {0} holds no index sets (meta_info.indexer_topk)")]
    NoSets(usize),
    /// Index sets of another size than the model's.
    #[error(
        "the index sets of response {response} are {bytes} bytes, no multiple of {layers} layers × {topk} keys × 4"
    )]
    Size {
        /// The response.
        response: usize,
        /// Decoded bytes.
        bytes: usize,
        /// Layers of the config.
        layers: usize,
        /// `index_topk` of the config.
        topk: usize,
    },
    /// Too few token ids for the queries.
    #[error("response {response} tells {known} token ids, and its index sets are of {needed} queries")]
    Tokens {
        /// The response.
        response: usize,
        /// Ids known.
        known: usize,
        /// Rows of index sets.
        needed: usize,
    },
    /// Not one row of index sets is of its query.
    #[error("none of the {0} queries' index sets hold positions that their query sees")]
    NoRows(usize),
    /// A response without log-probabilities.
    #[error("response {0} holds no log-probabilities of its prompt")]
    NoLosses(usize),
    /// A vLLM response with several candidates per position and no ids.
    #[error(
        "response {response} does not tell which of the {candidates} tokens at position {position} was the prompt's"
    )]
    NoIds {
        /// The response.
        response: usize,
        /// The position.
        position: usize,
        /// How many tokens there are.
        candidates: usize,
    },
    /// Tokens as text, whose ids nobody tells.
    #[error("response {0} tells its prompt's tokens as text, not as ids")]
    NoTokenIds(usize),
    /// A log-probability that is none.
    #[error("the log-probability at position {position} of response {response} is {value}")]
    NotFinite {
        /// The response.
        response: usize,
        /// The position.
        position: usize,
        /// What it is.
        value: f64,
    },
    /// Two runs of different prompts.
    #[error("prompt {response} is another one than the reference's: {what}")]
    OtherPrompt {
        /// The response.
        response: usize,
        /// Where they differ.
        what: String,
    },
    /// Two runs of different numbers of prompts.
    #[error("there are {ours} prompts, and {reference} in the reference")]
    Count {
        /// Of this run.
        ours: usize,
        /// Of the reference.
        reference: usize,
    },
}

impl ImportError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::Empty => {
                "give the responses as the server sent them: one JSON object, an array of them, or one per line"
            }
            Self::NoSets(_) => {
                "start SGLang with --enable-return-indexer-topk, and ask /generate with \"return_indexer_topk\": true, or \
                 /v1/chat/completions with \"return_meta_info\": true too"
            }
            Self::Size { .. } => "give the config.json that was served, with the index_topk that was served",
            Self::Tokens { .. } => {
                "ask with \"return_logprob\": true and \"logprob_start_len\": 0 too, or give the prompts by --tokens"
            }
            Self::NoRows(_) => {
                "start SGLang with SGLANG_DSA_FUSE_TOPK=0 (it returns cache slots otherwise) and use prompts longer than index_topk"
            }
            Self::NoLosses(_) => {
                "ask SGLang with \"return_logprob\": true, \"logprob_start_len\": 0, vLLM with \"prompt_logprobs\": 0, others' \
                 /v1/completions with \"echo\": true, \"logprobs\": 1"
            }
            Self::NoTokenIds(_) => {
                "ask with \"return_tokens_as_token_ids\": true, or give the prompts' token ids by --tokens FILE"
            }
            Self::NoIds { .. } => "ask vLLM with \"return_token_ids\": true, or with \"prompt_logprobs\": 0",
            Self::NotFinite { .. } => {
                "look at the server's weights and number formats: a prompt's token cannot be impossible"
            }
            Self::OtherPrompt { .. } | Self::Count { .. } => "send both servers the same token ids, in the same order",
        }
    }
}
