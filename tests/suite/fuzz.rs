//! Every kind of input that others wrote (`indexscope::fuzzing`): a corpus of past crashes and of seeds, and its mutants.
//!
//! A mutant follows from its number alone, so that what fails here fails everywhere. For longer runs
//! `INDEXSCOPE_FUZZ_SECONDS=300 cargo test --test suite fuzz -- --nocapture` goes on for so long with each target, or with
//! that of `INDEXSCOPE_FUZZ_TARGET`, and prints counts; what fails is written to `target/tmp/fuzz`. `fuzz/` has the same
//! targets for cargo-fuzz, which finds more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indexscope::fuzzing::{TARGETS, Target};

/// Mutants of each target that are always tried.
const MUTANTS: u64 = 1000;
/// Longest that an input may take: a debug build on a very busy machine takes a tenth of it.
const SLOW: Duration = Duration::from_secs(60);
/// What is being tried, and since when, for the watchdog.
static NOW: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// Numbers at which sizes and counts go wrong.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "128",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e309",
    "NaN",
    "0.5",
];
const BYTES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\n'];

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new("tests/data/fuzz").join(target.name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n.max(1) as u64) as usize
    }
}

/// Returns mutant `number` of a corpus: one of its files after one to four changes.
fn mutant(corpus: &[(PathBuf, Vec<u8>)], number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let mut bytes = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = BYTES[random.below(BYTES.len())],
            2 => bytes.insert(at, BYTES[random.below(BYTES.len())]),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            6 => {
                let other = &corpus[random.below(corpus.len())].1;
                let from = random.below(other.len());
                let piece = other[from..(from + 1 + random.below(64)).min(other.len())].to_vec();
                bytes.splice(at..end, piece);
            }
            // A number written in digits, or eight bytes that may be one.
            _ => {
                let is_digit = |b: &u8| b.is_ascii_digit();
                match bytes[at..].iter().position(is_digit).map(|first| at + first) {
                    Some(first) if random.below(4) > 0 => {
                        let length = bytes[first..].iter().take_while(|b| is_digit(b)).count();
                        let number = NUMBERS[random.below(NUMBERS.len())];
                        bytes.splice(first..first + length, number.bytes());
                    }
                    _ => {
                        let value = [0, 1, u64::from(u32::MAX), 1 << 32, 1 << 40, u64::MAX][random.below(6)];
                        let end = (at + 8).min(bytes.len());
                        let length = end - at;
                        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..length]);
                    }
                }
            }
        }
    }
    bytes
}

/// Runs a target on an input; returns what is wrong.
fn run(target: &Target, name: &str, input: &[u8]) -> Option<String> {
    let begin = Instant::now();
    *NOW.lock().unwrap() = Some((format!("{} {name}", target.name), begin));
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let wrong = match result {
        Err(_) => "it panics",
        Ok(()) if begin.elapsed() > SLOW => "it takes too long",
        Ok(()) => return None,
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    let path = folder.join(format!("{}-{}", target.name, name.replace('/', "-")));
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)).unwrap();
    Some(format!("{}, {name}: {wrong} ({})", target.name, path.display()))
}

/// Returns the name of an input that is not done after a long time.
fn hangs() -> Option<String> {
    let now = NOW.lock().unwrap();
    now.as_ref().filter(|(_, since)| since.elapsed() > 5 * SLOW).map(|(name, _)| name.clone())
}

#[test]
fn no_input_panics_or_hangs() {
    std::thread::spawn(|| {
        while hangs().is_none() {
            std::thread::park_timeout(Duration::from_secs(1));
        }
        println!("{} does not end", hangs().unwrap_or_default());
        std::process::abort();
    });
    let seconds = std::env::var("INDEXSCOPE_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok()).map(Duration::from_secs);
    let chosen = std::env::var("INDEXSCOPE_FUZZ_TARGET").ok();
    let mut wrong = Vec::new();
    for target in TARGETS.iter().filter(|target| chosen.as_ref().is_none_or(|name| name == target.name)) {
        let (corpus, begin) = (corpus(target), Instant::now());
        assert!(corpus.len() > 1, "{} has no corpus", target.name);
        for (path, input) in &corpus {
            wrong.extend(run(target, &path.file_name().unwrap().to_string_lossy(), input));
        }
        let goes_on = |number: u64| number < MUTANTS || seconds.is_some_and(|s| begin.elapsed() < s);
        let mut number = 0;
        while goes_on(number) {
            wrong.extend(run(target, &format!("mutant {number}"), &mutant(&corpus, number)));
            number += 1;
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{}: {} files, {number} mutants in {seconds:.1} s, {} wrong so far",
            target.name,
            corpus.len(),
            wrong.len()
        );
    }
    *NOW.lock().unwrap() = None;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cargo_fuzz_has_the_same_targets() {
    let manifest = std::fs::read_to_string("fuzz/Cargo.toml").unwrap();
    for Target { name, .. } in TARGETS {
        let source = std::fs::read_to_string(format!("fuzz/fuzz_targets/{name}.rs")).unwrap();
        assert!(source.contains(&format!("fuzzing::{name}(")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
    assert_eq!(std::fs::read_dir("fuzz/fuzz_targets").unwrap().count(), TARGETS.len());
}
