//! Which choices no other one beats in both respects.

/// Returns the indices of `(gain, cost)` points than which none has as much gain for less cost, or more for as little.
///
/// In ascending order of gain; of equal points the first is kept, and points that are not finite are left out.
pub fn frontier(points: &[(f64, f64)]) -> Vec<usize> {
    let finite = |i: &usize| points[*i].0.is_finite() && points[*i].1.is_finite();
    let mut order: Vec<usize> = (0..points.len()).filter(finite).collect();
    // The largest gain first, and the cheapest of equal ones.
    order.sort_by(|&a, &b| {
        let by_gain = points[b].0.total_cmp(&points[a].0);
        by_gain.then(points[a].1.total_cmp(&points[b].1)).then(a.cmp(&b))
    });
    let mut least = f64::INFINITY;
    order.retain(|&i| {
        let better = points[i].1 < least;
        least = least.min(points[i].1);
        better
    });
    order.reverse();
    order
}

/// Returns the indices of the points that none beats for sure, ascending: a point is beaten by one of at least its gain
/// whose cost is lower by more than `noise` of the two.
///
/// The frontier is a part of it; points that are not finite are left out.
pub fn band(points: &[(f64, f64)], noise: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let line = frontier(points);
    let beaten = |i: usize| {
        line.iter().any(|&j| j != i && points[j].0 >= points[i].0 && points[i].1 - points[j].1 > noise(i, j))
            || line.iter().any(|&j| points[j] == points[i] && j < i)
    };
    let finite = |i: &usize| points[*i].0.is_finite() && points[*i].1.is_finite();
    (0..points.len()).filter(finite).filter(|&i| line.contains(&i) || !beaten(i)).collect()
}

/// Returns the index of the point after which the cost rises steeply: the one farthest below the straight line between
/// the first and the last, both axes scaled to their range; `None` below three points, or where none lies below it.
pub fn knee(points: &[(f64, f64)]) -> Option<usize> {
    let (first, last) = (*points.first()?, *points.last()?);
    let (width, height) = (last.0 - first.0, last.1 - first.1);
    if points.len() < 3 || width == 0.0 || height == 0.0 {
        return None;
    }
    let below = |p: &(f64, f64)| (p.0 - first.0) / width - (p.1 - first.1) / height;
    let depths = points.iter().map(below).enumerate().filter(|(_, depth)| *depth > 0.0);
    depths.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_beaten_point_is_left_out() {
        let points = [(1.0, 0.0), (1.2, 0.01), (1.1, 0.02), (1.5, 0.2), (1.5, 0.3), (1.5, 0.2), (f64::NAN, 0.0)];
        assert_eq!(frontier(&points), [0, 1, 3]);
        assert_eq!(frontier(&[]), [] as [usize; 0]);
    }

    #[test]
    fn points_within_noise_do_not_beat_each_other() {
        let points = [(1.0, 0.0), (1.2, 0.01), (1.1, 0.02), (1.5, 0.2), (1.5, 0.3)];
        assert_eq!(band(&points, |_, _| 0.0), frontier(&points));
        assert_eq!(band(&points, |_, _| 0.02), [0, 1, 2, 3]);
        // Only the pair of the last two is that noisy.
        assert_eq!(band(&points, |i, j| if i.min(j) == 3 { 0.5 } else { 0.0 }), [0, 1, 3, 4]);
        assert_eq!(band(&[(f64::NAN, 0.0)], |_, _| 1.0), [] as [usize; 0]);
    }

    #[test]
    fn the_knee_is_where_the_cost_begins_to_rise() {
        let points = [(9.0, 0.0), (8.0, 0.1), (7.0, 0.2), (6.0, 0.3), (5.0, 3.0), (4.0, 9.0)];
        assert_eq!(knee(&points), Some(3));
        assert_eq!(knee(&[(3.0, 0.0), (2.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(knee(&points[..2]), None);
    }

    proptest! {
        #[test]
        fn nothing_on_the_frontier_is_beaten_and_all_else_is(
            points in proptest::collection::vec((0u8..12, 0u8..12), 0..30),
        ) {
            let points: Vec<(f64, f64)> = points.into_iter().map(|(g, c)| (f64::from(g), f64::from(c))).collect();
            let kept = frontier(&points);
            for (i, a) in points.iter().enumerate() {
                let beaten = points.iter().enumerate().any(|(j, b)| {
                    (b.0 >= a.0 && b.1 <= a.1) && (b != a || j < i)
                });
                prop_assert_eq!(kept.contains(&i), !beaten, "{:?}", a);
            }
        }
    }
}
