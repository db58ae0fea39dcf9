//! Python's semantics for the values of a config: engines compute with whatever type they find there.
//!
//! Each function raises what CPython raises; `key` names the value in the message, `when` says how far the engine got.

use serde_json::Value;

use super::strip::Failure;

/// Returns the name of a value's Python type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Returns the TypeError for a value of a type that the operation does not take.
fn type_error(value: &Value, key: &str, when: &'static str) -> Failure {
    Failure::new("TypeError", when, format!("{key} is {value} ({})", type_of(value)))
}

/// Returns a value as arithmetic takes it: a number, or a boolean as 0 or 1; `default` where the key is absent.
pub(super) fn number(value: Option<&Value>, default: f64, key: &str, when: &'static str) -> Result<f64, Failure> {
    match value {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(f64::from(u8::from(*flag))),
        Some(Value::Number(n)) => Ok(n.as_f64().unwrap_or(default)),
        Some(other) => Err(type_error(other, key, when)),
    }
}

/// Returns `int(value)`, or `default` where the key is absent.
pub(super) fn int(value: Option<&Value>, default: f64, key: &str, when: &'static str) -> Result<f64, Failure> {
    match value {
        Some(Value::String(text)) => text
            .trim()
            .parse::<i64>()
            .map(|n| n as f64)
            .map_err(|_| Failure::new("ValueError", when, format!("{key} is '{text}', no number"))),
        other => number(other, default, key, when).map(f64::trunc),
    }
}

/// Returns `bool(value)`, or false where the key is absent.
pub(super) fn is_truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(n)) => n.as_f64() != Some(0.),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

/// Returns `len(value)`.
pub(super) fn len(value: &Value, key: &str, when: &'static str) -> Result<usize, Failure> {
    match value {
        Value::String(text) => Ok(text.chars().count()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        other => Err(type_error(other, key, when)),
    }
}

/// Returns `list(value)`.
pub(super) fn list(value: &Value, key: &str, when: &'static str) -> Result<Vec<Value>, Failure> {
    match value {
        Value::String(text) => Ok(text.chars().map(|c| Value::from(c.to_string())).collect()),
        Value::Array(list) => Ok(list.clone()),
        Value::Object(map) => Ok(map.keys().map(|key| Value::from(key.as_str())).collect()),
        other => Err(type_error(other, key, when)),
    }
}

/// Returns `value[index]`.
pub(super) fn item(value: &Value, index: usize, key: &str, when: &'static str) -> Result<Value, Failure> {
    if let Value::Object(_) = value {
        return Err(Failure::new("KeyError", when, format!("{key} is {value}, which has no key {index}")));
    }
    let items = list(value, key, when)?;
    let reason = || format!("{key} has {} entries, and entry {index} is read", items.len());
    items.get(index).cloned().ok_or_else(|| Failure::new("IndexError", when, reason()))
}

/// Returns `value[index] == text`.
pub(super) fn item_is(value: &Value, index: usize, text: &str, key: &str, when: &'static str) -> Result<bool, Failure> {
    Ok(item(value, index, key, when)? == *text)
}

/// Returns `index < len(value) and value[index] == text`.
pub(super) fn has_item(
    value: &Value,
    index: usize,
    text: &str,
    key: &str,
    when: &'static str,
) -> Result<bool, Failure> {
    Ok(index < len(value, key, when)? && item_is(value, index, text, key, when)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The exception, or the value, as Python prints them.
    fn said<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        result.map_or_else(|failure| failure.error.to_owned(), |value| format!("{value:?}"))
    }

    #[test]
    fn values_behave_as_in_python() {
        let number = |value: Value| said(number(Some(&value), 0., "k", ""));
        assert_eq!([json!(4), json!(4.5), json!(true)].map(number), ["4.0", "4.5", "1.0"]);
        assert_eq!([json!(null), json!("4"), json!([4]), json!({})].map(number), ["TypeError"; 4]);
        let int = |value: Value| said(int(Some(&value), 0., "k", ""));
        assert_eq!(
            [json!("4"), json!(2.5), json!("x"), json!(null)].map(int),
            ["4.0", "2.0", "ValueError", "TypeError"]
        );
        let item = |value: Value, index| said(item_is(&value, index, "S", "k", ""));
        assert_eq!([item(json!("FS"), 1), item(json!(["S"]), 0), item(json!([1]), 0)], ["true", "true", "false"]);
        assert_eq!(
            [item(json!("FS"), 2), item(json!({"a": 1}), 0), item(json!(3), 0)],
            ["IndexError", "KeyError", "TypeError"]
        );
        let has = |value: Value, index| said(has_item(&value, index, "S", "k", ""));
        assert_eq!([has(json!("FS"), 2), has(json!({}), 0), has(json!(true), 0)], ["false", "false", "TypeError"]);
        let truthy = [json!(1), json!("false"), json!(0), json!(""), json!(null)].map(|value| is_truthy(Some(&value)));
        assert_eq!(truthy, [true, true, false, false, false]);
    }
}
