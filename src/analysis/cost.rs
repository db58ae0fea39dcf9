//! What a forward must do: operations and bytes, counted from the architecture.
//!
//! One multiplication and one addition are two operations. Norms, rotations, routing and softmax are not counted.

/// The sizes that decide the cost of a forward; the names are those of config.json.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Layers with a dense MLP.
    pub dense_layers: usize,
    /// Layers with experts.
    pub sparse_layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the query latent.
    pub q_lora: usize,
    /// Width of the key-value latent.
    pub kv_lora: usize,
    /// Per-head width of queries without rotation.
    pub nope: usize,
    /// Rotated width.
    pub rope: usize,
    /// Per-head width of values.
    pub value: usize,
    /// Width of dense MLPs.
    pub dense_width: usize,
    /// Routed experts.
    pub experts: usize,
    /// Experts per token.
    pub experts_per_token: usize,
    /// Width of one routed expert.
    pub expert_width: usize,
    /// Common width of the shared experts.
    pub shared_width: usize,
    /// Token ids.
    pub vocab: usize,
    /// k.
    pub topk: usize,
    /// Indexer heads.
    pub index_heads: usize,
    /// Per-head width of the indexer.
    pub index_dim: usize,
}

/// Bytes per stored number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Widths {
    /// Weights.
    pub weight: f64,
    /// Latents and rotary keys of the KV cache.
    pub latent: f64,
    /// Index keys of the KV cache, scales included.
    pub index_key: f64,
}

/// Operations, and bytes to and from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Operations.
    pub flops: f64,
    /// Bytes.
    pub bytes: f64,
}

impl std::ops::Mul<f64> for Count {
    type Output = Self;

    fn mul(self, n: f64) -> Self {
        Self { flops: self.flops * n, bytes: self.bytes * n }
    }
}

/// One step of a model: the tokens that pass through it together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Tokens that pass through every layer.
    pub tokens: f64,
    /// Sum of keys that they see.
    pub visible: f64,
    /// Sum of keys that they select.
    pub selected: f64,
    /// Latents that attention reads from memory. In prefill every one once: neighbouring queries select much the
    /// same keys, and caches serve the rest.
    pub gathered: f64,
    /// Cached tokens whose index keys are read, once per sequence.
    pub cached: f64,
    /// Tokens whose logits are computed.
    pub logits: f64,
}

impl Step {
    /// Returns the prefill of one sequence of `context` tokens, with logits for the last.
    pub fn prefill(context: usize, topk: usize) -> Self {
        let (t, k) = (context as f64, context.min(topk) as f64);
        let selected = k * (k + 1.0) / 2.0 + (t - k) * k;
        Self { tokens: t, visible: t * (t + 1.0) / 2.0, selected, gathered: t, cached: t, logits: 1.0 }
    }

    /// Returns one decode step of `batch` sequences that each hold `context` tokens.
    pub fn decode(context: usize, topk: usize, batch: usize) -> Self {
        let (t, b) = (context as f64, batch as f64);
        let selected = b * context.min(topk) as f64;
        Self { tokens: b, visible: b * t, selected, gathered: selected, cached: b * t, logits: b }
    }
}

/// The work of one step by part; the parts of the indexer are per Full layer, all others for the whole model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Projections of one indexer.
    pub index_projections: Count,
    /// Scores of one indexer, which are written for the top-k.
    pub index_scores: Count,
    /// Top-k of one indexer: the scores are read once.
    pub topk: Count,
    /// Matrix products with weights: attention's projections, MLPs, experts, head.
    pub products: Count,
    /// Attention over the selected latents, without projections.
    pub attention: Count,
}

/// Bytes of one score between indexer and top-k, f32.
const SCORE_BYTES: f64 = 4.0;

impl Geometry {
    /// Returns the number of layers.
    pub fn layers(&self) -> usize {
        self.dense_layers + self.sparse_layers
    }

    /// Counts one step.
    pub fn work(&self, step: Step, widths: Widths) -> Work {
        let keys = step.visible * self.index_heads as f64 * self.index_dim as f64;
        let written = step.visible * SCORE_BYTES;
        let latent = (self.kv_lora + self.rope) as f64;
        let layers = self.layers() as f64;
        let pair = self.heads as f64 * (latent + self.kv_lora as f64);
        Work {
            index_projections: products(self.index_weights(), self.index_weights(), step.tokens, widths),
            // Every score is a weighted sum over heads of rectified dot products.
            index_scores: Count {
                flops: 2.0 * keys + 2.0 * step.visible * self.index_heads as f64,
                bytes: written + step.cached * self.index_dim as f64 * widths.index_key,
            },
            topk: Count { flops: 0.0, bytes: written },
            products: self.products(step, widths),
            attention: Count { flops: 2.0 * step.selected * pair, bytes: step.gathered * latent * widths.latent }
                * layers,
        }
    }

    /// Returns the bytes of index keys that one token leaves in the KV cache, per Full layer.
    pub fn index_key_bytes(&self, widths: Widths) -> f64 {
        self.index_dim as f64 * widths.index_key
    }

    /// Weights of one indexer.
    fn index_weights(&self) -> f64 {
        (self.q_lora * self.index_heads * self.index_dim + self.hidden * (self.index_dim + self.index_heads)) as f64
    }

