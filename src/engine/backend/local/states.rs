//! Residual states kept by pattern prefix, so that an evaluation resumes at the first layer that differs.

use std::collections::HashMap;

use crate::domain::{Pattern, Role, Sites};
use crate::model::{Entry, Indices};

/// Returns the bytes that an entry holds.
fn size(entry: &Entry) -> usize {
    let selections = entry.indices.as_ref().map_or(0, Indices::bytes);
    entry.hidden.elem_count() * entry.hidden.dtype().size_in_bytes() + selections
}

/// Which batch, which layer is entered, and the roles of the layers before it.
type Key = (usize, usize, Pattern);

/// States under a budget of bytes; the least recently used ones go first, those of the reference last.
///
/// Single flips of the reference are what people and searches try again and again.
#[derive(Debug)]
pub(super) struct States {
    entries: HashMap<Key, (Entry, u64)>,
    bytes: usize,
    budget: usize,
    sites: Sites,
    reference: Pattern,
    clock: u64,
}

impl States {
    pub(super) fn new(budget: usize, sites: Sites, reference: Pattern) -> Self {
        Self { entries: HashMap::new(), bytes: 0, budget, sites, reference, clock: 0 }
    }

    /// Returns the state at the entry of the latest layer, `last` at most, whose earlier roles are those of `pattern`.
    pub(super) fn longest(&mut self, batch: usize, pattern: Pattern, last: usize) -> Option<(usize, Entry)> {
        self.clock += 1;
        (1..self.sites.layers().min(last.saturating_add(1))).rev().find_map(|layer| {
            let (entry, used) = self.entries.get_mut(&(batch, layer, prefix(pattern, self.sites.before(layer))))?;
            *used = self.clock;
            Some((layer, entry.clone()))
        })
    }

    /// Keeps the state at the entry of `layer`, unless it alone exceeds the budget.
    pub(super) fn insert(&mut self, batch: usize, layer: usize, pattern: Pattern, entry: Entry) {
        let bytes = size(&entry);
        if bytes > self.budget {
            return;
        }
        self.clock += 1;
        if let Some((old, _)) =
            self.entries.insert((batch, layer, prefix(pattern, self.sites.before(layer))), (entry, self.clock))
        {
            self.bytes -= size(&old);
        }
        self.bytes += bytes;
        while self.bytes > self.budget {
            let last = |&(_, layer, roles): &Key| roles == prefix(self.reference, self.sites.before(layer));
            let oldest = self.entries.iter().min_by_key(|(key, (_, used))| (last(key), *used)).map(|(key, _)| *key);
            let Some((entry, _)) = oldest.and_then(|key| self.entries.remove(&key)) else { return };
            self.bytes -= size(&entry);
        }
    }
}

/// Returns the pattern with every site from `sites` on made Shared, so that equal prefixes are equal keys.
///
/// The first site is Full in every pattern, so that a prefix of none is one, too.
fn prefix(pattern: Pattern, sites: usize) -> Pattern {
    let role = |site: usize| if site < sites.max(1) { pattern.role(site) } else { Role::Shared };
    Pattern::from_fn(pattern.len(), role).unwrap_or(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    fn entry(value: f32) -> Entry {
        let hidden = Tensor::full(value, (1, 1, 4), &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        Entry { hidden, indices: None }
    }

    fn p(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_common_prefix_is_found() {
        let mut states = States::new(1 << 20, Sites::every(4), p("FFFF"));
        for layer in 1..4 {
            states.insert(0, layer, p("FFSF"), entry(layer as f32));
        }
        let at = |states: &mut States, batch, pattern| states.longest(batch, p(pattern), 9).map(|(layer, _)| layer);
        assert_eq!(at(&mut states, 0, "FFSS"), Some(3));
        assert_eq!(at(&mut states, 0, "FFFF"), Some(2));
        assert_eq!(at(&mut states, 0, "FSFF"), Some(1));
        assert_eq!(at(&mut states, 1, "FFSF"), None);
        assert_eq!(states.longest(0, p("FFSF"), 2).map(|(layer, _)| layer), Some(2));
        assert!(states.longest(0, p("FFSF"), 0).is_none());
    }

    #[test]
    fn those_of_the_reference_go_last() {
        let mut states = States::new(48, Sites::every(4), p("FFFF"));
        for (layer, pattern) in [(3, "FFFF"), (2, "FSFF"), (3, "FSFF"), (3, "FSSF")] {
            states.insert(0, layer, p(pattern), entry(1.0));
        }
        let at = |states: &mut States, pattern| states.longest(0, p(pattern), 9).map(|(layer, _)| layer);
        assert_eq!(
            (at(&mut states, "FFFS"), at(&mut states, "FSFS"), at(&mut states, "FSSS")),
            (Some(3), Some(3), Some(3))
        );
        // Only the oldest of the others had to go.
        assert_eq!(states.entries.len(), 3);
    }

    #[test]
    fn the_budget_holds_and_the_least_used_goes() {
        let mut states = States::new(32, Sites::every(5), p("FFFFF"));
        states.insert(0, 1, p("FFF"), entry(1.0));
        states.insert(0, 2, p("FFF"), entry(2.0));
        assert_eq!(states.longest(0, p("FSF"), 9).map(|(layer, _)| layer), Some(1));
        states.insert(0, 2, p("FSF"), entry(3.0));
        assert_eq!((states.bytes, states.entries.len()), (32, 2));
        assert_eq!(states.longest(0, p("FFF"), 9).map(|(layer, _)| layer), Some(1));
        states.insert(
            0,
            2,
            p("FFF"),
            Entry { hidden: Tensor::zeros((1, 1, 9), DType::F32, &Device::Cpu).unwrap(), indices: None },
        );
        assert_eq!(states.bytes, 32);
    }
}
