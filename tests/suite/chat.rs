//! `--chat`: conversations through a chat template, with the assistant's tokens scored only.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const TEMPLATE: &str = "{%- for message in messages %}
    {{- '<' + message.role + '>' }}
    {%- if message.role == 'assistant' %}
        {% generation %}
            {{- message.content -}}
            {{- '</>' -}}
        {% endgeneration %}
    {%- else %}
        {{- message.content + '</>' }}
    {%- endif %}
{%- endfor %}";

const CHAT: &str = r#"[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "naïve"}, {"role": "user", "content": "there"}, {"role": "assistant", "content": "yes"}]"#;

/// What transformers 5.23 makes of [`CHAT`] with [`TEMPLATE`] and the demo's tokenizer (`apply_chat_template` with
/// `return_assistant_tokens_mask`).
const IDS: [u32; 41] = [
    27, 320, 265, 29, 1813, 321, 27, 14, 29, 27, 345, 429, 575, 29, 77, 64, 127, 107, 367, 27, 14, 29, 27, 320, 265,
    29, 872, 264, 27, 14, 29, 27, 345, 429, 575, 29, 88, 280, 27, 14, 29,
];

fn is_assistants(at: usize) -> bool {
    (14..22).contains(&at) || at >= 36
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().unwrap()
}

/// Writes the demo as a folder, with `template` if there is one, and `chat` beside it; returns both paths.
fn folder(dir: &Path, template: Option<&str>, chat: &str) -> [String; 2] {
    let model = dir.join("model");
    assert!(run(&["demo", "--write", &model.display().to_string()]).status.success());
    if let Some(template) = template {
        std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    }
    let file = dir.join("chat.jsonl");
    std::fs::write(&file, chat).unwrap();
    [model, file].map(|path| path.display().to_string())
}

fn numbers(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json["results"].as_array_mut().unwrap().iter_mut().for_each(|r| drop(r.as_object_mut().unwrap().remove("seconds")));
    json
}

#[test]
fn tokens_and_mask_are_those_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let [model, chat] = folder(dir.path(), Some(TEMPLATE), &format!("{CHAT}\n\n{{\"messages\": {CHAT}}}\n"));
    let tokens = dir.path().join("tokens.json").display().to_string();
    let mask: Vec<bool> = (0..IDS.len()).map(is_assistants).collect();
    let sequence = json!({"ids": IDS.to_vec(), "mask": mask});
    std::fs::write(&tokens, json!([sequence, sequence]).to_string()).unwrap();
    let eval =
        |more: [&str; 2]| numbers(&run(&[&["eval", &model, "--json", "--pattern", "uniform:4"][..], &more].concat()));
    let got = eval(["--chat", &chat]);
    assert_eq!(got, eval(["--tokens", &tokens]));
    // 13 tokens are the assistant's in each; the last five are predicted with more than 32 keys in sight.
    assert_eq!((&got["targets"], &got["eligible"], &got["sequences"]), (&json!(26), &json!(10), &json!(2)));
    let buckets = got["results"][0]["by_position"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|b| b["targets"].as_u64().unwrap()).collect::<Vec<_>>(), [16, 10]);
}

#[test]
fn what_is_wrong_is_named() {
    let refusal = |template: Option<&str>, chat: &str| {
        let dir = tempfile::tempdir().unwrap();
        let [model, chat] = folder(dir.path(), template, chat);
        let output = run(&["eval", &model, "--pattern", "native", "--chat", &chat]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let question = CHAT.split(", {").next().unwrap().to_owned() + "]";
    for (want, got) in [
        ("has no chat template", refusal(None, CHAT)),
        ("line 2 of '", refusal(Some(TEMPLATE), &format!("{CHAT}\nhello\n"))),
        ("no message is the assistant's", refusal(Some(TEMPLATE), &question)),
        ("message 0 without a 'role'", refusal(Some(TEMPLATE), r#"[{"content": "hello"}]"#)),
        ("unknown role (line 1 of the template)", refusal(Some("{{ raise_exception('unknown role') }}"), CHAT)),
    ] {
        assert!(got.contains(want), "{got}");
    }
    assert!(refusal(None, CHAT).contains("hint: "));
    let demo = run(&["eval", "demo", "--pattern", "native", "--chat", "chat.jsonl"]);
    assert_eq!(demo.status.code(), Some(2), "{}", String::from_utf8_lossy(&demo.stderr));
    let both = run(&["eval", "demo", "--pattern", "native", "--chat", "a", "--text", "b"]);
    assert_eq!(both.status.code(), Some(2), "{}", String::from_utf8_lossy(&both.stderr));
}
