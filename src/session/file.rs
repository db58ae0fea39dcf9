//! The session file: one piece of work on one model, as TOML.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FileError, write_atomic};
use crate::domain::{Evaluation, Metric, OverlapMatrix, Pattern, SearchRecord, Speed, Validation};
use crate::input;

/// Newest version of the file that can be read.
const SCHEMA: u32 = 1;

/// The model that a session is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionModel {
    /// Its name for people.
    pub name: String,
    /// Fingerprint of the checkpoint.
    pub fingerprint: String,
    /// Fingerprints by which files of earlier versions name the same checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
    /// Fields of other versions, kept when the file is rewritten.
    #[serde(flatten)]
    pub other: toml::Table,
}

impl SessionModel {
    /// Returns whether a file with this fingerprint is about the same checkpoint.
    pub fn is(&self, fingerprint: &str) -> bool {
        self.fingerprint == fingerprint || self.former.iter().any(|former| former == fingerprint)
    }
}

/// A pattern with a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedPattern {
    /// The name.
    pub name: String,
    /// The pattern.
    pub pattern: Pattern,
    /// Fields of other versions, kept when the file is rewritten.
    #[serde(flatten)]
    pub other: toml::Table,
}

/// One entry of the history: a pattern, how it came about, and what was measured for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStep {
    /// The pattern.
    pub pattern: Pattern,
    /// The entry from which it was made; `None` for the first.
    pub parent: Option<usize>,
    /// What was done.
    #[serde(default)]
    pub change: String,
    /// Its loss.
    pub evaluation: Option<Evaluation>,
    /// Its speed, prefill first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speed: Vec<Speed>,
    /// Its loss on text that no search saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Fields of other versions, kept when the file is rewritten.
    #[serde(flatten)]
    pub other: toml::Table,
}

/// A piece of work on one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Version of the file.
    pub schema: u32,
    /// The current pattern.
    pub pattern: Pattern,
    /// Hash of the calibration set; empty if there was none.
    #[serde(default)]
    pub calibration: String,
    /// Index of the current entry of the history.
    #[serde(default)]
    pub current: usize,
    /// The model.
    pub model: SessionModel,
    /// How much the layers' index sets have in common, as last recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<OverlapMatrix>,
    /// Patterns with names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<NamedPattern>,
    /// Searches, complete or so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<SearchRecord>,
    /// The history, parents before children; may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<SessionStep>,
    /// Fields of other versions, kept when the file is rewritten.
    #[serde(flatten)]
    pub other: toml::Table,
}

impl Session {
    /// Returns a session without history.
    pub fn new(model: SessionModel, pattern: Pattern) -> Self {
        Self {
            schema: SCHEMA,
            pattern,
            calibration: String::new(),
            current: 0,
            model,
            overlap: None,
            named: Vec::new(),
            searches: Vec::new(),
            history: Vec::new(),
            other: toml::Table::new(),
        }
    }

