//! Under which name a session is worked on, and that nobody else works under it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::FileError;

/// Says that a session is open, for as long as it lives.
#[derive(Debug)]
pub struct SessionLock {
    path: PathBuf,
    _file: File,
}

impl SessionLock {
    /// Locks a session, whose folder is made where it is missing; `Ok(None)` means that another program has it open.
    ///
    /// The operating system frees the lock with the process, so that a crash leaves no session locked.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn acquire(session: &Path) -> Result<Option<Self>, FileError> {
        if let Some(folder) = session.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| FileError::io("make", folder, e))?;
        }
        let path = lock_path(session);
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|e| FileError::io("write", &path, e))?;
            match file.try_lock() {
                Ok(()) if is_there(&file, &path) => return Ok(Some(Self { path, _file: file })),
                // Its owner has just removed it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(FileError::io("lock", &path, e)),
            }
        }
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        // A leftover is harmless: it is the lock that counts, not the file. One with something in it is not ours.
        if self.path.metadata().is_ok_and(|m| m.len() == 0) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns the file whose lock stands for a session: `name.toml.lock`.
fn lock_path(session: &Path) -> PathBuf {
    let mut name = session.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    session.with_file_name(name)
}

/// Returns whether an open file is the one that is found under its name.
#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |m: &std::fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata(), path.metadata()), (Ok(open), Ok(there)) if of(&open) == of(&there))
}

/// Elsewhere a file that is open cannot be removed.
#[cfg(not(unix))]
fn is_there(_: &File, _: &Path) -> bool {
    true
}

/// The file of a session that is worked on, whether it exists or not: autosave and training lie beside it.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    lock: Option<SessionLock>,
}

impl Place {
    /// Returns a place that nobody is kept from.
    pub fn open(path: PathBuf) -> Self {
        Self { path, lock: None }
    }

    /// Takes a place; where another program works there, one [`beside`](Self::beside) it.
    ///
    /// A folder that cannot be written locks nothing: what lies there can still be looked at.
    pub fn take(path: &Path) -> Self {
        match SessionLock::acquire(path) {
            Ok(None) => Self::beside(path),
            lock => Self { path: path.to_owned(), lock: lock.unwrap_or_default() },
        }
    }

    /// Takes the first place with a number, such as `name-2.toml`, where there is no file and nobody works.
    pub fn beside(path: &Path) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let numbered = |n: usize| {
            let path = path.with_file_name(format!("{stem}-{n}.toml"));
            if path.exists() {
                return None;
            }
            match SessionLock::acquire(&path) {
                Ok(None) => None,
                lock => Some(Self { path, lock: lock.unwrap_or_default() }),
            }
        };
        let mut n = 2;
        loop {
            if let Some(place) = numbered(n) {
                return place;
            }
            n += 1;
        }
    }

    /// Takes exactly this place; `Ok(None)` means that another program works there.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn claim(path: &Path) -> Result<Option<Self>, FileError> {
        let lock = SessionLock::acquire(path)?;
        Ok(lock.map(|lock| Self { path: path.to_owned(), lock: Some(lock) }))
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether others are kept from it.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Returns whether another path leads here.
    pub fn is(&self, path: &Path) -> bool {
        let real = |path: &Path| {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some((folder.canonicalize().ok()?, path.file_name()?.to_owned()))
        };
        self.path == path || real(path).is_some_and(|other| real(&self.path) == Some(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/s.toml");
        let first = SessionLock::acquire(&path).unwrap();
        assert!(first.is_some());
        assert!(SessionLock::acquire(&path).unwrap().is_none());
        drop(first);
        assert!(SessionLock::acquire(&path).unwrap().is_some());
        // One whose file is gone locks nobody out.
        let gone = SessionLock::acquire(&path).unwrap();
        std::fs::remove_file(lock_path(&path)).unwrap();
        assert!(SessionLock::acquire(&path).unwrap().is_some() && gone.is_some());
        // Another program's file of that name stays.
        let (session, lock) = (folder.path().join("t.toml"), folder.path().join("t.toml.lock"));
        std::fs::write(&lock, "precious").unwrap();
        drop(SessionLock::acquire(&session).unwrap().unwrap());
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), "precious");
    }

    #[test]
    fn whoever_comes_second_gets_a_name_that_nothing_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let first = Place::take(&path("s.toml"));
        std::fs::write(path("s-2.toml"), "saved before").unwrap();
        let (third, fourth) = (Place::take(&path("s.toml")), Place::take(&path("s.toml")));
        let all = [&first, &third, &fourth];
        assert_eq!(all.map(Place::path), [path("s.toml"), path("s-3.toml"), path("s-4.toml")]);
        assert!(all.into_iter().all(Place::is_locked));
        assert!(Place::claim(&path("s.toml")).unwrap().is_none());
        assert!(first.is(&folder.path().join("./s.toml")) && !first.is(&path("s-3.toml")));
        drop(third);
        assert_eq!(Place::take(&path("s.toml")).path(), path("s-3.toml"));
    }
}
