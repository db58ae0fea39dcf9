//! Files that outlive the program: sessions (TOML) and traces (safetensors).

mod error;
mod store;
mod trace_file;

pub use error::FileError;
pub use store::write_atomic;
pub use trace_file::{encode_trace, is_trace, read_trace, write_trace};
