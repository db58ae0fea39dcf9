//! `indexscope worth` as scripts see it.

use std::process::{Command, Output};

use serde_json::Value;

const CONFIG: &str = "tests/data/indexcache_30b.json";

fn worth(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).arg("worth").args(arguments).output().expect("the binary runs")
}

fn json_of(arguments: &[&str]) -> Value {
    let output = worth(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is JSON")
}

fn refused(code: i32, needle: &str, arguments: &[&str]) {
    let output = worth(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(needle), "{arguments:?}: {stderr}");
}

#[test]
fn savings_grow_with_context_and_with_fewer_indexers() {
    let json = json_of(&[CONFIG]);
    assert_eq!((&json["origin"], &json["hardware"]["name"]), (&"predicted".into(), &"H100 SXM".into()));
    let results = json["results"].as_array().expect("an array");
    let rows: Vec<(&str, u64)> =
        results.iter().filter_map(|r| Some((r["keep"].as_str()?, r["full"].as_u64()?))).collect();
    assert_eq!(rows, [("all", 47), ("1/2", 24), ("1/4", 12), ("1/8", 6), ("ceiling", 1)]);
    let saving = |row: usize, at: usize, phase: &str| results[row]["contexts"][at][phase]["saving"].as_f64();
    for phase in ["prefill", "decode"] {
        assert_eq!((saving(0, 0, phase), saving(0, 10, phase)), (Some(0.0), Some(0.0)));
        for row in 1..5 {
            assert!(saving(row, 10, phase) > saving(row - 1, 10, phase), "{phase} {row}");
            assert!(saving(row, 10, phase) > saving(row, 5, phase), "{phase} {row}");
        }
    }
    let bytes = |row: usize| results[row]["contexts"][0]["index_key_bytes"].as_f64();
    // 1,024 tokens, 47 layers, 128 bytes and a scale of 4.
    assert_eq!((bytes(0), bytes(2)), (Some(1024.0 * 47.0 * 132.0), Some(1024.0 * 12.0 * 132.0)));
    let shortest = |row: usize| results[row]["shortest_context"]["prefill"].as_u64();
    assert_eq!(shortest(0), None);
    assert!(shortest(4) <= shortest(1) && shortest(1).is_some());
}

#[test]
fn a_workload_is_summed_and_a_sheet_of_ones_own_is_used() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("the folder is writable");
        folder.path().join(name).display().to_string()
    };
    let lengths = write("lengths.csv", "prompt,answer\n1024, 0\n1024\n");
    let json = json_of(&[CONFIG, "--workload", &lengths]);
    let prefill = |json: &Value, row: usize| json["results"][row]["contexts"][0]["prefill"]["seconds"].as_f64();
    assert_eq!(json["workload"]["requests"], 2);
    // Parsing may lose the last bit.
    let same = |a: Option<f64>, b: Option<f64>| a.zip(b).is_some_and(|(a, b)| (a / b - 1.0).abs() < 1e-9);
    assert!(same(json["workload"]["seconds"].as_f64(), prefill(&json, 0).map(|s| 2.0 * s)));
    let (whole, each) = (&json["workload"]["results"][2], &json["results"][2]["contexts"][0]["prefill"]);
    assert!(same(whole["saving"].as_f64(), each["saving"].as_f64()));
    let known = std::fs::read_to_string("assets/hardware.toml").expect("the sheets");
    let slow = write("slow.toml", &known.replace("name = \"H100 SXM\"", "name = \"mine\"").replace("989.4", "98.94"));
    let own = json_of(&[CONFIG, "--hardware", &slow]);
    assert_eq!(own["hardware"]["name"], "mine");
    assert!(prefill(&own, 0) > prefill(&json, 0));
    refused(1, "line 2", &[CONFIG, "--workload", &write("bad.csv", "8000,200\nmany\n")]);
    refused(1, "no requests", &[CONFIG, "--workload", &write("empty.csv", "prompt,answer\n")]);
    refused(1, "bad.toml", &[CONFIG, "--hardware", &write("bad.toml", "[[gpu]]\nname = 'x'\n")]);
}

#[test]
fn a_folder_is_enough_and_errors_name_what_is_wrong() {
    let json = json_of(&["tests/data/glm_locked_shared", "--hardware", "a100", "--weights", "bf16"]);
    assert!(json["native_full"].as_u64() < json["layers"].as_u64(), "savings are against the config's own pattern");
    let text = worth(&[CONFIG, "--format", "csv"]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("context,keep,full,prefill s,saving,"));
    refused(1, "no-such.json", &["no-such.json"]);
    refused(1, "'TPU'", &[CONFIG, "--hardware", "TPU"]);
    refused(2, "--batch", &[CONFIG, "--batch", "0"]);
}

#[test]
fn families_with_units_of_several_tokens_are_predicted_over_their_sites() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ratios: Vec<usize> = (0..43).map(|l| [4, 128][l % 2] * usize::from(l >= 2)).collect();
    let sparse: Vec<usize> = (0..60).map(|l| usize::from(l >= 3)).collect();
    let v4 = format!(r#"{{"model_type": "deepseek_v4", "compress_ratios": {ratios:?}}}"#);
    let m3 = format!(
        r#"{{"model_type": "minimax_m3_vl", "text_config": {{"num_hidden_layers": 60, "rope_parameters":
        {{"rope_theta": 5e6, "partial_rotary_factor": 0.5}}, "sparse_attention_config": {{"sparse_attention_freq": {sparse:?}}}}}}}"#
    );
    for (name, config, sites, fulls) in
        [("v4.json", v4, 21, [21, 11, 6, 3, 1]), ("m3.json", m3, 57, [57, 29, 15, 8, 1])]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, config).expect("the folder is writable");
        let json = json_of(&[&path.display().to_string(), "--hardware", "H200"]);
        let kept: Vec<u64> =
            json["results"].as_array().expect("an array").iter().filter_map(|r| r["full"].as_u64()).collect();
        assert_eq!((json["sites"].as_u64(), kept), (Some(sites), fulls.to_vec()), "{name}");
        assert!(json["results"][2]["contexts"][10]["decode"]["saving"].as_f64().is_some_and(|saving| saving > 0.0));
        assert_eq!(json["index_keys_freed_by"].as_array().map(Vec::len), Some(0));
    }
    assert!(json_of(&[CONFIG])["index_keys_freed_by"].as_array().is_some_and(|engines| !engines.is_empty()));
}
