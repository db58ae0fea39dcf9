//! `--chat FILE`: conversations through the checkpoint's chat template.

use std::path::Path;

use super::conversation::{conversation, is_conversation};
use super::{CliError, json_lines, model};
use crate::checkpoint::Checkpoint;
use crate::domain::SelectionUnit;
use crate::engine::Sequence;
use crate::input;
use crate::model::chat::{ChatError, ChatTemplate};

/// Reads conversations as sequences of which the assistant's tokens are scored.
///
/// # Errors
/// Where there is no template or tokenizer, or a value is no conversation that the template takes.
pub(super) fn read(path: &Path, checkpoint: &Checkpoint) -> Result<Vec<Sequence>, CliError> {
    if checkpoint.config().unit() != SelectionUnit::Token {
        let kind = checkpoint.config().family.model_type();
        return Err(CliError::run(format!("--chat is not supported for models of type {kind}"))
            .hint("give --text FILE or --tokens FILE"));
    }
    let template = match (checkpoint.dir(), checkpoint.vocabulary()) {
        (Some(folder), _) => ChatTemplate::open(folder)?,
        (None, Some(vocabulary)) => ChatTemplate::of(vocabulary, Path::new(checkpoint.name()))?,
        (None, None) => {
            return Err(CliError::usage(format!("--chat needs a chat template, and '{}' has none", checkpoint.name()))
                .hint("give --text FILE or --tokens FILE"));
        }
    };
    let tokenizer = model::tokenizer(checkpoint)?;
    let text = input::named_text(path, input::CORPUS).map_err(|e| CliError::file("cannot read", path, e))?;
    let wrong = |place: &str, reason: String| {
        CliError::run(format!("{place} of '{}' {reason}", path.display())).hint(
            "give JSON lines or an array of conversations: messages {\"role\": …, \"content\": …} or ShareGPT's \
             {\"from\": …, \"value\": …}, alone or under 'messages' or 'conversations'",
        )
    };
    let is_list = |entries: &[serde_json::Value]| entries.iter().any(is_conversation);
    let values = json_lines::values(&text, is_list).map_err(|(line, e)| wrong(&line, format!("is not JSON ({e})")))?;
    values
        .into_iter()
        .map(|(place, value)| {
            let chat = conversation(&value).map_err(|reason| wrong(&place, reason))?;
            let (ids, mask) = template.encode(&tokenizer, &chat).map_err(|e| {
                let hint = e.hint().unwrap_or_default();
                CliError::run(format!("{place} of '{}': {e}", path.display())).hint(hint)
            })?;
            Ok(Sequence { mask: Some(mask), ..Sequence::of(ids) })
        })
        .collect()
}

impl From<ChatError> for CliError {
    fn from(error: ChatError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}
