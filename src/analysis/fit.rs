//! What a forward costs at contexts that were not timed: seconds = a + b·T + c·T², fitted to measured phases.

use crate::domain::Speed;

/// Terms of the polynomial: constant, linear, quadratic.
const TERMS: usize = 3;

/// One timed forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Tokens in context.
    pub context: usize,
    /// Full layers of the pattern.
    pub full: usize,
    /// Seconds spent in indexers and their top-k.
    pub indexer: f64,
    /// Seconds spent elsewhere.
    pub rest: f64,
}

impl Point {
    /// Returns a measurement as a point of the fit.
    pub fn of(speed: &Speed) -> Self {
        let share = speed.share.indexer + speed.share.topk;
        let seconds = speed.seconds.median;
        Self {
            context: speed.context,
            full: speed.pattern.full_count(),
            indexer: seconds * share,
            rest: seconds * (1.0 - share),
        }
    }
}

/// Seconds as a polynomial of the context whose coefficients are not negative, as no work is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Polynomial(pub [f64; TERMS]);

impl Polynomial {
    /// Returns the seconds at a context of `t` tokens.
    pub fn at(&self, t: f64) -> f64 {
        self.0[0] + t * (self.0[1] + t * self.0[2])
    }

    /// Fits `(context, seconds)` by least squares of relative residuals; `None` without points.
    ///
    /// Every choice of terms is tried that has no more terms than there are contexts, and the best one without a
    /// negative coefficient kept.
    fn fit(points: &[(f64, f64)]) -> Option<Self> {
        let points: Vec<(f64, f64)> = points.iter().copied().filter(|&(_, y)| y > 0.0).collect();
        let mut contexts: Vec<f64> = points.iter().map(|p| p.0).collect();
        contexts.sort_by(f64::total_cmp);
        contexts.dedup();
        let scale = *contexts.last()?;
        let squares = |p: &Self| points.iter().map(|&(t, y)| (p.at(t) / y - 1.0).powi(2)).sum::<f64>();
        let better = |best: Option<(Self, f64)>, p: Self| {
            let error = squares(&p);
            if best.is_some_and(|(_, e)| e <= error) { best } else { Some((p, error)) }
        };
        (1..1usize << TERMS)
            .map(|bits| (0..TERMS).filter(|i| bits >> i & 1 == 1).collect::<Vec<_>>())
            .filter(|terms| terms.len() <= contexts.len())
            .filter_map(|terms| solve(&terms, &points, scale))
            .filter(|p| p.0.iter().all(|&c| c >= 0.0))
            .fold(None, better)
            .map(|(p, _)| p)
    }
}

/// Solves the normal equations for some of the terms, with contexts divided by `scale`; `None` where singular.
fn solve(terms: &[usize], points: &[(f64, f64)], scale: f64) -> Option<Polynomial> {
    let n = terms.len();
    let mut rows = vec![vec![0.0; n + 1]; n];
    for &(t, y) in points {
        let basis: Vec<f64> = terms.iter().map(|&i| (t / scale).powi(i as i32) / y).collect();
        for (i, row) in rows.iter_mut().enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value += basis[i] * basis.get(j).copied().unwrap_or(1.0);
            }
        }
    }
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()))?;
        rows.swap(i, pivot);
        if rows[i][i].abs() < f64::MIN_POSITIVE {
            return None;
        }
        let row = rows[i].clone();
        for (_, other) in rows.iter_mut().enumerate().filter(|&(j, _)| j != i) {
            let factor = other[i] / row[i];
            other.iter_mut().zip(&row).for_each(|(a, b)| *a -= factor * b);
        }
    }
    let mut polynomial = Polynomial::default();
    for (i, &term) in terms.iter().enumerate() {
        polynomial.0[term] = rows[i][n] / rows[i][i] / scale.powi(term as i32);
    }
    Some(polynomial)
}

/// A cost model of one phase on one machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Indexer and top-k of one Full layer.
    pub indexer: Polynomial,
    /// All else.
    pub rest: Polynomial,
    /// Largest relative error at the measured points.
    pub residual: f64,
    /// Largest relative error at the longest context, predicted from the shorter ones alone.
    pub held_out: f64,
}

impl Fit {
    /// Fits timed forwards; `None` below three different contexts.
    pub fn of(points: &[Point]) -> Option<Self> {
        let mut contexts: Vec<usize> = points.iter().map(|p| p.context).collect();
        contexts.sort_unstable();
        contexts.dedup();
        if contexts.len() < TERMS {
            return None;
        }
        let longest = *contexts.last()?;
        let (last, shorter): (Vec<Point>, Vec<Point>) = points.iter().partition(|p| p.context == longest);
        let held_out = Self::of_any(&shorter)?.error(&last);
        let fit = Self::of_any(points)?;
        Some(Self { residual: fit.error(points), held_out, ..fit })
    }

    fn of_any(points: &[Point]) -> Option<Self> {
        let indexer: Vec<_> = points.iter().map(|p| (p.context as f64, p.indexer / p.full as f64)).collect();
        let rest: Vec<_> = points.iter().map(|p| (p.context as f64, p.rest)).collect();
        let (indexer, rest) = (Polynomial::fit(&indexer)?, Polynomial::fit(&rest)?);
        Some(Self { indexer, rest, residual: 0.0, held_out: 0.0 })
    }

    /// Returns the seconds of a forward with `full` Full layers at `context` tokens.
    pub fn seconds(&self, full: usize, context: usize) -> f64 {
        full as f64 * self.indexer.at(context as f64) + self.rest.at(context as f64)
    }

    fn error(&self, points: &[Point]) -> f64 {
        let relative = |p: &Point| (self.seconds(p.full, p.context) / (p.indexer + p.rest) - 1.0).abs();
        points.iter().map(relative).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(context: usize, full: usize) -> Point {
        let t = context as f64;
        Point { context, full, indexer: full as f64 * (1e-5 * t + 1e-8 * t * t), rest: 0.01 + 2e-4 * t }
    }

    #[test]
    fn exact_costs_are_found_again_and_projected() {
        let points: Vec<Point> = [512, 1024, 2048, 4096].map(|t| point(t, 6)).into();
        let fit = Fit::of(&points).unwrap();
        assert!(fit.residual < 1e-9 && fit.held_out < 1e-9, "{fit:?}");
        let far = point(65_536, 2);
        assert!((fit.seconds(2, 65_536) / (far.indexer + far.rest) - 1.0).abs() < 1e-6);
        assert_eq!(Fit::of(&points[..2]), None);
    }

    #[test]
    fn no_coefficient_is_negative_and_bends_show_in_the_held_out_error() {
        let points: Vec<Point> = [(1000, 1.0), (2000, 1.5), (4000, 8.0)]
            .map(|(context, rest)| Point { context, full: 1, indexer: 0.1, rest })
            .into();
        let fit = Fit::of(&points).unwrap();
        assert!(fit.rest.0.iter().chain(&fit.indexer.0).all(|&c| c >= 0.0), "{fit:?}");
        assert!(fit.held_out > 0.2, "{fit:?}");
    }
}
