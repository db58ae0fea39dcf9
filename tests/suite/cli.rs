//! The command line as scripts see it: exit codes, JSON, files and error messages of the real binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const MODEL: &str = "tests/data/glm_dsa_tiny";

fn indexscope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().expect("the binary runs")
}

/// Runs a command that must succeed and parses what it prints.
fn json_of(arguments: &[&str]) -> Value {
    let output = indexscope(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is JSON")
}

/// Runs a command that must fail with `code`, an `error:` line with `needle` in it, and nothing on stdout.
fn refused(code: i32, needle: &str, arguments: &[&str]) {
    let output = indexscope(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(needle), "{arguments:?}: {stderr}");
    assert!(stderr.lines().all(|l| l.starts_with("error: ") || l.starts_with("hint: ")), "{arguments:?}: {stderr}");
    assert!(code == 1 || stderr.lines().any(|l| l.starts_with("hint: ")), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty());
}

/// A folder of files for one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.path().join(name), text).expect("the folder is writable");
        self.path(name)
    }
}

/// The tokens for which transformers' losses are stored, as a --tokens file.
fn tokens(folder: &Folder) -> String {
    let bytes = std::fs::read(Path::new(MODEL).join("expected.safetensors")).expect("the fixture");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("the fixture is a safetensors file");
    let view = file.tensor("input_ids").expect("the fixture has ids");
    let width = view.data().len() / view.shape().iter().product::<usize>();
    let ids: Vec<u32> = view.data().chunks_exact(width).map(|c| u32::from(c[0]) | u32::from(c[1]) << 8).collect();
    folder.write("tokens.json", &json!([ids]).to_string())
}

#[test]
fn eval_prints_one_result_per_pattern_in_order() {
    let folder = Folder::new();
    let tokens = tokens(&folder);
    let patterns = ["uniform:2", "FFFFFF", "dense", "uniform:2"];
    let mut arguments = vec!["eval", MODEL, "--tokens", &tokens, "--json"];
    arguments.extend(patterns.iter().flat_map(|p| ["--pattern", *p]));
    let json = json_of(&arguments);
    for (key, want) in [("schema", 1), ("sequences", 1), ("targets", 95), ("eligible", 79), ("index_topk", 16)] {
        assert_eq!(json[key], want, "{key}");
    }
    assert_eq!((&json["device"], &json["dtype"]), (&json!("cpu"), &json!("f32")));
    assert_eq!(json["reference"]["pattern"], "FFFFFF");
    let results = json["results"].as_array().expect("an array");
    let names: Vec<&str> = results.iter().filter_map(|r| r["pattern"].as_str()).collect();
    assert_eq!(names, ["FSFSFS", "FFFFFF", "dense", "FSFSFS"]);
    assert_eq!(results.iter().filter_map(|r| r["asked"].as_str()).collect::<Vec<_>>(), patterns);
    let expected: Value =
        serde_json::from_slice(&std::fs::read(Path::new(MODEL).join("expected.json")).expect("the fixture"))
            .expect("JSON");
    for result in [&results[0], &results[1]] {
        let want = expected["patterns"][result["pattern"].as_str().unwrap_or_default()]["loss"].as_f64();
        let got = result["loss"].as_f64();
        assert!(got.zip(want).is_some_and(|(a, b)| (a - b).abs() < 1e-4), "{got:?} {want:?}");
    }
    assert_eq!((&results[0]["full"], &results[0]["shared"], &results[2]["full"]), (&json!(3), &json!(3), &Value::Null));
    assert_eq!(results[0]["delta_se"], Value::Null, "one block has no error");
    assert_eq!((&results[1]["delta"], &results[1]["same_top"]), (&json!(0.0), &json!(1.0)));
    let buckets = results[0]["by_position"].as_array().expect("an array");
    assert_eq!((&buckets[0]["from"], &buckets[0]["to"], &buckets[0]["targets"]), (&json!(0), &json!(32), &json!(32)));
}

