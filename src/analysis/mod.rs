//! Pure functions of domain types: overlap of index sets and the coverage that it predicts, cost of forwards.

pub mod cost;
pub mod coverage;
pub mod fit;
pub mod machine;
pub mod overlap;
mod pairs;

pub use overlap::{Accumulator, Metric, OverlapMatrix};
