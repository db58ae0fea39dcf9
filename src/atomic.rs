//! Writing files so that a crash, or a full disk, leaves either the old file or the new one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Replaces `path` by `bytes`: written beside it, flushed to the disk, then renamed. Missing folders are made.
///
/// A link stays one: the file that it leads to is replaced. What is no plain file, such as `/dev/stdout` or a named pipe,
/// is written to as it is.
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
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let file = tempfile::Builder::new().prefix(".indexscope-").tempfile_in(folder)?;
    // Temporary files are private to the user; results have the mode of any new file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = there.map_or(0o644, |m| m.permissions().mode());
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    fill_buffered(file.as_file(), fill)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    // The rename itself lasts only once the folder is on the disk; file systems without that are left alone.
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(())
}

fn fill_buffered(file: &File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut buffered = BufWriter::new(file);
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
