//! Files in memory: small ones are read, large ones are mapped, so that weights stay on the disk until they are used.
//!
//! A mapped file that another program cuts short raises SIGBUS where a missing page is touched. The handler here restores
//! the terminal, names the file and ends the program with code 1. `--no-mmap` reads every file whole instead.

use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::Mmap;

use crate::input;

mod bus;

/// Largest file that is read instead of mapped.
const SMALL: u64 = 1 << 20;

/// Whether files are read whole, however large.
static READ_ALL: AtomicBool = AtomicBool::new(false);

/// Has every file opened from now on read whole (`--no-mmap`).
pub fn read_all() {
    READ_ALL.store(true, Ordering::Relaxed);
}

/// The bytes of a file.
#[derive(Debug)]
pub enum Bytes {
    /// Read whole.
    Read(Vec<u8>),
    /// Mapped, and watched by the handler of SIGBUS.
    Mapped {
        /// Its bytes.
        map: Mmap,
        /// Names the file in an error.
        _watched: bus::Watched,
    },
    /// Part of the program.
    Static(&'static [u8]),
}

impl Bytes {
    /// Reads or maps a regular file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = input::regular(path)?;
        let size = file.metadata()?.len();
        if size <= SMALL || READ_ALL.load(Ordering::Relaxed) {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(usize::MAX));
            file.read_to_end(&mut bytes)?;
            return Ok(Self::Read(bytes));
        }
        let map = map(&file)?;
        Ok(Self::Mapped { _watched: bus::Watched::new(&map, path), map })
    }

    /// Has the system read a range of a mapped file ahead; a mere advice, so that its failing changes nothing.
    pub fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped { map, .. } = self {
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
    }

    /// Gives the memory of a range of a mapped file back.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped { map, .. } = self {
            // SAFETY: the map is shared and read-only, so that dropped pages are read from the file again, unchanged.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped { map, .. } => map,
            Self::Static(bytes) => bytes,
        }
    }
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is only read. This program replaces files by renaming, which leaves a mapped one as it was; a file
    // that another program cuts short is handled in `bus`.
    #[allow(unsafe_code)]
    unsafe {
        Mmap::map(file)
    }
}
