//! Patterns as people post them: lists, JSON of configs and overrides, an engine's argument, a line of code.

use serde_json::{Map, Value};

use super::PatternSpec;

/// Offset of the frequency rule where none is given, as in vLLM.
pub(super) const OFFSET: usize = 2;

/// Returns the pattern that a text holds.
///
/// # Errors
/// What is wrong with it, for the sentence "'text' is not a pattern: …".
pub(super) fn read(text: &str) -> Result<PatternSpec, String> {
    let object = object_in(text);
    if let Some(object) = &object
        && let Some(spec) = of_object(object)?
    {
        return Ok(spec);
    }
    if let Some(spec) = assigned(text) {
        return Ok(spec);
    }
    match object {
        Some(_) => Err("it names none of index_topk_pattern, indexer_types, index_source_layer_ids, index_topk_freq and model_type".to_owned()),
        None => list(text),
    }
}

/// Returns the first JSON object in a text, also where quotes are escaped for a shell or are Python's.
fn object_in(text: &str) -> Option<Map<String, Value>> {
    let from = &text[text.find('{')?..];
    let parse = |text: &str| serde_json::Deserializer::from_str(text).into_iter().next()?.ok();
    parse(from).or_else(|| parse(&from.replace("\\\"", "\""))).or_else(|| parse(&from.replace('\'', "\"")))
}

/// Returns the pattern of a config, of overrides, or of what `export` prints as JSON.
fn of_object(object: &Map<String, Value>) -> Result<Option<PatternSpec>, String> {
    if let Some(Value::Object(inner)) = object.get("text_config") {
        if let Some(spec) = of_minimax(inner) {
            return Ok(Some(spec));
        }
        if let Some(spec) = of_object(inner)? {
            return Ok(Some(spec));
        }
    }
    let given = |key: &str| object.get(key).filter(|value| !value.is_null());
    let read = |key: &str| given(key).map(|value| of_value(value).map_err(|e| format!("in {key}, {e}"))).transpose();
    match (read("index_topk_pattern")?, read("indexer_types")?) {
        (Some(pattern), Some(types)) if pattern != types => {
            return Err("index_topk_pattern and indexer_types in it differ".to_owned());
        }
        (Some(spec), _) | (None, Some(spec)) => return Ok(Some(spec)),
        (None, None) => {}
    }
    // DeepSeek-V4.1's map.
    if let Some(spec) = read("index_source_layer_ids")? {
        return Ok(Some(spec));
    }
    for (freq, offset) in FREQUENCIES {
        let number = |key: &str| given(key).and_then(Value::as_u64).map(|n| n as usize);
        if let Some(freq) = number(freq).filter(|&freq| freq > 0) {
            return Ok(Some(PatternSpec::Freq { freq, offset: number(offset).unwrap_or(OFFSET) }));
        }
    }
    if let Some(Value::Array(files)) = given("files") {
        let keys = files.iter().filter_map(|file| file.get("set")?.as_object());
        return keys.map(of_object).next().unwrap_or(Ok(None));
    }
    if let Some(spec) = read("pattern")? {
        return Ok(Some(spec));
    }
    Ok(given("model_type").map(|_| PatternSpec::AllFull))
}

/// Returns the pattern that vLLM makes of MiniMax-M3's overrides, which name no pattern: its offset counts from 0, where
/// that of other models counts from 1, over the layers that select.
fn of_minimax(inner: &Map<String, Value>) -> Option<PatternSpec> {
    let number = |key: &str| inner.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let says_more = ["index_topk_pattern", "indexer_types", "model_type"].iter().any(|key| inner.contains_key(*key));
    let is_on = inner.get("use_index_cache").and_then(Value::as_bool) == Some(true) && !says_more;
    let freq = number("index_topk_freq").filter(|&freq| freq > 0 && is_on)?;
    Some(PatternSpec::Freq { freq, offset: number("index_skip_topk_offset").unwrap_or(0) + 1 })
}

/// Names of the frequency rule and its offset, in config.json and in megatron-core.
const FREQUENCIES: [(&str, &str); 2] =
    [("index_topk_freq", "index_skip_topk_offset"), ("dsa_indexer_topk_freq", "dsa_indexer_skip_topk_offset")];

