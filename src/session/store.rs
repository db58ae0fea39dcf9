//! Writing so that a crash leaves either the old file or the new one.

use std::io::Write;
use std::path::Path;

use super::FileError;

/// Replaces `path` by `bytes`: written beside it, flushed to the disk, then renamed. Missing folders are made.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".indexscope-").tempfile_in(folder)?;
        // Temporary files are private to the user; results have the mode of any new file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path).map_or(0o644, |m| m.permissions().mode());
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        // The rename itself lasts only once the folder is on the disk; file systems without that are left alone.
        let _ = std::fs::File::open(folder).and_then(|f| f.sync_all());
        Ok(())
    };
    write().map_err(|e| FileError::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/file.toml");
        write_atomic(&path, b"one, long").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let error = write_atomic(&path.join("below"), b"").unwrap_err();
        assert!(error.to_string().contains("file.toml"), "{error}");
    }
}
