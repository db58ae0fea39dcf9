//! What a search needs from whatever runs the model.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::domain::Diagnostic;
use crate::domain::Pattern;

/// Sequences that are measured together: the smallest piece of the calibration set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Eligible targets of each block of 128 neighbouring ones ([`crate::domain::block_ends`]), in order.
    pub blocks: Vec<usize>,
    /// The cluster of each block: its sequence, or the document of that.
    pub clusters: Vec<usize>,
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

    /// Returns the number of clusters of some parts that have eligible targets.
    pub fn clusters(&self, parts: &[usize]) -> usize {
        parts.iter().flat_map(|&p| &self.parts[p].clusters).collect::<HashSet<_>>().len()
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

impl Measured {
    /// Returns whether this is a measurement of a pattern of `letters` letters on the calibration set of `layout`.
    pub fn fits(&self, letters: usize, layout: &Layout) -> bool {
        let part = layout.parts.get(self.part);
        self.pattern.len() == letters && part.is_some_and(|part| part.blocks.len() == self.blocks.len())
    }
}

impl fmt::Display for Measured {
    /// Prints one line from which exactly the same is read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, part, nll, layers, seconds, .. } = self;
        write!(f, "{pattern} {part} {} {layers} {seconds:e} {nll:e}", u8::from(self.is_reference))?;
        self.blocks.iter().try_for_each(|mean| write!(f, " {mean:e}"))
    }
}

impl FromStr for Measured {
    type Err = SearchError;

    fn from_str(line: &str) -> Result<Self, SearchError> {
        // What is not finite was never measured: such a loss ends a search.
        let finite = |word: &str| word.parse().ok().filter(|value: &f64| value.is_finite());
        let read = || {
            let mut words = line.split(' ');
            let mut next = || words.next();
            Some(Self {
                pattern: next()?.parse().ok()?,
                part: next()?.parse().ok()?,
                is_reference: next()? == "1",
                layers: next()?.parse().ok()?,
                seconds: finite(next()?)?,
                nll: finite(next()?)?,
                blocks: words.map(finite).collect::<Option<_>>()?,
            })
        };
        read().ok_or_else(|| SearchError::failed(format!("'{line}' is not a measurement"), ""))
    }
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
    #[error("{}", .0.message)]
    Failed(Diagnostic),
}

impl SearchError {
    /// Returns a failure with something to do about it.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed(Diagnostic::new(message).hint(hint))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_back_bit_for_bit(
            blocks in proptest::collection::vec(-1e3f64..1e3, 0..9), nll in 0f64..1e6, seconds in 0f64..1e4, part in 0usize..99,
        ) {
            let pattern = "FFSFS".parse().unwrap();
            let measured = Measured { pattern, part, blocks, nll, is_reference: part % 2 == 0, layers: part, seconds };
            prop_assert_eq!(measured.to_string().parse::<Measured>().unwrap(), measured);
        }
    }

    #[test]
    fn a_measurement_fits_its_model_and_calibration_set() {
        let measured: Measured = "FFS 1 0 2 3 4 0.5 0.25".parse().unwrap();
        let layout = |blocks: usize| Layout {
            parts: vec![Part::default(), Part { blocks: vec![128; blocks], ..Part::default() }],
        };
        assert!(measured.fits(3, &layout(2)));
        assert!(
            !measured.fits(3, &layout(3)) && !measured.fits(4, &layout(2)) && !measured.fits(3, &Layout::default())
        );
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "FFS", "XX 1 0 2 3 4", "FFS 1 0 2 3 4 five", "FFS 1 0 2 3 4 nan", "FFS 1 0 2 3 inf 5"] {
            assert!(line.parse::<Measured>().is_err(), "{line}");
        }
    }
}