/// Returns the pattern of a JSON value: letters, or a list.
fn of_value(value: &Value) -> Result<PatternSpec, String> {
    match value {
        Value::String(text) => list(text),
        Value::Array(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|entry| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned)).collect();
            list(&entries.join(","))
        }
        other => Err(format!("{other} is neither text nor a list")),
    }
}

/// Reads entries between commas or blanks: letters, the words full and shared, true and false, or numbers of Full layers.
fn list(text: &str) -> Result<PatternSpec, String> {
    let marks = |c: char| c.is_whitespace() || "[](){}\"'`,;".contains(c);
    let entries: Vec<&str> = text.split(marks).filter(|entry| !entry.is_empty()).collect();
    if entries.is_empty() {
        return Err("it is empty".to_owned());
    }
    if entries.iter().all(|entry| entry.starts_with(|c: char| c.is_ascii_digit())) {
        return numbers(&entries);
    }
    let mut letters = String::new();
    for entry in entries {
        match entry.to_ascii_lowercase().as_str() {
            "full" | "true" => letters.push('F'),
            "shared" | "false" => letters.push('S'),
            other if other.chars().all(|c| matches!(c, 'f' | 's' | '-')) => letters += &other.to_ascii_uppercase(),
            _ => return Err(foreign(text, entry)),
        }
    }
    Ok(PatternSpec::Letters(letters))
}

/// Says what in a text is no part of a pattern: a letter where the text is one word, else a whole entry.
fn foreign(text: &str, entry: &str) -> String {
    let forms = "and it is none of all-full, native, uniform:N, freq:N[,OFFSET], dense, paper:NAME, @FILE, session:FILE, a \
                 list of full and shared, a list of Full layers, or the JSON of a config";
    match text.chars().enumerate().find(|(_, c)| !"FSfs-".contains(*c)) {
        Some((at, letter)) if text == entry => format!("'{letter}' at position {at} is neither F nor S, {forms}"),
        _ => format!("'{entry}' in it is neither F nor S, {forms}"),
    }
}

/// Reads the numbers of the Full layers, with ranges such as 0-2, or one 0 or 1 per layer.
fn numbers(entries: &[&str]) -> Result<PatternSpec, String> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("'{text}' in it is no layer's number"));
    let mut layers = Vec::new();
    for entry in entries {
        let (from, to) = entry.split_once('-').unwrap_or((entry, entry));
        let (from, to) = (number(from)?, number(to)?);
        if to < from || to - from >= super::MAX_LAYERS {
            return Err(format!("'{entry}' in it is no range of layers"));
        }
        layers.extend(from..=to);
    }
    let ascends = layers.windows(2).all(|pair| pair[0] < pair[1]);
    if ascends {
        return Ok(PatternSpec::FullLayers(layers));
    }
    // A list of layers never names one twice, so that these are flags.
    if layers.iter().all(|&flag| flag < 2) {
        return Ok(PatternSpec::Letters(layers.iter().map(|&flag| if flag == 1 { 'F' } else { 'S' }).collect()));
    }
    let at = layers.windows(2).position(|pair| pair[0] >= pair[1]).unwrap_or_default();
    Err(format!("layer {} comes after {}, and Full layers are listed in ascending order", layers[at + 1], layers[at]))
}

