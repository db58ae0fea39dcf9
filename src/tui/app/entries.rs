//! The entries of the history that are listed, and the one that is looked at.

use super::App;
use crate::domain::Pattern;
use crate::tui::history::History;
use crate::tui::plotted;

impl App {
    /// Returns the entry looked at, which is the current one until another is chosen.
    pub fn entry(&self) -> usize {
        let history = self.history.as_ref();
        let last = history.map_or(0, |h| h.nodes().len() - 1);
        self.view.chosen.or(history.map(History::current)).unwrap_or_default().min(last)
    }

    /// Returns the pattern of the entry looked at.
    pub fn entry_pattern(&self) -> Option<Pattern> {
        self.history.as_ref().map(|h| h.nodes()[self.entry()].pattern)
    }

    /// Returns the entries that are listed, the newest first.
    pub fn entries(&self) -> Vec<usize> {
        let Some(history) = &self.history else { return Vec::new() };
        if !self.view.frontier_only {
            return (0..history.nodes().len()).rev().collect();
        }
        let dots = plotted::dots(self);
        let (_, best) = plotted::frontier(self, &dots);
        let mut entries: Vec<usize> = best.into_iter().filter_map(|i| dots[i].entry).collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        entries
    }
}