    /// Weights of one layer's attention in its latent form.
    fn attention_weights(&self) -> f64 {
        let queries = self.hidden * self.q_lora + self.q_lora * self.heads * (self.nope + self.rope);
        let keys = self.hidden * (self.kv_lora + self.rope);
        let absorbed = self.heads * self.kv_lora * (self.nope + self.value);
        (queries + keys + absorbed + self.heads * self.value * self.hidden) as f64
    }

    fn products(&self, step: Step, widths: Widths) -> Count {
        let mlp = |width: usize| 3.0 * (self.hidden * width) as f64;
        let router = (self.hidden * self.experts) as f64;
        // Experts that at least one token is routed to, if every expert is as likely.
        let idle = (1.0 - self.experts_per_token as f64 / self.experts.max(1) as f64).powf(step.tokens);
        let touched = self.experts as f64 * (1.0 - idle);
        let shared = mlp(self.shared_width) + router;
        let sparse_used = shared + mlp(self.expert_width) * self.experts_per_token as f64;
        let sparse_read = shared + mlp(self.expert_width) * touched;
        let layer = |mlp_used: f64, mlp_read: f64| {
            let attention = self.attention_weights();
            products(attention + mlp_used, attention + mlp_read, step.tokens, widths)
        };
        let head = (self.hidden * self.vocab) as f64;
        let dense = layer(mlp(self.dense_width), mlp(self.dense_width)) * self.dense_layers as f64;
        let sparse = layer(sparse_used, sparse_read) * self.sparse_layers as f64;
        let head = products(head, head, step.logits, widths);
        Count { flops: dense.flops + sparse.flops + head.flops, bytes: dense.bytes + sparse.bytes + head.bytes }
    }
}

/// Counts products of `tokens` rows with `used` weights each, of which `read` are read from memory once.
fn products(used: f64, read: f64, tokens: f64, widths: Widths) -> Count {
    Count { flops: 2.0 * used * tokens, bytes: read * widths.weight }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A model small enough to count by hand.
    const SMALL: Geometry = Geometry {
        dense_layers: 1,
        sparse_layers: 2,
        hidden: 10,
        heads: 2,
        q_lora: 4,
        kv_lora: 6,
        nope: 3,
        rope: 2,
        value: 5,
        dense_width: 20,
        experts: 4,
        experts_per_token: 1,
        expert_width: 7,
        shared_width: 7,
        vocab: 100,
        topk: 3,
        index_heads: 2,
        index_dim: 4,
    };

    const WIDTHS: Widths = Widths { weight: 2.0, latent: 2.0, index_key: 1.0 };

    #[test]
    fn prefill_of_a_small_model_as_counted_by_hand() {
        // Five tokens see 1 + 2 + 3 + 4 + 5 keys and select 1 + 2 + 3 + 3 + 3.
        let step = Step::prefill(5, 3);
        assert_eq!((step.visible, step.selected), (15.0, 12.0));
        let work = SMALL.work(step, WIDTHS);
        // 2 heads × 4 wide, and the weighted sum of 2 heads; 15 scores of 4 bytes written, 5 keys of 4 bytes read.
        assert_eq!(work.index_scores, Count { flops: (2 * 15 * 8 + 2 * 15 * 2) as f64, bytes: (60 + 20) as f64 });
        assert_eq!(work.topk, Count { flops: 0.0, bytes: 60.0 });
        // 4·8 of the queries, 10·4 of the key, 10·2 of the heads' weights.
        assert_eq!(work.index_projections, Count { flops: (2 * 5 * 92) as f64, bytes: 184.0 });
        // 12 pairs × 2 heads × (8 for the score + 6 for the sum), 5 latents of 8 numbers, in each of 3 layers.
        assert_eq!(work.attention, Count { flops: (3 * 2 * 12 * 2 * 14) as f64, bytes: (3 * 5 * 8 * 2) as f64 });
        // Attention 10·4 + 4·2·5 + 10·8 + 2·6·(3 + 5) + 2·5·10 = 356; dense 3·10·20; expert 3·10·7; router 10·4.
        let flops = 2 * 5 * (356 + 600) + 2 * 2 * 5 * (356 + 210 + 210 + 40) + 2 * 1000;
        assert_eq!(work.products.flops, f64::from(flops));
        let touched = 4.0 * (1.0 - 0.75f64.powi(5));
        let bytes = 2.0 * (956.0 + 2.0 * (356.0 + 210.0 + 40.0 + 210.0 * touched) + 1000.0);
        assert!((work.products.bytes - bytes).abs() < 1e-9, "{} {bytes}", work.products.bytes);
    }

    #[test]
    fn a_decode_step_reads_every_index_key_and_k_latents() {
        let work = SMALL.work(Step::decode(50, 3, 2), WIDTHS);
        assert_eq!(work.index_scores.bytes, (2 * 50 * 4 + 2 * 50 * 4) as f64);
        assert_eq!(work.attention.bytes, (3 * 2 * 3 * 8 * 2) as f64);
        assert_eq!(SMALL.index_key_bytes(WIDTHS), 4.0);
        assert_eq!(SMALL.layers(), 3);
    }

    #[test]
    fn up_to_k_tokens_every_visible_key_is_selected() {
        let step = Step::prefill(3, 8);
        assert_eq!((step.visible, step.selected), (6.0, 6.0));
        assert_eq!(Step::decode(5, 8, 1).selected, 5.0);
    }
}
