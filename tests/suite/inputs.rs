//! What people feed the program: recordings side by side, quantised checkpoints, configs alone, JSON given as text.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).display().to_string()
}

fn indexscope(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_indexscope")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn ok(args: &[&str]) -> Value {
    let (code, out, err) = indexscope(args);
    assert_eq!(code, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap_or(Value::Null)
}

#[test]
fn two_recordings_and_the_sets_of_later_queries_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (own, shared, other) = (path("own.trace"), path("shared.safetensors"), path("other.trace"));
    let model = data("glm_dsa_tiny");
    let record = |out: &str, more: &[&str]| {
        ok(&[&["record", &model, "--seq-len", "64", "--out", out], more].concat());
    };
    record(&own, &["--tokens", "random:128"]);
    record(&shared, &["--tokens", "random:128", "--pattern", "FSFFFF"]);
    record(&other, &["--tokens", "random:64"]);
    let json = ok(&["overlap", &own, &shared, "--json"]);
    let layers = json["layers"].as_array().unwrap();
    assert_eq!((json["queries"].as_u64(), json["counted"].as_u64(), layers.len()), (Some(128), Some(96), 6));
    // Layer 0 does the same under both patterns; layer 1 has layer 0's sets under one of them.
    assert_eq!((&layers[0]["mean"], &layers[0]["identical"]), (&json!(1.0), &json!(1.0)));
    assert!(layers[1]["mean"].as_f64().unwrap() < 1.0 && layers[1]["worst"]["value"].as_f64().unwrap() < 1.0);
    assert_eq!(json["by_position"].as_array().unwrap().len(), 2);
    // A shorter recording of the same tokens is compared on what both have.
    assert_eq!(ok(&["overlap", &own, &other, "--json"])["queries"], json!(64));
    let (code, _, err) = indexscope(&["overlap", &own, &path("nothing.trace")]);
    assert_eq!(code, 1, "{err}");

    let json = ok(&["overlap", &own, "--temporal=1,4", "--json"]);
    let lags = json["lags"].as_array().unwrap();
    // Of each sequence, positions 16 to 62 have a successor and see more than 16 keys.
    assert_eq!((&lags[0]["lag"], &lags[0]["pairs"], &lags[1]["pairs"]), (&json!(1), &json!(94), &json!(88)));
    let kept = |lag: &Value| lag["layers"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    assert!(kept(&lags[0]).len() == 6 && kept(&lags[0]).iter().all(|kept| (0.0..1.0).contains(kept)), "{json}");
    let (code, out, _) = indexscope(&["overlap", &own, "--temporal"]);
    assert!(code == 0 && out.contains("after 8"), "{out}");
}

#[test]
fn a_quantised_checkpoint_is_named_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    let from = Path::new(&data("glm_dsa_tiny")).to_owned();
    let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    config["quantization_config"] = json!({"quant_method": "compressed-tensors", "format": "pack-quantized"});
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // One matrix of every MLP and every indexer is packed.
    let packed = |name: &str| {
        let module = name.strip_suffix(".weight")?;
        (module.ends_with("up_proj") || module.ends_with("wq_b")).then(|| format!("{module}.weight_packed"))
    };
    let all = tensors.tensors().into_iter().map(|(name, tensor)| (packed(&name).unwrap_or(name), tensor));
    std::fs::write(folder.path().join("model.safetensors"), safetensors::serialize(all, None).unwrap()).unwrap();
    let (code, out, err) = indexscope(&["info", &dir, "--json"]);
    assert!(code == 0 && err.contains("the checkpoint is quantised (compressed-tensors pack-quantized)"), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["layers"], &json["native"], &json["locked_shared"]), (&json!(6), &json!("FFFFFF"), &json!([])));
    assert_eq!((&json["indexer_layers"], &json["indexer_tensors"]), (&json!(6), &json!(30)));
    let (code, _, err) = indexscope(&["eval", &dir, "--tokens", "random:64", "--pattern", "native"]);
    assert!(code == 1 && err.contains("BF16, F16, F32 and block FP8 are read") && err.contains("hint: "), "{err}");
}

#[test]
fn a_config_alone_is_described() {
    let config = Path::new(&data("glm_dsa_tiny")).join("config.json").display().to_string();
    let (code, out, err) = indexscope(&["info", &config, "--json"]);
    assert!(code == 0 && err.contains("indexer_rope_interleave is absent"), "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["layers"], &json["index_topk"], &json["native"]), (&json!(6), &json!(16), &json!("FFFFFF")));
    let (code, _, err) = indexscope(&["eval", &config, "--tokens", "random:64", "--pattern", "native"]);
    assert!(code == 1 && err.contains("is a config without weights") && err.contains("hint: "), "{err}");
}

#[test]
fn text_that_is_json_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.jsonl");
    std::fs::write(&file, format!("{{\"prompt\": \"{}\"}}\n", "a vector holds values. ".repeat(40))).unwrap();
    let file = file.display().to_string();
    let (code, _, err) = indexscope(&["eval", "demo", "--text", &file, "--seq-len", "64", "--pattern", "native"]);
    assert!(code == 0 && err.contains("looks like JSON, and --text measures its syntax"), "{err}");
}
