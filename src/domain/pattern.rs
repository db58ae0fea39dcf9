//! The role of every layer: Full (runs its own indexer) or Shared (reuses the nearest earlier Full layer's indices).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Largest number of layers that a [`Pattern`] can describe.
pub const MAX_LAYERS: usize = 128;

/// What a layer does for its top-k indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs its own lightning indexer.
    Full,
    /// Reuses the indices of the nearest earlier Full layer.
    Shared,
}

impl Role {
    /// Returns the role of a letter, upper or lower case; `None` for any other.
    pub fn from_letter(letter: char) -> Option<Self> {
        match letter.to_ascii_uppercase() {
            'F' => Some(Self::Full),
            'S' => Some(Self::Shared),
            _ => None,
        }
    }

    /// Returns the letter that serving engines use for the role.
    pub fn letter(self) -> char {
        match self {
            Role::Full => 'F',
            Role::Shared => 'S',
        }
    }
}

/// Why a pattern is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A letter other than F or S.
    #[error("the pattern has '{letter}' at layer {layer}; only 'F' (Full) and 'S' (Shared) are known")]
    Letter {
        /// The offending letter.
        letter: char,
        /// Its 0-based position.
        layer: usize,
    },
    /// The pattern's length is not the model's number of layers.
    #[error("the pattern has {got} letters but the model has {want} layers")]
    Length {
        /// Letters given.
        got: usize,
        /// Layers of the model.
        want: usize,
    },
    /// No layers, or more than [`MAX_LAYERS`].
    #[error("a pattern of {0} layers is not possible; 1 to 128 are")]
    Size(usize),
    /// Layer 0 has no earlier layer to share with.
    #[error("layer 0 is Shared, but there is no earlier layer whose indices it could reuse")]
    FirstShared,
    /// A layer was asked to be Full whose checkpoint has no indexer.
    #[error("layer {0} is Full, but the checkpoint has no indexer weights for it")]
    NoIndexer(usize),
    /// In a pattern over all layers, `-` stands where a layer selects, or a letter where none does.
    #[error("the pattern has '{letter}' at layer {layer}; '-' stands just where a layer does not select keys")]
    NotASite {
        /// The layer.
        layer: usize,
        /// What stands there.
        letter: char,
    },
    /// A layer index outside the model.
    #[error("layer {layer} does not exist; the model has layers 0 to {last}")]
    NoLayer {
        /// The layer asked for.
        layer: usize,
        /// The last layer of the model.
        last: usize,
    },
}

impl PatternError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Letter { .. } => "use only the letters F and S",
            Self::Length { .. } => {
                "give one letter per layer ('indexscope info MODEL' prints their number), or uniform:N"
            }
            Self::NotASite { .. } => "'indexscope info MODEL' shows which layers select",
            Self::FirstShared => "start the pattern with F",
            Self::NoIndexer(_) => "make that layer Shared; 'indexscope info MODEL' lists the locked layers",
            Self::NoLayer { .. } => "'indexscope info MODEL' lists the layers",
            Self::Size(_) => "give a model of 1 to 128 layers",
        }
    }
}

/// A run of layers served by one Full layer: the Full layer itself and the Shared layers after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The Full layer.
    pub source: usize,
    /// One past the last layer that it serves.
    pub end: usize,
}

/// The roles of all layers of a model; layer 0 is always Full.
///
/// A small `Copy` value, cheap to hash, that prints as the F/S string that serving engines accept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pattern {
    full: u128,
    layers: u8,
}

impl Pattern {
    /// Returns the pattern in which every layer runs its own indexer.
    ///
    /// # Errors
    /// [`PatternError::Size`] unless `layers` is 1 to [`MAX_LAYERS`].
    pub fn all_full(layers: usize) -> Result<Self, PatternError> {
        Self::from_fn(layers, |_| Role::Full)
    }

    /// Returns the paper's uniform interleaving: layer l is Full iff l mod `every` = 0.
    ///
    /// # Errors
    /// [`PatternError::Size`] for an impossible number of layers.
    pub fn uniform(layers: usize, every: usize) -> Result<Self, PatternError> {
        Self::from_fn(layers, |l| if l % every.max(1) == 0 { Role::Full } else { Role::Shared })
    }

