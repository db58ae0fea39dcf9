//! What a server tells of its forwards, played by the program's own recordings and logits in the servers' formats.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use indexscope::domain::Trace;
use indexscope::session::read_trace;
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// Tokens of the prompts: k is 16, so that most queries see more.
const PROMPTS: usize = 3;
const LENGTH: usize = 90;

fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny").display().to_string()
}

fn indexscope(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_indexscope")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn ok(args: &[&str]) -> Value {
    let (code, out, err) = indexscope(args);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap_or(Value::Null)
}

fn prompts() -> Vec<Vec<u32>> {
    (0..PROMPTS).map(|n| (0..LENGTH).map(|t| ((t * 37 + n * 11 + t * t) % 128) as u32).collect()).collect()
}

/// A folder with the prompts as `--tokens` takes them.
fn folder() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let (root, tokens) = (folder.path().to_owned(), folder.path().join("tokens.json"));
    std::fs::write(&tokens, json!(prompts()).to_string()).unwrap();
    (folder, root, tokens.display().to_string())
}

/// What SGLang would answer: the sets of all queries but the last, each set from its largest position down.
fn sglang(trace: &Trace, spoil: impl Fn(usize, usize) -> bool) -> Vec<Value> {
    let k = trace.meta.index_topk;
    let response = |(n, ids): (usize, &Vec<u32>)| {
        let mut bytes = Vec::new();
        let own = trace.queries.iter().enumerate().filter(|(_, q)| q.sequence as usize == n);
        for (q, query) in own.take(ids.len() - 1) {
            for (layer, selection) in trace.selections.iter().enumerate() {
                let mut row: Vec<i32> = selection.row(q).iter().rev().map(|&key| key as i32).collect();
                row.resize(k, -1);
                if spoil(query.position as usize, layer) {
                    row.fill(0);
                }
                bytes.extend(row.into_iter().flat_map(i32::to_le_bytes));
            }
        }
        let logprobs: Vec<Value> =
            ids.iter().enumerate().map(|(t, id)| json!([(t > 0).then_some(-1.0), id, null])).collect();
        json!({"text": "", "meta_info": {"prompt_tokens": ids.len(), "indexer_topk": BASE64_STANDARD.encode(&bytes),
            "input_token_logprobs": logprobs, "output_token_logprobs": []}})
    };
    trace.tokens.iter().enumerate().map(response).collect()
}

#[test]
fn index_sets_of_a_server_become_a_trace_and_tell_what_ran() {
    let (_keep, root, tokens) = folder();
    let path = |name: &str| root.join(name).display().to_string();
    let (ours, out, responses) = (path("ours.safetensors"), path("served.trace"), path("responses.jsonl"));
    ok(&["record", &model(), "--tokens", &tokens, "--pattern", "FSFFSS", "--out", &ours, "--json"]);
    let trace = read_trace(ours.as_ref()).unwrap();
    let lines: Vec<String> = sglang(&trace, |_, _| false).iter().map(Value::to_string).collect();
    std::fs::write(&responses, lines.join("\n")).unwrap();

    let import = ["import", "indices", &responses, "--config", &model(), "--out", &out, "--json"];
    let (code, text, err) = indexscope(&import);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, told["ran"].as_str(), told["expected"].as_str()), (0, Some("FSFFSS"), Some("FFFFFF")));
    assert_eq!((&told["differs"], &told["dropped"]), (&json!([1, 4, 5]), &json!(0)));
    assert!(err.contains("warning: the server ran FSFFSS, and SGLang should make FFFFFF of "), "{err}");

    let served = read_trace(out.as_ref()).unwrap();
    assert_eq!((served.meta.pattern, served.meta.heads, &served.tokens), (trace.meta.pattern, 4, &trace.tokens));
    assert_eq!(served.queries.len(), PROMPTS * (LENGTH - 1));
    for (q, query) in served.queries.iter().enumerate() {
        let there = trace.queries.iter().position(|other| other == query).unwrap();
        for (a, b) in served.selections.iter().zip(&trace.selections) {
            assert_eq!(a.row(q), b.row(there), "{query:?}");
        }
    }
    let matrix = ok(&["overlap", &out, "--json"]);
    assert_eq!((&matrix["borrowed"], matrix["matrix"][1][0].as_f64()), (&json!([1, 4, 5]), Some(1.0)));

    // What the server was meant to run is no warning but an error.
    assert_eq!(indexscope(&[&import[..], &["--pattern", "FSFFSS"]].concat()).0, 0);
    let (code, _, err) = indexscope(&[&import[..], &["--pattern", "uniform:2"]].concat());
    assert_eq!(code, 1);
    assert!(err.contains("error: the server ran FSFFSS, not FSFSFS: they differ at layers 3, 4\nhint: "), "{err}");
}

