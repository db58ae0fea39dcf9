//! Predictions of a pattern against those of the reference, target by target.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::analysis::tally::Row;
use crate::engine::{BackendError, Cancel};
use crate::model::Head;
use crate::model::ops::{divergence, log_sum_exp, with_floats};

/// Logits held at a time; more rows are compared in chunks.
const CHUNK_LOGITS: usize = 1 << 22;
/// Fewer rows at a time would read the head's weights more often than they compute.
const FEWEST_ROWS: usize = 128;

/// A scored query: its position, and the token that follows.
pub(super) type Target = (usize, u32);

/// Final hidden states of the scored queries of one batch.
#[derive(Clone, Debug)]
pub(super) struct Predictions {
    /// `[R, hidden]`.
    pub rows: Tensor,
    /// `[R, vocab]`, where they are kept because everything is compared with them.
    logits: Option<Tensor>,
}

impl Predictions {
    pub(super) fn of(rows: Tensor) -> Self {
        Self { rows, logits: None }
    }

    /// Returns the bytes that kept logits take, or would take.
    pub(super) fn logit_bytes(&self, head: &Head) -> Result<usize, BackendError> {
        Ok(self.rows.dim(0)? * head.vocab_size()? * size_of::<f32>())
    }

    /// Returns whether the logits are kept.
    pub(super) fn is_kept(&self) -> bool {
        self.logits.is_some()
    }

    /// Computes the logits and keeps them.
    pub(super) fn keep(&mut self, head: &Head) -> Result<(), BackendError> {
        // In the chunks of a comparison: a product of other sizes may round otherwise.
        let (rows, chunk) = (self.rows.dim(0)?, chunk(head)?);
        let starts = (0..rows).step_by(chunk);
        let parts =
            starts.map(|start| self.logits(head, start, chunk.min(rows - start))).collect::<Result<Vec<_>, _>>()?;
        self.logits = Some(Tensor::cat(&parts, 0)?);
        Ok(())
    }

    /// Returns the logits of `len` rows from `start`, on the CPU.
    fn logits(&self, head: &Head, start: usize, len: usize) -> Result<Tensor, BackendError> {
        let logits = match &self.logits {
            Some(logits) => logits.narrow(0, start, len)?,
            None => head.logits(&self.rows.narrow(0, start, len)?.unsqueeze(0)?)?.squeeze(0)?,
        };
        Ok(logits.to_device(&Device::Cpu)?)
    }
}

/// Rows that are compared at once.
fn chunk(head: &Head) -> Result<usize, BackendError> {
    Ok((CHUNK_LOGITS / head.vocab_size()?).max(FEWEST_ROWS))
}

/// Scores predictions against those of the reference; `None` scores the reference itself.
pub(super) fn compare(
    head: &Head,
    reference: &Predictions,
    ours: Option<&Predictions>,
    targets: &[Target],
    cancel: &Cancel,
) -> Result<Vec<Row>, BackendError> {
    let vocab = head.vocab_size()?;
    let chunk = chunk(head)?;
    let mut rows = Vec::with_capacity(targets.len());
    for (start, targets) in targets.chunks(chunk).enumerate().map(|(i, t)| (i * chunk, t)) {
        if cancel.is_stale() {
            return Err(BackendError::Cancelled);
        }
        let theirs = reference.logits(head, start, targets.len())?;
        let ours = ours.map_or(Ok(theirs.clone()), |ours| ours.logits(head, start, targets.len()))?;
        with_floats(&theirs, |theirs| {
            with_floats(&ours, |ours| {
                let pairs = theirs.par_chunks(vocab).zip(ours.par_chunks(vocab)).zip(targets);
                rows.par_extend(pairs.map(|((theirs, ours), &target)| row(theirs, ours, target)));
                Ok(())
            })
        })?;
    }
    Ok(rows)
}

/// Returns −log p of every target, nats.
pub(super) fn losses(
    head: &Head,
    ours: &Predictions,
    targets: &[Target],
    cancel: &Cancel,
) -> Result<Vec<f64>, BackendError> {
    let (vocab, chunk) = (head.vocab_size()?, chunk(head)?);
    let mut losses = Vec::with_capacity(targets.len());
    for (start, targets) in targets.chunks(chunk).enumerate().map(|(i, t)| (i * chunk, t)) {
        if cancel.is_stale() {
            return Err(BackendError::Cancelled);
        }
        with_floats(&ours.logits(head, start, targets.len())?, |logits| {
            let pairs = logits.par_chunks(vocab).zip(targets);
            losses.par_extend(pairs.map(|(logits, &(_, token))| nll(logits, log_sum_exp(logits).1, token)));
            Ok(())
        })?;
    }
    Ok(losses)
}

fn nll(logits: &[f32], norm: f64, token: u32) -> f64 {
    logits.get(token as usize).map_or(f64::NAN, |&z| norm - f64::from(z))
}

fn row(theirs: &[f32], ours: &[f32], (position, token): Target) -> Row {
    let (their_top, their_norm) = log_sum_exp(theirs);
    let (our_top, our_norm) = log_sum_exp(ours);
    Row {
        position,
        nll: nll(ours, our_norm, token),
        reference: nll(theirs, their_norm, token),
        kl: divergence((theirs, their_norm), (ours, our_norm)),
        same_top: their_top == our_top,
    }
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