    /// Returns vLLM's frequency rule: layer l is Full iff max(l − offset + 1, 0) mod `freq` = 0.
    ///
    /// # Errors
    /// [`PatternError::FirstShared`] for an offset that leaves layer 0 without indices.
    pub fn freq(layers: usize, freq: usize, offset: usize) -> Result<Self, PatternError> {
        Self::from_fn(layers, |l| {
            if (l + 1).saturating_sub(offset).is_multiple_of(freq.max(1)) { Role::Full } else { Role::Shared }
        })
    }

    /// Builds a pattern from each layer's role.
    ///
    /// # Errors
    /// [`PatternError::Size`] or [`PatternError::FirstShared`].
    pub fn from_fn(layers: usize, role: impl Fn(usize) -> Role) -> Result<Self, PatternError> {
        if layers == 0 || layers > MAX_LAYERS {
            return Err(PatternError::Size(layers));
        }
        let full = (0..layers).filter(|&l| role(l) == Role::Full).fold(0u128, |bits, l| bits | 1 << l);
        if full & 1 == 0 {
            return Err(PatternError::FirstShared);
        }
        Ok(Self { full, layers: layers as u8 })
    }

    /// Returns the number of layers.
    pub fn len(self) -> usize {
        self.layers as usize
    }

    /// Returns false: a pattern has at least one layer.
    pub fn is_empty(self) -> bool {
        false
    }

    /// Returns the role of `layer`; beyond the last layer it is Shared.
    pub fn role(self, layer: usize) -> Role {
        if layer < self.len() && self.full >> layer & 1 == 1 { Role::Full } else { Role::Shared }
    }

    /// Returns whether `layer` runs its own indexer.
    pub fn is_full(self, layer: usize) -> bool {
        self.role(layer) == Role::Full
    }

    /// Returns the number of Full layers.
    pub fn full_count(self) -> usize {
        self.full.count_ones() as usize
    }

    /// Returns the number of Shared layers.
    pub fn shared_count(self) -> usize {
        self.len() - self.full_count()
    }

    /// Returns the layer whose indices `layer` uses: itself, or the nearest earlier Full layer.
    pub fn source(self, layer: usize) -> usize {
        let upto = self.full & (u128::MAX >> (MAX_LAYERS - 1 - layer.min(self.len() - 1)));
        (MAX_LAYERS - 1) - upto.leading_zeros() as usize
    }

    /// Returns the pattern with one layer's role changed.
    ///
    /// # Errors
    /// [`PatternError::FirstShared`] for layer 0, [`PatternError::NoLayer`] beyond the last.
    pub fn with(self, layer: usize, role: Role) -> Result<Self, PatternError> {
        if layer >= self.len() {
            return Err(PatternError::NoLayer { layer, last: self.len() - 1 });
        }
        if layer == 0 && role == Role::Shared {
            return Err(PatternError::FirstShared);
        }
        let bit = 1u128 << layer;
        let full = if role == Role::Full { self.full | bit } else { self.full & !bit };
        Ok(Self { full, ..self })
    }

    /// Returns the groups in order: each Full layer with the Shared layers that it serves.
    pub fn groups(self) -> Vec<Group> {
        let sources: Vec<usize> = (0..self.len()).filter(|&l| self.is_full(l)).collect();
        let ends = sources.iter().copied().skip(1).chain([self.len()]);
        sources.iter().zip(ends).map(|(&source, end)| Group { source, end }).collect()
    }

    /// Returns the first layer whose role differs, or `None` if the patterns are equal.
    pub fn first_difference(self, other: Self) -> Option<usize> {
        let bits = self.full ^ other.full;
        (bits != 0).then(|| bits.trailing_zeros() as usize)
    }

    /// Iterates over the roles.
    pub fn roles(self) -> impl Iterator<Item = Role> {
        (0..self.len()).map(move |l| self.role(l))
    }

