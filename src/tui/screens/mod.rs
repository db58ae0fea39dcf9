//! Whole screens.

pub mod overlap;