#[test]
fn logits_are_written_per_pattern_with_shorter_sequences_padded() {
    let folder = Folder::new();
    let tokens = folder.write("t.json", "[[1,2,3,4,5], {\"ids\": [6,7,8], \"mask\": [0,0,1]}]");
    let logits = folder.path("logits.safetensors");
    let json = json_of(&[
        "eval",
        MODEL,
        "--tokens",
        &tokens,
        "--pattern",
        "FSFSFS",
        "--pattern",
        "dense",
        "--logits",
        &logits,
        "--json",
        "--quiet",
    ]);
    assert_eq!(json["targets"], 5, "the mask leaves one target of the second sequence");
    let bytes = std::fs::read(logits).expect("the file was written");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert_eq!(file.tensor("logits.FSFSFS").expect("by pattern").shape(), [2, 5, 128]);
    assert_eq!(file.tensor("logits.dense").expect("dense too").shape(), [2, 5, 128]);
}

#[test]
fn a_recording_becomes_a_matrix() {
    let folder = Folder::new();
    let (tokens, trace) = (tokens(&folder), folder.path("trace.safetensors"));
    json_of(&["record", MODEL, "--tokens", &tokens, "--out", &trace, "--pattern", "FFSFFF", "--json"]);
    let json = json_of(&["overlap", &trace, "--json"]);
    assert_eq!((&json["queries"], &json["counted"], &json["borrowed"]), (&json!(96), &json!(80), &json!([2])));
    assert_eq!((&json["metric"], &json["layers"]), (&json!("overlap"), &json!([0, 1, 2, 3, 4, 5])));
    assert_eq!(json["matrix"][1][2], 1.0, "layer 2 used the set of layer 1");
    assert_eq!(json["matrix"][0][3], json["matrix"][3][0]);
    assert_eq!(json["se"].as_array().map(Vec::len), Some(6));
    let jaccard = json_of(&["overlap", &trace, "--metric", "jaccard", "--format", "json"]);
    assert!(jaccard["matrix"][0][1].as_f64() < json["matrix"][0][1].as_f64());
    let text = indexscope(&["overlap", &trace, "--format", "csv"]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("layer,0,1,2,3,4,5\n0,1.000,"));
    refused(
        2,
        "nothing that could be recorded",
        &["record", MODEL, "--tokens", &tokens, "--out", &trace, "--pattern", "dense"],
    );
}

#[test]
fn a_packed_recording_is_the_same_in_a_quarter_of_the_room() {
    let folder = Folder::new();
    let (plain, packed) = (folder.path("t.safetensors"), folder.path("t.trace"));
    for out in [&plain, &packed] {
        let json = json_of(&["record", MODEL, "--tokens", "random:200", "--out", out, "--pattern", "FFSFFF", "--json"]);
        assert_eq!((&json["queries"], &json["index_topk"]), (&json!(200), &json!(16)));
    }
    for metric in ["overlap", "jaccard"] {
        let of = |trace: &str| json_of(&["overlap", trace, "--metric", metric, "--json"]);
        assert_eq!(of(&packed), of(&plain));
    }
    let size = |path: &str| std::fs::metadata(path).expect("the trace was written").len();
    assert!(size(&packed) * 4 < size(&plain), "{} of {}", size(&packed), size(&plain));
    let bytes = std::fs::read(&packed).expect("the trace was written");
    std::fs::write(&packed, &bytes[..bytes.len() - 9]).expect("the folder is writable");
    refused(1, "it ends early", &["overlap", &packed]);
}

