//! Writing files so that a crash, or a full disk, leaves either the old file or the new one.
//!
//! Durability: when [`write`] or [`Draft::publish`] returns, what was written has been flushed to the disk.

mod disk;
mod draft;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use disk::{Disk, rename, sync};
pub use draft::Draft;

/// How the names of files begin that are being written.
const PREFIX: &str = ".indexscope-";
/// Random characters that follow.
const RANDOM: usize = 6;
/// Age from which on a file that nobody holds is a leftover of a killed program: until it is locked, a new one is held
/// by nobody, either.
const STALE: Duration = Duration::from_secs(60);

/// What is being written now, to be removed when a signal ends the program.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Replaces `path` by `bytes`: written beside it, flushed to the disk, then renamed. Missing folders are made.
///
/// A link stays one: the file that it leads to is replaced. What is no plain file, such as `/dev/stdout` or a named pipe,
/// is written to as it is. What a killed program has left half written in that folder is removed.
///
/// # Errors
/// Those of the file system; nothing is left behind.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Replaces `path` as [`write`] does, by what `fill` writes piece by piece.
///
/// # Errors
/// Those of the file system and of `fill`; nothing is left behind.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let there = fs::metadata(path).ok();
    if there.as_ref().is_some_and(|m| !m.is_file() && !m.is_dir()) {
        return fill_buffered(&File::options().write(true).open(path)?, fill);
    }
    let path = if there.is_some() && path.is_symlink() { path.canonicalize()? } else { path.to_owned() };
    let folder = folder_of(&path);
    fs::create_dir_all(folder)?;
    sweep(folder);
    let file = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).tempfile_in(folder)?;
    let _live = Live::new(file.path());
    // The lock says that this program is alive. Where there are no locks, nothing is ever swept.
    let _ = file.as_file().try_lock();
    // Temporary files are private to the user; results have the mode of any new file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = there.map_or(0o644, |m| m.permissions().mode());
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    fill_buffered(file.as_file(), fill)?;
    sync(file.as_file())?;
    disk::step()?;
    file.persist(&path)?;
    sync_folder(folder);
    Ok(())
}

/// Removes everything that is being written: for a program that ends before that is done.
pub fn discard_all() {
    for path in LIVE.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // The thread that writes may add to a folder meanwhile.
        for _ in 0..3 {
            if if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.is_ok() {
                break;
            }
        }
    }
}

/// Says that something is being written, for as long as it lives.
#[derive(Debug)]
struct Live(PathBuf);

impl Live {
    fn new(path: &Path) -> Self {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Flushes the names of a folder: a rename lasts only once they are on the disk. Some file systems cannot do that.
fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|f| f.sync_all());
}

/// Removes the leftovers of killed programs: files and folders of our name, not new, and locked by nobody.
fn sweep(folder: &Path) {
    let ours = |name: &str| {
        let random = name.strip_prefix(PREFIX);
        random.is_some_and(|r| r.len() == RANDOM && r.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(kind) = entry.metadata().ok().filter(|m| m.is_file() || m.is_dir()) else { continue };
        let old = || Some(kind.modified().ok()?.elapsed().ok()? >= STALE);
        let stale = entry.file_name().to_str().is_some_and(ours) && old() == Some(true);
        // One that cannot be opened, locked or removed is left alone.
        if stale && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }
}

fn fill_buffered(file: &File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut buffered = BufWriter::new(Disk(file));
    fill(&mut buffered)?;
    buffered.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/file.toml");
        write(&path, b"one, long").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(write(&path.join("below"), b"").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn what_a_killed_program_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let names =
            ["a.toml", ".indexscope-Ab12Cd", ".indexscope-locked", ".indexscope-newone", ".indexscope-notes.txt"];
        let old = std::time::SystemTime::now() - 2 * STALE;
        let mut files: Vec<File> = names.iter().map(|name| File::create(path(name)).unwrap()).collect();
        files.iter().for_each(|file| file.set_modified(old).unwrap());
        files[3].set_modified(std::time::SystemTime::now()).unwrap();
        files[2].lock().unwrap();
        fs::create_dir(path(".indexscope-folder")).unwrap();
        let there = || {
            let mut there: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            there.sort();
            there
        };
        write(&path("a.toml"), b"saved").unwrap();
        let kept =
            [".indexscope-folder", ".indexscope-locked", ".indexscope-newone", ".indexscope-notes.txt", "a.toml"];
        assert_eq!(there(), kept);
        // Its owner is gone.
        files.clear();
        write(&path("a.toml"), b"saved").unwrap();
        assert_eq!(there().len(), 4);

        // One that is being written is held, however long that takes.
        write_with(&path("b.toml"), |file| {
            let mine = there().into_iter().find(|n| !kept.contains(&n.to_str().unwrap()) && n != "b.toml").unwrap();
            File::open(path(mine.to_str().unwrap()))?.set_modified(old)?;
            sweep(folder.path());
            file.write_all(b"whole")
        })
        .unwrap();
        assert_eq!(fs::read(path("b.toml")).unwrap(), b"whole");
    }

    #[test]
    fn folders_of_killed_programs_are_swept_and_those_being_filled_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let old = std::time::SystemTime::now() - 2 * STALE;
        let age = |path: &Path| File::open(path).unwrap().set_modified(old).unwrap();
        let left = folder.path().join(".indexscope-Ab12Cd");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("shard"), "half").unwrap();
        age(&left);
        let draft = Draft::beside(&out).unwrap();
        assert!(!left.exists());
        fs::write(draft.path().join("shard"), "whole").unwrap();
        age(draft.path());
        write(&folder.path().join("other"), b"").unwrap();
        assert!(draft.path().exists(), "it is held");
        draft.publish(&out).unwrap();
        assert_eq!(fs::read(out.join("shard")).unwrap(), b"whole");

        let draft = Draft::beside(&out).unwrap();
        let path = draft.path().to_owned();
        fs::write(path.join("shard"), "x").unwrap();
        assert!(draft.publish(&out).is_err() && !path.exists(), "what is there already stays, nothing else does");
        assert_eq!(fs::read(out.join("shard")).unwrap(), b"whole");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_stay_devices() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, link, device) =
            (folder.path().join("there/file"), folder.path().join("link"), folder.path().join("full"));
        write(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"two");

        std::os::unix::fs::symlink("/dev/full", &device).unwrap();
        let error = write(&device, b"three").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(device.is_symlink() && device.metadata().unwrap().file_type().is_char_device());
        let there: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(there.len(), 3, "{there:?}");
    }
}
