//! The steps that a full or failing disk refuses, in one place, so that tests can have each of them fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Counts a write, fsync or rename.
///
/// # Errors
/// In a debug build the one whose number the environment variable `INDEXSCOPE_FAIL_AT` holds fails as if the disk were
/// full (`tests/faults.rs`).
pub(super) fn step() -> io::Result<()> {
    #[cfg(debug_assertions)]
    {
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static FAILS: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var("INDEXSCOPE_FAIL_AT").ok()?.parse().ok());
        static STEPS: AtomicU64 = AtomicU64::new(0);
        if FAILS.is_some_and(|at| STEPS.fetch_add(1, Ordering::Relaxed) + 1 == at) {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    Ok(())
}

/// A file whose writes are counted.
#[derive(Debug)]
pub struct Disk<'a>(pub &'a File);

impl Write for Disk<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step()?;
        let mut file = self.0;
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Flushes a file's bytes to the disk.
///
/// # Errors
/// Those of the file system.
pub fn sync(file: &File) -> io::Result<()> {
    step()?;
    file.sync_all()
}

/// Renames a file or folder.
///
/// # Errors
/// Those of the file system.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::rename(from, to)
}
