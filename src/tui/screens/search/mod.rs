//! The Search screen: what is asked for, how far it has come, what it cost, and Δloss along the flips.

mod fields;
mod form;
pub mod keys;
pub mod update;
mod view;

use super::{Needs, Screen, ScreenSpec, nowhere};
use crate::domain::{Delta, Pattern, SearchProgress, SearchRecord, SearchSettings, SearchState, Validation};
use crate::tui::app::App;

pub use fields::fields;
pub use form::{Field, Form};

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "Search",
    key: "4",
    help: "Search for a pattern",
    needs: Needs::Pattern,
    actions: keys::ACTIONS,
    wheel: Some(["cut-more", "cut-fewer"]),
    draw: |app, _, body, buf| view::draw(app, body, buf),
    hit: nowhere,
};

/// What the screen remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What is asked for next.
    pub form: Form,
    /// Where the last search stands; `None` before the first.
    pub progress: Option<SearchProgress>,
    /// What was asked for while the worker is still at something else.
    pub waiting: Option<SearchSettings>,
    /// Full layers at which the flip order is cut; `None` for the search's own result.
    pub cut: Option<usize>,
    /// Whether what the worker still tells is of a search that belongs to other work than is open.
    pub closed: bool,
}

impl App {
    /// Returns what the last search has found so far.
    pub fn search_record(&self) -> Option<&SearchRecord> {
        self.screens.search.progress.as_ref().map(|p| &p.record)
    }

    /// Returns whether a search goes on.
    pub fn is_searching(&self) -> bool {
        self.search_record().is_some_and(|r| r.state == SearchState::Running)
    }

    /// Returns whether a search waits to go on.
    pub fn is_search_paused(&self) -> bool {
        self.search_record().is_some_and(|r| r.state == SearchState::Paused)
    }

    /// Returns whether stopping means the search: on its screen, or where nothing else runs.
    pub fn stops_search(&self) -> bool {
        let alive = self.is_searching() || self.is_search_paused() || self.screens.search.waiting.is_some();
        alive && (self.screen == Screen::Search || !self.is_busy())
    }

    /// Returns Δloss of a pattern: as it was evaluated, else as the last search measured it on the same set.
    pub fn delta(&self, pattern: Pattern) -> Option<Delta> {
        let evaluated = self.known.results.get(&pattern).and_then(|r| r.evaluation.as_ref()?.delta);
        evaluated.or_else(|| {
            let set = self.model.as_ref().map(|m| m.calibration.as_str());
            let same = |r: &&SearchRecord| r.calibration.is_empty() || set.is_none_or(|set| r.calibration == set);
            self.search_record().filter(same)?.delta_of(pattern)
        })
    }

    /// Returns how a pattern did on text that no search saw.
    pub fn validation(&self, pattern: Pattern) -> Option<&Validation> {
        self.known.results.get(&pattern).and_then(|r| r.validation.as_ref())
    }

    /// Returns the pattern that applying the search would take: the cut of its flip order, or its result.
    pub fn found(&self) -> Option<Pattern> {
        let record = self.search_record()?;
        let cut = self.screens.search.cut.and_then(|full| record.cut(full));
        Some(cut.unwrap_or(record.pattern))
    }
}
