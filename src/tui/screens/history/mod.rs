//! The History screen: the patterns tried, plotted against each other and listed.

mod entries;
pub mod keys;
pub mod plotted;
pub mod update;
mod versus;
mod view;

use ratatui::layout::Position;

use super::{Needs, ScreenSpec};
use crate::domain::Pattern;
use crate::engine::AffinityKind;
use crate::tui::app::App;
use crate::tui::history::History;
use crate::tui::hit::Hit;
use crate::tui::layout::Layout;

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "History",
    key: "3",
    help: "Show the patterns tried against each other",
    needs: Needs::Pattern,
    actions: keys::ACTIONS,
    wheel: Some(["entry-up", "entry-down"]),
    draw: |app, _, body, buf| view::draw(app, body, buf),
    hit,
};

/// Finds an entry of the list.
fn hit(app: &App, layout: &Layout, at: Position) -> Option<Hit> {
    let area = view::list_area(layout.brief?);
    let row = at.y.checked_sub(area.y + 1).filter(|_| area.contains(at))?;
    entries::at(app, area, row).map(Hit::Entry)
}

/// What is plotted on the History screen, against measured Δloss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Axes {
    /// Measured speed of prefill.
    #[default]
    Prefill,
    /// Measured speed of decode.
    Decode,
    /// Layers that run their indexer.
    Full,
    /// Overlap that sharing gives up, from the recording.
    Lost,
    /// Attention mass that sharing gives up, measured under the reference.
    MassLost,
    /// Cosine of attention outputs that sharing gives up, measured under the reference.
    CosineLost,
}

impl Axes {
    /// Returns the next choice.
    pub fn next(self) -> Self {
        match self {
            Self::Prefill => Self::Decode,
            Self::Decode => Self::Full,
            Self::Full => Self::Lost,
            Self::Lost => Self::MassLost,
            Self::MassLost => Self::CosineLost,
            Self::CosineLost => Self::Prefill,
        }
    }

    /// Returns what is on the horizontal axis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill speed",
            Self::Decode => "decode speed",
            Self::Full => "Full layers",
            Self::Lost => "overlap given up",
            Self::MassLost => "mass recall given up",
            Self::CosineLost => "output cosine given up",
        }
    }

    /// Returns what has to be measured for it beside loss and speed.
    pub fn affinity(self) -> Option<AffinityKind> {
        match self {
            Self::MassLost => Some(AffinityKind::MassRecall),
            Self::CosineLost => Some(AffinityKind::OutputCosine),
            _ => None,
        }
    }

    /// Returns whether it is something that sharing gives up, so that its rank is compared with that of Δloss.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::MassLost | Self::CosineLost)
    }
}

/// What the screen remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The entry looked at; `None` for the current one.
    pub chosen: Option<usize>,
    /// What is plotted.
    pub axes: Axes,
    /// Whether only entries that no other one beats are listed.
    pub frontier_only: bool,
}

impl App {
    /// Returns the entry looked at, which is the current one until another is chosen.
    pub fn entry(&self) -> usize {
        let history = self.history.as_ref();
        let last = history.map_or(0, |h| h.nodes().len() - 1);
        self.screens.history.chosen.or(history.map(History::current)).unwrap_or_default().min(last)
    }

    /// Returns the pattern of the entry looked at.
    pub fn entry_pattern(&self) -> Option<Pattern> {
        self.history.as_ref().map(|h| h.nodes()[self.entry()].pattern)
    }

    /// Returns the entries that are listed, the newest first.
    pub fn entries(&self) -> Vec<usize> {
        let Some(history) = &self.history else { return Vec::new() };
        if !self.screens.history.frontier_only {
            return (0..history.nodes().len()).rev().collect();
        }
        let dots = plotted::dots(self);
        let (_, best) = plotted::frontier(self, &dots);
        let mut entries: Vec<usize> = best.into_iter().filter_map(|i| dots[i].entry).collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        entries
    }
}
