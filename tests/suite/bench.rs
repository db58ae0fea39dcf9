//! `indexscope bench` as scripts see it.

use std::process::{Command, Output};

use serde_json::Value;

const MODEL: &str = "tests/data/glm_dsa_tiny";

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).arg("bench").args(arguments).output().expect("the binary runs")
}

fn json_of(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is JSON")
}

#[test]
fn phases_are_timed_at_every_context_and_projected_from_three() {
    let json = json_of(&[MODEL, "--context", "24,48,96", "--project", "192", "--pattern", "uniform:3", "--json"]);
    assert_eq!(
        (&json["device"], &json["attention"], &json["tokens"]),
        (&"cpu".into(), &"fast".into(), &"random tokens".into())
    );
    let results = json["results"].as_array().expect("an array");
    let rows: Vec<(&str, &str, u64)> = results
        .iter()
        .filter_map(|r| Some((r["pattern"].as_str()?, r["phase"].as_str()?, r["context"].as_u64()?)))
        .collect();
    assert_eq!(rows.len(), 6, "two phases at three contexts");
    assert_eq!(rows[..3], [("FSSFSS", "prefill", 24), ("FSSFSS", "decode", 24), ("FSSFSS", "prefill", 48)]);
    for result in results {
        let number = |a: &str, b: &str| result[a][b].as_f64().expect("a number");
        assert!(
            number("seconds", "median") > 0.0 && number("seconds", "mad") >= 0.0 && number("ratio", "median") > 0.0
        );
        assert!(result["seconds"]["runs"].as_u64() >= Some(5), "{result}");
        let shares: f64 =
            ["indexer", "topk", "attention", "mlp", "rest"].map(|part| number("share", part)).iter().sum();
        assert!((shares - 1.0).abs() < 1e-9, "{result}");
        assert_eq!(result["origin"], "measured");
    }
    let projections = json["projections"].as_array().expect("an array");
    assert_eq!(projections.len(), 2, "two phases at one context");
    for p in projections {
        assert_eq!((&p["origin"], &p["context"]), (&"predicted".into(), &192.into()));
        assert!(p["seconds"].as_f64() > Some(0.0) && p["ratio"].as_f64() > Some(0.0), "{p}");
        assert!(p["fit"]["held_out"].as_f64() >= Some(0.0), "{p}");
    }
}

