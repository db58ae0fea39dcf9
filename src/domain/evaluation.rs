//! What was measured for one pattern.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cluster, Delta, Pattern};

/// What is evaluated: a pattern, or dense attention without any selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A pattern.
    Pattern(Pattern),
    /// Every visible key takes part in every layer.
    Dense,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => write!(f, "{pattern}"),
            Self::Dense => f.write_str("dense"),
        }
    }
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Measured for exactly this pattern.
    Measured,
    /// Derived from other measurements.
    Predicted,
    /// Measured, but for what was shown before.
    Stale,
    /// Read from a file.
    Imported,
}

/// Loss within one range of positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// First position of the targets' queries.
    pub from: usize,
    /// One past the last position.
    pub to: usize,
    /// Scored targets in the range.
    pub targets: usize,
    /// Their mean loss, nats.
    pub loss: f64,
    /// Mean difference to the reference over the eligible ones, nats; `None` where none is eligible.
    pub delta: Option<f64>,
}

/// How far predictions agree with the reference pattern's, over eligible targets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Share of positions whose most likely token is the same.
    pub same_top: f64,
    /// Mean KL(reference ‖ pattern), nats.
    pub kl: f64,
    /// 99th percentile of the same.
    pub kl_p99: f64,
}

/// The sequence that suffers most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstSequence {
    /// Its index.
    pub index: usize,
    /// Its mean difference over eligible targets, nats.
    pub delta: f64,
}

/// The loss of one pattern on the calibration set, against the reference pattern on the same targets.
///
/// Δ is over eligible targets: those whose query sees more than `index_topk` keys, because all others are equal
/// under every pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What was evaluated.
    pub subject: Subject,
    /// Mean loss over all scored targets, nats.
    pub loss: f64,
    /// Paired difference to the reference over eligible targets; `None` where no target is eligible.
    pub delta: Option<Delta>,
    /// Paired difference over all scored targets, nats.
    pub delta_all: f64,
    /// Loss of the reference on the same targets, nats.
    pub reference_loss: f64,
    /// Agreement with the reference; `None` where no target is eligible.
    pub agreement: Option<Agreement>,
    /// Bits per byte of text; `None` for bare token ids.
    pub bits_per_byte: Option<f64>,
    /// By position.
    pub by_position: Vec<Bucket>,
    /// The sequence that suffers most.
    pub worst_sequence: Option<WorstSequence>,
    /// The differences by cluster, from which patterns are compared with each other; empty in files before 0.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_cluster: Vec<Cluster>,
    /// Sequences evaluated so far, and in the whole set.
    pub sequences: (usize, usize),
    /// Scored targets.
    pub targets: usize,
    /// Eligible targets.
    pub eligible: usize,
    /// Blocks behind the standard error within documents.
    pub blocks: usize,
    /// First layer that was run; earlier ones came from the cache.
    pub resumed_from: usize,
    /// Layers run, summed over batches and weighted by their share of the set.
    pub layer_forwards: f64,
    /// Wall time, seconds.
    pub seconds: f64,
    /// Where the numbers come from.
    pub origin: Origin,
}

impl Evaluation {
    /// Returns Δ minus that of another pattern, paired; `None` where the two were not measured on the same text.
    pub fn minus(&self, other: &Self) -> Option<Delta> {
        Delta::between(&self.by_cluster, &other.by_cluster)
    }

    /// Returns whether the whole calibration set has been evaluated.
    pub fn is_complete(&self) -> bool {
        self.sequences.0 == self.sequences.1
    }
}

/// A time, or a ratio of times, over runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median; of ratios, the median of the geometric means of two runs in opposite order.
    pub median: f64,
    /// Median absolute deviation, which is no error of the median.
    pub mad: f64,
    /// Number of runs.
    pub runs: usize,
    /// The 95 % interval of the median, between order statistics; `None` where there are too few runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
}

/// The share of each phase in a forward; the sum is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseShare {
    /// Scores of the lightning indexer.
    pub indexer: f64,
    /// Selection of the top k.
    pub topk: f64,
    /// Attention with its projections.
    pub attention: f64,
    /// Dense and expert MLPs.
    pub mlp: f64,
    /// Norms, embedding, head.
    pub rest: f64,
}

/// Speed of one pattern against the reference, from alternating runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// What was timed.
    pub pattern: Pattern,
    /// `prefill` or `decode`.
    pub phase: String,
    /// Tokens in context.
    pub context: usize,
    /// Seconds per forward of the pattern.
    pub seconds: Timing,
    /// Time of the reference ÷ time of the pattern, run by run: above 1 is faster.
    pub ratio: Timing,
    /// Where the pattern's time goes.
    pub share: PhaseShare,
    /// The ops that were timed, `reference` or `fast`: reference ops do not predict serving speed.
    pub ops: String,
    /// Where the numbers come from.
    pub origin: Origin,
}
