//! Pure functions of domain types: overlap of index sets and the coverage that it predicts, cost of forwards, ranks.

pub mod agreement;
pub mod correlation;
pub mod cost;
pub mod coverage;
pub mod fit;
pub mod kendall;
pub mod machine;
pub mod mass_recall;
pub mod overlap;
mod pairs;
pub mod pareto;
pub mod tally;

pub use overlap::{Accumulator, Metric, OverlapMatrix};
