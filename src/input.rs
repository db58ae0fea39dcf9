//! Reading files that others wrote: no more of them than there is a use for, and never from what blocks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Most bytes of a config, an index, a template or a journal.
pub const TEXT: u64 = 64 << 20;
/// Most bytes of a tokenizer.
pub const TOKENIZER: u64 = 256 << 20;
/// Most bytes of a text or of token ids that are measured or trained on.
pub const CORPUS: u64 = 2 << 30;

/// Opens a regular file; a folder, a named pipe or a device is refused before it can block.
///
/// # Errors
/// Those of the file system.
pub fn regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Those of the file system.
pub fn bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(regular(path)?, limit)
}

/// Reads a regular UTF-8 file of at most `limit` bytes.
///
/// # Errors
/// Those of the file system.
pub fn text(path: &Path, limit: u64) -> io::Result<String> {
    utf8(bytes(path, limit)?)
}

/// Reads whatever the user named, a pipe as well, up to `limit` bytes.
///
/// # Errors
/// Those of the file system.
pub fn named(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(File::open(path)?, limit)
}

/// Reads UTF-8 text from whatever the user named, a pipe as well, up to `limit` bytes.
///
/// # Errors
/// Those of the file system.
pub fn named_text(path: &Path, limit: u64) -> io::Result<String> {
    utf8(named(path, limit)?)
}

/// Reads to the end, which must come before `limit` bytes are exceeded.
///
/// # Errors
/// Those of the reader.
pub fn bounded(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes, the most that are read")));
    }
    Ok(bytes)
}

/// Returns what to do about an error of the file system.
pub fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "check the permissions of the file and of its folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room on the disk, or raise the limit of file sizes, and run it again"
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => "name a file in a folder",
        io::ErrorKind::AlreadyExists => "name another file",
        io::ErrorKind::InvalidData => "the file must be UTF-8 text",
        _ => "it must be a regular file that can be read or written; check its path, permissions and disk",
    }
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("byte {offset} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_regular() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "abc").unwrap();
        assert_eq!(text(&path, 3).unwrap(), "abc");
        assert!(text(&path, 2).unwrap_err().to_string().contains("more than 2 bytes"));
        fs::write(&path, b"a\xff").unwrap();
        assert_eq!(text(&path, 3).unwrap_err().to_string(), "byte 1 is not UTF-8");
        assert!(regular(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        #[cfg(unix)]
        for device in ["/dev/zero", "/dev/null"] {
            assert!(bytes(Path::new(device), 9).is_err());
        }
        #[cfg(unix)]
        assert!(named(Path::new("/dev/zero"), 9).is_err());
    }
}
