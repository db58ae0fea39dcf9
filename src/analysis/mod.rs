//! Pure functions of domain types: overlap of index sets and the coverage that it predicts, cost of forwards.

pub mod coverage;
pub mod fit;
pub mod overlap;
mod pairs;

pub use overlap::{Accumulator, Metric, OverlapMatrix};