#[test]
fn patterns_come_from_files_and_sessions_too() {
    let folder = Folder::new();
    let tokens = tokens(&folder);
    let file = format!("@{}", folder.write("p.txt", "FFSSFF\nthe rest is ignored\n"));
    let model = "[model]\nname = 'm'\nfingerprint = 'f'\n";
    let session = folder.write("s.toml", &format!("schema = 1\npattern = 'FSSFSS'\n{model}"));
    let session = format!("session:{session}");
    let json = json_of(&["eval", MODEL, "--tokens", &tokens, "--pattern", &file, "--pattern", &session, "--json"]);
    assert_eq!((&json["results"][0]["pattern"], &json["results"][1]["pattern"]), (&json!("FFSSFF"), &json!("FSSFSS")));
    let eval = |pattern: &str, code, needle| {
        refused(code, needle, &["eval", MODEL, "--tokens", &tokens, "--pattern", pattern]);
    };
    eval("FFX", 2, "'FFX'");
    eval("FFF", 2, "3 letters but the model has 6 layers");
    eval("SFFFFF", 2, "layer 0 is Shared");
    eval("uniform:0", 2, "uniform:0");
    eval(&format!("@{}", folder.path("none")), 1, "none");
    eval(&format!("@{}", folder.write("bad.txt", "FF?FFF")), 2, "'?' at position 2");
}

#[test]
fn wrong_usage_ends_with_2() {
    refused(2, "--patern", &["eval", MODEL, "--patern", "FFFFFF"]);
    refused(2, "--pattern", &["eval", MODEL]);
    refused(2, "none of --tokens, --text and --chat", &["eval", MODEL, "--pattern", "native"]);
    let random = |option: &str, value: &str, needle| {
        refused(2, needle, &["eval", MODEL, "--pattern", "native", "--tokens", "random:40", option, value]);
    };
    random("--device", "tpu", "tpu");
    random("--dtype", "f64", "f64");
    random("--attention", "flash", "flash");
    random("--seq-len", "0", "--seq-len");
    random("--text", "x", "--text");
    refused(2, "not 'x'", &["eval", MODEL, "--pattern", "native", "--tokens", "random:x"]);
}

#[test]
fn files_that_are_not_what_they_should_be_end_with_1() {
    let folder = Folder::new();
    let eval = |tokens: &str, needle| refused(1, needle, &["eval", MODEL, "--pattern", "native", "--tokens", tokens]);
    eval(&folder.path("none.json"), "none.json");
    eval(&folder.write("a.json", "{"), "a.json");
    eval(&folder.write("b.json", "[[1,2],[3,-4]]"), "entry 1 has -4 at position 1");
    eval(&folder.write("c.json", "[[1,2],[3,400]]"), "token id 400");
    eval(&folder.write("d.json", "[[1]]"), "no target to score");
    let text = folder.write("t.txt", "some text");
    refused(1, "tokenizer", &["eval", MODEL, "--pattern", "native", "--text", &text]);
    refused(1, "no-such-model", &["eval", "no-such-model", "--pattern", "native", "--tokens", "random:20"]);
    refused(1, "is not a trace", &["overlap", &text]);
    refused(1, "needs a terminal", &[MODEL]);
}

#[test]
fn up_to_k_keys_a_warning_says_that_no_pattern_differs() {
    let output = indexscope(&["eval", MODEL, "--pattern", "FSSSSS", "--tokens", "random:16", "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("no pattern can differ"), "{stderr}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON");
    assert_eq!((&json["eligible"], &json["tokens"]), (&json!(0), &json!("random")));
    assert_eq!((&json["results"][0]["delta"], &json["results"][0]["delta_all"]), (&Value::Null, &json!(0.0)));
}

/// Copies the model and lets `change` rewrite its tensors' bytes.
fn changed_model(folder: &Folder, change: impl Fn(&str, &mut Vec<u8>)) -> String {
    let dir = PathBuf::from(folder.path("model"));
    std::fs::create_dir(&dir).expect("a new folder");
    std::fs::copy(Path::new(MODEL).join("config.json"), dir.join("config.json")).expect("the fixture");
    let bytes = std::fs::read(Path::new(MODEL).join("model.safetensors")).expect("the fixture");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let mut data = view.data().to_vec();
            change(&name, &mut data);
            (name, view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).expect("shapes are kept"))
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).expect("the folder is writable");
    dir.display().to_string()
}

