//! Where a template says `{% generation %}`: tags become marks in the rendered text, and marks become ranges.

use std::ops::Range;

/// Stand for the begin and the end of a generation in rendered text, from where they are taken out again.
pub(super) const MARKS: [char; 2] = ['\u{F0000}', '\u{F0001}'];

/// Replaces `{% generation %}` and `{% endgeneration %}` by blocks that put [`MARKS`] there; tells whether there were any.
///
/// Each tag becomes block tags with its own trimming outside, so that the text around it is that of transformers.
pub(super) fn mark_generations(template: &str) -> (String, bool) {
    let (mut out, mut rest, mut marked) = (String::new(), template, false);
    while let Some((before, tag, after)) = next_tag(rest) {
        out += before;
        rest = after;
        let body = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        let (left, right) = (trimming(tag.as_bytes()[2]), trimming(tag.as_bytes()[tag.len() - 3]));
        let [begin, end] = MARKS;
        let replaced = match body {
            "generation" => format!("{{%{left} if true %}}{{{{ '{begin}' }}}}{{% endif %}}{{% if true {right}%}}"),
            "endgeneration" => format!("{{%{left} endif %}}{{{{ '{end}' }}}}{{% if true %}}{{% endif {right}%}}"),
            _ => tag.to_owned(),
        };
        marked |= body == "generation";
        out += &replaced;
    }
    (out + rest, marked)
}

/// Cuts a template at its next `{% … %}`.
fn next_tag(template: &str) -> Option<(&str, &str, &str)> {
    let from = template.find("{%")?;
    let to = from + 2 + template[from + 2..].find("%}")? + 2;
    Some((&template[..from], &template[from..to], &template[to..]))
}

fn trimming(byte: u8) -> &'static str {
    match byte {
        b'-' => "-",
        b'+' => "+",
        _ => "",
    }
}

/// Takes [`MARKS`] out of a text and returns where they were.
pub(super) fn take_marks(marked: &str) -> (String, Vec<Range<usize>>) {
    let (mut text, mut ranges, mut begin) = (String::new(), Vec::new(), 0);
    for c in marked.chars() {
        match c {
            c if c == MARKS[0] => begin = text.len(),
            c if c == MARKS[1] => ranges.push(begin..text.len()),
            c => text.push(c),
        }
    }
    ranges.retain(|range| !range.is_empty());
    (text, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_their_trimming_outside() {
        let (text, marked) = mark_generations("a{%- generation +%}b{% endgeneration -%}{% set x = 1 %}");
        assert!(marked);
        assert_eq!(
            text.replace(MARKS[0], "<").replace(MARKS[1], ">"),
            "a{%- if true %}{{ '<' }}{% endif %}{% if true +%}b{% endif %}{{ '>' }}{% if true %}{% endif -%}{% set x = 1 %}"
        );
        assert_eq!(mark_generations("{% if a %}x{% endif %} {%"), ("{% if a %}x{% endif %} {%".to_owned(), false));
    }

    #[test]
    fn marks_become_ranges() {
        let marked: String = ["é", "<", "ab", ">", "c", "<", ">", "<", "d", ">"].concat();
        let marked = marked.replace('<', &MARKS[0].to_string()).replace('>', &MARKS[1].to_string());
        assert_eq!(take_marks(&marked), ("éabcd".to_owned(), vec![2..4, 5..6]));
    }
}
