//! Predictions of a pattern against those of the reference, target by target.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{BackendError, Cancel};
use crate::model::Head;

/// Logits held at a time; more rows are compared in chunks.
const CHUNK_LOGITS: usize = 1 << 24;

/// One scored target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    /// Position of the query.
    pub position: usize,
    /// −log p(target), nats.
    pub nll: f64,
    /// The same under the reference.
    pub reference: f64,
    /// KL(reference ‖ pattern), nats.
    pub kl: f64,
    /// Whether the most likely token is the same.
    pub same_top: bool,
}

/// A scored query: its position, and the token that follows.
pub(super) type Target = (usize, u32);

/// Scores rows of final hidden states `[R, hidden]` against those of the reference.
pub(super) fn compare(
    head: &Head,
    reference: &Tensor,
    hidden: &Tensor,
    targets: &[Target],
    cancel: &Cancel,
) -> Result<Vec<Row>, BackendError> {
    let vocab = head.vocab_size()?;
    let chunk = (CHUNK_LOGITS / vocab).max(1);
    let mut rows = Vec::with_capacity(targets.len());
    for (start, targets) in targets.chunks(chunk).enumerate().map(|(i, t)| (i * chunk, t)) {
        if cancel.is_stale() {
            return Err(BackendError::Cancelled);
        }
        let logits = |x: &Tensor| -> Result<Vec<f32>, BackendError> {
            Ok(head.logits(&x.narrow(0, start, targets.len())?.unsqueeze(0)?)?.flatten_all()?.to_vec1()?)
        };
        let theirs = logits(reference)?;
        // The reference is also compared with itself.
        let other = if hidden.id() == reference.id() { None } else { Some(logits(hidden)?) };
        let ours = other.as_ref().unwrap_or(&theirs);
        let pairs = theirs.par_chunks(vocab).zip(ours.par_chunks(vocab)).zip(targets);
        rows.par_extend(pairs.map(|((theirs, ours), &target)| row(theirs, ours, target)));
    }
    Ok(rows)
}

fn row(theirs: &[f32], ours: &[f32], (position, token): Target) -> Row {
    let (their_top, their_norm) = log_sum_exp(theirs);
    let (our_top, our_norm) = log_sum_exp(ours);
    // Σ p (log p − log q), with log p = z − log Σ exp z.
    let kl = theirs.iter().zip(ours).map(|(&p, &q)| {
        let log_ratio = (f64::from(p) - their_norm) - (f64::from(q) - our_norm);
        f64::from((p - their_norm as f32).exp()) * log_ratio
    });
    let nll = |logits: &[f32], norm: f64| logits.get(token as usize).map_or(f64::NAN, |&z| norm - f64::from(z));
    Row {
        position,
        nll: nll(ours, our_norm),
        reference: nll(theirs, their_norm),
        kl: kl.sum::<f64>().max(0.0),
        same_top: their_top == our_top,
    }
}

/// Returns the index of the largest logit (the first of equals) and log Σ exp.
fn log_sum_exp(logits: &[f32]) -> (usize, f64) {
    let (top, max) =
        logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &z)| if z > best.1 { (i, z) } else { best });
    (top, f64::from(max) + logits.iter().map(|&z| f64::from((z - max).exp())).sum::<f64>().ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_hand() {
        // p = (1/4, 3/4), q = (1/2, 1/2): KL = ¼ ln ½ + ¾ ln 3/2.
        let row = row(&[0.0, 3f32.ln()], &[1.0, 1.0], (7, 1));
        assert!((row.reference - (4.0f64 / 3.0).ln()).abs() < 1e-6);
        assert!((row.nll - 2f64.ln()).abs() < 1e-6);
        assert!((row.kl - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-6);
        assert_eq!((row.position, row.same_top), (7, false));
    }

    #[test]
    fn equal_rows_differ_by_exactly_nothing() {
        let logits = [0.3, -7.25, 12.0, 0.1];
        let row = row(&logits, &logits, (0, 3));
        assert_eq!((row.nll - row.reference, row.kl, row.same_top), (0.0, 0.0, true));
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        assert!(row(&[0.0, 1.0], &[f32::NAN, 1.0], (0, 1)).nll.is_nan());
    }
}
