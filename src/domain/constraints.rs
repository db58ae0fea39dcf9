//! Sets of layers, and what a model allows: layers without an indexer cannot be Full.

use serde::{Deserialize, Serialize};

use super::{MAX_LAYERS, Pattern, PatternError, Role, Site, Sites};

/// A set of layers of one model; in files a list of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<usize>", into = "Vec<usize>")]
pub struct LayerSet(u128);

impl LayerSet {
    /// Returns whether the set holds `layer`.
    pub fn contains(self, layer: usize) -> bool {
        layer < MAX_LAYERS && self.0 >> layer & 1 == 1
    }

    /// Adds `layer`; a layer beyond [`MAX_LAYERS`] is ignored.
    pub fn insert(&mut self, layer: usize) {
        if layer < MAX_LAYERS {
            self.0 |= 1 << layer;
        }
    }

    /// Returns the number of layers in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the layers in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_LAYERS).filter(move |&l| self.contains(l))
    }
}

impl From<Vec<usize>> for LayerSet {
    fn from(layers: Vec<usize>) -> Self {
        layers.into_iter().collect()
    }
}

impl From<LayerSet> for Vec<usize> {
    fn from(set: LayerSet) -> Self {
        set.iter().collect()
    }
}

impl FromIterator<usize> for LayerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(layers: I) -> Self {
        let mut set = Self::default();
        layers.into_iter().for_each(|l| set.insert(l));
        set
    }
}

/// What a model allows: which layers select keys, and which of those cannot be Full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    /// The layers that select; a pattern has one role for each.
    pub sites: Sites,
    /// Sites without indexer weights of their own ("locked Shared"), by their numbers among the sites.
    pub locked_shared: LayerSet,
}

impl Constraints {
    /// Returns the constraints of a model of which every layer selects and can be Full.
    pub fn every(layers: usize) -> Self {
        Self { sites: Sites::every(layers), locked_shared: LayerSet::default() }
    }

    /// Returns how many roles a pattern has.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Returns whether nothing selects.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Checks a pattern against the model.
    ///
    /// # Errors
    /// [`PatternError::Length`] or [`PatternError::NoIndexer`].
    pub fn check(&self, pattern: Pattern) -> Result<(), PatternError> {
        if pattern.len() != self.len() {
            return Err(PatternError::Length { got: pattern.len(), want: self.len() });
        }
        match self.locked_shared.iter().find(|&site| pattern.is_full(site)) {
            Some(site) => Err(PatternError::NoIndexer(self.sites.layer(Site(site)).unwrap_or(site))),
            None => Ok(()),
        }
    }

    /// Returns the pattern that everything is compared with: all-Full, except locked layers.
    ///
    /// # Errors
    /// [`PatternError::FirstShared`] if layer 0 has no indexer.
    pub fn reference(&self) -> Result<Pattern, PatternError> {
        Pattern::from_fn(self.len(), |site| if self.locked_shared.contains(site) { Role::Shared } else { Role::Full })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Pattern {
        s.parse().expect("a valid pattern")
    }

    #[test]
    fn locked_layers_shape_the_reference() {
        let constraints = Constraints { locked_shared: LayerSet::from_iter([1, 3]), ..Constraints::every(4) };
        assert_eq!(constraints.reference().unwrap(), p("FSFS"));
        assert_eq!(constraints.check(p("FFFS")), Err(PatternError::NoIndexer(1)));
        assert_eq!(constraints.check(p("FSSS")), Ok(()));
    }
}
