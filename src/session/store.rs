//! Where sessions are kept.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::FileError;
use crate::atomic;

/// Replaces `path` by `bytes`, whole or not at all ([`crate::atomic`]).
///
/// # Errors
/// [`FileError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    atomic::write(path, bytes).map_err(|e| FileError::io("write", path, e))
}

/// Replaces `path` as [`write_atomic`] does, by what `fill` writes piece by piece.
///
/// # Errors
/// [`FileError::Io`], those of `fill` included.
pub(super) fn write_atomic_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    atomic::write_with(path, fill).map_err(|e| FileError::io("write", path, e))
}

/// Returns the folder of sessions: the one given, `./sessions` if there is one, else the user's data folder.
pub fn sessions_folder(given: Option<&Path>) -> PathBuf {
    let here = Path::new("sessions");
    match (given, directories::ProjectDirs::from("", "", "indexscope")) {
        (Some(given), _) => given.to_owned(),
        (None, Some(user)) if !here.is_dir() => user.data_dir().join("sessions"),
        (None, _) => here.to_owned(),
    }
}

/// Returns the session files of a folder, autosaves included, newest first; none where it cannot be read.
pub fn list_sessions(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    files.into_iter().map(|(_, path)| path).collect()
}

/// Returns the first autosave beside `session`, which holds what was not saved by hand: `name.autosave.toml`.
pub fn autosave_path(session: &Path) -> PathBuf {
    session.with_extension("autosave.toml")
}

/// Returns the autosave beside `session` that the next run may write: the first that does not exist of
/// `name.autosave.toml`, `name.autosave-2.toml`, `name.autosave-3.toml` and so on.
pub fn free_autosave(session: &Path) -> PathBuf {
    let numbered = |n: usize| session.with_extension(format!("autosave-{n}.toml"));
    let mut path = autosave_path(session);
    let mut number = 2;
    while path.exists() {
        path = numbered(number);
        number += 1;
    }
    path
}

/// Returns the file that an autosave belongs to; any other path as it is.
pub fn saved_path(path: &Path) -> PathBuf {
    let stem = path.to_str().and_then(|p| p.strip_suffix(".toml")).and_then(|p| {
        let (stem, end) = p.rsplit_once(".autosave")?;
        let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
        (end.is_empty() || end.strip_prefix('-').is_some_and(number)).then_some(stem)
    });
    stem.map_or_else(|| path.to_owned(), |stem| PathBuf::from(format!("{stem}.toml")))
}

/// Returns the sidecar beside `session` under which the indexers trained in it are put aside: `name.indexers.safetensors`.
pub fn sidecar_path(session: &Path) -> PathBuf {
    saved_path(session).with_extension("indexers.safetensors")
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn autosaves_are_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("b.toml");
        for name in ["b.autosave.toml", "b.autosave-2.toml", "b.autosave-3.toml"] {
            let free = free_autosave(&session);
            assert_eq!((free.as_path(), saved_path(&free)), (folder.path().join(name).as_path(), session.clone()));
            File::create(free).unwrap();
        }
    }

    #[test]
    fn sessions_are_listed_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in [(2, "old.toml"), (0, "new.autosave.toml"), (1, "other.txt")] {
            let path = folder.path().join(name);
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - age);
            File::create(&path).unwrap().set_modified(time).unwrap();
        }
        let names: Vec<_> = list_sessions(folder.path()).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["new.autosave.toml", "old.toml"]);
        assert_eq!(sessions_folder(Some(folder.path())), folder.path());
        let aside = autosave_path(Path::new("a/b.toml"));
        assert_eq!(
            (aside.as_path(), saved_path(&aside).as_path()),
            (Path::new("a/b.autosave.toml"), Path::new("a/b.toml"))
        );
        assert_eq!(saved_path(Path::new("a/b.toml")), Path::new("a/b.toml"));
        assert_eq!(saved_path(Path::new("a/b.autosave-12.toml")), Path::new("a/b.toml"));
        for other in ["a/b.autosave-x.toml", "a/b.autosaved.toml", "a/b.autosave-.toml"] {
            assert_eq!(saved_path(Path::new(other)), Path::new(other));
        }
        assert_eq!(sidecar_path(&aside), Path::new("a/b.indexers.safetensors"));
        assert!(list_sessions(&folder.path().join("none")).is_empty());
    }
}
