//! What a forward must do: operations and bytes, counted from the architecture.
//!
//! One multiplication and one addition are two operations. Norms, rotations, routing and softmax are not counted.

/// Attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSizes {
    /// Weights of its projections.
    pub weights: usize,
    /// Numbers that one key leaves in the cache.
    pub row: usize,
    /// Multiplications for one query and one key: the score and the weighted sum, of all heads.
    pub pair: usize,
}

/// Keys that every query of some layers reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reads {
    /// How many layers.
    pub layers: usize,
    /// Tokens that one key stands for.
    pub unit: usize,
    /// Most keys per query; `None` for all that are visible.
    pub most: Option<usize>,
    /// Weights of what makes a key of several tokens.
    pub weights: usize,
}

/// One indexer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexSizes {
    /// Layers that can own one.
    pub sites: usize,
    /// Weights.
    pub weights: usize,
    /// Heads.
    pub heads: usize,
    /// Per-head width.
    pub dim: usize,
    /// Tokens that one index key stands for.
    pub unit: usize,
    /// Whether a score is the weighted sum of the heads; each head selects for itself otherwise.
    pub sums_heads: bool,
    /// Scores of one head that go into one score that is written: the keys of a block.
    pub pooled: usize,
    /// Whether engines store index keys in FP8 where the accelerator has it.
    pub is_fp8: bool,
    /// Units that a query selects.
    pub topk: usize,
}

/// The sizes that decide the cost of a forward; the names are those of config.json.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Layers with a dense MLP.
    pub dense_layers: usize,
    /// Layers with experts.
    pub sparse_layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Every layer's attention.
    pub attention: AttentionSizes,
    /// What queries read, by kind of key; a layer may read several kinds.
    pub reads: Vec<Reads>,
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
    /// The indexers.
    pub index: IndexSizes,
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

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

/// One step of a model: the tokens that pass through it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole sequence of so many tokens, with logits for the last.
    Prefill(usize),
    /// One more token of each of several sequences.
    Decode {
        /// Tokens that each of them holds, the new one included.
        context: usize,
        /// Sequences.
        batch: usize,
    },
}

impl Step {
    /// Returns the tokens that pass through every layer.
    fn tokens(self) -> f64 {
        match self {
            Self::Prefill(context) => context as f64,
            Self::Decode { batch, .. } => batch as f64,
        }
    }

    /// Returns the tokens whose logits are computed.
    fn logits(self) -> f64 {
        if let Self::Decode { batch, .. } = self { batch as f64 } else { 1.0 }
    }

    /// Returns the pairs of a query and a key of `unit` tokens, where a query reads at most `most` of the complete ones.
    fn pairs(self, unit: usize, most: Option<usize>) -> f64 {
        match self {
            Self::Prefill(context) => {
                let (t, u) = (context as f64, unit as f64);
                // Units up to which the number that a query sees grows.
                let n = most.map_or(context / unit, |most| most.min(context / unit)) as f64;
                u * n * (n - 1.0) / 2.0 + n * (t - n * u + 1.0)
            }
            Self::Decode { context, batch } => {
                let seen = context / unit;
                (batch * most.map_or(seen, |most| most.min(seen))) as f64
            }
        }
    }

    /// Returns the keys of `unit` tokens that attention reads from memory. In prefill every one once: neighbouring
    /// queries select much the same keys, and caches serve the rest.
    fn gathered(self, unit: usize, most: Option<usize>) -> f64 {
        match self {
            Self::Prefill(context) => (context / unit) as f64,
            Self::Decode { .. } => self.pairs(unit, most),
        }
    }

