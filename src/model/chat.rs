//! Conversations to tokens, by a checkpoint's chat template; which tokens are the assistant's.
//!
//! Templates are Jinja, rendered as transformers renders them: blocks are trimmed, `tojson` writes Python's JSON,
//! `raise_exception` refuses. What the date is (`strftime_now`) is not told, so that the same file always gives the same
//! tokens. The assistant's part is what the template marks by `{% generation %}`; where it marks nothing, it is what a
//! turn adds to the rendering of everything before it with the generation prompt. A prompt may open what the turn then
//! closes otherwise (`<think>` before an answer without thoughts): the turn's part begins where the two part. A template
//! that drops the thoughts of earlier turns writes such a turn otherwise once more messages follow: what is scored is the
//! turn as the whole conversation has it. Its end is found by rendering the conversation with other content there.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use super::tokenizer::{Tokenizer, TokenizerError};
use crate::budget;
use crate::checkpoint::{ModelFolder, Vocabulary};
use marks::{MARKS, mark_generations, take_marks};

mod marks;
#[cfg(test)]
mod tests;

/// Instructions that rendering one conversation may take; published templates take some hundred per message.
const FUEL: u64 = 2_000_000;
/// Most bytes of a template; published ones have up to some ten thousand.
const LONGEST: usize = 128 << 10;
/// Most operators of one expression; published templates have up to some ten. The engine folds constants in time that
/// grows with their square.
const OPERATORS: usize = 512;
/// Most bytes of a rendered conversation.
const OUTPUT: usize = 32 << 20;
/// Bytes of memory that a template may take.
const MEMORY: usize = 256 << 20;
/// Bytes of stack on which templates are parsed and rendered: some thousand for each byte of the longest one.
const STACK: usize = 512 << 20;

/// Why a conversation could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The checkpoint has no template.
    #[error("'{folder}' has no chat template", folder = .0.display())]
    NoTemplate(PathBuf),
    /// A file that should hold the template cannot be read.
    #[error("{path} cannot be read as a chat template: {reason}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The template refused a conversation.
    #[error("the chat template refuses it: {0}")]
    Refused(String),
    /// There is nothing to score.
    #[error("no message is the assistant's")]
    NoAssistant,
    /// An assistant's message whose place in the text cannot be told.
    #[error(
        "message {0} is rendered otherwise once more messages follow, and its tokens cannot be told from others there"
    )]
    Ambiguous(usize),
    /// A text that holds what this program uses to mark generations.
    #[error("the text has the character U+{0:X}, which this program uses to mark generations")]
    Mark(u32),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl ChatError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoTemplate(_) => {
                "put the checkpoint's chat_template.jinja there, or give --text FILE or --tokens FILE with masks"
            }
            Self::Read { .. } => "it must be the file that belongs to the checkpoint's tokenizer",
            Self::NoAssistant => "only the assistant's tokens are scored; give conversations with an answer",
            Self::Ambiguous(_) => {
                "end the conversation there, or use a chat_template.jinja with {% generation %} around the answers"
            }
            Self::Refused(_) => "check the conversation and chat_template.jinja, or give --tokens FILE with masks",
            Self::Mark(_) => "take that character out of the conversation",
            Self::Tokenizer(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

/// A conversation: messages as the template wants them, and the tools that it may name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// Objects with a `role`, most often `content`, and whatever else the template reads.
    pub messages: Vec<Value>,
    /// Descriptions of tools; null where there are none.
    pub tools: Value,
}

