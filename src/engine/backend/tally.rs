//! The tally of an evaluation that starts.

use super::ModelInfo;
use crate::analysis::tally::Tally;
use crate::domain::Subject;
use crate::engine::Calibration;

/// Returns a tally of nothing yet.
pub(super) fn begin(subject: Subject, info: &ModelInfo, calibration: &Calibration) -> Tally {
    Tally {
        subject,
        topk: info.topk(),
        total: info.sequences,
        bytes: calibration.sequences().iter().map(|s| s.bytes).collect(),
        clusters: calibration.sequences().iter().map(|s| s.cluster).collect(),
        scored: Vec::new(),
        resumed_from: info.constraints.sites.layers(),
        layer_forwards: 0.0,
    }
}
