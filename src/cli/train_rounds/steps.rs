//! The steps of an alternation: which one comes next, and the file that remembers them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::CliError;
use crate::domain::{Delta, Pattern};
use crate::{input, seal};

/// What was done in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    /// Nothing yet.
    Start,
    /// The pattern's indexers were trained.
    Distil,
    /// A pattern was searched for.
    Search,
}

/// One step and its loss on text that was neither trained nor searched on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) what: What,
    pub(super) round: u64,
    pub(super) pattern: Pattern,
    pub(super) sidecar: Option<PathBuf>,
    /// Nats per target.
    pub(super) loss: f64,
    /// Paired difference to the reference pattern with the first indexers.
    pub(super) delta: Option<Delta>,
    /// Whether it is taken over: its loss is below that of what was there.
    pub(super) gained: bool,
    pub(super) seconds: f64,
}

/// The steps so far, in a file beside the sidecar.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) schema: u32,
    /// What was asked for.
    pub(super) about: String,
    pub(super) steps: Vec<Done>,
    /// Checksum of the file; missing in those of version 0.1.
    #[serde(default)]
    pub(super) crc32: String,
}

/// Returns the next step, or `None` after a round in which nothing was gained.
pub(super) fn next(steps: &[Done], rounds: u64) -> Option<(What, u64)> {
    match steps {
        [] => Some((What::Start, 0)),
        [.., Done { what: What::Start, .. }] => Some((What::Distil, 1)),
        [.., Done { what: What::Distil, round, .. }] => Some((What::Search, *round)),
        [.., distil, search] if search.round < rounds && (distil.gained || search.gained) => {
            Some((What::Distil, search.round + 1))
        }
        _ => None,
    }
}

/// Reads the steps of an earlier run, which may name the model as earlier versions did; none for a new one.
pub(super) fn open(path: &Path, abouts: &[String], resume: bool) -> Result<Vec<Done>, CliError> {
    match (path.exists(), resume) {
        (false, _) => Ok(Vec::new()),
        (true, false) => Err(CliError::run(format!("'{}' already holds a run", path.display()))
            .hint("go on with it by --resume, or name another --out")),
        (true, true) => {
            let text = input::text(path, input::TEXT).map_err(|e| CliError::file("cannot read", path, e))?;
            if seal::is_damaged(text.as_bytes()) {
                return Err(CliError::file("cannot go on with", path, "it does not match its checksum")
                    .hint("name another --out, or restore the file"));
            }
            let journal: Journal =
                serde_json::from_str(&text).map_err(|e| CliError::file("cannot go on with", path, e))?;
            if abouts.contains(&journal.about) {
                return Ok(journal.steps);
            }
            Err(CliError::run(format!("the run in '{}' was begun with other options", path.display()))
                .hint("give the same options as before, or name another --out"))
        }
    }
}

/// Returns a name that begins with that of the sidecar to be written.
pub(super) fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    out.with_file_name(name)
}

/// Returns a step in a few words.
pub(super) fn told(done: &Done) -> String {
    let what = match done.what {
        What::Start => "before".to_owned(),
        What::Distil => format!("round {}, distilled", done.round),
        What::Search => format!("round {}, searched", done.round),
    };
    let kept = if done.gained { "" } else { ", not taken over" };
    format!("{what}: {} has loss {:.4}{kept}", done.pattern, done.loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(what: What, round: u64, gained: bool) -> Done {
        let pattern = Pattern::uniform(4, 2).unwrap();
        Done { what, round, pattern, sidecar: None, loss: 1.0, delta: None, gained, seconds: 0.0 }
    }

    #[test]
    fn rounds_end_when_neither_gains_or_all_are_done() {
        let mut steps = Vec::new();
        assert_eq!(next(&steps, 3), Some((What::Start, 0)));
        steps.push(done(What::Start, 0, true));
        assert_eq!(next(&steps, 3), Some((What::Distil, 1)));
        steps.push(done(What::Distil, 1, true));
        assert_eq!(next(&steps, 3), Some((What::Search, 1)));
        steps.push(done(What::Search, 1, false));
        assert_eq!((next(&steps, 3), next(&steps, 1)), (Some((What::Distil, 2)), None));
        steps.push(done(What::Distil, 2, false));
        assert_eq!(next(&steps, 3), Some((What::Search, 2)));
        steps.push(done(What::Search, 2, false));
        assert_eq!(next(&steps, 3), None);
    }

    #[test]
    fn files_of_a_run_lie_beside_its_sidecar() {
        assert_eq!(beside(Path::new("a/s.safetensors"), "rounds.json"), Path::new("a/s.safetensors.rounds.json"));
    }
}
