//! Drawing with a seed, alike on every machine.

/// Advances a splitmix64 generator and returns its next number.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws `count` of 0..`n` without repetition, ascending (Knuth's algorithm S on splitmix64).
pub fn choose(n: usize, count: usize, mut seed: u64) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(count.min(n));
    for i in 0..n {
        let wanted = count.min(n) - chosen.len();
        if splitmix(&mut seed) % ((n - i) as u64) < wanted as u64 {
            chosen.push(i);
        }
    }
    chosen
}
