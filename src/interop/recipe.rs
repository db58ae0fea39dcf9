//! What an engine's own file says about a pattern; what is handed out is made from it.

use serde_json::{Map, Value};

/// What an engine's own file says about a pattern.
pub(super) struct Recipe {
    /// What to paste.
    pub argument: String,
    /// Where the engine finds the pattern.
    pub route: Route,
    /// The reader whose rule gives the pattern back.
    pub row: &'static str,
    /// What to know, beyond what the simulation says.
    pub warnings: Vec<String>,
    /// The command that the argument belongs to, up to the argument.
    pub command: Option<String>,
    /// How it is told the stages.
    pub stages: Option<StageOptions>,
}

/// How an engine is told the layers of every pipeline stage.
#[derive(Clone, Copy)]
pub(super) struct StageOptions {
    /// The environment variable that holds the layers of each stage.
    pub variable: &'static str,
    /// The option for the number of stages.
    pub option: &'static str,
    /// Whether both were read in the released source.
    pub verified: bool,
}

/// How a pattern reaches an engine.
pub(super) enum Route {
    /// As overrides of the config, set after loading.
    Overrides(Map<String, Value>),
    /// In config.json.
    File,
}

/// Returns an option and its value as a shell takes them.
pub(super) fn option(name: &str, value: &str) -> String {
    format!("{name} {}", quoted(value))
}

/// Returns a word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    shlex::Quoter::new().allow_nul(true).quote(word).expect("the only words that it refuses hold NUL").into_owned()
}
