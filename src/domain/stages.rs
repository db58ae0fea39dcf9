//! How a model's layers are split over pipeline stages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::{LayerSet, Pattern};

/// Layers per pipeline stage, in order; printed and parsed as `14,6x8,16` (`6x8` stands for six stages of 8 layers).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Stages(Vec<usize>);

/// Why a split is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StagesError {
    /// A part that is neither `N` nor `COUNTxN`.
    #[error("'{0}' is not a stage: give layers per stage, such as 14,6x8,16")]
    Part(String),
    /// The stages hold another number of layers than the model.
    #[error("the stages hold {got} layers but the model has {want}")]
    Layers {
        /// Layers in all stages.
        got: usize,
        /// Layers of the model.
        want: usize,
    },
}

impl Stages {
    /// Returns the only split without a boundary.
    pub fn one(layers: usize) -> Self {
        Self(vec![layers])
    }

    /// Returns the layers of each stage.
    pub fn sizes(&self) -> &[usize] {
        &self.0
    }

    /// Checks that the stages hold the model's layers, no more and no fewer.
    ///
    /// # Errors
    /// [`StagesError::Layers`].
    pub fn check(&self, layers: usize) -> Result<(), StagesError> {
        let got = self.0.iter().sum();
        if got == layers { Ok(()) } else { Err(StagesError::Layers { got, want: layers }) }
    }

    /// Returns the first layer of every stage, layer 0 included.
    pub fn heads(&self) -> LayerSet {
        self.0.iter().scan(0, |at, size| Some(std::mem::replace(at, *at + size))).collect()
    }

    /// Returns the stages' first layers that are Shared in `pattern`.
    pub fn shared_heads(&self, pattern: Pattern) -> Vec<usize> {
        self.heads().iter().filter(|&layer| layer < pattern.len() && !pattern.is_full(layer)).collect()
    }
}

impl FromStr for Stages {
    type Err = StagesError;

    fn from_str(text: &str) -> Result<Self, StagesError> {
        let wrong = |part: &str| StagesError::Part(part.to_owned());
        let mut sizes = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (count, size) = part.split_once('x').unwrap_or(("1", part));
            let number = |s: &str| s.parse().ok().filter(|n| (1..=super::MAX_LAYERS).contains(n));
            let (Some(count), Some(size)) = (number(count), number(size)) else { return Err(wrong(part)) };
            sizes.extend(std::iter::repeat_n(size, count));
        }
        Ok(Self(sizes))
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.0.chunk_by(|a, b| a == b).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match run {
                [size] => write!(f, "{comma}{size}")?,
                _ => write!(f, "{comma}{}x{}", run.len(), run[0])?,
            }
        }
        Ok(())
    }
}

impl Serialize for Stages {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_printed_and_checked() {
        let stages: Stages = "14,6x8,16".parse().unwrap();
        assert_eq!((stages.sizes().len(), stages.to_string().as_str()), (8, "14,6x8,16"));
        assert_eq!(stages.heads().iter().collect::<Vec<_>>(), [0, 14, 22, 30, 38, 46, 54, 62]);
        assert_eq!(stages.check(78), Ok(()));
        assert_eq!(stages.check(61), Err(StagesError::Layers { got: 78, want: 61 }));
        assert_eq!(Stages::one(6).heads().iter().collect::<Vec<_>>(), [0]);
        for text in ["", "0", "3,", "x3", "2x", "a", "3,-1", "99999999999999999999"] {
            assert!(matches!(text.parse::<Stages>(), Err(StagesError::Part(_))), "{text}");
        }
    }

    #[test]
    fn shared_heads_are_found() {
        let stages: Stages = "3x2".parse().unwrap();
        assert_eq!(stages.shared_heads("FFSSFS".parse().unwrap()), [2]);
    }
}
