//! Files that grow line by line while something runs, and are read again after a kill at any moment.
//!
//! Every line ends in ` #` and the CRC-32 of what stands before, in eight hexadecimal digits. Journals of version 0.1
//! have none on any line; they are rewritten when they are resumed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::FileError;
use crate::atomic::{self, Disk};
use crate::input;

/// An open journal: a first line that says what it is about, and one line per entry.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// What it is about.
    pub about: String,
    /// Its entries.
    pub lines: Vec<String>,
    /// Entries that do not match their checksum, which are left out.
    pub damaged: usize,
}

impl Entries {
    /// Reads the whole lines of a journal.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let whole = bytes.iter().rposition(|&b| b == b'\n').ok_or("it has no first line")?;
        let mut lines = bytes[..whole].split(|&b| b == b'\n').map(String::from_utf8_lossy);
        let first = lines.next().unwrap_or_default();
        let mut entries = Self::default();
        if let Some(about) = unsealed(&first) {
            about.clone_into(&mut entries.about);
            for line in lines {
                match unsealed(&line) {
                    Some(entry) => entries.lines.push(entry.to_owned()),
                    None => entries.damaged += 1,
                }
            }
        } else if first.contains(" #") {
            return Err("its first line does not match its checksum");
        } else {
            entries.about = first.into_owned();
            entries.lines = lines.map(std::borrow::Cow::into_owned).collect();
        }
        Ok(entries)
    }
}

impl Journal {
    /// Starts an empty journal about `about`, a single line.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn create(path: &Path, about: &str) -> Result<Self, FileError> {
        Self::begin(path, &Entries { about: about.to_owned(), ..Entries::default() })
    }

    /// Opens a journal to go on with it; returns what it holds.
    ///
    /// A last line without its end was being written when the program was killed: it is cut off. Damaged lines are
    /// dropped.
    ///
    /// # Errors
    /// [`FileError::Io`], and [`FileError::Invalid`] where the first line is damaged or missing.
    pub fn resume(path: &Path) -> Result<(Self, Entries), FileError> {
        let bytes = input::bytes(path, input::CORPUS).map_err(|e| FileError::io("read", path, e))?;
        let entries = Entries::parse(&bytes).map_err(|reason| FileError::Invalid {
            kind: "journal",
            path: path.to_owned(),
            reason: reason.to_owned(),
        })?;
        Ok((Self::begin(path, &entries)?, entries))
    }

    /// Adds an entry, a single line; it is with the system when this returns, so that a killed program loses none.
    ///
    /// # Errors
    /// [`FileError::Io`]. What was written of the line is cut off when the journal is resumed.
    pub fn add(&mut self, entry: &str) -> Result<(), FileError> {
        Disk(&self.file).write_all(sealed(entry).as_bytes()).map_err(|e| FileError::io("write", &self.path, e))
    }

    /// Waits until every entry is on the disk, where a power failure loses none.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn sync(&mut self) -> Result<(), FileError> {
        atomic::sync(&self.file).map_err(|e| FileError::io("write", &self.path, e))
    }

    /// Replaces the file by these entries, and opens it to add more.
    fn begin(path: &Path, entries: &Entries) -> Result<Self, FileError> {
        let text: String = std::iter::once(&entries.about).chain(&entries.lines).map(|line| sealed(line)).collect();
        super::write_atomic(path, text.as_bytes())?;
        let file = File::options().append(true).open(path).map_err(|e| FileError::io("write", path, e))?;
        Ok(Self { path: path.to_owned(), file })
    }
}

/// Returns a line with its checksum and its end.
fn sealed(line: &str) -> String {
    debug_assert!(!line.contains('\n'), "an entry is a single line");
    format!("{line} #{:08x}\n", crc32fast::hash(line.as_bytes()))
}

/// Returns what a line holds before its checksum; `None` where there is none, or it does not match.
fn unsealed(line: &str) -> Option<&str> {
    let (entry, sum) = line.rsplit_once(" #")?;
    (sum.len() == 8 && u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(entry.as_bytes())).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lines: &[&str], damaged: usize) -> Entries {
        Entries { about: "about".into(), lines: lines.iter().map(ToString::to_string).collect(), damaged }
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::create(&path, "about").unwrap();
        journal.add("one").unwrap();
        journal.add("two").unwrap();
        journal.sync().unwrap();
        journal.file.write_all(b"thr").unwrap();
        drop(journal);
        let (mut journal, found) = Journal::resume(&path).unwrap();
        assert_eq!(found, entries(&["one", "two"], 0));
        journal.add("three").unwrap();
        assert_eq!(Journal::resume(&path).unwrap().1, entries(&["one", "two", "three"], 0));
        assert!(Journal::resume(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_changed_line_is_told_and_dropped_and_a_changed_first_line_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::create(&path, "about").unwrap();
        ["one", "two", "three"].iter().for_each(|entry| journal.add(entry).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [("two #", "twö #"), ("two #", "two "), ("two #", "two nan #")] {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            assert_eq!(Journal::resume(&path).unwrap().1, entries(&["one", "three"], 1), "{to}");
            assert_eq!(Journal::resume(&path).unwrap().1, entries(&["one", "three"], 0), "it is gone");
        }
        std::fs::write(&path, text.replace("about", "abóut")).unwrap();
        assert!(Journal::resume(&path).unwrap_err().to_string().contains("checksum"));
        std::fs::write(&path, "").unwrap();
        assert!(Journal::resume(&path).unwrap_err().to_string().contains("no first line"));
    }

    #[test]
    fn journals_without_checksums_are_read_and_get_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        std::fs::write(&path, "about\none\ntwo\nthr").unwrap();
        let (mut journal, found) = Journal::resume(&path).unwrap();
        assert_eq!(found, entries(&["one", "two"], 0));
        journal.add("three").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| unsealed(line).is_some()), "{text}");
        assert_eq!(Journal::resume(&path).unwrap().1, entries(&["one", "two", "three"], 0));
    }
}
