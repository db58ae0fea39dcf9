//! Foreign strings as they may be shown: names, paths, tensors, excerpts of files that others wrote.
//!
//! An escape sequence in a name would be obeyed by the terminal, a line break would forge a line of ours, and a
//! bidirectional control would reorder it. So none of them leaves the program as it is.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a character changes how the text around it is shown, instead of being shown.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) { escape(c, &mut safe) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Returns one line of text with hidden characters escaped as in Rust: `\n`, `\u{1b}`.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |c, safe| safe.extend(c.escape_default()))
}

/// Returns several lines of text in the same way; line breaks and tabs stay.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'), |c, safe| safe.extend(c.escape_default()))
}

/// Returns JSON in which hidden characters are escaped as JSON does; line breaks between its tokens stay.
pub fn shown_json(json: &str) -> Cow<'_, str> {
    let escape = |c: char, safe: &mut String| {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    };
    escaped(json, |c| is_hidden(c) && c != '\n', escape)
}

/// Returns the text of a Markdown cell or line: nothing in it is markup, ends the cell, or is hidden.
pub fn shown_markdown(text: &str) -> String {
    shown(text).replace('|', "\\|").replace('<', "&lt;").replace('[', "\\[").replace('`', "\\`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let name = "m\u{1b}]0;pwned\u{7}\u{9b}31m\r\n\u{202e}é✓\u{e0041}";
        assert_eq!(shown(name), "m\\u{1b}]0;pwned\\u{7}\\u{9b}31m\\r\\n\\u{202e}é✓\\u{e0041}");
        assert!(!shown_lines(name).contains(['\u{1b}', '\u{9b}', '\r', '\u{202e}']));
        assert_eq!(shown_lines("a\n\tb"), "a\n\tb");
        assert!(matches!(shown("glm-5 — Δ 0.1"), Cow::Borrowed(_)));
        assert_eq!(shown_markdown("a|b\n<img>[x](y)`"), "a\\|b\\n&lt;img>\\[x](y)\\`");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"name\u{9b}": "\u{1b}\u{202e}\u{e0041}\u{7f}"});
        let text = format!("{value}\n");
        let safe = shown_json(&text);
        assert!(!safe.trim_end().contains(is_hidden), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
