//! Which layers of a model select keys, by number among themselves and among all layers.
//!
//! A *site* is a layer that owns an indexer or reuses the selection of one: every layer of GLM-5 and DeepSeek-V3.2, the
//! layers over compressed entries of DeepSeek-V4, the sparse layers of MiniMax-M3. Patterns, recordings and matrices have
//! one entry per site; what a person reads names the layer.

use std::fmt;

use super::{LayerSet, MAX_LAYERS, Pattern, PatternError, Role};

/// A layer that selects keys, by its number among the sites of its model, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub usize);

/// The sites of a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sites {
    layers: usize,
    at: LayerSet,
}

impl Sites {
    /// Returns the sites of a model of which every layer selects.
    pub fn every(layers: usize) -> Self {
        Self { layers, at: (0..layers).collect() }
    }

    /// Returns the sites of a model of `layers` layers of which those `at` select.
    ///
    /// # Errors
    /// [`PatternError::Size`] for no site or more than [`MAX_LAYERS`] layers, [`PatternError::NoLayer`] for a layer beyond
    /// the last.
    pub fn new(layers: usize, at: impl IntoIterator<Item = usize>) -> Result<Self, PatternError> {
        if layers == 0 || layers > MAX_LAYERS {
            return Err(PatternError::Size(layers));
        }
        let mut set = LayerSet::default();
        for layer in at {
            if layer >= layers {
                return Err(PatternError::NoLayer { layer, last: layers - 1 });
            }
            set.insert(layer);
        }
        if set.is_empty() { Err(PatternError::Size(0)) } else { Ok(Self { layers, at: set }) }
    }

    /// Returns the number of sites.
    pub fn len(self) -> usize {
        self.at.len()
    }

    /// Returns whether there is no site; only of a model of no layers.
    pub fn is_empty(self) -> bool {
        self.at.is_empty()
    }

    /// Returns the number of layers, sites or not.
    pub fn layers(self) -> usize {
        self.layers
    }

    /// Returns the sites' layers as files name them: nothing where every layer is a site.
    pub fn named(self) -> LayerSet {
        if self.is_every_layer() { LayerSet::default() } else { self.at }
    }

    /// Returns whether every layer is a site, so that sites and layers have the same numbers.
    pub fn is_every_layer(self) -> bool {
        self.len() == self.layers
    }

    /// Returns the layer of a site; `None` beyond the last.
    pub fn layer(self, site: Site) -> Option<usize> {
        self.at.iter().nth(site.0)
    }

    /// Returns the site of a layer; `None` where the layer does not select.
    pub fn site(self, layer: usize) -> Option<Site> {
        self.at.contains(layer).then(|| Site(self.before(layer)))
    }

    /// Returns how many sites come before a layer.
    pub fn before(self, layer: usize) -> usize {
        self.at.iter().take_while(|&l| l < layer).count()
    }

    /// Iterates over the sites' layers, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.at.iter()
    }

    /// Parses F and S over sites, or over all layers with `-`, or any letter, where a layer is no site.
    ///
    /// # Errors
    /// [`PatternError`] naming the letter and its layer, the lengths, or the first site.
    pub fn parse(self, text: &str) -> Result<Pattern, PatternError> {
        let letters: Vec<char> = text.trim().chars().collect();
        let skips = letters.contains(&'-');
        let over_layers = skips || letters.len() == self.layers;
        let want = if over_layers { self.layers } else { self.len() };
        let at = |n: usize| if over_layers { n } else { self.layer(Site(n)).unwrap_or(n) };
        if let Some((n, &letter)) =
            letters.iter().enumerate().find(|(_, c)| !matches!(c.to_ascii_uppercase(), 'F' | 'S' | '-'))
        {
            return Err(PatternError::Letter { letter, layer: at(n) });
        }
        if letters.len() != want {
            return Err(PatternError::Length { got: letters.len(), want });
        }
        if skips && let Some(layer) = (0..want).find(|&l| (letters[l] == '-') == self.at.contains(l)) {
            return Err(PatternError::NotASite { layer, letter: letters[layer] });
        }
        let is_site = |&(n, _): &(usize, &char)| !over_layers || self.at.contains(n);
        let roles: Vec<Role> =
            letters.iter().enumerate().filter(is_site).filter_map(|(_, c)| Role::from_letter(*c)).collect();
        Pattern::from_fn(roles.len(), |site| roles[site])
    }

    /// Returns a pattern's letters over all layers, with `-` where a layer is no site.
    pub fn over_layers(self, pattern: Pattern) -> String {
        (0..self.layers).map(|layer| self.site(layer).map_or('-', |site| pattern.role(site.0).letter())).collect()
    }
}