/// Reads the value of a key in an argument or in code: `index_topk_pattern = "FFSS"`, `dsa_indexer_topk_freq=4`.
fn assigned(text: &str) -> Option<PatternSpec> {
    let text = text.replace("index-topk-pattern", "index_topk_pattern");
    let value = |key: &str| {
        let rest = &text[text.rfind(key)? + key.len()..];
        rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).find(|word| !word.is_empty())
    };
    if let Some(letters) = value("index_topk_pattern")
        && letters.chars().all(|c| matches!(c, 'F' | 'S' | 'f' | 's' | '-'))
    {
        return Some(PatternSpec::Letters(letters.to_ascii_uppercase()));
    }
    let number = |key: &str| value(key)?.parse::<usize>().ok();
    FREQUENCIES.iter().find_map(|(freq, offset)| {
        let freq = number(freq).filter(|&freq| freq > 0)?;
        Some(PatternSpec::Freq { freq, offset: number(offset).unwrap_or(OFFSET) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Pattern, Sites};

    fn read(text: &str) -> String {
        let spec: PatternSpec = text.parse().unwrap_or_else(|e| panic!("{e}"));
        spec.resolve(Pattern::all_full(6).unwrap(), Sites::every(6)).unwrap().unwrap().to_string()
    }

    #[test]
    fn patterns_are_taken_as_people_post_them() {
        for text in [
            "FFSSFS",
            "\"FFSSFS\"",
            "'ffssfs'",
            "F,F,S,S,F,S",
            "F F S S F S",
            "FFS SFS",
            r#"["full","full","shared","shared","full","shared"]"#,
            "['full', 'full', 'shared', 'shared', 'full', 'shared']",
            "full,full,shared,shared,full,shared",
            r#"["F","F","S","S","F","S"]"#,
            "[true, true, false, false, true, false]",
            "[1, 1, 0, 0, 1, 0]",
            "0,1,4",
            "[0, 1, 4]",
            "0-1 4",
            r#"{"index_topk_pattern":"FFSSFS"}"#,
            r#"{"indexer_types": ["full","full","shared","shared","full","shared"], "index_topk_freq": 4}"#,
            r#"{"text_config": {"model_type": "m", "index_topk_pattern": "FFSSFS"}, "model_type": "wrapper"}"#,
            r#"{"index_topk_pattern": null, "indexer_types": null, "pattern": "FFSSFS"}"#,
            r#"--json-model-override-args '{"index_source_layer_ids":[0,1,4]}'"#,
            r#"vllm serve M --hf-overrides '{"index_topk_pattern":"FFSSFS"}' --tensor-parallel-size 8"#,
            r#"--json-model-override-args "{\"index_topk_pattern\": \"FFSSFS\"}""#,
            "{'index_topk_pattern': 'FFSSFS'}",
            "--hf-overrides.index_topk_pattern=FFSSFS",
            "--index-topk-pattern FFSSFS",
            "config.indexer_types = [{\"F\": \"full\", \"S\": \"shared\"}[c] for c in \"FFSSFS\"]\n\
             config.index_topk_pattern = \"FFSSFS\"\nmodel = load()",
            r#"{"schema": 1, "argument": "x", "files": [{"path": "config.json", "set": {"index_topk_pattern": "FFSSFS"}}]}"#,
        ] {
            assert_eq!(read(text), "FFSSFS", "{text}");
        }
        for (text, want) in [
            (r#"{"index_topk_freq": 2, "index_skip_topk_offset": 3}"#, "FFFSFS"),
            (r#"{"index_topk_freq": 4}"#, "FFSSSF"),
            (r#"{"text_config":{"use_index_cache":true,"index_topk_freq":3,"index_skip_topk_offset":0}}"#, "FSSFSS"),
            ("dsa_indexer_topk_freq=3,\ndsa_indexer_skip_topk_offset=1,", "FSSFSS"),
            (r#"{"model_type": "glm_moe_dsa", "num_hidden_layers": 6}"#, "FFFFFF"),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }

    #[test]
    fn a_dash_stands_for_a_layer_that_does_not_select() {
        let sites = Sites::new(8, [0, 2, 3, 4, 6, 7]).unwrap();
        for text in ["F-FSS-FS", "FFSSFS", "[0, 2, 6]"] {
            let spec: PatternSpec = text.parse().unwrap();
            let pattern = spec.resolve(Pattern::all_full(6).unwrap(), sites).unwrap().unwrap();
            assert_eq!(pattern.to_string(), "FFSSFS", "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for (text, want) in [
            ("FXS", "'X' at position 1 is neither F nor S"),
            ("F,X,S", "'X' in it is neither F nor S"),
            ("full,half", "'half' in it"),
            ("0,2,1", "layer 1 comes after 2"),
            ("0,x", "'0' in it"),
            ("0,5-2", "'5-2' in it is no range"),
            ("0,1x", "'1x' in it is no layer's number"),
            ("[]", "it is empty"),
            ("{}", "names none of index_topk_pattern"),
            (r#"{"index_topk_pattern": "FFS", "indexer_types": ["full", "shared", "shared"]}"#, "differ"),
            (r#"{"indexer_types": 3}"#, "in indexer_types, 3 is neither text nor a list"),
        ] {
            let error = text.parse::<PatternSpec>().unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let resolved =
            |text: &str| text.parse::<PatternSpec>().unwrap().resolve(Pattern::all_full(6).unwrap(), Sites::every(6));
        assert!(resolved("0,9").unwrap_err().to_string().contains("layer 9 does not exist"));
        assert!(resolved("1,2").unwrap_err().to_string().contains("layer 0 is Shared"));
    }
}
