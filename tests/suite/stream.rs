//! Streaming: the same numbers bit for bit, with one layer in memory at a time.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};

use indexscope::checkpoint::{Config, demands, indexer_tensors};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_indexscope");
const MODEL: &str = "tests/data/glm_dsa_tiny";

fn parse(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn eval(model: &str, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(["eval", model, "--json", "--quiet"]).args(arguments).output().unwrap()
}

/// Returns what must not depend on the order of work.
fn numbers(json: &Value) -> Value {
    let mut json = json.clone();
    let all = json.as_object_mut().unwrap();
    all.remove("stream");
    all.remove("peak_anonymous_bytes");
    all["results"].as_array_mut().unwrap().iter_mut().for_each(|result| {
        for key in ["seconds", "layer_forwards", "resumed_from"] {
            result.as_object_mut().unwrap().remove(key);
        }
    });
    json
}

#[test]
fn streaming_changes_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.json");
    // Several batches: sequences of three lengths, one of them masked.
    let ids = |n: usize, step: usize| (0..n).map(|i| i * step % 128).collect::<Vec<_>>();
    let masked = json!({"ids": ids(70, 11), "mask": (0..70).map(|i| i % 3 > 0).collect::<Vec<_>>()});
    std::fs::write(&tokens, json!([ids(96, 7), ids(96, 5), masked, ids(20, 3)]).to_string()).unwrap();
    let tokens = tokens.display().to_string();
    let mut arguments = vec!["--tokens", tokens.as_str()];
    for pattern in ["FSFSFS", "dense", "FSSSSS", "FSFSSF", "native", "FSFSFS"] {
        arguments.extend(["--pattern", pattern]);
    }
    for form in ["fast", "reference"] {
        arguments.extend(["--attention", form]);
        let whole = parse(&eval(MODEL, &arguments));
        let streamed = parse(&eval(MODEL, &[&arguments[..], &["--stream"]].concat()));
        assert_eq!(numbers(&streamed), numbers(&whole));
        assert_eq!(streamed["stream"], json!(true));
        assert!(streamed["results"][0]["delta"].as_f64().unwrap().abs() > 1e-3);
        arguments.truncate(arguments.len() - 2);
    }
}

/// Records with and without `--stream` into files of this name and returns both.
fn record(name: &str, arguments: &[&str]) -> [Vec<u8>; 2] {
    let dir = tempfile::tempdir().unwrap();
    [&[][..], &["--stream"]].map(|more| {
        let out = dir.path().join(name).display().to_string();
        let output = Command::new(PROGRAM)
            .args(["record", MODEL, "--json", "--quiet", "--out", &out, "--tokens", "random:400", "--seq-len", "90"])
            .args(arguments)
            .args(more)
            .output()
            .unwrap();
        assert_eq!(parse(&output)["stream"], json!(!more.is_empty()));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [name], "nothing else is left");
        if indexscope::session::is_packed(Path::new(name)) {
            let converted = dir.path().join("t.safetensors");
            indexscope::session::write_trace(&converted, &indexscope::session::read_trace(out.as_ref()).unwrap())
                .unwrap();
            let bytes = std::fs::read(&converted).unwrap();
            std::fs::remove_file(converted).unwrap();
            return bytes;
        }
        std::fs::read(out).unwrap()
    })
}

#[test]
fn a_streamed_recording_is_the_ordinary_one() {
    for arguments in [&["--mass-recall", "20"][..], &["--pattern", "uniform:3", "--queries", "30"]] {
        let [whole, streamed] = record("t.safetensors", arguments);
        assert_eq!(whole, streamed);
        assert_eq!(record("t.trace", arguments), [whole.clone(), whole]);
        let [whole, streamed] = record("t.json", arguments);
        assert_eq!(whole, streamed);
    }
}

#[test]
fn the_matrix_alone_is_that_of_the_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let run = |arguments: &[&str]| {
        parse(&Command::new(PROGRAM).args(arguments).args(["--json", "--quiet"]).output().unwrap())
    };
    let overlap = |metric: &str| run(&["overlap", &path("t.trace"), "--metric", metric]);
    let record = |name: &str| {
        run(&["record", MODEL, "--out", &path(name), "--tokens", "random:96", "--mass-recall", "30"]);
    };
    record("t.json");
    record("t.trace");
    let matrix: Value = serde_json::from_slice(&std::fs::read(path("t.json")).unwrap()).unwrap();
    for key in ["metric", "queries", "counted", "chance", "borrowed", "matrix", "se"] {
        assert_eq!(matrix[key], overlap("overlap")[key], "{key}");
    }
    let mass = overlap("mass-recall");
    assert_eq!(matrix["mass_recall"], mass);
    assert_eq!(
        (&mass["queries"], &mass["matrix"][0][0], &mass["matrix"][1][0]),
        (&json!(30), &json!(1.0), &json!(null))
    );
    // The model is random: its attention is nearly even, and any set keeps about as much as another.
    for kept in [&mass["matrix"][0][1], &mass["chance"]] {
        assert!((0.5..1.5).contains(&kept.as_f64().unwrap()), "{kept}");
    }
}

