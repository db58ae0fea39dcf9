//! Whole screens.

pub mod history;
pub mod log;
pub mod overlap;
pub mod search;