    /// Reads a session and checks it.
    ///
    /// # Errors
    /// [`FileError`] naming what is wrong.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &input::text(path, input::CORPUS).map_err(|e| FileError::io("read", path, e))?)
    }

    /// Reads what the file `path` holds.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let invalid = |reason: String| FileError::Invalid { kind: "session", path: path.to_owned(), reason };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| invalid(one_line(&e)))?;
        match table.get("schema").and_then(toml::Value::as_integer) {
            None => return Err(invalid("it has no 'schema' number".to_owned())),
            Some(found) if found > i64::from(SCHEMA) => {
                return Err(FileError::Schema { path: path.to_owned(), found: found as u32, known: SCHEMA });
            }
            Some(_) => {}
        }
        let session: Self = toml::from_str(text).map_err(|e| invalid(one_line(&e)))?;
        session.check().map_err(invalid)?;
        Ok(session)
    }

    /// Writes the session atomically.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let text = toml::to_string(self).map_err(|e| FileError::io("write", path, std::io::Error::other(e)))?;
        write_atomic(path, text.as_bytes())
    }

    fn check(&self) -> Result<(), String> {
        let layers = self.pattern.len();
        for (i, step) in self.history.iter().enumerate() {
            if step.parent.is_some_and(|parent| parent >= i) {
                return Err(format!("entry {i} of its history comes before its parent"));
            }
            if step.pattern.len() != layers {
                return Err(format!("entry {i} of its history has {} layers, not {layers}", step.pattern.len()));
            }
        }
        if let Some(matrix) = self.overlap.as_ref().filter(|m| m.layers != layers) {
            return Err(format!("its overlap has {} layers, not {layers}", matrix.layers));
        }
        if let Some(matrix) = self.overlap.as_ref().filter(|m| m.metric != Metric::Overlap) {
            return Err(format!("its overlap is measured as {}", matrix.metric));
        }
        if let Some(named) = self.named.iter().find(|n| n.pattern.len() != layers) {
            return Err(format!("pattern '{}' has {} layers, not {layers}", named.name, named.pattern.len()));
        }
        match self.history.get(self.current) {
            None if self.history.is_empty() => Ok(()),
            None => Err(format!("its current entry is {}, but its history has {}", self.current, self.history.len())),
            Some(step) if step.pattern == self.pattern => Ok(()),
            Some(step) => Err(format!("its pattern is {}, but its current entry has {}", self.pattern, step.pattern)),
        }
    }
}