    /// Parses a pattern and checks its length.
    ///
    /// # Errors
    /// [`PatternError`] naming the letter, the lengths or layer 0.
    pub fn parse(text: &str, layers: usize) -> Result<Self, PatternError> {
        let got = text.trim().chars().count();
        if let Some((layer, letter)) =
            text.trim().chars().enumerate().find(|(_, c)| !matches!(c, 'F' | 'S' | 'f' | 's'))
        {
            return Err(PatternError::Letter { letter, layer });
        }
        if got != layers {
            return Err(PatternError::Length { got, want: layers });
        }
        text.parse()
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    /// Parses F/S letters; lower case is accepted, printing is always upper case.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let letters: Vec<char> = text.trim().chars().collect();
        if let Some((layer, &letter)) = letters.iter().enumerate().find(|(_, c)| !matches!(c, 'F' | 'S' | 'f' | 's')) {
            return Err(PatternError::Letter { letter, layer });
        }
        Self::from_fn(letters.len(), |l| if letters[l].eq_ignore_ascii_case(&'f') { Role::Full } else { Role::Shared })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.roles().try_for_each(|r| write!(f, "{}", r.letter()))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(s: &str) -> Pattern {
        s.parse().expect("a valid pattern")
    }

    #[test]
    fn uniform_and_freq_match_the_published_formulas() {
        assert_eq!(Pattern::uniform(9, 4).unwrap(), p("FSSSFSSSF"));
        assert_eq!(Pattern::freq(13, 4, 2).unwrap(), p("FFSSSFSSSFSSS"));
        assert_eq!(Pattern::freq(13, 4, 3).unwrap(), p("FFFSSSFSSSFSS"));
        for (layers, freq, offset, full) in
            [(78, 2, 2, 40), (78, 4, 2, 21), (78, 8, 2, 11), (78, 4, 3, 21), (47, 4, 2, 13), (61, 4, 2, 16)]
        {
            assert_eq!(Pattern::freq(layers, freq, offset).unwrap().full_count(), full);
        }
        assert_eq!(Pattern::freq(13, 4, 0), Err(PatternError::FirstShared));
    }

    #[test]
    fn impossible_patterns_say_why() {
        assert_eq!("SF".parse::<Pattern>(), Err(PatternError::FirstShared));
        assert_eq!("FX".parse::<Pattern>(), Err(PatternError::Letter { letter: 'X', layer: 1 }));
        assert_eq!("".parse::<Pattern>(), Err(PatternError::Size(0)));
        assert_eq!(Pattern::parse("FFS", 4), Err(PatternError::Length { got: 3, want: 4 }));
        assert_eq!(p("FF").with(0, Role::Shared), Err(PatternError::FirstShared));
        assert_eq!(p("FF").with(2, Role::Full), Err(PatternError::NoLayer { layer: 2, last: 1 }));
        assert_eq!("F".repeat(129).parse::<Pattern>(), Err(PatternError::Size(129)));
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(bits: u128, layers in 1usize..=128) {
            let pattern = Pattern::from_fn(layers, |l| if l == 0 || bits >> l & 1 == 1 { Role::Full } else { Role::Shared }).unwrap();
            prop_assert_eq!(p(&pattern.to_string()), pattern);
            for l in 0..layers {
                let source = (0..=l).rev().find(|&s| pattern.is_full(s)).unwrap();
                prop_assert_eq!(pattern.source(l), source);
            }
            let covered: usize = pattern.groups().iter().map(|g| g.end - g.source).sum();
            prop_assert_eq!(covered, layers);
        }

        #[test]
        fn toggling_twice_changes_nothing(bits: u128, layer in 1usize..40) {
            let pattern = Pattern::from_fn(40, |l| if l == 0 || bits >> l & 1 == 1 { Role::Full } else { Role::Shared }).unwrap();
            let other = match pattern.role(layer) { Role::Full => Role::Shared, Role::Shared => Role::Full };
            let flipped = pattern.with(layer, other).unwrap();
            prop_assert_eq!(flipped.first_difference(pattern), Some(layer));
            prop_assert_eq!(flipped.with(layer, pattern.role(layer)).unwrap(), pattern);
        }
    }
}