    /// Returns the cached index keys of `unit` tokens, which are read once per sequence.
    fn cached(self, unit: usize) -> f64 {
        match self {
            Self::Prefill(context) => (context / unit) as f64,
            Self::Decode { context, batch } => (batch * (context / unit)) as f64,
        }
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
        let IndexSizes { weights, heads, dim, unit, sums_heads, pooled, .. } = self.index;
        let visible = step.pairs(unit, None);
        let sums = if sums_heads { 2.0 * visible * heads as f64 } else { 0.0 };
        let scores = if sums_heads { visible } else { visible * heads as f64 / pooled as f64 };
        let written = scores * SCORE_BYTES;
        let attention = self.reads.iter().map(|reads| {
            let rows = step.gathered(reads.unit, reads.most) * self.attention.row as f64;
            let flops = 2.0 * step.pairs(reads.unit, reads.most) * self.attention.pair as f64;
            Count { flops, bytes: rows * widths.latent } * reads.layers as f64
        });
        Work {
            index_projections: products(weights as f64, weights as f64, step.tokens(), widths),
            index_scores: Count {
                flops: 2.0 * visible * (heads * dim) as f64 + sums,
                bytes: written + step.cached(unit) * dim as f64 * widths.index_key,
            },
            topk: Count { flops: 0.0, bytes: written },
            products: self.products(step, widths),
            attention: attention.fold(Count::default(), |sum, one| sum + one),
        }
    }

    /// Returns the bytes of index keys that one token leaves in the KV cache, per Full layer.
    pub fn index_key_bytes(&self, widths: Widths) -> f64 {
        self.index.dim as f64 * widths.index_key / self.index.unit as f64
    }

