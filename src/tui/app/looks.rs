//! What is drawn of the index sets, and how.

use std::time::Duration;

use crate::analysis::Metric;

/// What is drawn of two layers' sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// |A∩B| / k.
    #[default]
    Overlap,
    /// |A∩B| / |A∪B|.
    Jaccard,
    /// (overlap − chance) / (1 − chance).
    AboveChance,
}

impl Measure {
    /// Returns the matrix from which it is drawn.
    pub fn metric(self) -> Metric {
        if self == Self::Jaccard { Metric::Jaccard } else { Metric::Overlap }
    }

    /// Returns the name, with the formula where it is short.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Jaccard => "Jaccard",
            Self::AboveChance => "above chance",
        }
    }

    /// Returns the next measure.
    pub fn next(self) -> Self {
        match self {
            Self::Overlap => Self::Jaccard,
            Self::Jaccard => Self::AboveChance,
            Self::AboveChance => Self::Overlap,
        }
    }
}

/// How groups are marked on the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Everything outside the groups steps back.
    #[default]
    Spotlight,
    /// Only the margin shows them.
    Brackets,
    /// Not at all.
    Off,
}

/// The pair of layers looked at: `row` needs indices, `column` would lend them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The layer on which Space acts.
    pub row: usize,
    /// The layer with which it is compared.
    pub column: usize,
}

/// The last click, to tell a double one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Click {
    /// Where it was: column and row.
    pub place: (u16, u16),
    /// When; `None` before the first.
    pub at: Option<Duration>,
}
