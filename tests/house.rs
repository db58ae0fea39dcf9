//! Who may use whom: every `crate::` path and every heavy dependency of every source file, against the house rules.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Module, the modules that it may use, the guarded dependencies that it may use.
///
/// What [`BELOW`] names may be used by all.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("atomic", &[], &[]),
    ("budget", &[], &[]),
    ("input", &[], &[]),
    ("mapped", &[], &[]),
    ("seal", &[], &[]),
    ("shown", &[], &[]),
    ("terminal", &[], &[]),
    ("domain", &[], &[]),
    ("checkpoint", &["domain"], &["ureq"]),
    ("analysis", &["domain"], &[]),
    ("search", &["analysis", "domain"], &[]),
    ("session", &["atomic", "domain"], &[]),
    ("interop", &["checkpoint", "domain"], &[]),
    ("report", &["analysis", "session", "domain"], &[]),
    ("model", &["checkpoint", "domain"], &["candle_core", "candle_nn"]),
    ("train", &["model", "checkpoint", "atomic", "domain"], &["candle_core", "candle_nn"]),
    ("engine", &["model", "search", "train", "analysis", "checkpoint", "domain"], &["candle_core"]),
    ("tui", &["engine", "analysis", "session", "interop", "report", "domain"], &["ratatui", "crossterm"]),
    (
        "cli",
        &[
            "analysis",
            "atomic",
            "checkpoint",
            "domain",
            "engine",
            "interop",
            "model",
            "report",
            "search",
            "session",
            "train",
            "tui",
        ],
        &["candle_core"],
    ),
];

/// Files, foreign strings and the end of the program: below everything else.
const BELOW: &[&str] = &["atomic", "budget", "input", "mapped", "seal", "shown", "terminal"];

const GUARDED: &[&str] = &["candle_core", "candle_nn", "ratatui", "crossterm", "ureq"];

/// Returns what a source text uses: modules of this crate, and guarded dependencies.
fn uses(source: &str) -> Vec<String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found: Vec<String> = code.split("crate::").skip(1).map(word).collect();
    // `use crate::{a, b::c}` names several modules at once.
    for group in code.split("crate::{").skip(1) {
        let mut depth = 0;
        let mut name = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => found.push(word(&std::mem::take(&mut name))),
                c if depth == 0 && !c.is_whitespace() => name.push(c),
                _ => {}
            }
        }
        found.push(word(&name));
    }
    found.extend(GUARDED.iter().filter(|g| code.contains(&format!("{g}::"))).map(|g| (*g).to_owned()));
    found.retain(|name| !name.is_empty());
    found
}

/// Returns the violations of one file of `module`.
fn violations(module: &str, source: &str) -> Vec<String> {
    let Some((_, modules, dependencies)) = RULES.iter().find(|(name, ..)| *name == module) else {
        return vec![format!("module '{module}' has no rule")];
    };
    let known = |name: &str| RULES.iter().any(|(module, ..)| *module == name);
    uses(source)
        .into_iter()
        .filter(|name| {
            let guarded = GUARDED.contains(&name.as_str()) && !dependencies.contains(&name.as_str());
            let allowed = name == module || BELOW.contains(&name.as_str()) || modules.contains(&name.as_str());
            let foreign = known(name) && !allowed;
            guarded || foreign
        })
        .map(|name| format!("'{module}' may not use '{name}'"))
        .collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_module_uses_only_what_it_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "main" || module == "lib" {
            continue;
        }
        let source = fs::read_to_string(file).unwrap();
        wrong.extend(violations(&module, &source).into_iter().map(|v| format!("{}: {v}", inside.display())));
    }
    assert!(files.len() > 30, "the sources were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rule_catches_violations() {
    let caught = violations("tui", "use crate::model::Model;\nuse candle_core::Tensor;\n// use crate::train::x;");
    assert_eq!(caught, ["'tui' may not use 'model'", "'tui' may not use 'candle_core'"]);
    assert_eq!(
        violations("domain", "use crate::{domain::Pattern, engine::{Job, Update}};"),
        ["'domain' may not use 'engine'"]
    );
    assert_eq!(violations("session", "use crate::domain::Pattern;"), [] as [&str; 0]);
    assert_eq!(violations("unheard_of", ""), ["module 'unheard_of' has no rule"]);
}