#[test]
fn two_contexts_are_timed_but_not_projected() {
    let json = json_of(&[MODEL, "--context", "32,64", "--pattern", "native", "--tokens", "random:20", "--json"]);
    assert_eq!((json["results"].as_array().map(Vec::len), &json["projections"]), (Some(4), &Value::Array(vec![])));
    let output = bench(&[MODEL, "--context", "32", "--pattern", "native", "--runs", "1", "--format", "csv"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("pattern,full,phase,context,seconds,"), "{text}");
    // Whoever is cut off has read what was measured until then.
    let told = String::from_utf8_lossy(&output.stderr);
    for phase in ["prefill at 32, 1 x 32 tokens", "decode at 32, 1 x 1 tokens"] {
        assert!(told.lines().any(|line| line.starts_with("note: ") && line.contains(phase)), "{told}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for (arguments, needle) in [
        (&[MODEL, "--pattern", "native"][..], "--context"),
        (&[MODEL, "--context", "64"][..], "--pattern"),
        (&[MODEL, "--context", "1", "--pattern", "native"][..], "above 1"),
        (&[MODEL, "--context", "64", "--pattern", "dense"][..], "dense"),
        (&[MODEL, "--context", "64,96", "--pattern", "native", "--suffix", "64"][..], "leaves no prefix"),
        (&[MODEL, "--context", "64", "--pattern", "native", "--batch", "0"][..], "--batch"),
    ] {
        let output = bench(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(needle), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_geometry_is_timed_with_random_weights_and_traced() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.json");
    let small = "num_hidden_layers=4,hidden_size=64,num_attention_heads=4,q_lora_rank=32,kv_lora_rank=64,\
        qk_nope_head_dim=16,qk_rope_head_dim=8,v_head_dim=16,intermediate_size=64,moe_intermediate_size=32,\
        n_routed_experts=4,num_experts_per_tok=2,vocab_size=100,index_topk=8,index_n_heads=2,index_head_dim=16";
    let mut arguments =
        vec!["--geometry", "glm-5", "--context", "24", "--pattern", "uniform:2", "--chunk", "9", "--json"];
    arguments.extend(small.split(',').flat_map(|change| ["--set", change]));
    let path = trace.to_str().expect("a path");
    arguments.extend(["--timeline", path]);
    let json = json_of(&arguments);
    assert_eq!(json["results"].as_array().map(Vec::len), Some(2));
    assert_eq!((&json["results"][0]["pattern"], &json["index_topk"]), (&"FSFS".into(), &8.into()));
    assert!(
        json["model"].as_str().is_some_and(|name| name.starts_with("glm-5 ") && name.ends_with("(random weights)"))
    );
    let trace: Value = serde_json::from_slice(&std::fs::read(&trace).expect("the trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let names: Vec<&str> = events.iter().filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(names.len(), 4 * 6, "a layer and its five phases");
    assert_eq!((names[0], names[1], names[6]), ("layer 0 (Full)", "indexer", "layer 1 (Shared)"));
}

#[test]
fn steps_of_servers_are_timed_and_the_papers_figures_stand_beside_its_model() {
    let small = "num_hidden_layers=4,hidden_size=64,num_attention_heads=4,q_lora_rank=32,kv_lora_rank=64,\
        qk_nope_head_dim=16,qk_rope_head_dim=8,v_head_dim=16,intermediate_size=64,moe_intermediate_size=32,\
        n_routed_experts=4,num_experts_per_tok=2,vocab_size=100,index_topk=8,index_n_heads=2,index_head_dim=16";
    let mut arguments = vec!["--geometry", "glm-4.7-flash-dsa", "--context", "24", "--pattern", "uniform:2"];
    arguments.extend(["--batch", "1,8", "--query-tokens", "1,4", "--suffix", "10", "--chunk", "7"]);
    arguments.extend(small.split(',').flat_map(|change| ["--set", change]));
    let json = json_of(&[&arguments[..], &["--json"]].concat());
    let rows: Vec<(&str, u64, u64)> = json["results"]
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|r| Some((r["phase"].as_str()?, r["batch"].as_u64()?, r["tokens"].as_u64()?)))
        .collect();
    let decode = [("decode", 1, 1), ("decode", 1, 4), ("decode", 8, 1), ("decode", 8, 4)];
    assert_eq!((rows[0], &rows[1..5], rows[5]), (("prefill", 1, 24), &decode[..], ("suffix", 1, 10)));
    for result in json["results"].as_array().expect("an array") {
        assert!(result["seconds"]["median"].as_f64() > Some(0.0) && result["ratio"]["median"].as_f64() > Some(0.0));
    }
    // Other contexts than the paper's: all of its rows are there.
    assert_eq!(json["paper"]["results"].as_array().map(Vec::len), Some(4));
    assert_eq!(json["paper"]["results"][3]["prefill"]["seconds"][0], 19.5);
    let text = String::from_utf8_lossy(&bench(&arguments).stdout).into_owned();
    assert!(text.contains("200K: prefill 19.50 s") && text.contains("without the changes made here"), "{text}");
}

#[test]
fn what_cannot_be_timed_is_told() {
    let told = |arguments: &[&str]| {
        let output = bench(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = told(&["--geometry", "glm-9", "--context", "24", "--pattern", "all-full"]);
    assert!(code == Some(1) && text.contains("'glm-9' is neither a known geometry nor a file"), "{text}");
    let (code, text) = told(&["--geometry", "deepseek-v3.2", "--context", "24", "--pattern", "all-full"]);
    assert!(code == Some(1) && text.contains("the weights need 2") && text.contains("num_hidden_layers"), "{text}");
    assert_eq!(told(&["--context", "24", "--pattern", "all-full"]).0, Some(2));
    let (code, text) = told(&["--gpu-check", "--device", "cpu"]);
    assert!(code == Some(1) && text.contains("without a CUDA device"), "{text}");
}
