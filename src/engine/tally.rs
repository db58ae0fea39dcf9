//! The tally of an evaluation, begun and looked at.

use super::data::Calibration;
use super::{BackendError, ModelInfo};
use crate::analysis::tally::Tally;
use crate::domain::Subject;

/// Returns a tally of nothing yet.
pub(super) fn begin(subject: Subject, info: &ModelInfo, calibration: &Calibration) -> Tally {
    Tally {
        subject,
        topk: info.topk(),
        total: info.sequences,
        bytes: calibration.sequences().iter().map(|s| s.bytes).collect(),
        scored: Vec::new(),
        resumed_from: info.constraints.sites.layers(),
        layer_forwards: 0.0,
    }
}

/// Refuses a loss that is not finite.
pub(super) fn check(tally: &Tally) -> Result<(), BackendError> {
    let Some((sequence, position)) = tally.non_finite() else { return Ok(()) };
    Err(BackendError::Failed {
        message: format!("the loss of {} is not finite at position {position} of sequence {sequence}", tally.subject),
        hint: Some("try --dtype f32, and check the checkpoint's weights".to_owned()),
    })
}
