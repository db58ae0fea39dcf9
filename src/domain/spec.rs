//! Patterns as a person names them: letters, `all-full`, `native`, `uniform:N`, `freq:N[,OFFSET]`, `dense`, published ones,
//! files, and whatever [`super::posted`] takes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::posted;
use super::{Pattern, PatternError, Role, Site, Sites};

/// A pattern as asked for, not yet bound to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternSpec {
    /// F/S letters, one per layer that selects keys; `-` stands for a layer that does not.
    Letters(String),
    /// The Full layers, ascending.
    FullLayers(Vec<usize>),
    /// A pattern of [`PAPER`], by its place there.
    Paper(usize),
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
}

/// Where a pattern comes from: given as it is, or in a file that must be read first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternSource {
    /// Given as it is.
    Spec(PatternSpec),
    /// `@FILE`: the file holds a [`PatternSpec`].
    File(PathBuf),
    /// `session:FILE`: the current pattern of a session file.
    Session(PathBuf),
}

/// Published patterns: those of the paper's 30B model (47 layers), by its authors' search, and those of GLM-5 (78 layers),
/// from the paper's repository and SGLang's pull request 21925.
pub const PAPER: [(&str, &str); 5] = [
    ("30b-1/2", "FSFSFSSSSFSFFFFSFFSSFFSFFFSSFFSSFSSSSFSFFFSFSSF"),
    ("30b-1/4", "FSFSFSSSSFSSSFSSFFSSFSSFSSSSFSSSFSSSSFSSSSSSSSS"),
    ("30b-1/8", "FSSSFSSSSSSSSFSSSFSSSSSFSSSSFSSSSSSSSFSSSSSSSSS"),
    ("glm-5-1/2", "FFSFSSSFSSFFFSSSFFFSFSSSSSSFFSFFSFFSSFFFFFFSFFFFFSFFSSSSSSFSFFFSFSSSFSFFSFFSSS"),
    ("glm-5-1/4", "FFSFSSSFSSFSFSSSSSSSFSSSSSSFSSSFSFSSSSFFFFFSSSFFSSSFSSSSSSSSFSSSFSSSSSSFSFSSSS"),
];

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
    /// Binds the spec to a model with its own pattern and its sites; `Ok(None)` stands for dense attention.
    ///
    /// # Errors
    /// [`PatternError`] where the model cannot have that pattern.
    pub fn resolve(&self, native: Pattern, sites: Sites) -> Result<Option<Pattern>, PatternError> {
        let layers = native.len();
        Ok(Some(match self {
            Self::Letters(text) => sites.parse(text)?,
            Self::FullLayers(full) => {
                let site = |&layer: &usize| match sites.site(layer) {
                    Some(Site(site)) => Ok(site),
                    None if layer < sites.layers() => Err(PatternError::NotASite { layer, letter: 'F' }),
                    None => Err(PatternError::NoLayer { layer, last: sites.layers() - 1 }),
                };
                let full = full.iter().map(site).collect::<Result<Vec<_>, _>>()?;
                Pattern::from_fn(layers, |site| if full.contains(&site) { Role::Full } else { Role::Shared })?
            }
            Self::Paper(place) => sites.parse(PAPER[*place].1)?,
            Self::AllFull => Pattern::all_full(layers)?,
            Self::Native => native,
            Self::Uniform(every) => Pattern::uniform(layers, *every)?,
            Self::Freq { freq, offset } => Pattern::freq(layers, *freq, *offset)?,
            Self::Dense => return Ok(None),
        }))
    }
}

impl FromStr for PatternSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
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
        match text.split_once(':') {
            Some(("uniform", n)) => return Ok(Self::Uniform(number(n, "N of uniform:N")?)),
            Some(("freq", rest)) => {
                let (freq, offset) = rest.split_once(',').map_or((rest, None), |(freq, offset)| (freq, Some(offset)));
                let offset = offset.map(|offset| number(offset, "the offset of freq:N,OFFSET")).transpose()?;
                return Ok(Self::Freq { freq: number(freq, "N of freq:N")?, offset: offset.unwrap_or(posted::OFFSET) });
            }
            Some(("paper", name)) => {
                let place = PAPER.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
                let names = PAPER.map(|(name, _)| name).join(", ");
                return place.map(Self::Paper).ok_or_else(|| wrong(&format!("the published ones are {names}")));
            }
            _ => {}
        }
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        posted::read(text).map_err(|reason| wrong(&reason))
    }
}

impl fmt::Display for PatternSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letters(text) => f.write_str(text),
            Self::FullLayers(layers) => {
                let numbers: Vec<String> = layers.iter().map(ToString::to_string).collect();
                f.write_str(&numbers.join(","))
            }
            Self::Paper(place) => write!(f, "paper:{}", PAPER[*place].0),
            Self::AllFull => f.write_str("all-full"),
            Self::Native => f.write_str("native"),
            Self::Uniform(n) => write!(f, "uniform:{n}"),
            Self::Freq { freq, offset } => write!(f, "freq:{freq},{offset}"),
            Self::Dense => f.write_str("dense"),
        }
    }
}

impl FromStr for PatternSource {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix('@') {
            return Ok(Self::File(path.into()));
        }
        if let Some(path) = text.strip_prefix("session:") {
            return Ok(Self::Session(path.into()));
        }
        text.parse().map(Self::Spec)
    }
}

impl fmt::Display for PatternSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(spec) => spec.fmt(f),
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
            let got = text.parse::<PatternSpec>().unwrap().resolve(native, Sites::every(native.len())).unwrap();
            assert_eq!(got.map(|p| p.to_string()).as_deref(), Some(want), "{text}");
        }
        assert_eq!("dense".parse::<PatternSpec>().unwrap().resolve(native, Sites::every(native.len())), Ok(None));
    }

    #[test]
    fn published_patterns_fit_their_models() {
        for (name, letters) in PAPER {
            let spec: PatternSpec = format!("paper:{name}").parse().unwrap();
            let layers = if name.starts_with("30b") { 47 } else { 78 };
            let pattern = spec.resolve(Pattern::all_full(layers).unwrap(), Sites::every(layers)).unwrap().unwrap();
            assert_eq!((pattern.to_string().as_str(), spec.to_string()), (letters, format!("paper:{name}")));
            assert!(spec.resolve(Pattern::all_full(12).unwrap(), Sites::every(12)).is_err());
        }
        let full = |name: &str| PAPER.iter().find(|(n, _)| *n == name).unwrap().1.matches('F').count();
        assert_eq!(["30b-1/2", "30b-1/4", "30b-1/8", "glm-5-1/2", "glm-5-1/4"].map(full), [24, 12, 7, 40, 22]);
    }

    #[test]
    fn sources_are_told_apart_and_printed_as_given() {
        for (text, source) in [
            ("@file", PatternSource::File("file".into())),
            ("session:s.toml", PatternSource::Session("s.toml".into())),
            ("uniform:2", PatternSource::Spec(PatternSpec::Uniform(2))),
        ] {
            assert_eq!(text.parse(), Ok(source.clone()));
            assert_eq!(source.to_string(), text);
        }
        assert!("@file".parse::<PatternSpec>().is_err() && "session:s.toml".parse::<PatternSpec>().is_err());
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "FXS", "uniform:0", "uniform:x", "freq:-1", "everything", "paper:7b-1/2"] {
            let error = text.parse::<PatternSpec>().unwrap_err();
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
    }
}
