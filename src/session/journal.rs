//! Files that grow line by line while something runs, and are read again after a kill at any moment.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::FileError;

/// An open journal: a first line that says what it is about, and one line per entry.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Starts an empty journal about `about`, a single line.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn create(path: &Path, about: &str) -> Result<Self, FileError> {
        super::write_atomic(path, format!("{about}\n").as_bytes())?;
        Self::append(path)
    }

    /// Opens a journal to go on with it; returns what it is about and its entries.
    ///
    /// A last line without its end was being written when the program was killed: it is cut off.
    ///
    /// # Errors
    /// [`FileError::Io`], and [`FileError::Invalid`] where there is not even a first line.
    pub fn resume(path: &Path) -> Result<(Self, String, Vec<String>), FileError> {
        let mut text = String::new();
        let mut file = File::open(path).map_err(|e| FileError::io("read", path, e))?;
        file.read_to_string(&mut text).map_err(|e| FileError::io("read", path, e))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines().map(str::to_owned);
        let about = lines.next().ok_or_else(|| FileError::Invalid {
            kind: "journal",
            path: path.to_owned(),
            reason: "it has no first line".to_owned(),
        })?;
        let entries = lines.collect();
        let journal = Self::append(path)?;
        journal.file.set_len(whole as u64).map_err(|e| FileError::io("write", path, e))?;
        Ok((journal, about, entries))
    }

    /// Adds an entry, a single line; it is with the system when this returns, so that a killed program loses none.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn add(&mut self, entry: &str) -> Result<(), FileError> {
        debug_assert!(!entry.contains('\n'), "an entry is a single line");
        self.file.write_all(format!("{entry}\n").as_bytes()).map_err(|e| FileError::io("write", &self.path, e))
    }

    fn append(path: &Path) -> Result<Self, FileError> {
        let file = File::options().append(true).open(path).map_err(|e| FileError::io("write", path, e))?;
        Ok(Self { path: path.to_owned(), file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::create(&path, "about").unwrap();
        journal.add("one").unwrap();
        journal.add("two").unwrap();
        journal.file.write_all(b"thr").unwrap();
        drop(journal);
        let (mut journal, about, entries) = Journal::resume(&path).unwrap();
        assert_eq!((about.as_str(), entries), ("about", vec!["one".to_owned(), "two".to_owned()]));
        journal.add("three").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "about\none\ntwo\nthree\n");
        assert!(Journal::resume(&folder.path().join("none")).is_err());
    }
}
