//! Which queries are recorded, and the head of a recording.

use super::ModelInfo;
use super::data::Calibration;
use crate::domain::{Pattern, Query, QuerySampling, Trace, TraceMeta, Unit, hash_ids};

/// Returns a recording without its sets.
pub(super) fn head(info: &ModelInfo, calibration: &Calibration, pattern: Pattern, sampling: QuerySampling) -> Trace {
    let tokens: Vec<Vec<u32>> = calibration.sequences().iter().map(|s| s.ids.clone()).collect();
    let queries = sample(&tokens, sampling);
    let meta = TraceMeta {
        schema: 1,
        model: info.name.clone(),
        fingerprint: info.fingerprint.clone(),
        pattern,
        index_topk: info.index_topk,
        layers: info.constraints.layers,
        unit: Unit::Token,
        heads: info.index_heads,
        queries: sampling,
        tokens_hash: hash_ids(tokens.iter().map(Vec::as_slice)),
        mass_recall: None,
    };
    Trace { meta, tokens, queries, selections: Vec::new() }
}

/// Returns the recorded queries in (sequence, position) order.
pub(super) fn sample(tokens: &[Vec<u32>], sampling: QuerySampling) -> Vec<Query> {
    let mut queries = Vec::new();
    for (sequence, ids) in tokens.iter().enumerate() {
        let positions: Vec<usize> = match sampling {
            QuerySampling::All => (0..ids.len()).collect(),
            QuerySampling::Sampled { per_sequence, seed } => {
                choose(ids.len(), per_sequence, seed ^ (sequence as u64) << 32)
            }
        };
        let query = |position| Query { sequence: sequence as u32, position: position as u32 };
        queries.extend(positions.into_iter().map(query));
    }
    queries
}

/// Draws `count` of 0..`n` without repetition, ascending (Knuth's algorithm S on splitmix64).
pub(super) fn choose(n: usize, count: usize, mut seed: u64) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count.min(n));
    for i in 0..n {
        let wanted = count.min(n) - chosen.len();
        if splitmix(&mut seed) % ((n - i) as u64) < wanted as u64 {
            chosen.push(i);
        }
    }
    chosen
}

/// Advances a splitmix64 generator and returns its next number.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_ascending_repeatable_and_no_more_than_there_are() {
        let tokens = [vec![0; 50], vec![0; 3]];
        let sampling = QuerySampling::Sampled { per_sequence: 8, seed: 1 };
        let queries = sample(&tokens, sampling);
        assert_eq!(queries, sample(&tokens, sampling));
        assert_eq!(queries.iter().filter(|q| q.sequence == 0).count(), 8);
        assert_eq!(queries.iter().filter(|q| q.sequence == 1).count(), 3);
        assert!(queries.windows(2).all(|w| (w[0].sequence, w[0].position) < (w[1].sequence, w[1].position)));
        assert_eq!(sample(&tokens, QuerySampling::All).len(), 53);
    }
}
