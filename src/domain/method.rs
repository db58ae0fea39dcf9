//! How a pattern is searched for, and what for, as a person names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The first part of a [`Method`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The paper's: each step flips the layer whose flip gives the lowest loss; all candidates are measured.
    #[default]
    Greedy,
    /// Greedy that measures a candidate again only while its last known damage could still make it the best.
    Lazy,
    /// Greedy that drops candidates on part of the calibration set once they are clearly worse, on top of lazy.
    Racing,
    /// Anchors by dynamic programming on mass recall (Kascade).
    Dp,
    /// The paper's Appendix C: dynamic programming on the cosine of attention outputs.
    Similarity,
    /// Full layers at even distances.
    Uniform,
    /// Every possible pattern: the ground truth where few layers are free.
    Exhaustive,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 7] =
        [Self::Greedy, Self::Lazy, Self::Racing, Self::Dp, Self::Similarity, Self::Uniform, Self::Exhaustive];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Lazy => "lazy",
            Self::Racing => "racing",
            Self::Dp => "dp",
            Self::Similarity => "similarity",
            Self::Uniform => "uniform",
            Self::Exhaustive => "exhaustive",
        }
    }

    /// Returns whether it flips layer after layer, so that its flip order gives every retention.
    pub fn has_order(self) -> bool {
        matches!(self, Self::Greedy | Self::Lazy | Self::Racing)
    }
}

/// A strategy, and whether swaps refine its pattern; `greedy`, `lazy+swap`, `swap` (greedy+swap) and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Method {
    /// What finds the first pattern.
    pub strategy: Strategy,
    /// Whether pairs of a Full and a Shared layer are exchanged afterwards while that lowers the loss.
    pub swap: bool,
}

impl From<Strategy> for Method {
    fn from(strategy: Strategy) -> Self {
        Self { strategy, swap: false }
    }
}

/// Why a method or a goal cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {what}: {reason}")]
pub struct MethodError {
    /// What was given.
    pub text: String,
    /// What it should be.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        if text == "swap" {
            return Ok(Self { strategy: Strategy::Greedy, swap: true });
        }
        let (name, swap) = text.strip_suffix("+swap").map_or((text, false), |name| (name, true));
        let strategy = Strategy::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| MethodError {
            text: text.to_owned(),
            what: "a method",
            reason: format!("there are {}, each also with +swap", Strategy::ALL.map(Strategy::name).join(", ")),
        })?;
        Ok(Self { strategy, swap })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.strategy.name(), if self.swap { "+swap" } else { "" })
    }
}

impl Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How many Full layers stay: a number, or a share of all layers such as `1/4` or `0.25`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// So many.
    Count(usize),
    /// So large a share of all layers, above 0 and at most 1.
    Share(f64),
}

impl Keep {
    /// Returns the number of Full layers of a model of `layers`: ⌈r·L⌉ for a share r.
    pub fn count(self, layers: usize) -> usize {
        match self {
            Self::Count(count) => count,
            // 0.1 · 30 is a little above 3 in binary.
            Self::Share(share) => (share * layers as f64 - 1e-9).ceil().max(1.0) as usize,
        }
    }
}

impl FromStr for Keep {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        let wrong = || MethodError {
            text: text.to_owned(),
            what: "a number of Full layers",
            reason: "it must be a share such as 1/4 or 0.25, above 0 and at most 1, or a whole number above 0".into(),
        };
        if let Ok(count) = text.parse::<usize>() {
            return if count > 0 { Ok(Self::Count(count)) } else { Err(wrong()) };
        }
        let number = |s: &str| s.trim().parse::<f64>().map_err(|_| wrong());
        let share = match text.split_once('/') {
            Some((a, b)) => number(a)? / number(b)?,
            None => number(text)?,
        };
        if share > 0.0 && share <= 1.0 { Ok(Self::Share(share)) } else { Err(wrong()) }
    }
}

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// The lowest loss with so many Full layers.
    Keep(usize),
    /// The fewest Full layers whose Δ stays within so many nats, judged by its upper confidence bound.
    MaxDelta(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_print_as_they_are_read() {
        for text in ["greedy", "lazy+swap", "exhaustive", "dp+swap"] {
            assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
        }
        assert_eq!("swap".parse::<Method>().unwrap().to_string(), "greedy+swap");
        assert!("best".parse::<Method>().unwrap_err().to_string().contains("'best' is not a method"));
    }

    #[test]
    fn shares_are_rounded_up_and_numbers_are_taken_as_they_are() {
        for (text, layers, want) in [
            ("1/4", 12, 3),
            ("0.25", 30, 8),
            ("1/8", 12, 2),
            ("0.1", 30, 3),
            ("21", 78, 21),
            ("1/100", 12, 1),
            ("1", 9, 1),
        ] {
            assert_eq!(text.parse::<Keep>().unwrap().count(layers), want, "{text} of {layers}");
        }
        for text in ["0", "1/0", "-1", "1.5", "3/2", "all", ""] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }
}
