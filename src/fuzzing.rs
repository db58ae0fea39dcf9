//! What is fuzzed: one function per kind of input that others wrote, which may refuse it and must not panic.
//!
//! `fuzz/` gives these functions to cargo-fuzz; `tests/suite/fuzz.rs` runs them over a corpus and its mutants.

use std::path::Path;
use std::sync::LazyLock;

use crate::checkpoint::{Checkpoint, Config, Index, Sidecar};
use crate::domain::{Pattern, QuerySampling};
use crate::engine::{Calibration, Sequence, converse};
use crate::interop::Served;
use crate::interop::import::{self, Importer, compare};
use crate::interop::simulate;
use crate::mapped::Bytes;
use crate::model::chat::{ChatTemplate, Conversation};
use crate::search::Measured;
use crate::session::{Entries, Session, TraceFile};
use crate::train::demo;

/// A kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the cargo-fuzz target, and of the folder of its corpus.
    pub name: &'static str,
    /// Reads the input.
    pub run: fn(&[u8]),
}

/// Every kind of input.
pub const TARGETS: &[Target] = &[
    Target { name: "gguf", run: gguf },
    Target { name: "safetensors", run: safetensors },
    Target { name: "index", run: index },
    Target { name: "config", run: config },
    Target { name: "trace", run: trace },
    Target { name: "session", run: session },
    Target { name: "journal", run: journal },
    Target { name: "template", run: template },
    Target { name: "worker", run: worker },
    Target { name: "responses", run: responses },
];

const FILE: &str = "fuzzed";

/// Asks an opened checkpoint for everything that is known without a forward.
fn look(checkpoint: &Checkpoint) {
    let _ = (checkpoint.check(), checkpoint.native(), checkpoint.lineage());
    let _ = (checkpoint.fingerprint(), checkpoint.parts(), checkpoint.needed_bytes(2), checkpoint.stored());
    checkpoint.tensors().for_each(|(name, _)| drop(checkpoint.bytes(name)));
}

/// Reads a GGUF file.
pub fn gguf(input: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_gguf(Path::new(FILE), Bytes::Read(input.to_vec())) {
        look(&checkpoint);
    }
}

/// Reads a safetensors file: as the weights of the demo, as a sidecar and as a trace.
pub fn safetensors(input: &[u8]) {
    static DEMO: LazyLock<Option<Checkpoint>> = LazyLock::new(|| demo::checkpoint().ok());
    if let Some(demo) = &*DEMO {
        let json = demo.config_json().unwrap_or_default();
        if let Ok(checkpoint) = Checkpoint::from_bytes(FILE, json, Bytes::Read(input.to_vec())) {
            look(&checkpoint);
        }
        if let Ok(sidecar) = Sidecar::from_bytes(Path::new(FILE), Bytes::Read(input.to_vec())) {
            let _ = (sidecar.check(demo), sidecar.caveat(demo), sidecar.over(&sidecar));
        }
    }
    let _ = TraceFile::of(Path::new(FILE), Bytes::Read(input.to_vec())).and_then(TraceFile::read);
}

/// Reads `model.safetensors.index.json`.
pub fn index(input: &[u8]) {
    let _ = Index::parse(&String::from_utf8_lossy(input));
}

/// Reads config.json: to run the model, and to say what serving engines make of it.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = Config::parse(&text).map(|config| crate::checkpoint::demands(&config).len());
    if let Ok(served) = Served::parse(&text) {
        let _ = simulate(&served);
    }
}

/// Reads a packed trace whose checksums match.
pub fn trace(input: &[u8]) {
    let mut bytes = input.to_vec();
    seal_trace(&mut bytes);
    let _ = TraceFile::of(Path::new(FILE), Bytes::Read(bytes)).and_then(TraceFile::read);
}

/// Puts the right checksums where a packed trace has them, so that what follows is looked at.
fn seal_trace(bytes: &mut [u8]) {
    const HEADER: usize = 24;
    const SECTION: usize = 28;
    let number = |bytes: &[u8]| Some(usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).unwrap_or(usize::MAX));
    let mut seal = |at: usize, of: &mut dyn FnMut(&[u8]) -> Option<u32>| -> Option<()> {
        let crc = of(bytes)?;
        bytes.get_mut(at..at + 4)?.copy_from_slice(&crc.to_le_bytes());
        Some(())
    };
    let mut at = HEADER;
    let done = seal(12, &mut |bytes| {
        let header = bytes.get(HEADER..)?.get(..number(bytes.get(16..)?)?)?;
        at += header.len();
        Some(crc32fast::hash(header))
    });
    let mut more = done.is_some();
    while more {
        let start = at;
        let section = seal(start + 24, &mut |bytes| {
            let head = bytes.get(start..start + 24)?;
            let rest = bytes.get(start + SECTION..)?.get(..number(&head[16..])?)?;
            at = start + SECTION + rest.len();
            let mut crc = crc32fast::Hasher::new();
            crc.update(head);
            crc.update(rest);
            Some(crc.finalize())
        });
        more = section.is_some();
    }
}

/// Reads a session, and writes what was read.
pub fn session(input: &[u8]) {
    if let Ok(session) = Session::parse(Path::new(FILE), &String::from_utf8_lossy(input)) {
        let _ = toml::to_string(&session);
    }
}

/// Reads a journal of measurements, and every line as one.
pub fn journal(input: &[u8]) {
    let lines = Entries::parse(input).map(|entries| entries.lines).unwrap_or_default();
    let text = String::from_utf8_lossy(input);
    for line in text.lines().map(str::to_owned).chain(lines) {
        let _ = line.parse::<Measured>().map(|measured| measured.to_string());
    }
}

/// Renders a conversation by a chat template.
pub fn template(input: &[u8]) {
    let message = |role: &str, text: &str| serde_json::json!({"role": role, "content": text});
    let messages = vec![message("system", "s"), message("user", "a"), message("assistant", "b c")];
    if let Ok(template) = ChatTemplate::parse(&String::from_utf8_lossy(input), serde_json::Map::new()) {
        let _ = template.render(&Conversation { messages, tools: serde_json::Value::Null });
    }
}

/// Asks a worker for losses, sets and coverage that answers with the input.
pub fn worker(input: &[u8]) {
    let sequence = |n: u32| Sequence::of((0..n).collect());
    if let Ok(set) = Calibration::new(vec![sequence(20), sequence(12)], "ids", 64) {
        let _ = converse(input.to_vec(), set);
    }
}

/// Reads what a serving engine answered, as index sets and as losses.
pub fn responses(input: &[u8]) {
    let prompts = [(0..40).collect::<Vec<u32>>()];
    let Ok(all) = import::responses(input, &prompts) else { return };
    let mut importer = Importer::new(6, 16, QuerySampling::All);
    for response in &all {
        let _ = importer.add(response, prompts.first().map(Vec::as_slice));
    }
    let _ = Pattern::all_full(6).map(|pattern| importer.finish("m", 4, pattern));
    let prompts: Vec<_> = all.into_iter().filter_map(|response| response.prompt).collect();
    let _ = compare(&prompts, &prompts);
}
