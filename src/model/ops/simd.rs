//! Vectorised pieces of the fused loops; call them inside [`dispatch`].

/// Runs `f` compiled for the widest vector unit of this machine.
#[inline(always)]
pub(super) fn dispatch<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

const LANES: usize = 16;

/// e^x for x ≤ 0 with a relative error below 2e-7; 0 below about −87; NaN for NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
    // Not `max`, which would make a number of NaN.
    let x = if x < -87.3 { -87.3 } else { x };
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    // Minimax polynomial of e^r on |r| ≤ ln 2 / 2 (Cephes' expf).
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits((t.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23)
}

/// Σ x.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Σ x·y.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let n = x.len().min(y.len()) / LANES * LANES;
    for (a, b) in x[..n].chunks_exact(LANES).zip(y[..n].chunks_exact(LANES)) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + x[n..].iter().zip(&y[n..]).map(|(a, b)| a * b).sum::<f32>()
}

/// max x; [`f32::NEG_INFINITY`] for nothing.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().copied().fold(tail, f32::max)
}

/// Replaces a row of logits by its softmax and returns log Σ e^x.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) -> f32 {
    let top = max(row);
    for v in row.iter_mut() {
        *v = exp(*v - top);
    }
    let total = sum(row);
    let scale = 1.0 / total;
    for v in row.iter_mut() {
        *v *= scale;
    }
    top + total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 2e-7 * want + 1e-38, "exp({x}) = {got}, not {want}");
        }
        assert!(exp(-1000.0) < 1.3e-38);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan(), "what is wrong must not vanish");
    }

    #[test]
    fn reductions_cover_the_tail() {
        let x: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!((sum(&x), dot(&x, &x), max(&x)), (666.0, 16_206.0, 36.0));
        let mut row = x.clone();
        let lse = softmax(&mut row);
        let want = x.iter().map(|v| f64::from(v - 36.0).exp()).sum::<f64>().ln() + 36.0;
        assert!((f64::from(lse) - want).abs() < 1e-5 && (sum(&row) - 1.0).abs() < 1e-6);
        let mut spoilt = x;
        spoilt[3] = f32::NAN;
        assert!(softmax(&mut spoilt).is_nan() && spoilt.iter().all(|v| v.is_nan()));
    }
}
