//! How well one number ranks another: Spearman's ρ with its interval.

/// Spearman's rank correlation of paired values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// ρ, from −1 to 1.
    pub rho: f64,
    /// The 95 % interval (Bonett and Wright's error on Fisher's scale); `None` below four pairs
    /// and at ±1, where that scale ends.
    pub interval: Option<(f64, f64)>,
    /// Pairs.
    pub n: usize,
}

/// Returns Spearman's ρ of `(x, y)` pairs, equal values sharing the mean of their ranks.
///
/// `None` below three pairs, where a value is not finite, or where all x or all y are equal.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<Correlation> {
    if pairs.len() < 3 || pairs.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let x = ranks(pairs.iter().map(|p| p.0).collect());
    let y = ranks(pairs.iter().map(|p| p.1).collect());
    let middle = (pairs.len() + 1) as f64 / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let spread = (product(&x, &x) * product(&y, &y)).sqrt();
    if spread == 0.0 {
        return None;
    }
    let rho = (product(&x, &y) / spread).clamp(-1.0, 1.0);
    Some(Correlation { rho, interval: interval(rho, pairs.len()), n: pairs.len() })
}

/// Returns Spearman's ρ of `(x, y)` within strata: how well x ranks y among points of the same stratum.
///
/// Ranks are taken within each stratum and pooled, so that what the stratum itself explains does not count. `n` is the
/// number of points that have another in their stratum, and the interval has as many degrees of freedom as ranks are
/// free. `None` where fewer than three points can be compared, or nothing differs.
pub fn stratified(points: &[(usize, f64, f64)]) -> Option<Correlation> {
    if points.iter().any(|(_, x, y)| !x.is_finite() || !y.is_finite()) {
        return None;
    }
    let mut order = points.to_vec();
    order.sort_by_key(|&(stratum, ..)| stratum);
    let (mut xy, mut xx, mut yy, mut n, mut free) = (0.0, 0.0, 0.0, 0, 0);
    for stratum in order.chunk_by(|a, b| a.0 == b.0).filter(|stratum| stratum.len() > 1) {
        let middle = (stratum.len() + 1) as f64 / 2.0;
        let x = ranks(stratum.iter().map(|p| p.1).collect());
        let y = ranks(stratum.iter().map(|p| p.2).collect());
        for (x, y) in x.iter().zip(&y) {
            xy += (x - middle) * (y - middle);
            xx += (x - middle).powi(2);
            yy += (y - middle).powi(2);
        }
        n += stratum.len();
        free += stratum.len() - 1;
    }
    if n < 3 || xx * yy == 0.0 {
        return None;
    }
    let rho = (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0);
    Some(Correlation { rho, interval: interval(rho, free + 1), n })
}

/// Returns the 95 % interval of ρ over so many independent pairs.
fn interval(rho: f64, pairs: usize) -> Option<(f64, f64)> {
    (pairs > 3 && rho.abs() < 1.0).then(|| {
        let half = 1.96 * ((1.0 + rho * rho / 2.0) / (pairs - 3) as f64).sqrt();
        ((rho.atanh() - half).tanh(), (rho.atanh() + half).tanh())
    })
}

/// Returns each value's rank from 1, equal ones sharing the mean.
fn ranks(values: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let first = order.iter().position(|i| i == &equal[0]).unwrap_or_default();
        let rank = first as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rho(x: &[f64], y: &[f64]) -> Option<f64> {
        spearman(&x.iter().copied().zip(y.iter().copied()).collect::<Vec<_>>()).map(|c| c.rho)
    }

    #[test]
    fn only_the_order_counts() {
        assert_eq!(rho(&[1.0, 2.0, 3.0, 4.0], &[0.1, 0.2, 50.0, 1e9]), Some(1.0));
        assert_eq!(rho(&[1.0, 2.0, 3.0], &[3.0, 2.0, -7.0]), Some(-1.0));
        // Σd² = 8 over 5 pairs: 1 − 6·8 / (5·24).
        let value = rho(&[1.0, 2.0, 3.0, 4.0, 5.0], &[3.0, 1.0, 2.0, 5.0, 4.0]).unwrap();
        assert!((value - 0.6).abs() < 1e-12, "{value}");
    }

    #[test]
    fn what_the_number_of_full_layers_explains_does_not_count() {
        // x and y both fall with the stratum; within each they rank opposite ways.
        let points: Vec<(usize, f64, f64)> = (0..5)
            .flat_map(|s| {
                let at = 10.0 * s as f64;
                [(s, at, at + 1.0), (s, at + 1.0, at)]
            })
            .collect();
        let pooled: Vec<(f64, f64)> = points.iter().map(|p| (p.1, p.2)).collect();
        assert!(spearman(&pooled).unwrap().rho > 0.9);
        let within = stratified(&points).unwrap();
        assert_eq!((within.rho, within.interval, within.n), (-1.0, None, 10));
        // Prefixes of one search are one point each in a stratum: there is nothing to compare.
        assert_eq!(stratified(&(0..9).map(|s| (s, s as f64, s as f64)).collect::<Vec<_>>()), None);
        // Two strata of three: ranks 1 2 3 against 1 3 2, and 1 2 3 against 1 2 3: Σ = 1 + 2 of 4; five free ranks.
        let two = [(1, 1.0, 1.0), (1, 2.0, 3.0), (1, 3.0, 2.0), (2, 1.0, 1.0), (2, 2.0, 2.0), (2, 3.0, 3.0)];
        let Correlation { rho, interval, n } = stratified(&two).unwrap();
        // (1 + 0.75²/2)/2 under the root.
        let half = 1.96 * 0.640_625f64.sqrt();
        assert!((rho - 0.75).abs() < 1e-12 && n == 6);
        assert!((interval.unwrap().1 - (0.75f64.atanh() + half).tanh()).abs() < 1e-12);
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(vec![2.0, 1.0, 2.0, 3.0]), [2.5, 1.0, 2.5, 4.0]);
        // By Pearson's formula on the ranks 1 2.5 2.5 4 and 1 2 3 4.
        let value = rho(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((value - 4.5 / 22.5f64.sqrt()).abs() < 1e-12, "{value}");
    }

    #[test]
    fn what_says_nothing_has_no_correlation() {
        assert_eq!(rho(&[1.0, 2.0], &[1.0, 2.0]), None);
        assert_eq!(rho(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(rho(&[1.0, f64::NAN, 1.0], &[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn the_interval_is_that_of_a_hand_computed_example() {
        let (x, y) = ([1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 1.0, 2.0, 5.0, 4.0]);
        let pairs: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        let (low, high) = spearman(&pairs).unwrap().interval.unwrap();
        // ρ = 0.6 and n = 5: z = atanh 0.6 = 0.693147; its error √((1 + 0.6²/2) / (5 − 3)) = 0.768115, times 1.96 is
        // 1.505505. The limits are tanh(−0.812358) and tanh(2.198652).
        assert!((low - -0.670_889).abs() < 1e-5 && (high - 0.975_678).abs() < 1e-5, "{low} {high}");
    }

    #[test]
    fn the_interval_narrows_with_the_pairs() {
        let of = |n: usize| {
            let pairs: Vec<(f64, f64)> = (0..n).map(|i| (i as f64, (i + 3 * (i % 3)) as f64)).collect();
            let Correlation { rho, interval, .. } = spearman(&pairs).unwrap();
            let (low, high) = interval.unwrap();
            assert!(low < rho && rho < high && low >= -1.0 && high <= 1.0);
            high - low
        };
        assert!(of(40) < of(10));
        assert_eq!(spearman(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]).unwrap().interval, None);
    }
}
