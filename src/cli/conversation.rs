//! The forms in which data sets hold a conversation: OpenAI's messages, ShareGPT's turns, Alpaca's fields.

use serde_json::{Map, Value, json};

use crate::model::chat::Conversation;

/// Names under which objects hold a conversation, or a part of it.
const NAMES: [&str; 5] = ["messages", "conversations", "conversation", "prompt", "instruction"];

/// Returns whether a value within an array is a conversation of its own, rather than a message.
pub(super) fn is_conversation(value: &Value) -> bool {
    value.is_array() || NAMES.iter().any(|key| value.get(key).is_some())
}

/// Reads one conversation: an array of messages, or an object that holds one under a usual name.
///
/// # Errors
/// What is wrong with it, to be put after its place.
pub(super) fn conversation(value: &Value) -> Result<Conversation, String> {
    let named = NAMES[..3].iter().find_map(|key| value.get(key));
    let list = |key: &str| value.get(key).and_then(Value::as_array);
    let turns = match (named.unwrap_or(value), list("prompt").zip(list("completion"))) {
        (Value::Array(turns), _) => turns.clone(),
        (_, Some((prompt, completion))) => [prompt.as_slice(), completion].concat(),
        _ => alpaca(value).ok_or(
            "is neither an array of messages nor an object with 'messages', 'conversations', 'prompt' and 'completion', \
             or 'instruction' and 'output'",
        )?,
    };
    let mut messages: Vec<Value> =
        turns.iter().enumerate().map(|(i, turn)| message(i, turn)).collect::<Result<_, _>>()?;
    // LLaMA-Factory keeps the system's message and the tools, as JSON text, beside the turns.
    if let Some(system) = value.get("system").and_then(Value::as_str).filter(|text| !text.is_empty())
        && messages.first().is_none_or(|first| first["role"] != "system")
    {
        messages.insert(0, json!({"role": "system", "content": system}));
    }
    let tools = match value.get("tools") {
        Some(Value::String(text)) if text.trim().is_empty() => Value::Null,
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|e| format!("has 'tools' that are not JSON ({e})"))?
        }
        other => other.cloned().unwrap_or_default(),
    };
    Ok(Conversation { messages, tools })
}

/// Returns a message with a role as templates know it.
fn message(i: usize, turn: &Value) -> Result<Value, String> {
    let Some(from) = turn.get("from") else {
        return match &turn["role"] {
            Value::String(_) => Ok(turn.clone()),
            _ => Err(format!("has a message {i} without a 'role'")),
        };
    };
    let from = from.as_str().ok_or_else(|| format!("has a message {i} whose 'from' is no text"))?;
    let said = turn.get("value").ok_or_else(|| format!("has a message {i} without a 'value'"))?;
    let role = match from {
        "human" | "user" => "user",
        "gpt" | "chatgpt" | "bing" | "bard" | "assistant" | "model" => "assistant",
        "observation" | "tool" | "function_response" => "tool",
        "system" | "developer" => "system",
        "function_call" | "tool_call" => {
            let calls = calls(said).ok_or_else(|| {
                format!(
                    "has a message {i} from '{from}' whose 'value' is not JSON with a function's name and arguments"
                )
            })?;
            return Ok(json!({"role": "assistant", "content": "", "tool_calls": calls}));
        }
        other => return Err(format!("has a message {i} from '{other}', which is nobody that ShareGPT knows")),
    };
    // What else the turn says, such as its thoughts, goes to the template too.
    let mut message = Map::from_iter([("role".to_owned(), json!(role)), ("content".to_owned(), said.clone())]);
    let more = turn.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "from" | "value"));
    message.extend(more.map(|(key, value)| (key.clone(), value.clone())));
    Ok(Value::Object(message))
}

