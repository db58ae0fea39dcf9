//! The screens, and what each one remembers.

use crate::engine::AffinityKind;
use crate::tui::context::Context;

/// One whole view on the same state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// Strip, maps, pair, quality and speed.
    #[default]
    Overlap,
    /// What two layers select for one query.
    Tokens,
    /// The patterns tried, against each other.
    History,
    /// The search for a pattern.
    Search,
    /// What happened, in words.
    Log,
    /// What serving engines would make of the pattern.
    Engines,
    /// The training of indexers.
    Train,
}

impl Screen {
    /// Every screen, in the order of its number.
    pub const ALL: [Self; 7] =
        [Self::Overlap, Self::Tokens, Self::History, Self::Search, Self::Log, Self::Engines, Self::Train];

    /// Returns the key that shows it, and its name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overlap => "1 Overlap",
            Self::Tokens => "2 Tokens",
            Self::History => "3 History",
            Self::Search => "4 Search",
            Self::Log => "5 Log",
            Self::Engines => "6 Engines",
            Self::Train => "7 Train",
        }
    }

    /// Returns where its own keys are looked up.
    pub fn context(self) -> Context {
        match self {
            Self::Overlap => Context::Overlap,
            Self::Tokens => Context::Tokens,
            Self::History => Context::History,
            Self::Search => Context::Search,
            Self::Log => Context::Log,
            Self::Engines => Context::Engines,
            Self::Train => Context::Train,
        }
    }
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

/// What the History screen remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryView {
    /// The entry looked at; `None` for the current one.
    pub chosen: Option<usize>,
    /// What is plotted.
    pub axes: Axes,
    /// Whether only entries that no other one beats are listed.
    pub frontier_only: bool,
}
