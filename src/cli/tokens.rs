//! `--tokens FILE`: token ids as JSON, in our own form and in that of Hugging Face data sets.

use std::path::Path;

use serde_json::Value;

use super::{CliError, json_lines};
use crate::engine::Sequence;
use crate::input;

/// Names of the ids within an object.
const IDS: [&str; 3] = ["ids", "input_ids", "token_ids"];
/// Names of a mask, which says which tokens are scored: ours, that of chat templates, that of RL frameworks.
const MASKS: [&str; 3] = ["mask", "assistant_masks", "loss_mask"];
/// Label of a token that is not scored.
const IGNORED: i64 = -100;

/// Reads the sequences of a file: one JSON value per line, or one array of all.
///
/// # Errors
/// When the file cannot be read, naming the entry and the value that is no sequence of ids.
pub(super) fn read_tokens(path: &Path) -> Result<Vec<Sequence>, CliError> {
    let text = input::named_text(path, input::CORPUS).map_err(|e| CliError::file("cannot read", path, e))?;
    let wrong = |reason: String| {
        CliError::run(format!("'{}' does not hold tokens: {reason}", path.display())).hint(
            "it must hold arrays of token ids, or objects {\"ids\": […], \"mask\": […]} or {\"input_ids\": […], \
             \"labels\": […]}, as one JSON array or one a line",
        )
    };
    let is_list = |entries: &[Value]| entries.is_empty() || entries.iter().any(|e| e.is_array() || e.is_object());
    let values = json_lines::values(&text, is_list).map_err(|(line, e)| wrong(format!("{line} is not JSON ({e})")))?;
    let mut all = Vec::new();
    for (place, value) in values {
        let rows = rows(&value).unwrap_or_else(|| vec![value]);
        for row in &rows {
            all.push(sequence(row).map_err(|reason| wrong(format!("{place} {reason}")))?);
        }
    }
    Ok(all)
}

/// Returns the rows of an object of columns, as a tokenizer returns a batch; `None` for anything else.
fn rows(value: &Value) -> Option<Vec<Value>> {
    let columns = value.as_object()?;
    let count = IDS.iter().find_map(|key| columns.get(*key))?.as_array()?;
    if !count.first().is_some_and(Value::is_array) {
        return None;
    }
    let row = |i: usize| columns.iter().map(|(key, column)| (key.clone(), column[i].clone())).collect();
    Some((0..count.len()).map(row).collect())
}

fn sequence(entry: &Value) -> Result<Sequence, String> {
    let list = |key: &str| match entry.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(list) => list.as_array().map(Some).ok_or_else(|| format!("has '{key}' that is not an array")),
    };
    let ids = match IDS.iter().find_map(|key| entry.get(*key)).unwrap_or(entry) {
        Value::Array(ids) => ids,
        Value::String(_) => return Err("holds text, not token ids".to_owned()),
        _ => return Err("is neither an array nor an object with 'ids' or 'input_ids'".to_owned()),
    };
    let id = |(at, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| format!("has {value} at position {at}, which is no token id"))
    };
    let ids: Vec<u32> = ids.iter().enumerate().map(id).collect::<Result<_, _>>()?;
    let mut mask = None;
    for key in MASKS {
        if let Some(flags) = list(key)? {
            mask = Some(flags.iter().enumerate().map(flag).collect::<Result<Vec<bool>, _>>()?);
            break;
        }
    }
    if let Some(labels) = list("labels")? {
        let scored = scored(labels, &ids)?;
        mask = Some(match mask {
            Some(mask) => mask.into_iter().zip(scored).map(|(a, b)| a && b).collect(),
            None => scored,
        });
    }
    let mut sequence = Sequence { ids, mask, ..Sequence::default() };
    if let Some(attended) = list("attention_mask")? {
        unpad(&mut sequence, &attended.iter().enumerate().map(flag).collect::<Result<Vec<bool>, _>>()?)?;
    }
    Ok(sequence)
}

fn flag((at, value): (usize, &Value)) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Number(n) if n.as_u64().is_some_and(|n| n < 2) => Ok(n.as_u64() == Some(1)),
        _ => Err(format!("has {value} at position {at} of its mask, which is neither 0 nor 1")),
    }
}