#[test]
fn a_loss_that_is_not_finite_names_pattern_and_sequence() {
    let folder = Folder::new();
    let model = changed_model(&folder, |name, data| {
        if name == "model.norm.weight" {
            data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    });
    let tokens = ["--tokens", "random:40", "--quiet"];
    let arguments = [&["eval", &model, "--pattern", "native"][..], &tokens].concat();
    refused(1, "the loss of FFFFFF is not finite at position 0 of sequence 0", &arguments);
}

#[test]
fn a_model_larger_than_memory_is_refused_with_both_figures() {
    let folder = Folder::new();
    let dir = PathBuf::from(folder.path("model"));
    std::fs::create_dir(&dir).expect("a new folder");
    // A vocabulary so large that embedding and head alone take terabytes, in a file that is nearly all hole.
    let config = std::fs::read_to_string(Path::new(MODEL).join("config.json")).expect("the fixture");
    let vocab = 1usize << 34;
    std::fs::write(dir.join("config.json"), config.replace("\"vocab_size\": 128", &format!("\"vocab_size\": {vocab}")))
        .expect("the folder is writable");
    let bytes = std::fs::read(Path::new(MODEL).join("model.safetensors")).expect("the fixture");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (mut header, mut at) = (serde_json::Map::new(), 0usize);
    for (name, view) in file.tensors() {
        let mut shape = view.shape().to_vec();
        if name == "model.embed_tokens.weight" || name == "lm_head.weight" {
            shape[0] = vocab;
        }
        let size = shape.iter().product::<usize>() * view.data().len() / view.shape().iter().product::<usize>();
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}));
        at += size;
    }
    let header = Value::Object(header).to_string();
    let path = dir.join("model.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).expect("written");
    let hole = std::fs::File::options().write(true).open(&path).expect("just written");
    if hole.set_len((8 + header.len() + at) as u64).is_err() {
        use std::io::Write as _;
        // Not captured by the test harness, so that CI can list it.
        let _ = writeln!(std::io::stderr(), "skipped: this file system has no files of terabytes");
        return;
    }
    let model = dir.display().to_string();
    refused(1, "of memory are free", &["eval", &model, "--pattern", "native", "--tokens", "random:40"]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = Folder::new();
    let trace = folder.path("t.safetensors");
    json_of(&["record", MODEL, "--tokens", "random:40", "--out", &trace, "--json"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_indexscope"))
        .args(["overlap", &trace])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
}

#[test]
fn help_and_version_go_to_stdout() {
    for argument in ["--help", "--version"] {
        let output = indexscope(&[argument]);
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn indexers_are_trained_for_a_dense_model_and_used() {
    let folder = Folder::new();
    let dense = "tests/data/llama_rope3";
    let ids: Vec<Vec<u32>> = (0..8).map(|s| (0..40).map(|i| (s * 13 + i * i * 7 + i) % 60).collect()).collect();
    let (tokens, out) = (folder.write("tokens.json", &json!(ids).to_string()), folder.path("indexers.safetensors"));
    let train = ["train", "indexers", dense, "--out", &out, "--tokens", &tokens, "--seq-len", "32", "--steps", "12"];
    let more =
        ["--sparse-steps", "4", "--heads", "2", "--dim", "8", "--index-topk", "8", "--max-memory", "1GiB", "--json"];
    let trained = json_of(&[&train[..], &more].concat());
    let layers = trained["layers"].as_array().expect("one entry per layer").len();
    assert_eq!((trained["tokens"].as_u64(), trained["rows"].as_u64()), (Some(16 * 32), Some(32)));
    assert!(
        trained["layers"][0]["kl"].as_f64().expect("a number") > 0.0 && !Path::new(&(out.clone() + ".state")).exists()
    );

    let eval = ["eval", dense, "--tokens", &tokens, "--pattern", "dense", "--index-topk", "8", "--json"];
    let with = json_of(&[&eval[..], &["--index", &out]].concat());
    assert_eq!(with["reference"]["pattern"], "F".repeat(layers));
    assert_eq!(with["results"][0]["loss"], json_of(&eval)["results"][0]["loss"], "dense attention asks no indexer");
    assert_ne!(with["reference"]["loss"], json_of(&eval)["reference"]["loss"]);

    // Another model of the same shape must be asked for, and is told.
    let another = folder.path("another");
    std::fs::create_dir(&another).expect("the folder is writable");
    std::fs::copy(format!("{dense}/config.json"), format!("{another}/config.json")).expect("the fixture");
    let mut bytes = std::fs::read(format!("{dense}/model.safetensors")).expect("the fixture");
    let at = {
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("the fixture is a safetensors file");
        let norm = file.tensor("model.layers.1.input_layernorm.weight").expect("the fixture has norms").data();
        norm.as_ptr() as usize - bytes.as_ptr() as usize
    };
    bytes[at] ^= 1;
    std::fs::write(format!("{another}/model.safetensors"), bytes).expect("the folder is writable");
    let info = ["info", &another, "--index", &out];
    refused(1, "belongs to the model 'llama_rope3', ", &info);
    let foreign = indexscope(&[&info[..], &["--foreign-index"]].concat());
    let stderr = String::from_utf8_lossy(&foreign.stderr);
    assert!(foreign.status.success() && stderr.starts_with("note: ") && stderr.contains("another model"), "{stderr}");
    assert!(indexscope(&["info", dense, "--index", &out]).stderr.is_empty());

    // Two layers' indexers learn from all the layers that they serve.
    let (pattern, other) = (format!("F{}FS", "S".repeat(layers - 3)), folder.path("distilled.safetensors"));
    let distill =
        ["train", "distill", dense, "--sidecar", &out, "--pattern", &pattern, "--out", &other, "--tokens", &tokens];
    let few = ["--seq-len", "32", "--steps", "3", "--sparse-steps", "3", "--index-topk", "8", "--json"];
    let distilled = json_of(&[&distill[..], &few].concat());
    assert_eq!((&distilled["targets"], &distilled["pattern"]), (&json!("served"), &json!(pattern)));
    let groups = distilled["layers"].as_array().expect("one entry per indexer");
    assert_eq!(groups.iter().map(|g| g["layer"].clone()).collect::<Vec<_>>(), [0, layers - 2]);
    assert!(
        groups.iter().all(|g| g["floor"].as_f64() > Some(0.0) && g["kl"].as_f64() > g["floor"].as_f64()),
        "{groups:?}"
    );
    let served = ["eval", dense, "--index", &other, "--tokens", &tokens, "--pattern", "native", "--index-topk", "8"];
    let served = json_of(&[&served[..], &["--json"]].concat());
    assert_eq!(served["results"][0]["pattern"], pattern, "layers without an indexer are Shared");
    // What training changed, against one reference: that of the indexers before.
    let after = ["eval", dense, "--index", &other, "--tokens", &tokens, "--index-topk", "8", "--reference-index", &out];
    let after = json_of(&[&after[..], &["--pattern", "native", "--pattern", "dense", "--json"]].concat());
    assert_eq!((&after["reference"]["loss"], &after["reference"]["index"]), (&with["reference"]["loss"], &json!(out)));
    assert_eq!(after["results"][1]["delta"], with["results"][0]["delta"], "dense attention asks no indexer");
    assert_eq!(after["results"][0]["loss"], served["results"][0]["loss"]);
    assert_ne!(after["results"][0]["delta"], served["results"][0]["delta"]);
    // Search and distillation in turn; a finished run is not done again, and what is asked for must be the same.
    let (rounds, alternated) =
        (["--rounds", "2", "--search-text", &tokens, "--search-sequences", "2"], folder.path("alternated.safetensors"));
    let alternate = ["train", "distill", dense, "--sidecar", &out, "--pattern", &pattern, "--out", &alternated];
    let alternate = [&alternate[..], &["--tokens", &tokens], &rounds, &few].concat();
    let first = json_of(&alternate);
    let steps = first["steps"].as_array().expect("one entry per step");
    assert_eq!(
        (&steps[0]["step"], &steps[1]["step"], &steps[2]["step"]),
        (&json!("start"), &json!("distil"), &json!("search"))
    );
    let least = steps.iter().filter_map(|s| s["loss"].as_f64()).fold(f64::INFINITY, f64::min);
    assert_eq!(first["loss"].as_f64(), Some(least), "the best of all steps is written: {first}");
    let found = first["pattern"].as_str().expect("a pattern");
    assert_eq!(found.matches('F').count(), 2);
    refused(1, "already holds a run", &alternate);
    assert_eq!(json_of(&[&alternate[..], &["--resume"]].concat()), first);
    refused(1, "begun with other options", &[&alternate[..], &["--resume", "--seed", "9"]].concat());
    refused(2, "--search-text", &[&distill[..], &["--rounds", "1"]].concat());
    refused(2, "'dense' keeps no indexers", &[&distill[..6], &["dense"], &distill[7..]].concat());

    refused(1, "belongs to the model", &["info", MODEL, "--index", &out]);
    refused(1, "is not a sidecar", &["info", dense, "--index", &format!("{dense}/model.safetensors")]);
    refused(1, "--max-memory allows 0.0 MiB", &[&train[..], &["--max-memory", "1KiB"]].concat());
    refused(2, "'x' of --layers", &[&train[..], &["--layers", "0,x"]].concat());
    refused(2, "layer 99 does not exist", &[&train[..], &["--layers", "99"]].concat());
}

#[test]
fn dense_models_open_by_folder_and_by_name_and_say_what_chooses() {
    let folder = Folder::new();
    let info = json_of(&["info", "tests/data/llama_rope3", "--index-topk", "9", "--json"]);
    assert_eq!((&info["index"], &info["index_topk"], &info["full"]), (&json!("oracle"), &json!(9), &json!(4)));
    let arguments = ["--index-topk", "9", "--tokens", "random:48", "--pattern", "FSFS", "--json"];
    let output = indexscope(&[&["eval", "tests/data/llama_rope3"], &arguments[..]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("runs without indexers"), "{stderr}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON");
    assert_eq!((&json["index_topk"], &json["eligible"]), (&json!(9), &json!(38)));
    // The oracle of a DSA model is another index source of the same weights.
    let oracle = json_of(&["info", MODEL, "--index", "oracle", "--json"]);
    assert_eq!(oracle["index"], json!("oracle"));
    refused(1, "'elsewhere'", &["info", MODEL, "--index", "elsewhere"]);
    refused(1, "model type 'llama'", &["export", "tests/data/llama_rope3", "--engine", "vllm", "--pattern", "FSFS"]);
    let named = |id: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
        command.args(["info", id]).env_remove("HF_HUB_CACHE").env_remove("HUGGINGFACE_HUB_CACHE");
        command.env("HF_HOME", folder.path("home")).output().expect("the binary runs")
    };
    let missing = named("org/tiny");
    let stderr = String::from_utf8_lossy(&missing.stderr);
    assert!(missing.status.code() == Some(1) && stderr.contains("hf download org/tiny"), "{stderr}");
    let snapshot = folder.path("home/hub/models--org--tiny/snapshots/main");
    std::fs::create_dir_all(&snapshot).expect("the folder is writable");
    for file in ["config.json", "model.safetensors"] {
        let copied = std::fs::copy(format!("tests/data/qwen3_norm/{file}"), format!("{snapshot}/{file}"));
        copied.expect("the folder is writable");
    }
    let found = named("org/tiny");
    assert!(String::from_utf8_lossy(&found.stdout).starts_with("org/tiny: qwen3"));
}
