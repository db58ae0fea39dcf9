//! Strategies that look for the best pattern, over whatever can measure losses ([`Evaluate`]).
//!
//! A search is a pure function of its settings, its seed and the measurements. So it is paused by throwing it away
//! and resumed by running it again with what was measured ([`Ledger`]): it comes to the same place without a forward.

mod confirm;
mod descend;
mod evaluate;
mod exhaustive;
mod greedy;
mod lazy;
mod ledger;
mod placed;
mod plan;
mod race;
mod racing;
mod run;
mod sample;
mod space;
mod swap;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;

pub use confirm::{Budget, confirm};
pub use evaluate::{Affinity, AffinityKind, Evaluate, Layout, Measured, Part, SearchError, Unit};
pub use lazy::{FALL, SLACK};
pub use ledger::{Ledger, Watch};
pub use plan::{Cost, costs};
pub use run::search;
pub use sample::Sample;
pub use space::Space;
