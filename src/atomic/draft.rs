//! Folders that appear in one step.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Live, PREFIX, RANDOM, disk, folder_of, sweep, sync_folder};

/// A folder that is being filled beside its final place; removed unless it is published.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    /// Locked as long as the program lives, so that nobody takes it for a leftover.
    _lock: Option<File>,
    _live: Live,
}

impl Draft {
    /// Makes an empty folder beside `out`, whose missing parents are made; leftovers of killed programs there are removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn beside(out: &Path) -> io::Result<Self> {
        let folder = folder_of(out);
        fs::create_dir_all(folder)?;
        sweep(folder);
        let path = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).tempdir_in(folder)?.keep();
        let lock = File::open(&path).ok().filter(|file| file.try_lock().is_ok());
        Ok(Self { _live: Live::new(&path), path, _lock: lock })
    }

    /// Returns the folder to fill.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its final name, under which nothing may exist but an empty folder.
    ///
    /// # Errors
    /// Those of the file system; then the folder is removed.
    pub fn publish(self, out: &Path) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755))?;
        }
        sync_folder(&self.path);
        disk::rename(&self.path, out)?;
        sync_folder(folder_of(out));
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After publishing there is nothing left under this name.
        let _ = fs::remove_dir_all(&self.path);
    }
}
