//! The state as a saved piece of work, and back.

use super::App;
use crate::analysis::Metric;
use crate::domain::{Evaluation, Origin, SearchProgress, SearchState, Speed};
use crate::tui::history::{History, Node};
use crate::tui::screens::history;
use crate::tui::{Step, Work};

impl App {
    /// Takes over a saved piece of work; returns whether it is sound.
    pub fn take_work(&mut self, work: &Work) -> bool {
        let Some(history) = History::from_work(work) else { return false };
        for step in &work.steps {
            let results = self.known.results.entry(step.pattern).or_default();
            // What this run has measured itself stays; the rest is said to be from a file.
            let evaluation = step.evaluation.clone().map(|e| Evaluation { origin: Origin::Imported, ..e });
            results.evaluation = results.evaluation.take().or(evaluation);
            if results.speed.is_empty() {
                results.speed = step.speed.iter().map(|s| Speed { origin: Origin::Imported, ..s.clone() }).collect();
            }
            results.validation = results.validation.take().or_else(|| step.validation.clone());
        }
        if let Some(record) = &work.search
            && let Some(validation) = &record.validation
        {
            self.known.results.entry(record.pattern).or_default().validation.get_or_insert_with(|| validation.clone());
        }
        self.named.clone_from(&work.named);
        self.screens.history = history::State { axes: self.screens.history.axes, ..history::State::default() };
        self.screens.search.cut = None;
        self.screens.search.closed = true;
        self.screens.search.progress = work.search.clone().map(|mut record| {
            // Nothing goes on in a file.
            if matches!(record.state, SearchState::Running | SearchState::Paused) {
                record.state = SearchState::Stopped;
            }
            let steps = record.order.len();
            SearchProgress { record: *record, steps: (steps, steps), candidate: None, measured: (0, 0), eta: None }
        });
        if let Some(overlap) =
            work.overlap.as_ref().filter(|m| self.matrix(m.metric).is_none() && m.layers == work.steps[0].pattern.len())
        {
            self.matrices.push(overlap.clone());
        }
        self.begin(history);
        true
    }

    /// Returns what a session file is to keep. It says how a number came to be, not that it was read from a file.
    pub fn work(&self) -> Option<Work> {
        let history = self.history.as_ref()?;
        let step = |node: &Node| {
            let results = self.known.results.get(&node.pattern).cloned().unwrap_or_default();
            Step {
                pattern: node.pattern,
                parent: node.parent,
                change: node.change.clone(),
                evaluation: results.evaluation.map(|e| Evaluation { origin: Origin::Measured, ..e }),
                speed: results.speed.into_iter().map(|s| Speed { origin: Origin::Measured, ..s }).collect(),
                validation: results.validation,
            }
        };
        let steps = history.nodes().iter().map(step).collect();
        let search = self.search_record().cloned().map(Box::new);
        let overlap = self.matrices.iter().find(|m| m.metric == Metric::Overlap).cloned();
        Some(Work { steps, current: history.current(), named: self.named.clone(), search, overlap })
    }
}
