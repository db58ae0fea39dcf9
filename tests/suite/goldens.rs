//! What every subcommand printed as JSON at version 0.1.0 (commit 0d9aa06), against what it prints now.
//!
//! Keys may be added, none renamed, removed or given another type; words, numbers and lists stay. Masked, so that only
//! the type is compared: seconds, rates, memory, fingerprints, versions ([`MASKED`]) and prose (any text with a space).
//!
//! `GOLDENS_FROM=target/debug/indexscope cargo test --test suite goldens` writes the files of `tests/data/goldens` again,
//! from the named program. Do that for new cases; a changed file is a changed contract.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Keys of which only the type is compared.
const MASKED: &[&str] = &[
    "bytes",
    "delta_se",
    "fingerprint",
    "free_bytes",
    "mad",
    "median",
    "peak_anonymous_bytes",
    "ratio",
    "runs",
    "se",
    "seconds",
    "share",
    "source",
    "tokens_per_second",
    "version",
];

/// Keys whose text is what is pasted elsewhere: compared although it has spaces; `launch` by the words that a shell makes
/// of it.
const EXACT: &[&str] = &["argument", "launch"];

/// Largest difference, relative to the larger of 1 and the number, of what is counted or computed from a config.
const COMPUTED: f64 = 1e-6;

/// The same of what a model's forward decides. A Δ or a KL is a difference of numbers near 7, each of which sums f32 in an
/// order that depends on the instruction set.
const MEASURED: f64 = 1e-5;

/// The same of what training decides: every step amplifies the difference.
const TRAINED: f64 = 1e-2;

/// Name of the file, tolerance, arguments. `DATA` is `tests/data`, `OUT` a folder that the cases share, in this order.
const CASES: &[(&str, f64, &str)] = &[
    ("info", COMPUTED, "info DATA/glm_dsa_tiny"),
    ("info-locked", COMPUTED, "info DATA/glm_locked_shared"),
    ("info-dense", COMPUTED, "info DATA/qwen3_norm --index-topk 9"),
    ("info-sidecar", COMPUTED, "info DATA/llama_rope3 --index DATA/formats/v0.1/indexers.safetensors"),
    ("info-demo", COMPUTED, "info demo"),
    ("export-vllm", COMPUTED, "export DATA/glm_dsa_tiny --engine vllm --pattern uniform:2"),
    ("export-sglang", COMPUTED, "export DATA/deepseek_v32_tiny --engine sglang --pattern FFSSFS --stages 4,2"),
    ("export-transformers", COMPUTED, "export DATA/glm_dsa_tiny --engine transformers --pattern FSSFSS"),
    ("export-megatron", COMPUTED, "export DATA/glm_dsa_tiny --engine megatron --pattern freq:3"),
    ("export-checkpoint", COMPUTED, "export DATA/glm_sharded --pattern FSFS --checkpoint OUT/pruned"),
    ("info-pruned", COMPUTED, "info OUT/pruned"),
    ("simulate", COMPUTED, "simulate DATA/glm_dsa_tiny/config.json --overrides {\"index_topk_pattern\":\"FSSFFS\"}"),
    ("simulate-pattern", COMPUTED, "simulate DATA/deepseek_v32_tiny --pattern FFSSFS --stages 3,3"),
    ("report", COMPUTED, "report DATA/formats/v0.1/search.toml --out OUT/report.json"),
    ("worth", COMPUTED, "worth DATA/indexcache_30b.json --batch 4"),
    ("devices", COMPUTED, "devices"),
    ("eval", MEASURED, "eval DATA/glm_dsa_tiny TOKENS --pattern all-full --pattern uniform:2 --pattern dense"),
    ("eval-session", MEASURED, "eval DATA/glm_dsa_tiny TOKENS --pattern session:DATA/formats/v0.1/search.toml"),
    ("eval-stream", MEASURED, "eval DATA/deepseek_v32_tiny TOKENS --pattern freq:3 --stream"),
    (
        "eval-oracle",
        MEASURED,
        "eval DATA/qwen2_bias_tied --tokens DATA/goldens/tokens.json --index-topk 9 --pattern FSFS",
    ),
    (
        "eval-sidecar",
        MEASURED,
        "eval DATA/llama_rope3 --tokens DATA/goldens/tokens.json --index DATA/formats/v0.1/indexers.safetensors --pattern FSFS",
    ),
    ("record", MEASURED, "record DATA/glm_dsa_tiny TOKENS --out OUT/full.trace"),
    ("overlap", MEASURED, "overlap OUT/full.trace"),
    ("overlap-jaccard", COMPUTED, "overlap DATA/formats/v0.1/recording.safetensors --metric jaccard"),
    ("search", MEASURED, "search DATA/glm_dsa_tiny TOKENS --keep 1/2 --method greedy --session OUT/greedy.toml"),
    (
        "search-exhaustive",
        MEASURED,
        "search DATA/glm_sharded TOKENS --keep 1/2 --method exhaustive --session OUT/e.toml",
    ),
    ("search-compare", MEASURED, "search DATA/glm_sharded TOKENS --keep 1/2 --compare"),
    ("bench", MEASURED, "bench DATA/glm_dsa_tiny --context 24,48 --pattern uniform:3"),
    (
        "import-indices",
        COMPUTED,
        "import indices DATA/goldens/sglang_indices.json --config DATA/glm_dsa_tiny --out OUT/served.trace",
    ),
    (
        "import-losses",
        COMPUTED,
        "import losses DATA/goldens/sglang_losses.json DATA/goldens/vllm_losses.json --config DATA/glm_dsa_tiny",
    ),
    (
        "train-indexers",
        TRAINED,
        "train indexers DATA/llama_rope3 --out OUT/i.safetensors --tokens DATA/goldens/tokens.json --seq-len 32 --steps 2 --sparse-steps 1 --heads 2 --dim 8 --index-topk 8",
    ),
    (
        "train-distill",
        TRAINED,
        "train distill DATA/glm_sharded --pattern FSFS --out OUT/distilled --tokens DATA/goldens/tokens.json --seq-len 32 --steps 2 --sparse-steps 2 --index-topk 6 --lm-lr 1e-3",
    ),
];