#[test]
fn rows_that_the_server_did_not_write_are_left_out_and_counted() {
    let (_keep, root, tokens) = folder();
    let path = |name: &str| root.join(name).display().to_string();
    let (ours, out, responses) = (path("ours.safetensors"), path("served.safetensors"), path("responses.json"));
    ok(&["record", &model(), "--tokens", &tokens, "--out", &ours, "--json"]);
    let trace = read_trace(ours.as_ref()).unwrap();
    let import = ["import", "indices", &responses, "--config", &model(), "--out", &out, "--json"];

    let some = sglang(&trace, |position, layer| layer == 2 && (20..30).contains(&position));
    std::fs::write(&responses, json!(some).to_string()).unwrap();
    let (code, text, err) = indexscope(&import);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["dropped"], &told["queries"]), (0, &json!(30), &json!(PROMPTS * (LENGTH - 11))));
    assert_eq!((told["ran"].as_str(), err.contains("30 queries were left out")), (Some("FFFFFF"), true));
    let drawn = ok(&[&import[..], &["--queries", "7", "--quiet"]].concat());
    assert_eq!(drawn["queries"].as_u64().unwrap() + drawn["dropped"].as_u64().unwrap(), 7 * PROMPTS as u64);

    let none = sglang(&trace, |_, _| true);
    std::fs::write(&responses, json!(none).to_string()).unwrap();
    std::fs::remove_file(&out).unwrap();
    let (code, _, err) = indexscope(&import);
    assert_eq!((code, Path::new(&out).exists()), (1, false));
    assert!(err.contains("SGLANG_DSA_FUSE_TOPK=0"), "{err}");
    // Another k than the config's.
    let (code, _, err) = indexscope(&[&import[..], &["--index-topk", "17"]].concat());
    assert_eq!(code, 1);
    assert!(err.contains("no multiple of 6 layers × 17 keys × 4\nhint: "), "{err}");
}

/// −log p of every token after the first, and the most likely token there.
fn logprobs(logits: &[f32], vocab: usize, ids: &[u32]) -> Vec<(f64, u32)> {
    let row = |t: usize| {
        let row = &logits[t * vocab..][..vocab];
        let top = (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        let sum: f64 = row.iter().map(|&x| f64::from(x - row[top]).exp()).sum();
        (f64::from(row[ids[t + 1] as usize] - row[top]) - sum.ln(), top as u32)
    };
    (0..ids.len() - 1).map(row).collect()
}

#[test]
fn losses_of_two_servers_are_those_of_eval() {
    let (_keep, root, tokens) = folder();
    let path = |name: &str| root.join(name).display().to_string();
    let logits = path("logits.safetensors");
    let eval = ["eval", &model(), "--tokens", &tokens, "--pattern", "all-full", "--pattern", "uniform:2"];
    let eval = ok(&[&eval[..], &["--logits", &logits, "--json"]].concat());
    let bytes = std::fs::read(&logits).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let told = |pattern: &str| -> Vec<Vec<(f64, u32)>> {
        let view = file.tensor(&format!("logits.{pattern}")).unwrap();
        let values: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let vocab = view.shape()[2];
        let each = prompts().into_iter().zip(values.chunks_exact(LENGTH * vocab));
        each.map(|(ids, logits)| logprobs(logits, vocab, &ids)).collect()
    };
    // The reference as SGLang tells it, the run as vLLM does.
    let sglang = prompts().into_iter().zip(told("FFFFFF")).map(|(ids, told)| {
        let first = std::iter::once(json!([null, ids[0], null]));
        let rest = ids[1..].iter().zip(&told).map(|(id, (logprob, _))| json!([logprob, id, null]));
        let tops = told.iter().map(|(logprob, top)| json!([[logprob, top, null]]));
        json!({"meta_info": {"input_token_logprobs": first.chain(rest).collect::<Vec<_>>(),
            "input_top_logprobs": std::iter::once(Value::Null).chain(tops).collect::<Vec<_>>()}})
    });
    let (reference, run) = (path("full.json"), path("run.json"));
    std::fs::write(&reference, json!(sglang.collect::<Vec<_>>()).to_string()).unwrap();
    let choices = prompts().into_iter().zip(told("FSFSFS")).map(|(ids, told)| {
        let rest = ids[1..].iter().zip(&told).map(|(id, (logprob, top))| {
            let mut all = serde_json::Map::new();
            all.insert(top.to_string(), json!({"logprob": 0.0, "rank": 1}));
            all.insert(id.to_string(), json!({"logprob": logprob, "rank": if id == top { 1 } else { 2 }}));
            Value::Object(all)
        });
        json!({"prompt_token_ids": ids, "prompt_logprobs": std::iter::once(Value::Null).chain(rest).collect::<Vec<_>>()})
    });
    std::fs::write(&run, json!({"choices": choices.collect::<Vec<_>>()}).to_string()).unwrap();

    let got = ok(&["import", "losses", &reference, &run, &reference, "--config", &model(), "--json"]);
    let (want, result) = (&eval["results"][1], &got["results"][0]);
    for key in ["loss", "delta", "delta_all", "same_top", "ppl_ratio"] {
        let (a, b) = (result[key].as_f64().unwrap(), want[key].as_f64().unwrap());
        assert!((a - b).abs() < 2e-6, "{key}: {a}, not {b}");
    }
    assert_eq!((&got["targets"], &got["eligible"]), (&eval["targets"], &eval["eligible"]));
    assert_eq!((&got["blocks"], &got["index_topk"]), (&eval["blocks"], &json!(16)));
    // The same server twice; and what no pattern can change has not changed.
    assert_eq!(got["results"][1]["delta"], json!(0.0));
    assert!(result["delta_unaffected"].as_f64().unwrap().abs() < 1e-6);

    let (code, text, _) = indexscope(&["import", "losses", &reference, &run, "--index-topk", "16"]);
    assert_eq!(code, 0);
    assert!(text.contains("imported: 267 targets of 3 prompts, 219 of them see more than 16 keys"), "{text}");
    let (code, _, err) = indexscope(&["import", "losses", &reference, &run]);
    assert_eq!((code, err.contains("give --index-topk N")), (2, true));
    let (code, _, err) = indexscope(&["import"]);
    assert_eq!((code, err.contains("'indexscope import' requires a subcommand")), (2, true), "{err}");
    std::fs::write(&run, "{\"error\": \"out of memory\"}").unwrap();
    let (code, _, err) = indexscope(&["import", "losses", &reference, &run, "--index-topk", "16"]);
    assert_eq!(code, 1);
    assert!(err.contains("response 0 cannot be understood"), "{err}");
}
