//! Means with their standard errors, and paired differences over blocks of consecutive targets.

use serde::{Deserialize, Serialize};

/// Number of consecutive eligible targets whose differences are averaged before the standard error is taken.
///
/// Neighbouring tokens are not independent; blocks of this length nearly are.
pub const BLOCK: usize = 128;

/// Fewest blocks from which a standard error is given.
pub const MIN_BLOCKS: usize = 8;

/// A measured mean with its standard error and the number of things averaged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error; `None` where there is too little to tell.
    pub se: Option<f64>,
    /// How many values the mean is over.
    pub n: usize,
}

/// Returns the mean and the standard error of the mean (sample sd / √n); the error is `None` below two values.
pub fn mean_se(values: &[f64]) -> Option<Estimate> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let value = values.iter().sum::<f64>() / n as f64;
    let se = (n > 1).then(|| {
        let square = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1) as f64;
        (square / n as f64).sqrt()
    });
    Some(Estimate { value, se, n })
}

/// Returns where blocks of consecutive values end in a sequence of `n` eligible ones, ascending, `n` last.
///
/// A remainder of at least half a block is a block of its own; a shorter one joins the block before it, or stands
/// alone where the sequence has no other block. Empty for `n` = 0.
pub fn block_ends(n: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = (1..=n / BLOCK).map(|i| i * BLOCK).collect();
    let rest = n % BLOCK;
    if rest * 2 >= BLOCK || (rest > 0 && n < BLOCK) {
        ends.push(n);
    } else if let Some(last) = ends.last_mut() {
        *last = n;
    }
    ends
}

/// Cuts one sequence's eligible differences into blocks ([`block_ends`]) and returns the mean of each.
pub fn block_means(differences: &[f64]) -> Vec<f64> {
    let mut begin = 0;
    block_ends(differences.len())
        .into_iter()
        .map(|end| {
            let block = &differences[std::mem::replace(&mut begin, end)..end];
            block.iter().sum::<f64>() / block.len() as f64
        })
        .collect()
}

impl Estimate {
    /// Returns the mean of paired differences over all targets, with the standard error over blocks.
    ///
    /// `sequences` holds each sequence's eligible differences in order; `None` where there are none at all. The
    /// second value is the number of blocks; below eight the error is `None`.
    pub fn paired<'a>(sequences: impl IntoIterator<Item = &'a [f64]>) -> Option<(Self, usize)> {
        let (mut sum, mut n, mut blocks) = (0.0, 0, Vec::new());
        for differences in sequences {
            sum += differences.iter().sum::<f64>();
            n += differences.len();
            blocks.extend(block_means(differences));
        }
        (n > 0).then(|| (Self::of_blocks(sum, n, &blocks), blocks.len()))
    }

    /// Returns the mean of `n` > 0 values of which the sum and the means of blocks are known.
    ///
    /// The error is over blocks, `None` below eight of them.
    pub fn of_blocks(sum: f64, n: usize, blocks: &[f64]) -> Self {
        let se = if blocks.len() < MIN_BLOCKS { None } else { mean_se(blocks).and_then(|e| e.se) };
        Self { value: sum / n as f64, se, n }
    }
}

/// Returns the 95 % interval of the median: the two order statistics, as near to each other as that allows, between which
/// it lies whatever the distribution.
///
/// `None` below six values, of which even the lowest and the highest do not reach 95 %.
pub fn median_interval(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len();
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // P(X ≤ rank) of X ~ Bin(n, ½), the values below the median.
    let (mut rank, mut at_most, mut term) = (0, 0.0, 0.5f64.powi(n as i32));
    while at_most + term <= 0.025 {
        at_most += term;
        rank += 1;
        term *= (n + 1 - rank) as f64 / rank as f64;
    }
    // Between the rank-th from below and the rank-th from above.
    let low = rank.checked_sub(1)?;
    Some((sorted[low], sorted[n - 1 - low]))
}

/// Returns the median and the median absolute deviation; `None` for no values.
pub fn median_mad(values: &[f64]) -> Option<(f64, f64)> {
    fn median(mut values: Vec<f64>) -> Option<f64> {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        if n == 0 {
            return None;
        }
        Some(if n % 2 == 1 { values[n / 2] } else { f64::midpoint(values[n / 2 - 1], values[n / 2]) })
    }
    let middle = median(values.to_vec())?;
    let mad = median(values.iter().map(|v| (v - middle).abs()).collect())?;
    Some((middle, mad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_join_or_stand_by_their_length() {
        let blocks = |n: usize| block_means(&vec![1.0; n]).len();
        assert_eq!([0, 1, 63, 64, 127, 128, 191, 192, 256, 300].map(blocks), [0, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
        // 128 zeros and 63 ones: one block of 191, so that the short rest weighs as much as its length.
        let mixed: Vec<f64> = [vec![0.0; 128], vec![1.0; 63]].concat();
        assert_eq!(block_means(&mixed), [63.0 / 191.0]);
    }

    #[test]
    fn the_error_is_over_blocks_and_needs_eight() {
        let sequences: Vec<Vec<f64>> = (0..8).map(|i| vec![f64::from(i % 2); 128]).collect();
        let (estimate, blocks) = Estimate::paired(sequences.iter().map(Vec::as_slice)).unwrap();
        assert_eq!((estimate.value, estimate.n, blocks), (0.5, 1024, 8));
        // sd of {0,1,0,1,…} over 8 is √(2/7); divided by √8.
        assert!((estimate.se.unwrap() - (2.0f64 / 7.0 / 8.0).sqrt()).abs() < 1e-12);
        let (few, blocks) = Estimate::paired(sequences[..7].iter().map(Vec::as_slice)).unwrap();
        assert_eq!((few.se, blocks), (None, 7));
        assert_eq!(Estimate::paired([&[][..]]), None);
    }

    #[test]
    fn the_interval_of_a_median_is_between_order_statistics() {
        let up_to = |n: usize| -> Vec<f64> { (1..=n).rev().map(|i| i as f64).collect() };
        assert_eq!(median_interval(&up_to(5)), None);
        // Tables of the sign test at 5 %: the first of 6, the second of 9, the sixth of 20.
        assert_eq!(median_interval(&up_to(6)), Some((1.0, 6.0)));
        assert_eq!(median_interval(&up_to(9)), Some((2.0, 8.0)));
        assert_eq!(median_interval(&up_to(20)), Some((6.0, 15.0)));
        assert_eq!(median_interval(&[]), None);
    }

    #[test]
    fn median_and_spread() {
        assert_eq!(median_mad(&[3.0, 1.0, 2.0]), Some((2.0, 1.0)));
        assert_eq!(median_mad(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0)));
        assert_eq!(median_mad(&[]), None);
    }
}
