//! Whole screens.

pub mod engines;
pub mod history;
pub mod log;
pub mod overlap;
pub mod search;
pub mod tokens;
pub mod train;
