//! Patterns that follow from a rule without any loss: uniform, and dynamic programming on an affinity of layers.

use super::{Affinity, Space};
use crate::domain::{Pattern, Role};

/// Returns the pattern with `full` Full layers at even distances.
///
/// It is the paper's interleaving (layer l Full iff l mod N = 0) where one has that number and the space allows it;
/// otherwise the one with the smallest sum of squared distances between layers and their sources.
pub(super) fn uniform(space: &Space, full: usize) -> Pattern {
    let layers = space.layers();
    let interleaved = (1..=layers).filter_map(|every| Pattern::uniform(layers, every).ok());
    let fits = |p: &Pattern| p.full_count() == full && space.allows(*p);
    interleaved
        .into_iter()
        .find(fits)
        .unwrap_or_else(|| place(space, full, |layer, lender| -((layer - lender) as f64).powi(2)))
}

/// Returns the pattern with `full` Full layers whose summed affinity of layers to their sources is largest.
pub(super) fn by_affinity(space: &Space, affinity: &Affinity, full: usize) -> Pattern {
    place(space, full, |layer, lender| affinity.get(layer, lender))
}

/// Dynamic programming over the last Full layer (Kascade's anchors): V\[k\]\[end\] = max over the k-th source of
/// V\[k − 1\]\[source\] + Σ worth(layer, source) over the layers it serves.
///
/// Locked layers are kept to. Of equal sums the one with earlier sources wins.
fn place(space: &Space, full: usize, worth: impl Fn(usize, usize) -> f64) -> Pattern {
    let layers = space.layers();
    // best[k][end]: layers before `end` are served by k sources; the entry holds the value and the k-th source.
    let mut best: Vec<Vec<Option<(f64, usize)>>> = vec![vec![None; layers + 1]; full + 1];
    best[0][0] = Some((0.0, 0));
    for k in 1..=full {
        let (done, rest) = best.split_at_mut(k);
        let (before, now) = (&done[k - 1], &mut rest[0]);
        for source in (0..layers).filter(|&l| !space.shared.contains(l)) {
            let Some((mut value, _)) = before[source] else { continue };
            for (end, entry) in now.iter_mut().enumerate().skip(source + 1) {
                let layer = end - 1;
                if layer > source && space.full.contains(layer) {
                    break;
                }
                value += worth(layer, source);
                if entry.is_none_or(|(known, _)| value > known) {
                    *entry = Some((value, source));
                }
            }
        }
    }
    let mut sources = Vec::new();
    let mut end = layers;
    for k in (1..=full).rev() {
        let Some((_, source)) = best[k][end] else { return space.start };
        sources.push(source);
        end = source;
    }
    Pattern::from_fn(layers, |l| if sources.contains(&l) { Role::Full } else { Role::Shared }).unwrap_or(space.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Constraints, Goal, SearchSettings, Strategy};

    fn space(layers: usize, lock_full: &[usize], lock_shared: &[usize]) -> Space {
        let constraints = Constraints::every(layers);
        let settings = SearchSettings {
            lock_full: lock_full.iter().copied().collect(),
            lock_shared: lock_shared.iter().copied().collect(),
            ..SearchSettings::new(Strategy::Uniform, Goal::MaxDelta(1.0))
        };
        Space::new(&constraints, &settings).unwrap()
    }

    #[test]
    fn uniform_is_the_papers_where_there_is_one() {
        let of = |full| uniform(&space(12, &[], &[]), full).to_string();
        assert_eq!(of(3), "FSSSFSSSFSSS");
        assert_eq!(of(6), "FSFSFSFSFSFS");
        assert_eq!(of(2), "FSSSSSFSSSSS");
        assert_eq!(of(5), "FSFSFSFSSFSS", "no interleaving has five");
    }

    #[test]
    fn locks_are_kept_to() {
        for full in 3..=8 {
            let space = space(12, &[5, 6], &[1, 2, 11]);
            let pattern = uniform(&space, full);
            assert!(space.allows(pattern) && pattern.full_count() == full, "{pattern}");
        }
    }

    #[test]
    fn the_best_sources_are_found() {
        // Layers 0–2 go well with 0, layers 3–5 with 3, nothing else goes with anything.
        let layers = 6;
        let values = (0..36).map(|i| f64::from(u8::from(i / 6 / 3 == i % 6 / 3))).collect();
        let affinity = Affinity { layers, values, layer_forwards: 0.0, seconds: 0.0 };
        assert_eq!(by_affinity(&space(6, &[], &[]), &affinity, 2).to_string(), "FSSFSS");
    }
}