/// Returns an error of the parser without the excerpt that it draws.
fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    use crate::domain::{Agreement, Bucket, Delta, Origin, PhaseShare, Subject, Timing};

    fn session() -> Session {
        let pattern: Pattern = "FFS".parse().unwrap();
        let evaluation = Evaluation {
            subject: Subject::Pattern(pattern),
            loss: 2.5,
            delta: Some(Delta::bare(0.1, 10)),
            delta_all: 0.05,
            reference_loss: 2.45,
            agreement: Some(Agreement { same_top: 0.9, kl: 0.01, kl_p99: 0.1 }),
            bits_per_byte: None,
            by_position: vec![Bucket { from: 0, to: 32, targets: 20, loss: 2.5, delta: None }],
            worst_sequence: None,
            by_cluster: Vec::new(),
            sequences: (2, 2),
            targets: 20,
            eligible: 10,
            blocks: 2,
            resumed_from: 1,
            layer_forwards: 2.0,
            seconds: 0.25,
            origin: Origin::Measured,
        };
        let timing = Timing { median: 0.5, mad: 0.0, runs: 6, interval: Some((0.4, 0.6)) };
        let speed = Speed {
            pattern,
            phase: "prefill".into(),
            context: 512,
            seconds: timing,
            ratio: timing,
            share: PhaseShare::default(),
            ops: "reference".into(),
            origin: Origin::Measured,
        };
        let first = SessionStep {
            pattern: "FFF".parse().unwrap(),
            parent: None,
            change: "all Full".into(),
            evaluation: None,
            speed: vec![],
            validation: None,
            other: toml::Table::new(),
        };
        let second = SessionStep {
            pattern,
            parent: Some(0),
            change: "L2 Full → Shared".into(),
            evaluation: Some(evaluation),
            speed: vec![speed],
            validation: Some(Validation { loss: 2.6, delta: None, sequences: 3, data: "v.txt".into() }),
            other: toml::Table::new(),
        };
        let model = SessionModel { name: "m".into(), fingerprint: "f".into(), ..SessionModel::default() };
        let named = NamedPattern { name: "safe".into(), pattern, other: toml::Table::new() };
        Session { current: 1, named: vec![named], history: vec![first, second], ..Session::new(model, pattern) }
    }

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        std::fs::write(&path, text).unwrap();
        Session::read(&path).unwrap_err().to_string()
    }

    #[test]
    fn a_session_comes_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        session().write(&path).unwrap();
        assert_eq!(Session::read(&path).unwrap(), session());
    }

    #[test]
    fn the_overlap_of_a_recording_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        let overlap = OverlapMatrix {
            metric: Metric::Overlap,
            layers: 3,
            values: vec![1.0, 0.1, 0.7, 0.1, 1.0, 1.0 / 3.0, 0.7, 1.0 / 3.0, 1.0],
            se: [0.0, 0.01, 0.02, 0.01, 0.0, 0.03, 0.02, 0.03, 0.0].map(Some).to_vec(),
            chance: Some(0.25),
            queries: 2048,
            counted: 1900,
            borrowed: vec![],
            tokens_hash: "fnv1a:1".into(),
        };
        let session = Session { overlap: Some(overlap), ..session() };
        session.write(&path).unwrap();
        assert_eq!(Session::read(&path).unwrap(), session);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_was_measured_comes_back(
            overlap in option::of(crate::domain::overlaps()),
            values in (any::<f64>(), any::<f64>(), option::of(0.0..9.0f64)),
            words in ("[^\u{0}]{0,12}", "\\PC{0,12}"),
            note in any::<i64>(),
        ) {
            let layers = overlap.as_ref().map_or(3, |m| m.layers);
            let pattern = Pattern::uniform(layers, 2).unwrap();
            let mut session = Session { pattern, overlap, ..session() };
            session.other.insert("note".into(), note.into());
            for step in &mut session.history {
                step.pattern = pattern;
                step.change.clone_from(&words.0);
                if let Some(e) = &mut step.evaluation {
                    (e.loss, e.delta_all) = (values.0, values.1);
                    e.delta = values.2.map(|value| Delta::measured(value, value / 3.0, 7));
                }
            }
            session.named = vec![NamedPattern { name: words.1, pattern, other: toml::Table::new() }];
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s.toml");
            session.write(&path).unwrap();
            prop_assert_eq!(Session::read(&path).unwrap(), session);
        }
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.toml");
        let text = "schema = 1\nnotes = 'mine'\npattern = 'FS'\n[model]\nname = 'm'\nfingerprint = 'f'\nsite = 'x'\n\
                    [view]\nmap = 'magma'\n[[history]]\npattern = 'FS'\nstar = true\n";
        std::fs::write(&path, text).unwrap();
        let mut session = Session::read(&path).unwrap();
        session.history[0].change = "changed".into();
        session.write(&path).unwrap();
        let written: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(written["notes"].as_str(), Some("mine"));
        assert_eq!(written["view"]["map"].as_str(), Some("magma"));
        assert_eq!(written["model"]["site"].as_str(), Some("x"));
        assert_eq!(written["history"][0]["star"].as_bool(), Some(true));
        assert_eq!(Session::read(&path).unwrap(), session);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let head = "schema = 1\npattern = 'FS'\n";
        let model = "[model]\nname = 'm'\nfingerprint = 'f'\n";
        for (want, got) in [
            ("no 'schema'", refusal("pattern = 'FS'")),
            ("schema 7", refusal("schema = 7")),
            ("missing field `model`", refusal(head)),
            ("'X'", refusal("schema = 1\npattern = 'FX'\n[model]\nname = 'm'\nfingerprint = 'f'\n")),
            ("entry 0 of its history has 3 layers", refusal(&format!("{head}{model}[[history]]\npattern = 'FFF'\n"))),
            ("current entry has FF", refusal(&format!("{head}{model}[[history]]\npattern = 'FF'\n"))),
            (
                "its overlap has 1 layers",
                refusal(&format!(
                    "{head}{model}[overlap]\nmetric = 'overlap'\nlayers = 1\nqueries = 1\ncounted = 1\nvalues = [1]\n"
                )),
            ),
            ("is not a session", refusal("{\"a\": 1}")),
        ] {
            assert!(got.contains(want), "{got}");
        }
    }
}
