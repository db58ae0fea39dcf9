//! What a search needs from whatever runs the model.

use crate::domain::Pattern;

/// Sequences that are measured together: the smallest piece of the calibration set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Eligible targets of each block of 128 neighbouring ones ([`crate::domain::block_ends`]), in order.
    pub blocks: Vec<usize>,
    /// Scored targets, eligible or not.
    pub targets: usize,
    /// Sequences.
    pub sequences: usize,
}

impl Part {
    /// Returns the number of eligible targets.
    pub fn eligible(&self) -> usize {
        self.blocks.iter().sum()
    }
}

/// What the calibration set is made of, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The parts.
    pub parts: Vec<Part>,
}

impl Layout {
    /// Returns the number of eligible targets of some parts.
    pub fn eligible(&self, parts: &[usize]) -> usize {
        parts.iter().map(|&p| self.parts[p].eligible()).sum()
    }

    /// Returns the number of blocks of some parts.
    pub fn blocks(&self, parts: &[usize]) -> usize {
        parts.iter().map(|&p| self.parts[p].blocks.len()).sum()
    }
}

/// A pattern on one part.
pub type Unit = (Pattern, usize);

/// What was measured for a pattern on one part.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The pattern.
    pub pattern: Pattern,
    /// The part.
    pub part: usize,
    /// Mean difference of the loss to the reference pattern's, block by block, nats.
    pub blocks: Vec<f64>,
    /// Σ loss over all scored targets, nats.
    pub nll: f64,
    /// Whether the pattern is the reference itself.
    pub is_reference: bool,
    /// Layers that were run for it, those of the reference included where it had to be run first.
    pub layers: usize,
    /// Wall time, seconds.
    pub seconds: f64,
}

/// By what layers are said to be able to lend each other their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityKind {
    /// Attention mass of the needing layer that the lender's keys hold ÷ mass that its own keys hold.
    MassRecall,
    /// Cosine of the needing layer's attention output with its own and with the lender's keys.
    OutputCosine,
}

/// How well each layer could lend its indices to each later one, under the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Affinity {
    /// Number of layers.
    pub layers: usize,
    /// Row = the layer that needs indices, column = the layer that would lend them; 1 on the diagonal.
    pub values: Vec<f64>,
    /// Layers that were run for it.
    pub layer_forwards: f64,
    /// Wall time, seconds.
    pub seconds: f64,
}

impl Affinity {
    /// Returns how well `lender` could serve `layer`.
    pub fn get(&self, layer: usize, lender: usize) -> f64 {
        self.values[layer * self.layers + lender]
    }
}

/// Why a search ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// It was interrupted; what was measured stays with the ledger.
    #[error("the search was interrupted")]
    Interrupted,
    /// What was asked for is impossible, or a measurement failed.
    #[error("{message}")]
    Failed {
        /// One sentence.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl SearchError {
    /// Returns a failure with something to do about it.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: Some(hint.into()).filter(|h| !h.is_empty()) }
    }
}

/// Measures losses of patterns.
pub trait Evaluate {
    /// Returns what the calibration set is made of.
    fn layout(&self) -> &Layout;

    /// Measures every unit, in the order that is cheapest, and hands over each result as it comes.
    ///
    /// # Errors
    /// [`SearchError`]; what was handed over before stays valid.
    fn measure(&mut self, units: &[Unit], done: &mut dyn FnMut(Measured)) -> Result<(), SearchError>;

    /// Measures how well layers could lend each other their indices.
    ///
    /// # Errors
    /// [`SearchError`]; also where the evaluator cannot measure that.
    fn affinity(&mut self, kind: AffinityKind) -> Result<Affinity, SearchError>;
}