/// Tokens of the cases that measure.
const TOKENS: &str = "--tokens random:540 --seq-len 90 --sequences 6";

/// Runs a case with `program` and returns what it printed (`report`: what it wrote), with its folder called OUT.
fn printed(program: &Path, arguments: &str, out: &str) -> Value {
    let fill = |text: &str| text.replace("DATA/", "tests/data/").replace("OUT/", &format!("{out}/"));
    let arguments = fill(&arguments.replace("TOKENS", TOKENS));
    let is_file = arguments.starts_with("report ");
    let format = if is_file { &[][..] } else { &["--json", "--quiet"] };
    let output = Command::new(program).args(arguments.split(' ')).args(format).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    let text = if is_file { std::fs::read(format!("{out}/report.json")).unwrap() } else { output.stdout };
    let text = String::from_utf8(text).unwrap();
    serde_json::from_str(&text.replace(out, "OUT")).unwrap_or_else(|e| panic!("{arguments}: {e} in {text}"))
}

/// What one thing of a list is told from the others by, where it has a name.
fn name(value: &Value) -> Option<&Value> {
    ["engine", "part", "device", "asked"].iter().find_map(|key| value.get(key).filter(|name| name.is_string()))
}

/// Whether a value is text for people, or an object of nothing else.
fn is_prose(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(' '),
        Value::Object(fields) => fields.values().all(Value::is_string) && fields.values().any(is_prose),
        _ => false,
    }
}

/// Appends where `now` breaks what `golden` promises. `key`: of the object that the value is in.
fn compare(path: &str, key: &str, golden: &Value, now: &Value, tolerance: f64, wrong: &mut Vec<String>) {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let masked = MASKED.contains(&key);
    if kind(golden) != kind(now) {
        if !(masked && (golden.is_null() || now.is_null())) {
            wrong.push(format!("{path} was {} and is {}: {golden} and {now}", kind(golden), kind(now)));
        }
        return;
    }
    match (golden, now) {
        (Value::Object(golden), Value::Object(now)) => {
            for (name, golden) in golden {
                // What is in a masked object is masked.
                let key = if masked { key } else { name };
                match now.get(name) {
                    Some(now) => compare(&format!("{path}.{name}"), key, golden, now, tolerance, wrong),
                    None => wrong.push(format!("{path}.{name} is gone")),
                }
            }
        }
        (Value::Array(golden), Value::Array(now)) if !golden.is_empty() && golden.iter().all(|g| name(g).is_some()) => {
            for golden in golden {
                let path = format!("{path}[{}]", name(golden).unwrap());
                match now.iter().find(|now| name(now) == name(golden)) {
                    Some(now) => compare(&path, key, golden, now, tolerance, wrong),
                    None => wrong.push(format!("{path} is gone")),
                }
            }
        }
        (Value::Array(golden), Value::Array(now)) if golden.iter().chain(now).any(is_prose) => {}
        (Value::Array(golden), Value::Array(now)) => {
            if golden.len() != now.len() {
                wrong.push(format!("{path} had {} entries and has {}", golden.len(), now.len()));
            }
            for (i, (golden, now)) in golden.iter().zip(now).enumerate() {
                compare(&format!("{path}[{i}]"), key, golden, now, tolerance, wrong);
            }
        }
        _ if masked || (is_prose(golden) && !EXACT.contains(&key)) => {}
        (Value::String(golden), Value::String(now))
            if key == "launch" && shlex::split(golden).is_some_and(|words| shlex::split(now) == Some(words)) => {}
        (Value::Number(golden), Value::Number(now)) if golden.is_f64() || now.is_f64() => {
            let (golden, now) = (golden.as_f64().unwrap(), now.as_f64().unwrap());
            if (golden - now).abs() > tolerance * golden.abs().max(now.abs()).max(1.0) {
                wrong.push(format!("{path} was {golden} and is {now}"));
            }
        }
        _ if golden != now => wrong.push(format!("{path} was {golden} and is {now}")),
        _ => {}
    }
}

