//! What is said of a model from its config.json alone, family by family.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn indexscope(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_indexscope")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A config.json in a folder of its own.
struct Config(tempfile::TempDir);

impl Config {
    fn new(config: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        Self(dir)
    }

    fn path(&self) -> String {
        self.0.path().join("config.json").display().to_string()
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn export(&self, engine: &str, pattern: &str) -> (i32, String, String) {
        indexscope(&["export", &self.path(), "--engine", engine, "--pattern", pattern])
    }

    /// The letters of an engine, or its failure.
    fn simulate(&self, engine: &str, more: &[&str]) -> String {
        let (code, out, err) = indexscope(&[&["simulate", &self.path(), "--json"], more].concat());
        assert_eq!(code, 0, "{err}");
        let json: Value = serde_json::from_str(&out).unwrap();
        let strip = json["engines"].as_array().unwrap().iter().find(|strip| strip["engine"] == engine).unwrap().clone();
        strip["failure"]["error"].as_str().or(strip["strip"].as_str()).unwrap_or_default().to_owned()
    }
}

/// What the program prints as JSON.
fn json_of(args: &[&str]) -> Value {
    let (code, out, err) = indexscope(args);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// 45 layers, of which every fourth has an indexer; `word` is how the published file calls it.
fn glm5_next(word: &str) -> Config {
    let types: Vec<&str> = (0..45).map(|l| if l % 4 == 3 { word } else { "linear_attention" }).collect();
    Config::new(
        &json!({"model_type": "glm5_next", "text_config": {"model_type": "glm5_next_text", "num_hidden_layers": 45,
        "index_topk": 2048, "index_kpool": 4, "layer_types": types}}),
    )
}

/// 43 layers, of which 21 have compression ratio 4; the list goes on for the MTP layer.
fn v4_flash() -> Config {
    let ratio = |l: usize| {
        if l < 2 || l == 43 {
            0
        } else if l.is_multiple_of(2) {
            4
        } else {
            128
        }
    };
    let ratios: Vec<usize> = (0..44).map(ratio).collect();
    Config::new(
        &json!({"model_type": "deepseek_v4", "num_hidden_layers": 43, "index_topk": 512, "compress_ratios": ratios}),
    )
}

const V41_SOURCES: &str = "[2,8,14,20,24,28,32,36]";

fn v41_flash() -> Config {
    let ratios = [vec![0; 2], vec![2; 18], vec![1; 20], vec![0; 3]].concat();
    let sources: Value = serde_json::from_str(V41_SOURCES).unwrap();
    Config::new(&json!({"model_type": "deepseek_v41", "text_config": {"num_hidden_layers": 40, "index_topk": 512,
        "compress_ratios": ratios, "index_source_layer_ids": sources, "kv_source_layer_ids": [2, 8, 14, 20]}}))
}

fn minimax_m3() -> Config {
    let sparse: Vec<usize> = (0..9).map(|l| usize::from(l >= 3)).collect();
    Config::new(
        &json!({"model_type": "minimax_m3_vl", "text_config": {"num_hidden_layers": 9, "sparse_attention_config":
        {"sparse_attention_freq": sparse, "sparse_topk_blocks": 16, "sparse_block_size": 128}}}),
    )
}

#[test]
fn older_names_of_layer_types_count_and_no_pattern_goes_to_an_engine_that_reads_none() {
    let letters: String = (0..45).map(|l| if l % 4 == 3 { 'F' } else { '-' }).collect();
    for word in ["deepseek_sparse_attention", "qwen_sparse_attention", "indexed_attention", "full_attention"] {
        let config = glm5_next(word);
        assert_eq!(config.simulate("transformers", &[]), letters, "{word}");
        let (code, out, err) = config.export("vllm", "uniform:2");
        assert!(code == 1 && out.is_empty() && err.contains("no key of index sharing is read"), "{word}: {err}");
    }
    let unknown = glm5_next("sparse");
    let (code, _, err) = unknown.export("sglang", "uniform:2");
    assert!(code == 1 && err.contains("selects keys") && err.contains("hint: "), "{err}");
}

#[test]
fn deepseek_v4_counts_its_indexers_and_takes_both_numberings() {
    let config = v4_flash();
    let wanted = "--hf-overrides '{\"index_topk_pattern\":\"FSSSFSSSFSSSFSSSFSSSF\",\"use_index_cache\":true}'\n";
    let over_layers: String = (0..43)
        .map(|l| {
            if l < 2 || l % 2 == 1 {
                '-'
            } else if l % 8 == 2 {
                'F'
            } else {
                'S'
            }
        })
        .collect();
    let full: Vec<String> = (2..43).step_by(8).map(|l| l.to_string()).collect();
    for pattern in ["uniform:4", "FSSSFSSSFSSSFSSSFSSSF", &over_layers, &over_layers.replace('-', "F"), &full.join(",")]
    {
        let (code, out, err) = config.export("vllm-ascend", pattern);
        assert_eq!((code, out.as_str()), (0, wanted), "{pattern}: {err}");
        assert!(err.contains("at most 2051 visible tokens (512 entries of 4 tokens)"), "{err}");
    }
    let (code, _, err) =
        indexscope(&["export", &config.path(), "--engine", "vllm-ascend", "--pattern", "native", "--stages", "20,23"]);
    assert_eq!(code, 0, "{err}");
    for engine in ["vllm", "sglang", "transformers"] {
        let (code, _, err) = config.export(engine, "uniform:4");
        assert!(code == 1 && err.contains("no key of index sharing is read"), "{engine}: {err}");
    }
    let (code, _, err) = config.export("vllm-ascend", &over_layers.replacen('-', "F", 1));
    assert!(code == 2 && err.contains("hint: "), "{err}");
}

#[test]
fn deepseek_v41_has_a_map_of_its_own() {
    let config = v41_flash();
    let flat = format!("'{{\"index_source_layer_ids\":{V41_SOURCES}}}'\n");
    assert_eq!(config.export("sglang", "native").1, format!("--json-model-override-args {flat}"));
    let (_, out, err) = config.export("vllm", "native");
    assert!(out == format!("--hf-overrides {flat}") && !err.contains("KeyError"), "{out}{err}");
    assert_eq!(config.simulate("vLLM", &[]), "--FSSSSSFSSSSSFSSSSSFSSSFSSSFSSSFSSSFSSS");
    assert_eq!(config.simulate("transformers", &[]), "ValueError");
    let (code, _, err) = config.export("transformers", "native");
    assert!(code == 1 && err.contains("no deepseek_v41"), "{err}");
}

#[test]
fn minimax_m3_is_told_a_frequency() {
    let config = minimax_m3();
    let (code, out, err) = config.export("vllm", "FSSFSS");
    let keys = r#"{"text_config":{"use_index_cache":true,"index_topk_freq":3,"index_skip_topk_offset":0}}"#;
    assert_eq!((code, out), (0, format!("--hf-overrides '{keys}'\n")), "{err}");
    assert!(err.contains("only on ROCm") && err.contains("2048 visible tokens (16 blocks of 128 tokens)"), "{err}");
    assert_eq!(config.simulate("vLLM (ROCm, MiniMax-M3)", &["--overrides", keys]), "---FSSFSS");
    let (code, _, err) = config.export("vllm", "FSFSSF");
    assert!(code == 1 && err.contains("a frequency and an offset only"), "{err}");
    let out = config.folder().join("new.json").display().to_string();
    let (code, _, err) = indexscope(&["export", &config.path(), "--pattern", "FSFSSF", "--write-config", &out]);
    assert!(code == 1 && err.contains("no engine") && err.contains("hint: ") && !Path::new(&out).exists(), "{err}");
}

#[test]
fn overrides_change_more_than_sharing() {
    let config = Config::new(&json!({"model_type": "deepseek_v32", "num_hidden_layers": 61, "index_topk": 2048}));
    let simulate = |overrides: &str| json_of(&["simulate", &config.path(), "--json", "--overrides", overrides]);
    let fewer = simulate(r#"{"num_hidden_layers": 5, "index_topk_freq": 4}"#);
    assert_eq!((&fewer["layers"], &fewer["engines"][1]["strip"]), (&json!(5), &json!("FFSSS")));
    let smaller = simulate(r#"{"index_topk": 512, "index_topk_freq": 4}"#);
    assert_eq!((&smaller["index_topk"], &smaller["dense_up_to"]), (&json!(512), &json!(512)));
    assert!(smaller["warnings"].to_string().contains("at most 512 visible tokens"), "{smaller}");
    assert!(simulate(r#"{"index_topk": 0}"#)["warnings"].to_string().contains("index_topk 0 is no dense attention"));
    let (code, _, err) = indexscope(&["simulate", &config.path(), "--overrides", r#"{"num_hidden_layers": 0}"#]);
    assert!(code == 1 && err.contains("0 layers"), "{err}");
}

#[test]
fn a_config_that_shares_says_which_layers_have_no_indexer_weights() {
    let types: Vec<&str> = (0..9).map(|l| if l < 3 || l == 6 { "full" } else { "shared" }).collect();
    let config = Config::new(
        &json!({"model_type": "glm_moe_dsa", "num_hidden_layers": 9, "index_topk": 2048, "indexer_types": types}),
    );
    let (code, _, err) = config.export("vllm", "uniform:4");
    assert!(code == 0 && err.contains("layers 4, 8 Full here and shared in the config"), "{err}");
    let (_, _, err) = config.export("vllm", "native");
    assert!(!err.contains("shared in the config"), "{err}");
}

#[test]
fn a_deepseek_v3_has_no_indexers_unless_the_config_has_index_topk() {
    let plain = Config::new(
        &json!({"model_type": "deepseek_v3", "num_hidden_layers": 4, "architectures": ["DeepseekV3ForCausalLM"]}),
    );
    for engine in ["transformers", "vLLM", "SGLang", "vllm-ascend", "megatron-core"] {
        assert_eq!(plain.simulate(engine, &[]), "----", "{engine}");
    }
    let renamed = Config::new(&json!({"model_type": "deepseek_v3", "num_hidden_layers": 4, "index_topk": 2048,
        "architectures": ["DeepseekV32ForCausalLM"]}));
    assert_eq!([renamed.simulate("transformers", &[]), renamed.simulate("vLLM", &[])], ["----", "FFFF"]);
    assert!(indexscope(&["simulate", &renamed.path()]).1.contains("model_type decides"));
}

#[test]
fn nested_configs_get_code_that_reaches_them() {
    let types = vec!["indexed_attention"; 4];
    let next = Config::new(&json!({"model_type": "glm5_next", "text_config": {"model_type": "glm5_next_text",
        "num_hidden_layers": 4, "index_topk": 8, "layer_types": types}}));
    let mistral =
        Config::new(&json!({"model_type": "mistral_large4", "text_config": {"model_type": "mistral_large4_text",
        "num_hidden_layers": 4, "index_topk": 8}}));
    for config in [&next, &mistral] {
        let (code, out, err) = config.export("transformers", "FSFS");
        assert!(code == 0 && out.contains("config.text_config.indexer_types = ["), "{out}{err}");
        assert!(out.contains("model = AutoModelForImageTextToText.from_pretrained("), "{out}");
    }
    let (code, _, err) = next.export("transformers", "FSSF");
    assert!(code == 1 && err.contains("only the layer right after a Full attention layer"), "{err}");
    assert_eq!(mistral.export("transformers", "FSSF").0, 0);
}

#[test]
fn a_launch_line_is_quoted_for_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("it's demo");
    std::fs::create_dir(&folder).unwrap();
    let keys =
        json!({"model_type": "glm_moe_dsa", "num_hidden_layers": 4, "index_topk": 8, "indexer_rope_interleave": true});
    std::fs::write(folder.join("config.json"), keys.to_string()).unwrap();
    let folder = folder.display().to_string();
    for engine in ["vllm", "sglang", "vllm-ascend"] {
        let (code, out, err) = indexscope(&["export", &folder, "--engine", engine, "--pattern", "FSFS", "--json"]);
        assert_eq!(code, 0, "{err}");
        let json: Value = serde_json::from_str(&out).unwrap();
        let words = shlex::split(json["launch"].as_str().unwrap()).unwrap();
        assert!(words.contains(&folder), "{words:?}");
        let overrides: Value = serde_json::from_str(words.last().unwrap()).unwrap();
        assert_eq!(overrides["index_topk_pattern"], "FSFS");
    }
}

#[test]
fn a_written_config_names_its_readers_and_a_bare_one_is_described() {
    let config = v4_flash();
    let out = config.folder().join("new.json").display().to_string();
    let (code, text, err) = indexscope(&["export", &config.path(), "--pattern", "uniform:4", "--write-config", &out]);
    assert!(code == 0 && text.contains("as vllm-ascend 0.30.0rc2 run it"), "{text}{err}");
    let folder = config.folder().display().to_string();
    let info = json_of(&["info", &folder, "--json"]);
    assert_eq!((&info["layers"], &info["full"], &info["dense_up_to"]), (&json!(43), &json!(21), &json!(2051)));
    let text = indexscope(&["info", &v41_flash().path()]).1;
    assert!(text.contains("--FSSSSSFSSSSSF") && text.contains("38 select keys"), "{text}");
}
