//! Which layers the checkpoint itself makes Full or Shared, by the reference's precedence.
//!
//! `indexer_types` beats `index_topk_pattern` beats `index_topk_freq` with `index_skip_topk_offset`, as in
//! transformers 5.23 `GlmMoeDsaConfig`; the same rules are used for `deepseek_v32`.

use serde::Deserialize;

use crate::domain::{PatternError, Role};

use super::CheckpointError;

/// Offset of the frequency rule when config.json gives none.
const DEFAULT_OFFSET: i64 = 2;

/// A pattern given as letters or as a list of words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawPattern {
    /// F/S letters, decoded one by one.
    Letters(String),
    /// Words as in `indexer_types`; the reference copies such a list without decoding F and S.
    Words(Vec<String>),
}

/// The keys that decide the roles.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawRoles {
    indexer_types: Option<Vec<String>>,
    index_topk_pattern: Option<RawPattern>,
    index_topk_freq: Option<i64>,
    index_skip_topk_offset: Option<i64>,
}

impl RawRoles {
    /// Returns the role of each of `layers` layers; more entries than layers are ignored, as by the reference.
    pub(super) fn read(&self, layers: usize) -> Result<Vec<Role>, CheckpointError> {
        match (&self.indexer_types, &self.index_topk_pattern) {
            (Some(words), _) => words_to_roles("indexer_types", words, layers),
            (None, Some(RawPattern::Words(words))) => words_to_roles("index_topk_pattern", words, layers),
            (None, Some(RawPattern::Letters(text))) => letters_to_roles(text, layers),
            (None, None) => {
                let freq = self.index_topk_freq.unwrap_or(1).max(1);
                let offset = self.index_skip_topk_offset.unwrap_or(DEFAULT_OFFSET);
                let full = |l: usize| (l as i64 - offset + 1).max(0) % freq == 0;
                Ok((0..layers).map(|l| if full(l) { Role::Full } else { Role::Shared }).collect())
            }
        }
    }
}

fn words_to_roles(key: &'static str, words: &[String], layers: usize) -> Result<Vec<Role>, CheckpointError> {
    check_length(key, words.len(), layers)?;
    Ok(words.iter().take(layers).map(|w| if w == "shared" { Role::Shared } else { Role::Full }).collect())
}

fn letters_to_roles(text: &str, layers: usize) -> Result<Vec<Role>, CheckpointError> {
    let roles = text
        .chars()
        .enumerate()
        .map(|(layer, letter)| match letter {
            'F' => Ok(Role::Full),
            'S' => Ok(Role::Shared),
            _ => Err(PatternError::Letter { letter, layer }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_length("index_topk_pattern", roles.len(), layers)?;
    Ok(roles.into_iter().take(layers).collect())
}

fn check_length(key: &'static str, got: usize, layers: usize) -> Result<(), CheckpointError> {
    if got >= layers {
        return Ok(());
    }
    Err(CheckpointError::Value {
        key,
        value: format!("of length {got}"),
        reason: format!("the model has {layers} layers"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(json: &str) -> Result<String, String> {
        let raw: RawRoles = serde_json::from_str(json).expect("test JSON");
        raw.read(13).map(|r| r.into_iter().map(Role::letter).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_reference_vectors_hold() {
        let words = |full: usize, shared: usize| {
            let list = [vec!["\"full\""; full], vec!["\"shared\""; shared]].concat();
            format!("[{}]", list.join(","))
        };
        for (json, want) in [
            ("{}".to_owned(), "FFFFFFFFFFFFF"),
            (r#"{"index_topk_freq": 4}"#.to_owned(), "FFSSSFSSSFSSS"),
            (r#"{"index_topk_freq": 4, "index_skip_topk_offset": 3}"#.to_owned(), "FFFSSSFSSSFSS"),
            (r#"{"index_topk_freq": 4, "index_skip_topk_offset": 0}"#.to_owned(), "SSSFSSSFSSSFS"),
            (r#"{"index_topk_freq": 0}"#.to_owned(), "FFFFFFFFFFFFF"),
            (r#"{"index_topk_freq": null, "index_topk_pattern": null}"#.to_owned(), "FFFFFFFFFFFFF"),
            (format!(r#"{{"indexer_types": {}, "index_topk_freq": 4}}"#, words(3, 10)), "FFFSSSSSSSSSS"),
            (
                format!(r#"{{"indexer_types": {}, "index_topk_pattern": "FFSSSFSSSFSSS"}}"#, words(13, 0)),
                "FFFFFFFFFFFFF",
            ),
            (format!(r#"{{"index_topk_pattern": {}}}"#, words(2, 11)), "FFSSSSSSSSSSS"),
            // A list of letters is copied, not decoded, so that no entry reads "shared".
            (format!(r#"{{"index_topk_pattern": [{}]}}"#, ["\"S\""; 13].join(",")), "FFFFFFFFFFFFF"),
            (r#"{"index_topk_pattern": "FFSSSFSSSFSSSSSS", "index_topk_freq": 2}"#.to_owned(), "FFSSSFSSSFSSS"),
        ] {
            assert_eq!(roles(&json).as_deref(), Ok(want), "{json}");
        }
    }

    #[test]
    fn short_or_misspelt_patterns_are_named() {
        let error = roles(r#"{"index_topk_pattern": "FFSSSS"}"#).unwrap_err();
        assert!(error.contains("index_topk_pattern") && error.contains("length 6") && error.contains("13"), "{error}");
        let error = roles(r#"{"index_topk_pattern": "FFXSSFSSSFSSS"}"#).unwrap_err();
        assert!(error.contains("'X' at layer 2"), "{error}");
        let error = roles(r#"{"indexer_types": ["full", "shared"]}"#).unwrap_err();
        assert!(error.contains("indexer_types") && error.contains("length 2"), "{error}");
    }
}