#[test]
fn every_subcommand_prints_what_it_printed() {
    let goldens = Path::new("tests/data/goldens");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let from = std::env::var_os("GOLDENS_FROM");
    let program = from.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_indexscope")), Path::new);
    let mut wrong = Vec::new();
    // A build with CUDA lists other devices.
    for (name, tolerance, arguments) in
        CASES.iter().filter(|(name, ..)| !(cfg!(feature = "cuda") && *name == "devices"))
    {
        let (file, now) = (goldens.join(name).with_extension("json"), printed(program, arguments, out));
        if from.is_some() {
            std::fs::write(&file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
        }
        let golden: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        compare(name, "", &golden, &now, *tolerance, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The journal ends in the midst of the search, as that of a search that was killed.
#[test]
fn a_search_of_version_0_1_is_resumed() {
    let (formats, folder) = (Path::new("tests/data/formats/v0.1"), tempfile::tempdir().unwrap());
    let (session, journal) = (folder.path().join("greedy.toml"), folder.path().join("greedy.journal"));
    std::fs::copy(formats.join("search.toml"), &session).unwrap();
    let measured = std::fs::read_to_string(formats.join("search.journal")).unwrap();
    std::fs::write(&journal, &measured).unwrap();
    let case = CASES.iter().find(|(name, ..)| *name == "search").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_indexscope"));
    let now = printed(program, &format!("{} --resume", case.2), folder.path().to_str().unwrap());
    let mut golden: Value = serde_json::from_slice(&std::fs::read("tests/data/goldens/search.json").unwrap()).unwrap();
    // Hidden states that an uninterrupted search still has are computed again.
    golden.as_object_mut().unwrap().remove("layer_forwards");
    let mut wrong = Vec::new();
    compare("search", "", &golden, &now, MEASURED, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (kept, after) = (measured.lines().skip(1), std::fs::read_to_string(&journal).unwrap());
    assert!(
        after.lines().skip(1).zip(kept).all(|(after, before)| after.split(" #").next() == Some(before)),
        "nothing is measured again: {after}"
    );
    assert!(after.lines().count() > measured.lines().count(), "the rest is measured");
}

#[test]
fn what_breaks_the_contract_is_found() {
    use serde_json::json;
    let golden = json!({"schema": 1, "loss": 7.0, "seconds": 2.5, "share": {"mlp": 0.5}, "note": "some prose", "pattern": "FSF", "validation": null,
        "engines": [{"engine": "vLLM", "full": 2}], "warnings": ["old prose"], "sets": [[0, 1], [0]], "launch": "serve 'a b' c"});
    let found = |change: &dyn Fn(&mut Value)| {
        let (mut now, mut wrong) = (golden.clone(), Vec::new());
        change(&mut now);
        compare("", "", &golden, &now, MEASURED, &mut wrong);
        wrong.join("; ")
    };
    for (what, change) in [
        ("", Box::new(|_: &mut Value| {}) as Box<dyn Fn(&mut Value)>),
        ("", Box::new(|now| now["added"] = json!(1))),
        ("", Box::new(|now| now["seconds"] = json!(9.0))),
        ("", Box::new(|now| now["share"]["mlp"] = json!(0.25))),
        ("", Box::new(|now| now["note"] = json!("other prose"))),
        ("", Box::new(|now| now["warnings"] = json!([]))),
        ("", Box::new(|now| now["loss"] = json!(7.00001))),
        ("", Box::new(|now| now["engines"] = json!([{"engine": "new", "full": 1}, {"engine": "vLLM", "full": 2}]))),
        (".seconds was a number and is text: 2.5 and \"fast\"", Box::new(|now| now["seconds"] = json!("fast"))),
        (".loss was 7 and is 7.001", Box::new(|now| now["loss"] = json!(7.001))),
        ("", Box::new(|now| now["launch"] = json!("serve a\\ b 'c'"))),
        (".launch was \"serve 'a b' c\" and is \"serve a b c\"", Box::new(|now| now["launch"] = json!("serve a b c"))),
        (".pattern was \"FSF\" and is \"FSS\"", Box::new(|now| now["pattern"] = json!("FSS"))),
        (".validation was null and is a number: null and 0.1", Box::new(|now| now["validation"] = json!(0.1))),
        (".sets[1][0] was 0 and is 1", Box::new(|now| now["sets"][1] = json!([1]))),
        (".sets[1] had 1 entries and has 2", Box::new(|now| now["sets"][1] = json!([0, 1]))),
        (".engines[\"vLLM\"] is gone", Box::new(|now| now["engines"] = json!([]))),
        (".schema is gone", Box::new(|now| _ = now.as_object_mut().unwrap().remove("schema"))),
    ] {
        assert_eq!(found(&*change), what);
    }
}