/// Returns the calls of a ShareGPT turn: one object with name and arguments, or an array of them, as JSON text or not.
fn calls(said: &Value) -> Option<Value> {
    let parsed = said.as_str().map_or_else(|| Some(said.clone()), |text| serde_json::from_str(text).ok())?;
    let calls = if let Value::Array(calls) = parsed { calls } else { vec![parsed] };
    let call = |function: &Value| {
        function["name"].is_string().then(|| json!({"type": "function", "function": function.clone()}))
    };
    calls.iter().map(call).collect()
}

/// Returns the messages of Alpaca's `instruction`, `input`, `output` and `history`.
fn alpaca(value: &Value) -> Option<Vec<Value>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let (user, assistant) = (
        |text: &str| json!({"role": "user", "content": text}),
        |text: &str| json!({"role": "assistant", "content": text}),
    );
    let asked = match text("input").filter(|input| !input.is_empty()) {
        Some(input) => format!("{}\n{input}", text("instruction")?),
        None => text("instruction")?.to_owned(),
    };
    let history = value.get("history").and_then(Value::as_array);
    let before =
        history.into_iter().flatten().map(|pair| Some([user(pair[0].as_str()?), assistant(pair[1].as_str()?)]));
    let mut turns: Vec<Value> = before.collect::<Option<Vec<_>>>()?.concat();
    turns.extend([user(&asked), assistant(text("output")?)]);
    Some(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Vec<Value> {
        conversation(value).unwrap().messages
    }

    #[test]
    fn every_form_of_a_conversation_gives_the_same_messages() {
        let want = [
            json!({"role": "system", "content": "s"}),
            json!({"role": "user", "content": "q"}),
            json!({"role": "assistant", "content": "a"}),
        ];
        let turns =
            json!([{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
        for form in [
            json!(want),
            json!({"messages": want}),
            json!({"conversations": want, "id": 7}),
            json!({"prompt": want[..2], "completion": want[2..]}),
            turns.clone(),
            json!({"conversations": turns}),
            json!({"conversations": turns.as_array().unwrap()[1..], "system": "s", "tools": ""}),
            json!({"system": "s", "instruction": "q", "input": "", "output": "a", "history": []}),
        ] {
            assert_eq!(read(&form), want, "{form}");
        }
        let more = read(&json!({"instruction": "q", "input": "i", "output": "a", "history": [["p", "b"]]}));
        assert_eq!((more.len(), &more[2]["content"]), (4, &json!("q\ni")));
    }

    #[test]
    fn calls_of_tools_become_what_templates_read() {
        let call = r#"{"name": "f", "arguments": {"x": 1}}"#;
        let chat = json!({"tools": "[{\"name\": \"f\"}]", "conversations": [
            {"from": "human", "value": "q"}, {"from": "function_call", "value": call},
            {"from": "observation", "value": "1"}, {"from": "gpt", "value": "a", "reasoning_content": "r"}]});
        let chat = conversation(&chat).unwrap();
        assert_eq!(chat.tools, json!([{"name": "f"}]));
        let function = json!({"name": "f", "arguments": {"x": 1}});
        let calls =
            json!({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]});
        assert_eq!((&chat.messages[1], &chat.messages[2]["role"]), (&calls, &json!("tool")));
        assert_eq!(chat.messages[3]["reasoning_content"], "r");
    }

    #[test]
    fn what_is_no_conversation_is_named() {
        for (value, want) in [
            (json!(3), "is neither an array"),
            (json!({"chat": []}), "is neither an array"),
            (json!([{"content": "a"}]), "message 0 without a 'role'"),
            (json!([{"role": "user"}, {"role": 3}]), "message 1 without a 'role'"),
            (json!([{"from": "human"}]), "message 0 without a 'value'"),
            (json!([{"from": "nobody", "value": "a"}]), "message 0 from 'nobody'"),
            (json!([{"from": "function_call", "value": "f(x)"}]), "message 0 from 'function_call'"),
            (json!({"messages": [], "tools": "["}), "'tools' that are not JSON"),
        ] {
            let error = conversation(&value).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
