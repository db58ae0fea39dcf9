//! Files that outlive the program: sessions (TOML) and traces (safetensors).

mod error;
mod file;
mod store;
mod trace_file;

pub use error::FileError;
pub use file::{NamedPattern, Session, SessionModel, SessionStep};
pub use store::{SessionLock, autosave_path, list_sessions, saved_path, sessions_folder, write_atomic};
pub use trace_file::{encode_trace, is_trace, read_trace, write_trace};
