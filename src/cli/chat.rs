//! `--chat FILE`: conversations, one a line, through the checkpoint's chat template.

use std::path::Path;

use serde_json::Value;

use super::{CliError, model};
use crate::checkpoint::Checkpoint;
use crate::engine::Sequence;
use crate::model::chat::{ChatError, ChatTemplate, Conversation};

/// Reads conversations as sequences of which the assistant's tokens are scored.
///
/// # Errors
/// Where there is no template or tokenizer, or a line is no conversation that the template takes.
pub(super) fn read(path: &Path, checkpoint: &Checkpoint) -> Result<Vec<Sequence>, CliError> {
    let template = match (checkpoint.dir(), checkpoint.vocabulary()) {
        (Some(folder), _) => ChatTemplate::open(folder)?,
        (None, Some(vocabulary)) => ChatTemplate::of(vocabulary, Path::new(checkpoint.name()))?,
        (None, None) => {
            return Err(CliError::usage(format!("--chat needs a chat template, and '{}' has none", checkpoint.name()))
                .hint("give --text FILE or --tokens FILE"));
        }
    };
    let tokenizer = model::tokenizer(checkpoint)?;
    let text = std::fs::read_to_string(path).map_err(|e| CliError::file("cannot read", path, e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            let place = format!("line {} of '{}'", n + 1, path.display());
            let chat = conversation(line).map_err(|reason| {
                CliError::run(format!("{place} {reason}"))
                    .hint("each line must be a JSON array of messages {\"role\": …, \"content\": …}, or an object with 'messages'")
            })?;
            let (ids, mask) = template.encode(&tokenizer, &chat).map_err(|e| {
                let hint = e.hint().unwrap_or_default();
                CliError::run(format!("{place}: {e}")).hint(hint)
            })?;
            Ok(Sequence { mask: Some(mask), ..Sequence::of(ids) })
        })
        .collect()
}

fn conversation(line: &str) -> Result<Conversation, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("is not JSON ({e})"))?;
    let messages = value.get("messages").unwrap_or(&value);
    let messages = messages.as_array().ok_or("is neither an array of messages nor an object with 'messages'")?;
    if let Some(i) = messages.iter().position(|m| !m["role"].is_string()) {
        return Err(format!("has a message {i} without a 'role'"));
    }
    Ok(Conversation { messages: messages.clone(), tools: value.get("tools").cloned().unwrap_or_default() })
}

impl From<ChatError> for CliError {
    fn from(error: ChatError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_objects_with_them() {
        let plain = conversation(r#"[{"role": "user", "content": "a"}]"#).unwrap();
        assert_eq!((plain.messages.len(), &plain.tools), (1, &Value::Null));
        let tools = conversation(r#"{"messages": [], "tools": [1]}"#).unwrap();
        assert_eq!((tools.messages.len(), tools.tools[0].as_u64()), (0, Some(1)));
        for (line, want) in [
            ("{", "is not JSON"),
            ("3", "is neither an array"),
            (r#"{"chat": []}"#, "is neither an array"),
            (r#"[{"content": "a"}]"#, "message 0 without a 'role'"),
            (r#"[{"role": "user"}, {"role": 3}]"#, "message 1 without a 'role'"),
        ] {
            let error = conversation(line).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
