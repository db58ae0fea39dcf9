//! A file of which not all bytes have come.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::digest::DynDigest;

/// Bytes that are read, hashed and written at a time.
const CHUNK: usize = 1 << 18;

/// A file that is being downloaded.
pub(super) struct Partial {
    /// What came so far, open for reading and appending.
    pub(super) file: File,
    /// What hashes it.
    pub(super) hasher: Box<dyn DynDigest>,
    /// Its bytes.
    pub(super) have: u64,
    /// Those of the whole file.
    pub(super) size: u64,
}

/// What ended a download before its time.
pub(super) enum Broken {
    /// The connection.
    Net(String),
    /// The disk.
    Disk(io::Error),
}

impl Partial {
    /// Hashes what an earlier download left.
    pub(super) fn read_back(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk)? {
                0 => return Ok(()),
                n => self.hasher.update(&chunk[..n]),
            }
            self.have = self.file.stream_position()?;
        }
    }

    /// Throws away what there is.
    pub(super) fn clear(&mut self, hasher: Box<dyn DynDigest>) -> io::Result<()> {
        (self.hasher, self.have) = (hasher, 0);
        self.file.set_len(0)
    }

    /// Appends what comes, up to the file's size.
    pub(super) fn append(&mut self, body: impl Read, tell: &mut dyn FnMut(u64)) -> Result<(), Broken> {
        let mut body = body.take(self.size - self.have);
        let mut chunk = vec![0; CHUNK];
        while self.have < self.size {
            let n = match body.read(&mut chunk) {
                Ok(0) => return Err(Broken::Net("the connection was closed".to_owned())),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Net(error.to_string())),
            };
            self.file.write_all(&chunk[..n]).map_err(Broken::Disk)?;
            self.hasher.update(&chunk[..n]);
            self.have += n as u64;
            tell(self.have);
        }
        Ok(())
    }
}
