//! Which numbers may stand beside the current pattern, and how fresh they are.

use super::app::{App, Indexers};
use crate::domain::{Evaluation, Origin, Speed};
use crate::engine::Job;
use crate::tui::theme::Role;

/// How a number relates to the current pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Measured for it.
    Measured,
    /// Measured for it on a part of the calibration set so far.
    Growing,
    /// Read from a session.
    Imported,
    /// Measured for another pattern.
    Stale,
    /// Could not be measured.
    Failed,
    /// Not there.
    Absent,
}

impl Fresh {
    /// Returns mark and word.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Measured | Self::Growing => "● measured",
            Self::Imported => "○ from file",
            Self::Stale => "◌ stale",
            Self::Failed => "✗ failed",
            Self::Absent => "",
        }
    }

    /// Returns how the number itself looks.
    pub fn role(self) -> Role {
        match self {
            Self::Measured | Self::Growing | Self::Imported => Role::Text,
            _ => Role::Dim,
        }
    }

    /// Returns how its mark looks.
    pub fn mark_role(self) -> Role {
        match self {
            Self::Measured | Self::Growing => Role::Good,
            Self::Failed => Role::Bad,
            _ => Role::Dim,
        }
    }
}

/// Returns the loss to show: of the current pattern, else the last one, as stale.
pub fn loss(app: &App) -> (Fresh, Option<&Evaluation>) {
    if let Some(evaluation) = app.current().and_then(|r| r.evaluation.as_ref()) {
        if app.indexers == Indexers::Trained && !app.is_settled() {
            // They have learnt more since.
            return (Fresh::Stale, Some(evaluation));
        }
        let fresh = if evaluation.origin == Origin::Imported { Fresh::Imported } else { Fresh::Measured };
        return (fresh, Some(evaluation));
    }
    if let Some(evaluation) = app.growing() {
        return (Fresh::Growing, Some(evaluation));
    }
    let job = if app.indexers == Indexers::Trained { Job::Trained } else { Job::Evaluate };
    absent(app, job, app.known.last_loss.as_ref())
}

/// Returns the speed to show, prefill first: of the current pattern, else the last one, as stale.
pub fn speed(app: &App) -> (Fresh, &[Speed]) {
    // Trained indexers are as large as those before, and no faster.
    let results = app.pattern().and_then(|pattern| app.known.results.get(&pattern));
    if let Some(results) = results.filter(|r| !r.speed.is_empty()) {
        let imported = results.speed.iter().any(|s| s.origin == Origin::Imported);
        return (if imported { Fresh::Imported } else { Fresh::Measured }, &results.speed);
    }
    let (fresh, last) = absent(app, Job::Speed, (!app.known.last_speed.is_empty()).then_some(&app.known.last_speed));
    (fresh, last.map_or(&[], Vec::as_slice))
}

fn absent<'a, T: ?Sized>(app: &App, job: Job, last: Option<&'a T>) -> (Fresh, Option<&'a T>) {
    let failed = app.known.failure.as_ref().is_some_and(|f| f.job == job);
    match last {
        _ if failed => (Fresh::Failed, last),
        Some(_) => (Fresh::Stale, last),
        None => (Fresh::Absent, None),
    }
}
