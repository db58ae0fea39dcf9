//! Memory and panics of other crates while they work on input that others wrote.
//!
//! A template or a tokenizer can ask for any amount of memory, and Rust ends a program that gets none by an abort. With
//! [`Allocator`] as the program's allocator, work within a budget that is exceeded, and memory that the system refuses,
//! end the program as any other error does: one sentence, a hint, exit code 1. Where another allocator is used, as in the
//! tests of the library, budgets are not enforced.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::terminal;

thread_local! {
    /// Bytes that this thread may still take, and for what.
    static LEFT: Cell<isize> = const { Cell::new(isize::MAX) };
    static WHAT: Cell<&'static str> = const { Cell::new("") };
    /// Whether a panic of this thread is caught, so that nothing is to be printed about it.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Does work of another crate with at most `bytes` of memory; a panic in it becomes an error.
///
/// `what` names the work in the error that ends the program where it takes more, such as `the chat template`.
///
/// # Errors
/// What the panic said.
pub fn within<T>(what: &'static str, bytes: usize, work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outside =
        (LEFT.replace(isize::try_from(bytes).unwrap_or(isize::MAX)), WHAT.replace(what), CAUGHT.replace(true));
    let result = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(outside.0);
    WHAT.set(outside.1);
    CAUGHT.set(outside.2);
    result.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        said.unwrap_or("it panicked").to_owned()
    })
}

/// An allocator that ends the program with an error where memory is refused or a budget is exceeded.
#[derive(Debug)]
pub struct Allocator<A>(pub A);

// SAFETY: every call is handed on to the inner allocator; what is counted beside it allocates nothing and never unwinds.
#[allow(unsafe_code)]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { granted(self.0.alloc(layout), layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { granted(self.0.alloc_zeroed(layout), layout.size()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        give(layout.size());
        unsafe { self.0.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        give(layout.size());
        take(size);
        unsafe { granted(self.0.realloc(at, layout, size), size) }
    }
}

fn take(bytes: usize) {
    // A thread that is ending has no budget any more.
    let left = LEFT.try_with(Cell::get).unwrap_or(isize::MAX);
    if left != isize::MAX {
        let left = left.saturating_sub_unsigned(bytes);
        let _ = LEFT.try_with(|cell| cell.set(left));
        if left < 0 {
            refuse(&["error: ", WHAT.get(), " needs more memory than it may take\n"]);
        }
    }
}

fn give(bytes: usize) {
    let left = LEFT.try_with(Cell::get).unwrap_or(isize::MAX);
    if left != isize::MAX {
        // What was taken before the budget began may be given back within it.
        let _ = LEFT.try_with(|cell| cell.set(left.saturating_add_unsigned(bytes).min(isize::MAX - 1)));
    }
}

fn granted(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() && size > 0 {
        let mut digits = [0; 20];
        refuse(&["error: there is not enough memory for another ", decimal(size, &mut digits), " bytes\n"]);
    }
    memory
}

/// Ends the program, without allocating.
#[cold]
fn refuse(error: &[&str]) -> ! {
    terminal::restore();
    let hint = "hint: use a smaller model, text or file, or a machine with more memory (see also 'ulimit -v')\n";
    for part in error.iter().chain([&hint]) {
        terminal::say_raw(part.as_bytes());
    }
    terminal::exit_raw(1)
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    while at > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).unwrap_or("many")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_results_come_through() {
        assert_eq!(within("work", 1 << 20, || 7), Ok(7));
        let said = within("work", 1 << 20, || -> u8 { panic!("no {}", "way") });
        assert_eq!(said, Err("no way".to_owned()));
        assert!(LEFT.get() == isize::MAX && !CAUGHT.get());
        assert_eq!(decimal(0, &mut [0; 20]), "0");
        assert_eq!(decimal(usize::MAX, &mut [0; 20]), usize::MAX.to_string());
    }
}
