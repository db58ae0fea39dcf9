//! The DSA model in candle, with the checkpoint's own names.

mod error;
pub mod ops;

pub use error::{ModelError, Result};
