//! Statistics of softmax over a row of logits, without writing the probabilities anywhere.

use super::simd;

/// Returns the index of the largest logit (the first of equals) and log Σ e^logit; NaN where a logit is not finite.
pub fn log_sum_exp(logits: &[f32]) -> (usize, f64) {
    simd::dispatch(
        #[inline(always)]
        || {
            // The maximum passes over NaN; a sum does not.
            if !simd::sum(logits).is_finite() {
                return (0, f64::NAN);
            }
            let max = simd::max(logits);
            let top = logits.iter().position(|&z| z == max).unwrap_or(0);
            let mut total = 0.0f64;
            // Blocks keep the error of the f32 sums far below that of the logits.
            for block in logits.chunks(BLOCK) {
                let mut e = [0.0; BLOCK];
                for (e, &z) in e.iter_mut().zip(block) {
                    *e = simd::exp(z - max);
                }
                total += f64::from(simd::sum(&e[..block.len()]));
            }
            (top, f64::from(max) + total.ln())
        },
    )
}

/// Returns KL(p ‖ q) = Σ p (log p − log q) of two rows of logits with their log Σ e^logit, nats.
pub fn divergence((p, p_norm): (&[f32], f64), (q, q_norm): (&[f32], f64)) -> f64 {
    simd::dispatch(
        #[inline(always)]
        || {
            let (norm, shift) = (p_norm as f32, (p_norm - q_norm) as f32);
            let mut total = 0.0f64;
            for (p, q) in p.chunks(BLOCK).zip(q.chunks(BLOCK)) {
                let mut terms = [0.0; BLOCK];
                for ((term, &p), &q) in terms.iter_mut().zip(p).zip(q) {
                    *term = simd::exp((p - norm).min(0.0)) * ((p - q) - shift);
                }
                total += f64::from(simd::sum(&terms[..p.len()]));
            }
            if shift.is_finite() { total.max(0.0) } else { f64::NAN }
        },
    )
}

const BLOCK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{random, values};

    #[test]
    fn any_length_agrees_with_double_precision() {
        for n in [1, 2, 15, 16, 17, 511, 512, 513, 5000] {
            let (p, q) = (values(&(random(&[n], 1) * 6.0).unwrap()), values(&(random(&[n], 2) * 6.0).unwrap()));
            let exact = |x: &[f32]| x.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
            let (a, b) = (log_sum_exp(&p), log_sum_exp(&q));
            assert!((a.1 - exact(&p)).abs() < 1e-6 && (b.1 - exact(&q)).abs() < 1e-6, "n = {n}");
            assert!(p.iter().all(|&z| z <= p[a.0]) && p[..a.0].iter().all(|&z| z < p[a.0]));
            let kl = divergence((&p, a.1), (&q, b.1));
            let want: f64 = p
                .iter()
                .zip(&q)
                .map(|(&p, &q)| {
                    let (p, q) = (f64::from(p) - a.1, f64::from(q) - b.1);
                    p.exp() * (p - q)
                })
                .sum();
            assert!((kl - want).abs() < 2e-6 * want.max(1.0), "n = {n}: {kl}, not {want}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        assert!(log_sum_exp(&[0.0, f32::NAN, 1.0]).1.is_nan());
        assert!(log_sum_exp(&[f32::INFINITY, 1.0]).1.is_nan());
        assert!(divergence((&[0.0, 1.0], 1.3), (&[0.0, 1.0], f64::NAN)).is_nan());
    }

    #[test]
    fn equal_rows_do_not_diverge() {
        let p = [0.3, -7.25, 12.0, 0.1];
        let (_, norm) = log_sum_exp(&p);
        assert_eq!(divergence((&p, norm), (&p, norm)), 0.0);
    }
}
