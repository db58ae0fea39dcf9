//! Files of JSON values as data sets come: one value per line, or one array of all.

use serde_json::Value;

/// Bytes that are looked at to tell text from JSON.
const HEAD: usize = 1 << 16;

/// Reads the values of a file, each with its place; one array is a list of values where `is_list` says so.
///
/// # Errors
/// Where the file cannot be read, or a value is no JSON: then the line and the reason, for the caller to word.
pub(super) fn values(
    text: &str,
    is_list: impl Fn(&[Value]) -> bool,
) -> Result<Vec<(String, Value)>, (String, serde_json::Error)> {
    // Windows programs begin a file with a byte order mark, which JSON does not know.
    let text = text.trim_start_matches('\u{feff}');
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut all = Vec::new();
    loop {
        let rest = text[stream.byte_offset()..].trim_start();
        let line = format!("line {}", 1 + text[..text.len() - rest.len()].matches('\n').count());
        match stream.next() {
            None => break,
            Some(Ok(value)) => all.push((line, value)),
            Some(Err(e)) => return Err((line, e)),
        }
    }
    if let [(_, Value::Array(entries))] = &mut all[..]
        && is_list(entries)
    {
        let entries = std::mem::take(entries);
        return Ok(entries.into_iter().enumerate().map(|(i, value)| (format!("entry {i}"), value)).collect());
    }
    Ok(all)
}

/// Returns whether a text holds JSON values, such as a data set with one object per line.
pub(super) fn looks_like_json(text: &str) -> bool {
    let head = String::from_utf8_lossy(&text.as_bytes()[..text.len().min(HEAD)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    if !head.starts_with(['{', '[']) {
        return false;
    }
    let mut first = serde_json::Deserializer::from_str(head).into_iter::<Value>();
    match first.next() {
        Some(Ok(value)) => value.is_object() || value.is_array(),
        // The head ends within the first value.
        Some(Err(e)) => e.is_eof() && text.len() > HEAD,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(values: &[Value]) -> bool {
        values.iter().all(Value::is_array)
    }

    #[test]
    fn lines_arrays_and_marks_are_read() {
        let read = |text: &str| values(text, list).unwrap();
        let two = read("\u{feff}{\"a\": 1}\r\n\r\n{\"a\":\n 2}\r\n");
        assert_eq!(two, [("line 1".to_owned(), json!({"a": 1})), ("line 3".to_owned(), json!({"a": 2}))]);
        assert_eq!(read("[[1], [2]]")[1], ("entry 1".to_owned(), json!([2])));
        assert_eq!(read("[1, 2]"), [("line 1".to_owned(), json!([1, 2]))]);
        assert_eq!(read("[1]\n[2]").len(), 2);
        assert_eq!(read(" \n"), []);
        let (line, error) = values("{\"a\": 1}\n{\"a\" 1}", list).unwrap_err();
        assert!(line == "line 2" && error.to_string().contains("expected `:`"), "{line} {error}");
    }

    #[test]
    fn data_sets_are_told_from_text() {
        for text in ["{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n", "\u{feff}[\"a\"]", "{\n \"text\": \"a\"\n}"] {
            assert!(looks_like_json(text), "{text}");
        }
        assert!(looks_like_json(&format!("{{\"prompt\": \"{}\"}}", "a".repeat(2 * HEAD))));
        for text in ["", "Plain text.", "{curly} words", "[a] list", "{\"cut", "3 4 5"] {
            assert!(!looks_like_json(text), "{text}");
        }
    }
}
