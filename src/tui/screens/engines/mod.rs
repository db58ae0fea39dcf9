//! The Engines screen: what serving engines would make of the current pattern.

pub mod keys;
pub mod update;
mod view;

use super::{Needs, ScreenSpec, nowhere};
use crate::domain::{Pattern, Stages};
use crate::interop::{Simulation, simulate_pattern};
use crate::tui::app::App;

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "Engines",
    key: "6",
    help: "Show what serving engines make of the pattern",
    needs: Needs::Pattern,
    actions: keys::ACTIONS,
    wheel: Some(["engine-up", "engine-down"]),
    draw: |app, _, body, buf| view::draw(app, body, buf),
    hit: nowhere,
};

/// What the screen remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The engine looked at, by its place in the list.
    pub chosen: usize,
    /// The split over pipeline stages; `None` for a single stage.
    pub stages: Option<Stages>,
    simulated: Option<Simulated>,
}

/// A simulation and what it is of.
#[derive(Clone, Debug, PartialEq)]
struct Simulated {
    pattern: Pattern,
    stages: Stages,
    result: Result<Simulation, String>,
}

impl App {
    /// Returns the split over pipeline stages, one stage where none was given.
    pub fn stages(&self) -> Option<Stages> {
        let layers = self.pattern()?.len();
        Some(
            self.screens
                .engines
                .stages
                .clone()
                .filter(|s| s.check(layers).is_ok())
                .unwrap_or_else(|| Stages::one(layers)),
        )
    }

    /// Returns what engines make of the current pattern, or why that cannot be told; `None` without the model's config.
    pub fn simulation(&self) -> Option<Result<&Simulation, &str>> {
        self.screens.engines.simulated.as_ref().map(|s| s.result.as_ref().map_err(String::as_str))
    }

    /// Simulates the current pattern unless that is what was simulated last.
    pub fn simulate(&mut self) {
        let (Some(target), Some(pattern), Some(stages)) = (&self.target, self.pattern(), self.stages()) else { return };
        if self.screens.engines.simulated.as_ref().is_some_and(|s| s.pattern == pattern && s.stages == stages) {
            return;
        }
        let result = simulate_pattern(target, pattern, &stages).map_err(|e| e.to_string());
        let count = result.as_ref().map_or(0, |s| s.engines.len());
        self.screens.engines.chosen = self.screens.engines.chosen.min(count.saturating_sub(1));
        self.screens.engines.simulated = Some(Simulated { pattern, stages, result });
    }
}