    fn products(&self, step: Step, widths: Widths) -> Count {
        let mlp = |width: usize| 3.0 * (self.hidden * width) as f64;
        let router = (self.hidden * self.experts) as f64;
        // Experts that at least one token is routed to, if every expert is as likely.
        let idle = (1.0 - self.experts_per_token as f64 / self.experts.max(1) as f64).powf(step.tokens());
        let touched = self.experts as f64 * (1.0 - idle);
        let shared = mlp(self.shared_width) + router;
        let sparse_used = shared + mlp(self.expert_width) * self.experts_per_token as f64;
        let sparse_read = shared + mlp(self.expert_width) * touched;
        let layer = |mlp_used: f64, mlp_read: f64| {
            let attention = self.attention.weights as f64;
            products(attention + mlp_used, attention + mlp_read, step.tokens(), widths)
        };
        let head = (self.hidden * self.vocab) as f64;
        let dense = layer(mlp(self.dense_width), mlp(self.dense_width)) * self.dense_layers as f64;
        let sparse = layer(sparse_used, sparse_read) * self.sparse_layers as f64;
        let head = products(head, head, step.logits(), widths);
        let makers = self.reads.iter().map(|reads| (reads.layers * reads.weights) as f64).sum();
        dense + sparse + head + products(makers, makers, step.tokens(), widths)
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
    fn small() -> Geometry {
        Geometry {
            dense_layers: 1,
            sparse_layers: 2,
            hidden: 10,
            attention: AttentionSizes { weights: 356, row: 8, pair: 2 * (8 + 6) },
            reads: vec![Reads { layers: 3, unit: 1, most: Some(3), weights: 0 }],
            dense_width: 20,
            experts: 4,
            experts_per_token: 1,
            expert_width: 7,
            shared_width: 7,
            vocab: 100,
            index: IndexSizes {
                sites: 3,
                weights: 92,
                heads: 2,
                dim: 4,
                unit: 1,
                sums_heads: true,
                pooled: 1,
                is_fp8: true,
                topk: 3,
            },
        }
    }

    const WIDTHS: Widths = Widths { weight: 2.0, latent: 2.0, index_key: 1.0 };

    #[test]
    fn prefill_of_a_small_model_as_counted_by_hand() {
        // Five tokens see 1 + 2 + 3 + 4 + 5 keys and select 1 + 2 + 3 + 3 + 3.
        let step = Step::Prefill(5);
        assert_eq!((step.pairs(1, None), step.pairs(1, Some(3))), (15.0, 12.0));
        let work = small().work(step, WIDTHS);
        // 2 heads × 4 wide, and the weighted sum of 2 heads; 15 scores of 4 bytes written, 5 keys of 4 bytes read.
        assert_eq!(work.index_scores, Count { flops: (2 * 15 * 8 + 2 * 15 * 2) as f64, bytes: (60 + 20) as f64 });
        assert_eq!(work.topk, Count { flops: 0.0, bytes: 60.0 });
        assert_eq!(work.index_projections, Count { flops: (2 * 5 * 92) as f64, bytes: 184.0 });
        // 12 pairs × 2 heads × (8 for the score + 6 for the sum), 5 latents of 8 numbers, in each of 3 layers.
        assert_eq!(work.attention, Count { flops: (3 * 2 * 12 * 2 * 14) as f64, bytes: (3 * 5 * 8 * 2) as f64 });
        // Attention 356; dense 3·10·20; expert 3·10·7; router 10·4.
        let flops = 2 * 5 * (356 + 600) + 2 * 2 * 5 * (356 + 210 + 210 + 40) + 2 * 1000;
        assert_eq!(work.products.flops, f64::from(flops));
        let touched = 4.0 * (1.0 - 0.75f64.powi(5));
        let bytes = 2.0 * (956.0 + 2.0 * (356.0 + 210.0 + 40.0 + 210.0 * touched) + 1000.0);
        assert!((work.products.bytes - bytes).abs() < 1e-9, "{} {bytes}", work.products.bytes);
    }

    #[test]
    fn a_decode_step_reads_every_index_key_and_k_latents() {
        let work = small().work(Step::Decode { context: 50, batch: 2 }, WIDTHS);
        assert_eq!(work.index_scores.bytes, (2 * 50 * 4 + 2 * 50 * 4) as f64);
        assert_eq!(work.attention.bytes, (3 * 2 * 3 * 8 * 2) as f64);
        assert_eq!(small().index_key_bytes(WIDTHS), 4.0);
        assert_eq!(small().layers(), 3);
    }

    #[test]
    fn up_to_k_tokens_every_visible_key_is_selected() {
        let step = Step::Prefill(3);
        assert_eq!((step.pairs(1, None), step.pairs(1, Some(8))), (6.0, 6.0));
        assert_eq!(Step::Decode { context: 5, batch: 1 }.pairs(1, Some(8)), 5.0);
    }

    #[test]
    fn keys_of_several_tokens_count_once_they_are_complete() {
        // Queries 1 … 10 see 0 0 0 1 1 1 1 2 2 2 entries of 4 tokens.
        let step = Step::Prefill(10);
        assert_eq!((step.pairs(4, None), step.pairs(4, Some(1))), (10.0, 7.0));
        assert_eq!((step.gathered(4, Some(1)), step.cached(4)), (2.0, 2.0));
        assert_eq!(Step::Decode { context: 10, batch: 3 }.pairs(4, None), 6.0);
        let entries = Geometry { index: IndexSizes { unit: 4, ..small().index }, ..small() };
        let work = entries.work(step, WIDTHS);
        assert_eq!(work.index_scores, Count { flops: (2 * 10 * 8 + 2 * 10 * 2) as f64, bytes: (40 + 8) as f64 });
        assert_eq!(entries.index_key_bytes(WIDTHS), 1.0);
    }

    #[test]
    fn heads_that_select_for_themselves_write_one_score_per_block() {
        let index = IndexSizes { sums_heads: false, pooled: 5, ..small().index };
        let work = Geometry { index, ..small() }.work(Step::Prefill(5), WIDTHS);
        // 15 pairs of 2 heads, a fifth of which is written at 4 bytes; 5 keys of 4 bytes.
        assert_eq!(work.index_scores, Count { flops: (2 * 15 * 8) as f64, bytes: (24 + 20) as f64 });
        assert_eq!(work.topk.bytes, 24.0);
    }

    #[test]
    fn layers_that_read_several_kinds_of_keys_do_the_work_of_all() {
        let reads = vec![
            Reads { layers: 3, unit: 1, most: Some(2), weights: 0 },
            Reads { layers: 2, unit: 4, most: None, weights: 7 },
        ];
        let both = Geometry { reads, ..small() }.work(Step::Decode { context: 9, batch: 1 }, WIDTHS);
        assert_eq!(both.attention.flops, (2 * 28 * (3 * 2 + 2 * 2)) as f64);
        let one = small().work(Step::Decode { context: 9, batch: 1 }, WIDTHS);
        assert_eq!(both.products.flops - one.products.flops, (2 * 2 * 7) as f64);
    }
}
