//! Whether two rankings agree: Kendall's τ.

/// Returns Kendall's τ-b of two rankings of the same things, ties allowed; 1 is the same order, −1 the opposite.
///
/// `None` where one of them ties everything.
pub fn kendall(a: &[f64], b: &[f64]) -> Option<f64> {
    let (mut agree, mut pairs_a, mut pairs_b) = (0i64, 0i64, 0i64);
    let n = a.len().min(b.len());
    for i in 0..n {
        for j in 0..i {
            let sign = |x: &[f64]| x[i].total_cmp(&x[j]) as i64;
            agree += sign(a) * sign(b);
            pairs_a += sign(a).abs();
            pairs_b += sign(b).abs();
        }
    }
    let pairs = (pairs_a as f64 * pairs_b as f64).sqrt();
    (pairs > 0.0).then(|| agree as f64 / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_order_is_one_and_ties_count_in_neither() {
        assert_eq!(kendall(&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]), Some(1.0));
        assert_eq!(kendall(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        // Three pairs agree, one is swapped, of six; and with the tie of the last two one less in b.
        assert_eq!(kendall(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 3.0, 4.0]), Some(4.0 / 6.0));
        assert_eq!(kendall(&[1.0, 2.0, 3.0], &[1.0, 2.0, 2.0]), Some(2.0 / 6f64.sqrt()));
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), None);
    }
}