impl fmt::Debug for Sites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_every_layer() {
            return write!(f, "Sites(all {} layers)", self.layers);
        }
        write!(f, "Sites({:?} of {} layers)", self.at.iter().collect::<Vec<_>>(), self.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The layers over compressed entries of `deepseek_v4_odd`: no number is both a layer's and its site's but 0.
    fn odd() -> Sites {
        Sites::new(9, [0, 2, 3, 6, 8]).unwrap()
    }

    #[test]
    fn layers_and_sites_are_told_apart() {
        let sites = odd();
        assert_eq!((sites.len(), sites.layers(), sites.is_every_layer()), (5, 9, false));
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|s| sites.layer(Site(s))),
            [Some(0), Some(2), Some(3), Some(6), Some(8), None]
        );
        assert_eq!([0, 1, 3, 8, 9].map(|l| sites.site(l)), [Some(Site(0)), None, Some(Site(2)), Some(Site(4)), None]);
        assert_eq!([0, 1, 7, 9].map(|l| sites.before(l)), [0, 1, 4, 5]);
        assert_eq!(Sites::new(2, [2]), Err(PatternError::NoLayer { layer: 2, last: 1 }));
        assert_eq!(Sites::new(2, []), Err(PatternError::Size(0)));
    }

    #[test]
    fn patterns_are_read_over_sites_and_over_layers() {
        let sites = odd();
        let pattern = sites.parse("FsFSS").unwrap();
        assert_eq!(sites.over_layers(pattern), "F-SF--S-S");
        assert_eq!(sites.parse("F-SF--S-S"), Ok(pattern));
        assert_eq!(sites.parse("FFSFSFSFS"), Ok(pattern));
        assert_eq!(sites.parse("FSXSS"), Err(PatternError::Letter { letter: 'X', layer: 3 }));
        assert_eq!(sites.parse("FS"), Err(PatternError::Length { got: 2, want: 5 }));
        assert_eq!(sites.parse("F-S"), Err(PatternError::Length { got: 3, want: 9 }));
        assert_eq!(sites.parse("FSSF--S-S"), Err(PatternError::NotASite { layer: 1, letter: 'S' }));
        assert_eq!(sites.parse("F--F--S-S"), Err(PatternError::NotASite { layer: 2, letter: '-' }));
        assert_eq!(sites.parse("SFFFF"), Err(PatternError::FirstShared));
    }

    proptest! {
        #[test]
        fn where_every_layer_is_a_site_nothing_changes(bits: u128, layers in 1usize..=128) {
            let sites = Sites::every(layers);
            let role = |l: usize| if l == 0 || bits >> l & 1 == 1 { Role::Full } else { Role::Shared };
            let pattern = Pattern::from_fn(layers, role).unwrap();
            prop_assert_eq!(sites.parse(&pattern.to_string()), Ok(pattern));
            prop_assert_eq!(sites.over_layers(pattern), pattern.to_string());
            for layer in 0..layers {
                prop_assert_eq!(sites.site(layer), Some(Site(layer)));
                prop_assert_eq!(sites.layer(Site(layer)), Some(layer));
                prop_assert_eq!(sites.before(layer), layer);
            }
            prop_assert_eq!(sites.site(layers), None);
        }

        #[test]
        fn sites_and_layers_are_inverse(bits in 1u128.., layers in 1usize..=128) {
            let at: Vec<usize> = (0..layers).filter(|l| bits >> l & 1 == 1).collect();
            prop_assume!(!at.is_empty());
            let sites = Sites::new(layers, at.clone()).unwrap();
            for (site, &layer) in at.iter().enumerate() {
                prop_assert_eq!(sites.layer(Site(site)), Some(layer));
                prop_assert_eq!(sites.site(layer), Some(Site(site)));
            }
            let pattern = Pattern::from_fn(at.len(), |s| if s % 3 == 0 { Role::Full } else { Role::Shared }).unwrap();
            prop_assert_eq!(sites.parse(&sites.over_layers(pattern)), Ok(pattern));
            prop_assert_eq!(sites.parse(&pattern.to_string()), Ok(pattern));
        }
    }
}
