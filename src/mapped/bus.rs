//! SIGBUS: which mapped file was cut short.

#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use memmap2::Mmap;

use crate::terminal;

/// One mapped file, as the handler finds it: without locks and without allocation.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    /// The file's name as a NUL-terminated string, which is never freed.
    name: AtomicPtr<libc::c_char>,
}

/// More mapped files than this are not named: a checkpoint of that many shards does not exist.
static SLOTS: [Slot; 1024] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), name: AtomicPtr::new(std::ptr::null_mut()) }
}; 1024];
static HANDLER: Once = Once::new();

/// Says that a file is mapped, for as long as it lives.
#[derive(Debug)]
pub struct Watched(Option<usize>);

impl Watched {
    pub(super) fn new(map: &Mmap, path: &Path) -> Self {
        HANDLER.call_once(install);
        let start = map.as_ptr() as usize;
        let free = |slot: &Slot| slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let at = SLOTS.iter().position(free);
        if let Some(slot) = at.map(|at| &SLOTS[at]) {
            let shown = crate::shown::shown(&path.display().to_string()).replace('\0', "");
            slot.name.store(std::ffi::CString::new(shown).unwrap_or_default().into_raw(), Ordering::Release);
            slot.end.store(start + map.len(), Ordering::Release);
        }
        Self(at)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(slot) = self.0.map(|at| &SLOTS[at]) {
            slot.end.store(0, Ordering::Release);
            slot.start.store(0, Ordering::Release);
        }
    }
}

#[cfg(target_os = "linux")]
fn install() {
    // SAFETY: the handler is async-signal-safe: it reads atomics and calls write, tcsetattr, sigaction and _exit.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

#[cfg(not(target_os = "linux"))]
fn install() {}

#[cfg(target_os = "linux")]
extern "C" fn on_bus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    terminal::restore();
    // SAFETY: the system hands a valid `siginfo_t` to a handler with SA_SIGINFO; names are NUL-terminated and never freed.
    unsafe {
        let address = (*info).si_addr() as usize;
        let within =
            |slot: &&Slot| (slot.start.load(Ordering::Acquire)..slot.end.load(Ordering::Acquire)).contains(&address);
        if let Some(slot) = SLOTS.iter().find(within) {
            let name = slot.name.load(Ordering::Acquire);
            terminal::say_raw(b"error: '");
            terminal::say_raw(std::ffi::CStr::from_ptr(name).to_bytes());
            terminal::say_raw(b"' was cut short while it was being read\n");
            terminal::say_raw(b"hint: restore the file, and run the command again; --no-mmap reads files whole\n");
            terminal::exit_raw(1);
        }
        // None of ours: the fault repeats, and ends the program as it would have.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}
