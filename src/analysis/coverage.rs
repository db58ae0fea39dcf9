//! How much of its own selection a Shared layer would find in the set of the layer that serves it.

use super::{Metric, OverlapMatrix};
use crate::domain::{Estimate, Pattern};

/// Predicts each layer's coverage under `pattern` from a recording in which layers ran their own indexers.
///
/// A Full layer covers itself entirely. A Shared layer is predicted by its overlap with the layer that serves it;
/// `None` where the recording has no own set of either. A prediction, because under `pattern` the hidden states, and
/// so the sets, are different ones.
pub fn predicted(matrix: &OverlapMatrix, pattern: Pattern) -> Vec<Option<Estimate>> {
    debug_assert_eq!(matrix.metric, Metric::Overlap, "coverage is an overlap");
    (0..pattern.len())
        .map(|layer| {
            let source = pattern.source(layer);
            if source == layer {
                return Some(Estimate { value: 1.0, se: None, n: matrix.counted });
            }
            if !matrix.is_own(layer) || !matrix.is_own(source) {
                return None;
            }
            matrix.estimate(layer, source)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_layer_is_covered_by_its_source() {
        let matrix = OverlapMatrix {
            metric: Metric::Overlap,
            layers: 3,
            values: vec![1.0, 0.5, 0.25, 0.5, 1.0, 0.75, 0.25, 0.75, 1.0],
            se: vec![None; 9],
            chance: Some(0.1),
            queries: 4,
            counted: 4,
            borrowed: vec![],
            tokens_hash: String::new(),
        };
        let values = |m: &OverlapMatrix, p: &str| -> Vec<Option<f64>> {
            predicted(m, p.parse().unwrap()).iter().map(|e| e.map(|e| e.value)).collect()
        };
        assert_eq!(values(&matrix, "FSS"), [Some(1.0), Some(0.5), Some(0.25)]);
        assert_eq!(values(&matrix, "FFS"), [Some(1.0), Some(1.0), Some(0.75)]);
        let borrowed = OverlapMatrix { borrowed: vec![2], ..matrix };
        assert_eq!(values(&borrowed, "FSS"), [Some(1.0), Some(0.5), None]);
    }
}
