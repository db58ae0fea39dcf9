//! Which patterns keep to a budget for Δ on text that no search saw.

use serde::{Deserialize, Serialize};

use super::{Delta, Pattern};

/// What unseen text says about a pattern and its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The upper bound of Δ is within the budget.
    Confirmed,
    /// The lower bound of Δ is above the budget.
    OverBudget,
    /// The text does not decide it.
    Undecided,
}

impl Verdict {
    /// Returns the verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Confirmed => "within the budget on unseen text",
            Self::OverBudget => "over budget on unseen text",
            Self::Undecided => "not decided by the unseen text",
        }
    }
}

/// One pattern tested against the budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The pattern.
    pub pattern: Pattern,
    /// What came out.
    pub verdict: Verdict,
    /// Δ on the clusters that were looked at until then, nats.
    pub delta: Option<Delta>,
    /// The bounds of Δ at the last look, each at 95 %; `None` where there was none.
    pub bounds: Option<(f64, f64)>,
}

/// Patterns of ever fewer Full layers, tested in that order until the first that is not confirmed.
///
/// Each test has an error of 5 %, and no correction is due: the order comes from other text, and what stands after the
/// first failure is not tested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The budget, nats.
    pub budget: f64,
    /// Whether the looks were planned (O'Brien and Fleming) instead of free.
    #[serde(default)]
    pub strict: bool,
    /// Clusters of unseen text that there are.
    pub clusters: usize,
    /// What was tested, in order.
    pub trials: Vec<Trial>,
    /// What the search proposed beyond that.
    #[serde(default)]
    pub untested: Vec<Pattern>,
}

impl Confirmation {
    /// Returns the last pattern that was confirmed.
    pub fn confirmed(&self) -> Option<Pattern> {
        self.trials.iter().rev().find(|t| t.verdict == Verdict::Confirmed).map(|t| t.pattern)
    }

    /// Returns the first pattern that was not, if there is one.
    pub fn failed(&self) -> Option<&Trial> {
        self.trials.iter().find(|t| t.verdict != Verdict::Confirmed)
    }

    /// Returns what was found out about a pattern.
    pub fn verdict(&self, pattern: Pattern) -> Option<Verdict> {
        self.trials.iter().find(|t| t.pattern == pattern).map(|t| t.verdict)
    }
}