#[test]
fn a_trace_without_mass_recall_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t.trace").display().to_string();
    let run = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(run(&["record", MODEL, "--out", &out, "--tokens", "random:40"]).status.success());
    let refused = run(&["overlap", &out, "--metric", "mass-recall"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text.contains("holds no mass recall") && text.contains("hint: ") && text.contains("--mass-recall"),
        "{text}"
    );
}

#[test]
fn logits_are_not_streamed() {
    let output = eval(MODEL, &["--pattern", "native", "--tokens", "random:40", "--stream", "--logits", "x"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Numbers of a tensor that are not zero at most, so that the file is nearly all hole.
const FILLED: usize = 1 << 14;

/// Writes a random sparse-expert checkpoint, mostly zeros, and returns the bytes of its weights.
fn generate(dir: &Path) -> u64 {
    let config = json!({
        "model_type": "glm_moe_dsa", "vocab_size": 96, "hidden_size": 256, "num_hidden_layers": 20,
        "num_attention_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 512, "moe_intermediate_size": 512,
        "n_routed_experts": 24, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
        "index_topk": 16, "index_n_heads": 4, "index_head_dim": 16, "max_position_embeddings": 512,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = Config::parse(&config.to_string()).unwrap();
    let mut all = demands(&config);
    all.extend((0..config.num_hidden_layers).flat_map(|l| indexer_tensors(&config, l)));
    let (mut header, mut end) = (serde_json::Map::new(), 0u64);
    for demand in &all {
        let size = demand.shape.iter().product::<usize>() as u64 * 4;
        let entry = json!({"dtype": "F32", "shape": demand.shape, "data_offsets": [end, end + size]});
        header.insert(demand.name.clone(), entry);
        end += size;
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let (data, mut seed) = (8 + header.len() as u64, 1u64);
    file.set_len(data + end).unwrap();
    let mut at = data;
    for demand in &all {
        let elements = demand.shape.iter().product::<usize>();
        let width = 1.0 / (*demand.shape.last().unwrap() as f32).sqrt();
        let mut number = |_| {
            if demand.name.contains("norm") {
                return 1.0f32;
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * 2.0 * width
        };
        let bytes: Vec<u8> = (0..elements.min(FILLED)).flat_map(|i| number(i).to_le_bytes()).collect();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&bytes).unwrap();
        at += elements as u64 * 4;
    }
    end
}

#[test]
fn a_checkpoint_four_times_larger_than_the_memory_allowed_is_evaluated() {
    if !cfg!(target_os = "linux") {
        use std::io::Write as _;
        // Not captured by the test harness, so that CI can list it.
        let _ = writeln!(std::io::stderr(), "skipped: limits of anonymous memory are Linux's");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = generate(dir.path());
    let limit = bytes / 4;
    let model = dir.path().display().to_string();
    let arguments = ["--tokens", "random:96", "--seq-len", "48", "--pattern", "uniform:4", "--pattern", "dense"];
    let whole = parse(&eval(&model, &arguments));
    let limited = |more: &[&str]| {
        Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -c 0; ulimit -d {} && exec \"$0\" \"$@\"", limit / 1024))
            .args([PROGRAM, "eval", &model, "--json", "--quiet"])
            .args(arguments)
            .args(more)
            .env("RAYON_NUM_THREADS", "2")
            // The allocator otherwise reserves a gigabyte of memory that counts whether it is touched or not.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            // And it gives memory back some time after it was freed: a quick machine would hold three layers.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .output()
            .unwrap()
    };
    assert!(!limited(&[]).status.success(), "the limit of {limit} bytes does not bind");
    let streamed = parse(&limited(&["--stream"]));
    assert_eq!(numbers(&streamed), numbers(&whole));
    assert!(whole["results"][0]["delta"].as_f64().unwrap().abs() > 1e-6, "{whole}");
    let peak = streamed["peak_anonymous_bytes"].as_u64().unwrap();
    assert!(peak > 0 && peak < limit, "{peak} of {limit} bytes");
    println!("{bytes} bytes of weights, {limit} allowed, {peak} held at most");
}
