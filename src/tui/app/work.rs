//! The state as a saved piece of work, and back.

use super::{App, HistoryView};
use crate::domain::{SearchProgress, SearchState};
use crate::tui::history::{History, Node};
use crate::tui::{Step, Work};

impl App {
    /// Takes over a saved piece of work; returns whether it is sound.
    pub fn take_work(&mut self, work: &Work) -> bool {
        let Some(history) = History::from_work(work) else { return false };
        for step in &work.steps {
            let results = self.results.entry(step.pattern).or_default();
            if results.evaluation.is_none() {
                results.evaluation.clone_from(&step.evaluation);
            }
            if results.speed.is_empty() {
                results.speed.clone_from(&step.speed);
            }
        }
        self.named.clone_from(&work.named);
        self.view = HistoryView { axes: self.view.axes, ..HistoryView::default() };
        self.search.cut = None;
        self.search.progress = work.search.clone().map(|mut record| {
            // Nothing goes on in a file.
            if matches!(record.state, SearchState::Running | SearchState::Paused) {
                record.state = SearchState::Stopped;
            }
            let steps = record.order.len();
            SearchProgress { record: *record, steps: (steps, steps), candidate: None, measured: (0, 0), eta: None }
        });
        self.begin(history);
        true
    }

    /// Returns what a session file is to keep.
    pub fn work(&self) -> Option<Work> {
        let history = self.history.as_ref()?;
        let step = |node: &Node| {
            let results = self.results.get(&node.pattern).cloned().unwrap_or_default();
            Step {
                pattern: node.pattern,
                parent: node.parent,
                change: node.change.clone(),
                evaluation: results.evaluation,
                speed: results.speed,
            }
        };
        let steps = history.nodes().iter().map(step).collect();
        let search = self.search_record().cloned().map(Box::new);
        Some(Work { steps, current: history.current(), named: self.named.clone(), search })
    }
}
