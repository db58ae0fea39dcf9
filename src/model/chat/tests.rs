//! Chat templates on a small tokenizer: texts as transformers renders them, and masks.

use super::*;
use serde_json::json;

/// In the manner of ChatML, with an end of turn that is the assistant's.
const TURNS: &str = "{% for message in messages %}
{{ '<' + message['role'] + '>' }}{{ message.content | trim }}{{ '</>\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

/// The same, with generations marked.
const MARKED: &str = "{%- for message in messages %}
    {{- '<' + message.role + '>' }}
    {%- if message.role == 'assistant' %}
        {% generation %}
            {{- message.content -}}
            {{- '</>\n' -}}
        {% endgeneration %}
    {%- else %}
        {{- message.content + '</>\n' }}
    {%- endif %}
{%- endfor %}";

fn tokenizer() -> Tokenizer {
    let text = "<user>hello there</><assistant>the answer is naïve</> ".repeat(8);
    Tokenizer::train_bpe([text.as_str()].into_iter(), 285).unwrap()
}

fn template(text: &str) -> ChatTemplate {
    ChatTemplate::parse(text, Map::from_iter([("bos_token".to_owned(), json!("<s>"))])).unwrap()
}

fn chat(turns: &[(&str, &str)]) -> Conversation {
    let message = |(role, content): &(&str, &str)| json!({"role": role, "content": content});
    Conversation { messages: turns.iter().map(message).collect(), tools: Value::Null }
}

/// The text of a conversation and its assistant's parts.
fn parts(template: &ChatTemplate, chat: &Conversation) -> (String, Vec<String>) {
    let (text, answers) = template.render(chat).unwrap();
    let answers = answers.into_iter().map(|a| text[a].to_owned()).collect();
    (text, answers)
}

#[test]
fn both_ways_find_the_assistants_part() {
    let chat = chat(&[("user", "hello"), ("assistant", "naïve"), ("user", "there"), ("assistant", "yes")]);
    let want = "<user>hello</>\n<assistant>naïve</>\n<user>there</>\n<assistant>yes</>\n".to_owned();
    for text in [TURNS, MARKED] {
        let template = template(text);
        assert_eq!(parts(&template, &chat), (want.clone(), vec!["naïve</>\n".to_owned(), "yes</>\n".to_owned()]));
        let tokenizer = tokenizer();
        let (ids, mask) = template.encode(&tokenizer, &chat).unwrap();
        assert_eq!(ids.len(), mask.len());
        let kept = |wanted: bool| -> Vec<u32> {
            ids.iter().zip(&mask).filter(|(_, m)| **m == wanted).map(|(id, _)| *id).collect()
        };
        assert_eq!(tokenizer.decode(&ids).unwrap(), want);
        assert_eq!(tokenizer.decode(&kept(true)).unwrap(), "naïve</>\nyes</>\n");
        assert_eq!(tokenizer.decode(&kept(false)).unwrap(), "<user>hello</>\n<assistant><user>there</>\n<assistant>");
    }
}

#[test]
fn what_python_templates_use_is_there() {
    let chat = Conversation {
        tools: json!([{"name": "f", "x": [1, 2.5, null]}]),
        ..chat(&[("system", "  a\nb "), ("assistant", "x</think>y")])
    };
    let text = "{{ bos_token }}{% if tools is not none %}{{ tools | tojson }}{% endif %}\n\
                {% set ns = namespace(n=0) %}\n\
                {% for m in messages %}{% if m.role == 'system' %}{{ m['content'].strip() }}|{% continue %}{% endif %}\
                {% set ns.n = ns.n + 1 %}{% if 'think' in m.content %}{{ m.content.split('</think>')[-1] }}{% endif %}{{ ns.n }}\
                {{ m.get('name', '-') }}{% endfor %}";
    let (got, _) = parts(&template(text), &chat);
    assert_eq!(got, "<s>[{\"name\": \"f\", \"x\": [1, 2.5, null]}]a\nb|y1-");
    let lines = template("{% for m in messages %}{{ m.content | tojson(indent=2) }}{% endfor %}");
    let nested =
        Conversation { messages: vec![json!({"role": "assistant", "content": ["<é>"]})], ..Default::default() };
    assert_eq!(parts(&lines, &nested).0, "[\n  \"<é>\"\n]");
}

/// In the manner of GLM-5: the generation prompt opens thoughts, and an answer without any closes them at once.
const THINKS: &str = "{% for m in messages %}<|{{ m.role }}|>\
    {% if m.role == 'assistant' %}{% if m.thoughts %}<think>{{ m.thoughts }}{% endif %}</think>{% endif %}\
    {{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}\
    {% for key, value in call.function.arguments.items() %}[{{ key }}={{ value }}]{% endfor %}{% endfor %}{% endfor %}\
    {% if add_generation_prompt %}<|assistant|><think>{% endif %}";

#[test]
fn an_answer_without_the_thoughts_that_its_prompt_opens_is_found() {
    let turns = chat(&[("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]);
    let (text, answers) = parts(&template(THINKS), &turns);
    assert_eq!(text, "<|user|>q<|assistant|></think>a<|user|>r<|assistant|></think>b");
    // "<" is both's; a tokenizer that has </think> as one token scores it whole.
    assert_eq!(answers, ["/think>a", "/think>b"]);
    let mut thoughtful = chat(&[("user", "q"), ("assistant", "a")]);
    thoughtful.messages[1]["thoughts"] = json!("hm");
    assert_eq!(parts(&template(THINKS), &thoughtful).1, ["hm</think>a"]);
}

/// As GLM-5's template: thoughts are kept after the last user's message alone.
const FORGETS: &str = "{% set last = namespace(user=-1) %}\
    {% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}\
    {% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}\
    {% if m.thoughts and loop.index0 > last.user %}<think>{{ m.thoughts }}{% endif %}</think>{{ (m.content or '') | trim }}<|end|>\
    {% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}";

/// A conversation whose answers have thoughts.
fn thoughtful(turns: &[(&str, &str)]) -> Conversation {
    let mut chat = chat(turns);
    for message in chat.messages.iter_mut().filter(|message| message["role"] == "assistant") {
        message["thoughts"] = json!("hm");
    }
    chat
}

#[test]
fn earlier_turns_are_scored_without_the_thoughts_that_the_template_drops() {
    let template = template(FORGETS);
    let turns = thoughtful(&[("user", "q"), ("assistant", "a\n"), ("user", "r"), ("assistant", "b")]);
    let (text, answers) = parts(&template, &turns);
    assert_eq!(text, "<|user|>q<|assistant|></think>a<|end|><|user|>r<|assistant|><think>hm</think>b<|end|>");
    assert_eq!(answers, ["/think>a<|end|>", "hm</think>b<|end|>"]);
    // Calls of tools before the last user's message lose theirs, too; those after it do not.
    let work = [("user", "q"), ("assistant", "call"), ("tool", "7"), ("assistant", "x")];
    let (_, answers) = parts(&template, &thoughtful(&[&work[..], &[("user", "r"), ("assistant", "x")]].concat()));
    assert_eq!(answers, ["/think>call<|end|>", "/think>x<|end|>", "hm</think>x<|end|>"]);
    let (_, answers) = parts(&template, &thoughtful(&[&work[..2], &[("user", "r")], &work[1..]].concat()));
    assert_eq!(answers, ["/think>call<|end|>", "hm</think>call<|end|>", "hm</think>x<|end|>"]);
    // An answer without content.
    let mut turns = turns;
    turns.messages[1]["content"] = Value::Null;
    assert_eq!(parts(&template, &turns).1, ["/think><|end|>", "hm</think>b<|end|>"]);
    // The last message alone is rendered with a mark.
    let marks = "{% for m in messages %}{{ m.role[0] }}{% if loop.last %}<think>{% endif %}{{ m.content }}{% endfor %}";
    let turns = chat(&[("user", "a"), ("assistant", "b"), ("user", "a"), ("assistant", "b")]);
    assert_eq!(parts(&self::template(marks), &turns).1, ["ab", "a<think>b"]);
}

#[test]
fn a_template_that_keeps_all_thoughts_has_them_scored() {
    let turns = thoughtful(&[("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]);
    assert_eq!(parts(&template(THINKS), &turns).1, ["hm</think>a", "hm</think>b"]);
}

#[test]
fn arguments_of_calls_may_be_json_text() {
    let call = |arguments: Value| {
        let mut turns = chat(&[("user", "q"), ("assistant", "")]);
        turns.messages[1]["tool_calls"] = json!([{"function": {"name": "f", "arguments": arguments}}]);
        turns
    };
    let text = |chat: &Conversation, by: &str| template(by).render(chat).map(|(text, _)| text);
    let object = text(&call(json!({"x": 1})), THINKS).unwrap();
    assert_eq!(object, "<|user|>q<|assistant|></think>f[x=1]");
    assert_eq!(text(&call(json!("{\"x\": 1}")), THINKS).unwrap(), object);
    // A template that writes text refuses an object, and gets the text.
    let plain = "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}{{ '' + m.tool_calls[0].function.arguments }}\
        {% endif %}{% endfor %}{% if add_generation_prompt %}{% endif %}";
    assert_eq!(text(&call(json!("{\"x\": 1}")), plain).unwrap(), "q{\"x\": 1}");
    assert!(text(&call(json!("x")), THINKS).is_err());
}

#[test]
fn what_cannot_be_told_is_refused() {
    let refusal = |text: &str, turns: &[(&str, &str)]| template(text).render(&chat(turns)).unwrap_err().to_string();
    let answered = [("user", "a"), ("assistant", "b")];
    assert!(refusal(TURNS, &answered[..1]).contains("no message is the assistant's"));
    let strict = "{{ raise_exception('roles must alternate') }}";
    assert!(refusal(strict, &answered).contains("roles must alternate (line 1 of the template)"));
    let backwards = "{% for m in messages | reverse %}{{ m.role[0] }}{{ m.content }}{% endfor %}";
    assert!(refusal(backwards, &[answered, answered].concat()).contains("message 1 is rendered otherwise"));
    assert!(refusal(TURNS, &[("user", "\u{F0000}"), ("assistant", "b")]).contains("U+F0000"));
    assert!(refusal("{{ strftime_now('%Y') }}", &answered).contains("strftime_now"));
}

#[test]
fn the_template_is_found_in_either_file() {
    let folder = tempfile::tempdir().unwrap();
    let turns = chat(&[("user", "a"), ("assistant", "b")]);
    let open = || ChatTemplate::open(folder.path()).map(|t| t.text(&turns, 2, false).unwrap());
    let none = open().unwrap_err();
    assert!(none.to_string().contains("has no chat template") && none.hint().is_some(), "{none}");
    let config = |template: Value| {
        let config = json!({"eos_token": {"content": "</s>"}, "pad_token": null, "chat_template": template});
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    };
    config(json!("{{ messages[1].content }}{{ eos_token }}"));
    assert_eq!(open().unwrap(), "b</s>");
    config(json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d{{ eos_token }}"}]));
    assert_eq!(open().unwrap(), "d</s>");
    std::fs::write(folder.path().join("chat_template.jinja"), "file{{ eos_token }}").unwrap();
    assert_eq!(open().unwrap(), "file</s>");
    std::fs::write(folder.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja cannot be read as a chat template"), "{error}");
}

#[test]
fn a_gguf_file_brings_its_own_template() {
    let tokens = ["<s>", "a", "</s>"].map(str::to_owned).to_vec();
    let template = |text: Option<&str>| Vocabulary {
        model: "gpt2".into(),
        pre: "default".into(),
        tokens: tokens.clone(),
        kinds: Vec::new(),
        merges: Vec::new(),
        bos: Some(0),
        eos: Some(2),
        chat_template: text.map(str::to_owned),
        add_bos: None,
    };
    let open = |text| ChatTemplate::of(&template(text), Path::new("m.gguf"));
    let turns = chat(&[("user", "a"), ("assistant", "b")]);
    let text = open(Some("{{ bos_token }}{{ messages[1].content }}{{ eos_token }}")).unwrap().text(&turns, 2, false);
    assert_eq!(text.unwrap(), "<s>b</s>");
    assert!(open(None).unwrap_err().to_string().contains("m.gguf"));
}

#[test]
fn expressions_have_a_limit_of_operators() {
    assert_eq!(
        operators("a - b {{ 1 - -x }} -- {%- if not a and 'x - y' ~ \"-\" or b -%}"),
        8,
        "with the marks of the statement"
    );
    assert_eq!(operators("{{ 'it\\'s - ' }}---{{ notes.or_else }}"), 0);
    let long = |operator: &str| format!("{{{{ x{} }}}}", format!("{operator}x").repeat(OPERATORS + 1));
    for operator in ["+", " ~ ", " and ", " - not "] {
        let error = ChatTemplate::parse(&long(operator), Map::new()).unwrap_err();
        assert!(described(&error).contains("operators, and 512 are the most"), "{}", described(&error));
    }
}