/// Returns which tokens their labels score; labels stand at the token that they are, as Hugging Face models take them.
fn scored(labels: &[Value], ids: &[u32]) -> Result<Vec<bool>, String> {
    if labels.len() != ids.len() {
        return Err(format!("has {} labels for {} ids", labels.len(), ids.len()));
    }
    let scores = |(at, (label, &id)): (usize, (&Value, &u32))| match label.as_i64() {
        Some(IGNORED) => Ok(false),
        Some(label) if label == i64::from(id) => Ok(true),
        _ => Err(format!("has label {label} at position {at}, which is neither the token there, {id}, nor {IGNORED}")),
    };
    labels.iter().zip(ids).enumerate().map(scores).collect()
}

/// Takes away the padding at both ends, which attention does not see.
fn unpad(sequence: &mut Sequence, attended: &[bool]) -> Result<(), String> {
    let count = sequence.ids.len();
    if attended.len() != count {
        return Err(format!("has an 'attention_mask' of {} for {count} ids", attended.len()));
    }
    let from = attended.iter().position(|&a| a).unwrap_or(count);
    let to = attended.iter().rposition(|&a| a).map_or(count, |last| last + 1);
    if let Some(hole) = attended[from..to].iter().position(|&a| !a) {
        return Err(format!("has a 0 within its 'attention_mask', at position {}", from + hole));
    }
    sequence.ids = sequence.ids[from..to].to_vec();
    if let Some(mask) = sequence.mask.as_mut().filter(|mask| mask.len() == count) {
        *mask = mask[from..to].to_vec();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sequences_come_with_and_without_masks() {
        assert_eq!(sequence(&json!([1, 2])), Ok(Sequence::of(vec![1, 2])));
        let masked = sequence(&json!({"ids": [1, 2, 3], "mask": [0, true, 1], "group": "x"})).unwrap();
        assert_eq!(masked.mask, Some(vec![false, true, true]));
        for key in ["assistant_masks", "loss_mask"] {
            assert_eq!(sequence(&json!({"input_ids": [1, 2, 3], key: [0, 1, 1]})), Ok(masked.clone()), "{key}");
        }
        for (value, want) in [
            (json!([1, -2]), "-2 at position 1"),
            (json!({"ids": [1], "mask": [2]}), "neither 0 nor 1"),
            (json!(5), "neither an array"),
            (json!({"text": "a"}), "neither an array"),
            (json!("a"), "holds text"),
        ] {
            let error = sequence(&value).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn labels_and_padding_are_those_of_hugging_face() {
        let row = json!({"input_ids": [9, 9, 1, 2, 3], "labels": [-100, -100, -100, 2, 3], "attention_mask": [0, 0, 1, 1, 1]});
        let want = Sequence { mask: Some(vec![false, true, true]), ..Sequence::of(vec![1, 2, 3]) };
        assert_eq!(sequence(&row), Ok(want));
        for (value, want) in [
            (json!({"input_ids": [1, 2], "labels": [1]}), "1 labels for 2 ids"),
            (json!({"input_ids": [1, 2], "labels": [2, -100]}), "label 2 at position 0"),
            (json!({"input_ids": [1, 2], "labels": [-1, 2]}), "label -1 at position 0"),
            (json!({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}), "a 0 within"),
            (json!({"input_ids": [1, 2], "attention_mask": [1]}), "of 1 for 2 ids"),
        ] {
            let error = sequence(&value).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn files_hold_lines_one_array_or_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_tokens(&path).map_err(|e| format!("{e:?}"))
        };
        let want = [vec![1, 2], vec![3, 4, 5]].map(Sequence::of).to_vec();
        for text in [
            "[[1, 2], [3, 4, 5]]",
            "[1, 2]\n[3, 4, 5]\n",
            "\u{feff}{\"input_ids\": [1, 2]}\r\n{\"ids\": [3, 4, 5]}\r\n",
            "[{\"input_ids\": [1, 2]}, {\"input_ids\": [3, 4, 5]}]",
            "{\"input_ids\": [[1, 2], [3, 4, 5]], \"attention_mask\": [[1, 1], [1, 1, 1]]}",
        ] {
            assert_eq!(read(text).unwrap(), want, "{text}");
        }
        assert_eq!(read("[1, 2]").unwrap(), want[..1]);
        assert!(read("[1, 2]\n[3, x]\n").unwrap_err().contains("line 2 is not JSON"));
        assert!(read("{\"text\": \"a\"}").unwrap_err().contains("line 1 is neither an array"));
        assert!(read("[[1], 2]").unwrap_err().contains("entry 1 is neither an array"));
    }
}