/// A checkpoint's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and its like.
    special: Map<String, Value>,
    marked: bool,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or where that is missing the template of `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`ChatError::NoTemplate`] where there is neither, [`ChatError::Read`].
    pub fn open(folder: &Path) -> Result<Self, ChatError> {
        let read = |name: &str| -> Result<Option<(PathBuf, String)>, ChatError> {
            let path = folder.join(name);
            match ModelFolder::new(folder).text(name) {
                Ok(text) => Ok(text.map(|text| (path, text))),
                Err(e) => Err(ChatError::Read { path, reason: e.to_string() }),
            }
        };
        let mut special = Map::new();
        let mut template = None;
        if let Some((path, text)) = read("tokenizer_config.json")? {
            let config: Map<String, Value> = serde_json::from_str(&text)
                .map_err(|e| ChatError::Read { path: path.clone(), reason: e.to_string() })?;
            special.extend(config.iter().filter(|(key, _)| key.ends_with("_token")).filter_map(|(key, value)| {
                let content = value.get("content").unwrap_or(value);
                content.is_string().then(|| (key.clone(), content.clone()))
            }));
            template = config.get("chat_template").and_then(default_template).map(|text| (path, text));
        }
        let (path, text) =
            read("chat_template.jinja")?.or(template).ok_or_else(|| ChatError::NoTemplate(folder.to_owned()))?;
        Self::parse(&text, special).map_err(|e| ChatError::Read { path, reason: described(&e) })
    }

    /// Reads the template inside a GGUF file.
    ///
    /// # Errors
    /// [`ChatError::NoTemplate`] where it has none, [`ChatError::Read`].
    pub fn of(vocabulary: &Vocabulary, file: &Path) -> Result<Self, ChatError> {
        let text = vocabulary.chat_template.as_ref().ok_or_else(|| ChatError::NoTemplate(file.to_owned()))?;
        let ends = [("bos_token", vocabulary.bos), ("eos_token", vocabulary.eos)];
        let special = ends.into_iter().filter_map(|(key, id)| {
            Some((key.to_owned(), Value::String(vocabulary.tokens.get(id? as usize)?.clone())))
        });
        Self::parse(text, special.collect())
            .map_err(|e| ChatError::Read { path: file.to_owned(), reason: described(&e) })
    }

    /// Reads a template; `special` are `bos_token` and its like.
    pub(crate) fn parse(text: &str, special: Map<String, Value>) -> Result<Self, Error> {
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Result<(), Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.set_fuel(Some(FUEL));
        if text.len() > LONGEST {
            let reason = format!("it has {} bytes, and {LONGEST} are the most that are read", text.len());
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        let operators = operators(text);
        if operators > OPERATORS {
            let reason = format!("an expression has {operators} operators, and {OPERATORS} are the most that are read");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        let (text, marked) = mark_generations(text);
        let parsed = deep(move || environment.add_template_owned("chat", text).map(|()| environment));
        let environment = parsed.map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))??;
        Ok(Self { environment, special, marked })
    }

    /// Returns the token ids of a conversation, and which of them are the assistant's.
    ///
    /// # Errors
    /// [`ChatError`], where the template refuses or the assistant's part cannot be told.
    pub fn encode(&self, tokenizer: &Tokenizer, chat: &Conversation) -> Result<(Vec<u32>, Vec<bool>), ChatError> {
        let (text, answers) = self.render(chat)?;
        let (ids, places) = tokenizer.encode_with_places(&text)?;
        let inside = |place: &Range<usize>| answers.iter().any(|a| place.start < a.end && a.start < place.end);
        let mask = places.iter().map(inside).collect();
        Ok((ids, mask))
    }

    /// Returns the text of a conversation, and where in it the assistant's parts are.
    pub(crate) fn render(&self, chat: &Conversation) -> Result<(String, Vec<Range<usize>>), ChatError> {
        let said = Value::Array(chat.messages.clone()).to_string();
        if let Some(mark) = MARKS.into_iter().find(|&mark| said.contains(mark)) {
            return Err(ChatError::Mark(mark as u32));
        }
        // As vLLM does; a template that writes arguments as text gets them as they came.
        let chat = &match with_parsed_arguments(chat) {
            Some(parsed) if self.text(&parsed, parsed.messages.len(), false).is_ok() => parsed,
            _ => chat.clone(),
        };
        let whole = self.text(chat, chat.messages.len(), false)?;
        let answers = if self.marked { take_marks(&whole) } else { (whole.clone(), self.turns(chat, &whole)?) };
        if answers.1.is_empty() { Err(ChatError::NoAssistant) } else { Ok(answers) }
    }

    /// Returns what every assistant's message adds to the text before it.
    fn turns(&self, chat: &Conversation, whole: &str) -> Result<Vec<Range<usize>>, ChatError> {
        let assistants = (0..chat.messages.len()).filter(|&i| chat.messages[i]["role"] == "assistant");
        assistants
            .map(|i| {
                let prompt = self.text(chat, i, true)?;
                let after = self.text(chat, i + 1, false)?;
                let start = common_prefix(&prompt, &after);
                // What differs must be the prompt's own end, not what was said before.
                let known = start == prompt.len() || {
                    let before = self.text(chat, i, false)?;
                    start >= before.len() && after.starts_with(&before)
                };
                if known && whole.starts_with(&after) {
                    return Ok(start..after.len());
                }
                self.rewritten_turn(chat, i, &prompt, whole)?.ok_or(ChatError::Ambiguous(i))
            })
            .collect()
    }

    /// Returns where an assistant's message is that the whole conversation has otherwise than the one that ends with it;
    /// `None` where that cannot be told.
    fn rewritten_turn(
        &self,
        chat: &Conversation,
        at: usize,
        prompt: &str,
        whole: &str,
    ) -> Result<Option<Range<usize>>, ChatError> {
        let before = self.text(chat, at, false)?;
        let begin = if at == 0 { Some(before.len()) } else { self.end_of(chat, at - 1, whole)? };
        let (Some(begin), Some(end), Some(opening)) =
            (begin, self.end_of(chat, at, whole)?, prompt.strip_prefix(before.as_str()))
        else {
            return Ok(None);
        };
        let turn = whole.get(begin..end);
        Ok(turn.map(|turn| begin + common_prefix(opening, turn)..end).filter(|answer| !answer.is_empty()))
    }

    /// Returns where a message ends in the whole conversation.
    ///
    /// Two conversations that differ in its content alone end alike after it: in the end of the turn, which is all where
    /// it is the last message, and in the messages that follow.
    fn end_of(&self, chat: &Conversation, at: usize, whole: &str) -> Result<Option<usize>, ChatError> {
        let alone = self.text(chat, at + 1, false)?;
        if whole.starts_with(&alone) {
            return Ok(Some(alone.len()));
        }
        let Some(other) = with_other_content(chat, at) else { return Ok(None) };
        let (Ok(other_alone), Ok(other_whole)) =
            (self.text(&other, at + 1, false), self.text(&other, chat.messages.len(), false))
        else {
            return Ok(None);
        };
        let (closing, after) = (common_suffix(&alone, &other_alone), common_suffix(whole, &other_whole));
        let end = (whole.len() + closing).checked_sub(after).filter(|&end| end <= whole.len());
        let ends_alike = |end: &usize| whole.get(..*end).is_some_and(|text| text.ends_with(tail(&alone, closing)));
        Ok(end.filter(ends_alike))
    }

    /// Renders the first `count` messages.
    fn text(&self, chat: &Conversation, count: usize, prompt: bool) -> Result<String, ChatError> {
        let refused = |e: Error| ChatError::Refused(described(&e));
        let mut context = self.special.clone();
        let mut set = |name: &str, value| context.insert(name.to_owned(), value);
        set("messages", Value::Array(chat.messages[..count].to_vec()));
        set("tools", chat.tools.clone());
        set("documents", Value::Null);
        set("add_generation_prompt", prompt.into());
        let render = || {
            let mut text = Capped { text: Vec::new(), full: false };
            let done = self.environment.get_template("chat")?.render_captured_to(Serde(context), &mut text).map(drop);
            if text.full {
                let reason = format!("it writes more than {OUTPUT} bytes");
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
            done?;
            Ok(String::from_utf8_lossy(&text.text).into_owned())
        };
        deep(render).map_err(ChatError::Refused)?.map_err(refused)
    }
}

/// Returns the most operators that stand between the braces of one expression or statement, outside of its strings; the
/// marks at its ends are counted, too.
fn operators(template: &str) -> usize {
    let bytes = template.as_bytes();
    let is_word = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let (mut inside, mut quote, mut count, mut most) = (false, None, 0, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        let word = |word: &str| bytes[at..].starts_with(word.as_bytes()) && !is_word(at + word.len());
        match (inside, quote) {
            (false, _) if byte == b'{' && matches!(bytes.get(at + 1), Some(b'{' | b'%')) => (inside, count) = (true, 0),
            (true, Some(end)) if byte == end && bytes[at - 1] != b'\\' => quote = None,
            (false, _) | (true, Some(_)) => {}
            (true, None) => match byte {
                b'"' | b'\'' => quote = Some(byte),
                b'}' if matches!(bytes[at - 1], b'}' | b'%') => inside = false,
                b'-' | b'+' | b'~' | b'*' | b'/' | b'%' => count += 1,
                _ if (at == 0 || !is_word(at - 1)) && ["not", "and", "or"].into_iter().any(word) => count += 1,
                _ => {}
            },
        }
        most = most.max(count);
    }
    most
}

/// Does work whose recursion follows a template on a stack that even the longest one cannot exhaust.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let work = || budget::within("the chat template", MEMORY, work);
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK).spawn_scoped(scope, work);
        thread.map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".to_owned())))
    });
    done.map_err(|e| format!("a thread for it cannot be started: {e}"))?
}

/// What a template writes, up to the most that is taken.
struct Capped {
    text: Vec<u8>,
    full: bool,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= self.text.len() + bytes.len() > OUTPUT;
        if self.full { Err(io::ErrorKind::FileTooLarge.into()) } else { self.text.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the length of what two texts begin with alike, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at)
}

/// Returns the length of what two texts end with alike, in whole characters.
fn common_suffix(a: &str, b: &str) -> usize {
    a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// Returns the last `len` bytes of a text.
fn tail(text: &str, len: usize) -> &str {
    &text[text.len() - len..]
}

/// Returns a conversation in which one message says something else, which ends with another character; `None` where its
/// content is neither text nor absent.
fn with_other_content(chat: &Conversation, at: usize) -> Option<Conversation> {
    let mut other = chat.clone();
    let content = other.messages.get_mut(at)?.as_object_mut()?.entry("content").or_insert(Value::Null);
    let text = match content {
        Value::Array(parts) => parts.iter_mut().rev().find_map(|part| part.get_mut("text"))?,
        text => text,
    };
    let said = if text.is_null() { "" } else { text.as_str()? };
    *text = Value::from(if said.trim_end().ends_with('x') { "y" } else { "x" });
    Some(other)
}

/// Returns a conversation in which calls of tools have their arguments as objects, which most templates expect, where
/// some have them as JSON text, as OpenAI's API does.
fn with_parsed_arguments(chat: &Conversation) -> Option<Conversation> {
    let mut parsed = chat.clone();
    let mut changed = false;
    let calls = parsed.messages.iter_mut().filter_map(|message| message.get_mut("tool_calls")?.as_array_mut());
    for call in calls.flatten() {
        let function = if call.get("function").is_some() { &mut call["function"] } else { call };
        let object = function.get("arguments").and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
        if let Some(object @ Value::Object(_)) = object {
            function["arguments"] = object;
            changed = true;
        }
    }
    changed.then_some(parsed)
}

/// Returns the one template, or that named `default` where there are several.
fn default_template(value: &Value) -> Option<String> {
    let named = |v: &&Value| v["name"] == "default";
    let text = match value {
        Value::Array(several) => several.iter().find(named).map(|v| &v["template"])?,
        one => one,
    };
    text.as_str().map(str::to_owned)
}

/// Returns an error of the template engine as one line.
fn described(error: &Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| text.clone(), |line| format!("{text} (line {line} of the template)"))
}

/// Python's `json.dumps`: a blank after commas and colons, or lines with `indent`; nothing is escaped for HTML.
fn to_json(value: minijinja::Value, options: Kwargs) -> Result<String, Error> {
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let (mut out, spaces) = (Vec::new(), " ".repeat(indent.unwrap_or(0)));
    if indent.is_some() {
        let lines = PrettyFormatter::with_indent(spaces.as_bytes());
        value.serialize(&mut Serializer::with_formatter(&mut out, lines)).map_err(failed)?;
    } else {
        value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)).map_err(failed)?;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// JSON on one line with a blank after commas and colons.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
