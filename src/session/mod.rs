//! Files that outlive the program: sessions (TOML) and traces (safetensors, or packed).

mod checks;
mod error;
mod file;
mod journal;
mod packed;
mod place;
mod rows;
mod store;
mod trace_file;

pub use error::FileError;
pub use file::{NamedPattern, Session, SessionModel, SessionStep};
pub use journal::{Entries, Journal};
pub use packed::{PackedTrace, PackedWriter, write_packed};
pub use place::{Place, SessionLock};
pub use store::{autosave_path, free_autosave, list_sessions, saved_path, sessions_folder, sidecar_path, write_atomic};
pub use trace_file::{TraceFile, encode_trace, is_packed, is_trace, read_trace, write_trace};
