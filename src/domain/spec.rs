//! Patterns as a person names them: letters, `all-full`, `native`, `uniform:N`, `freq:N[,OFFSET]`, `dense`, files.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Pattern, PatternError};

/// A pattern as asked for, not yet bound to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternSpec {
    /// F/S letters.
    Letters(String),
    /// Every layer runs its indexer.
    AllFull,
    /// The checkpoint's own pattern.
    Native,
    /// Layer l is Full iff l mod N = 0.
    Uniform(usize),
    /// vLLM's formula with its offset.
    Freq {
        /// The frequency.
        freq: usize,
        /// The offset, 2 by default.
        offset: usize,
    },
    /// No selection at all.
    Dense,
    /// The first line of a file.
    File(PathBuf),
    /// The current pattern of a session file.
    Session(PathBuf),
}

/// Why a pattern's name cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a pattern: {reason}")]
pub struct SpecError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl PatternSpec {
    /// Binds the spec to a model of `layers` layers; `Ok(None)` stands for dense attention.
    ///
    /// Files must have been read before: [`PatternSpec::File`] and [`PatternSpec::Session`] resolve to an error here.
    ///
    /// # Errors
    /// [`PatternError`] where the model cannot have that pattern.
    pub fn resolve(&self, native: Pattern) -> Result<Option<Pattern>, PatternError> {
        let layers = native.len();
        Ok(Some(match self {
            Self::Letters(text) => Pattern::parse(text, layers)?,
            Self::AllFull => Pattern::all_full(layers)?,
            Self::Native => native,
            Self::Uniform(every) => Pattern::uniform(layers, *every)?,
            Self::Freq { freq, offset } => Pattern::freq(layers, *freq, *offset)?,
            Self::Dense => return Ok(None),
            Self::File(_) | Self::Session(_) => return Err(PatternError::Length { got: 0, want: layers }),
        }))
    }
}

impl FromStr for PatternSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = |reason: &str| SpecError { text: text.to_owned(), reason: reason.to_owned() };
        let number = |s: &str, what: &str| match s.parse::<usize>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(wrong(&format!("{what} must be a whole number above 0, not '{s}'"))),
        };
        match text {
            "all-full" => return Ok(Self::AllFull),
            "native" => return Ok(Self::Native),
            "dense" => return Ok(Self::Dense),
            _ => {}
        }
        if let Some(path) = text.strip_prefix('@') {
            return Ok(Self::File(path.into()));
        }
        match text.split_once(':') {
            Some(("uniform", n)) => return Ok(Self::Uniform(number(n, "N of uniform:N")?)),
            Some(("freq", rest)) => {
                let (freq, offset) = rest.split_once(',').unwrap_or((rest, "2"));
                return Ok(Self::Freq {
                    freq: number(freq, "N of freq:N")?,
                    offset: number(offset, "the offset of freq:N,OFFSET")?,
                });
            }
            Some(("session", path)) => return Ok(Self::Session(path.into())),
            _ => {}
        }
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        match text.chars().enumerate().find(|(_, c)| !matches!(c, 'F' | 'S' | 'f' | 's')) {
            None => Ok(Self::Letters(text.to_ascii_uppercase())),
            Some((at, letter)) => Err(wrong(&format!(
                "'{letter}' at position {at} is neither F nor S, and it is none of all-full, native, uniform:N, freq:N[,OFFSET], dense, @FILE, session:FILE"
            ))),
        }
    }
}

impl fmt::Display for PatternSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letters(text) => f.write_str(text),
            Self::AllFull => f.write_str("all-full"),
            Self::Native => f.write_str("native"),
            Self::Uniform(n) => write!(f, "uniform:{n}"),
            Self::Freq { freq, offset } => write!(f, "freq:{freq},{offset}"),
            Self::Dense => f.write_str("dense"),
            Self::File(path) => write!(f, "@{}", path.display()),
            Self::Session(path) => write!(f, "session:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let native: Pattern = "FFSSFS".parse().unwrap();
        for (text, want) in [
            ("FSSFFS", "FSSFFS"),
            ("all-full", "FFFFFF"),
            ("native", "FFSSFS"),
            ("uniform:2", "FSFSFS"),
            ("freq:4", "FFSSSF"),
            ("freq:4,3", "FFFSSS"),
        ] {
            let got = text.parse::<PatternSpec>().unwrap().resolve(native).unwrap();
            assert_eq!(got.map(|p| p.to_string()).as_deref(), Some(want), "{text}");
        }
        assert_eq!("dense".parse::<PatternSpec>().unwrap().resolve(native), Ok(None));
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "FXS", "uniform:0", "uniform:x", "freq:-1", "everything"] {
            let error = text.parse::<PatternSpec>().unwrap_err();
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
    }
}
