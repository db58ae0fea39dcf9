//! Opening checkpoints: what is read, and what each kind of bad input is called.

use std::path::{Path, PathBuf};

use indexscope::checkpoint::{Checkpoint, CheckpointError, Config, Dtype, Family, HubId, MlpKind, Part};
use indexscope::domain::IndexSource;
use serde_json::{Map, Value, json};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A copy of a checkpoint that a test may damage.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(data(name)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        Self(dir)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Changes a JSON file.
    fn json(self, file: &str, change: impl Fn(&mut Map<String, Value>)) -> Self {
        let path = self.path(file);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(path, Value::Object(value).to_string()).unwrap();
        self
    }

    /// Changes the header of a safetensors file; the data of entries that are gone goes, too.
    fn header(self, file: &str, change: impl Fn(&mut Map<String, Value>)) -> Self {
        let path = self.path(file);
        let bytes = std::fs::read(&path).unwrap();
        let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..data]).unwrap();
        let before = header.clone();
        change(&mut header);
        let offset = |entry: &Value, i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        let gone = before.iter().filter(|(name, _)| !header.contains_key(*name));
        let mut gone: Vec<_> = gone.map(|(_, entry)| offset(entry, 0)..offset(entry, 1)).collect();
        gone.sort_by_key(|hole| hole.start);
        let mut kept = bytes[data..].to_vec();
        for hole in gone.into_iter().rev() {
            for entry in header.iter_mut().filter(|(name, _)| *name != "__metadata__").map(|(_, entry)| entry) {
                if offset(entry, 0) >= hole.end {
                    entry["data_offsets"] = json!([offset(entry, 0) - hole.len(), offset(entry, 1) - hole.len()]);
                }
            }
            kept.drain(hole);
        }
        let text = Value::Object(header).to_string();
        let parts = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &kept];
        std::fs::write(path, parts.concat()).unwrap();
        self
    }

    /// Returns the error of opening and checking, which must say all of `words`.
    fn error(&self, words: &[&str]) -> CheckpointError {
        let error = Checkpoint::open(self.0.path()).and_then(|c| c.check()).unwrap_err();
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "'{text}' does not say {words:?}");
        error
    }
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn given_fixtures_open_and_hold_what_their_config_demands() {
    for (name, family, topk) in
        [("glm_dsa_tiny", Family::GlmMoeDsa, 16), ("deepseek_v32_tiny", Family::DeepseekV32, 16)]
    {
        let checkpoint = Checkpoint::open(&data(name)).unwrap();
        checkpoint.check().unwrap();
        let config = checkpoint.config();
        assert_eq!((checkpoint.name(), config.family, config.index_topk), (name, family, topk));
        assert_eq!(config.mlp[..2], [MlpKind::Dense, MlpKind::Sparse]);
        assert_eq!(checkpoint.native().unwrap().to_string(), "FFFFFF");
        assert!(checkpoint.constraints().locked_shared.is_empty());
        assert_eq!((&checkpoint.fingerprint()[..3], checkpoint.fingerprint().len()), ("v2:", 19));
    }
}

#[test]
fn names_of_the_hub_are_found_in_its_cache() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--org--tiny/snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(cache.path().join("models--org--tiny/refs")).unwrap();
    std::fs::write(cache.path().join("models--org--tiny/refs/main"), "abc").unwrap();
    for file in ["config.json", SINGLE] {
        std::fs::copy(data("qwen3_norm").join(file), snapshot.join(file)).unwrap();
    }
    let open = |name: &str| Checkpoint::open_cached(&HubId::parse(name).unwrap(), cache.path());
    let checkpoint = open("org/tiny").unwrap();
    checkpoint.check().unwrap();
    assert_eq!((checkpoint.name(), checkpoint.config().family), ("org/tiny", Family::Qwen3));
    let missing = open("org/tiny@v2").unwrap_err();
    assert!(missing.to_string().contains("'org/tiny'") && missing.to_string().contains("cache"), "{missing}");
    assert!(missing.hint().unwrap().contains("hf download org/tiny --revision v2"));
}

#[test]
fn the_oracle_frees_every_layer_and_k_may_be_chosen() {
    let locked = Checkpoint::open(&data("glm_locked_shared")).unwrap();
    assert!(!locked.constraints().locked_shared.is_empty());
    let oracle = locked.with_oracle().with_topk(5).unwrap();
    oracle.check().unwrap();
    assert!(oracle.constraints().locked_shared.is_empty());
    assert_eq!((oracle.config().index_topk, &oracle.config().index), (5, &IndexSource::Oracle));
    assert_eq!(oracle.native().unwrap(), locked.native().unwrap());
    assert_ne!(oracle.fingerprint(), locked.fingerprint());
    assert_eq!(oracle.base().fingerprint(), locked.fingerprint());
    assert!(locked.with_topk(0).unwrap_err().to_string().contains("index_topk is 0"));
}

#[test]
fn both_spellings_of_config_json_mean_the_same() {
    for name in ["glm_dsa_tiny", "deepseek_v32_tiny"] {
        let parse = |file| Config::parse(&std::fs::read_to_string(data(name).join(file)).unwrap()).unwrap();
        assert_eq!(parse("config.json"), parse("config_hub_style.json"), "{name}");
    }
}

#[test]
fn mtp_layers_are_skipped_but_weighed() {
    for (name, layer) in [("glm_dsa_tiny", "model.layers.6."), ("glm_sharded", "model.layers.4.")] {
        let checkpoint = Checkpoint::open(&data(name)).unwrap();
        assert!(checkpoint.tensors().all(|(name, _)| !name.starts_with(layer)));
        let parts = checkpoint.parts();
        let bytes = |part| parts.iter().find(|p| p.part == part).map_or(0, |p| p.bytes);
        assert!(bytes(Part::Mtp) > 0 && bytes(Part::Other) == 0, "{parts:?}");
        let run: u64 = parts.iter().filter(|p| p.part != Part::Mtp).map(|p| p.bytes).sum();
        assert_eq!((checkpoint.needed_bytes(4), checkpoint.needed_bytes(2)), (run, run / 2));
    }
}

#[test]
fn one_checkpoint_may_hold_several_dtypes() {
    let checkpoint = Checkpoint::open(&data("glm_bf16_tied")).unwrap();
    assert_eq!(checkpoint.tensor("model.norm.weight").unwrap().dtype, Dtype::BF16);
    assert_eq!(checkpoint.tensor("model.layers.1.mlp.gate.e_score_correction_bias").unwrap().dtype, Dtype::F32);
    assert!(checkpoint.tensor("lm_head.weight").is_none());
    assert_eq!(checkpoint.bytes("model.norm.weight").unwrap().len(), 64);
    assert!(matches!(checkpoint.bytes("lm_head.weight"), Err(CheckpointError::NoTensor(_))));
}

#[test]
fn shared_layers_without_an_indexer_are_locked() {
    let checkpoint = Checkpoint::open(&data("glm_locked_shared")).unwrap();
    assert_eq!(checkpoint.native().unwrap().to_string(), "FFFSSSFS");
    let constraints = checkpoint.constraints();
    assert_eq!(constraints.locked_shared.iter().collect::<Vec<_>>(), [3, 4, 5, 7]);
    assert_eq!(constraints.reference().unwrap().to_string(), "FFFSSSFS");
}

#[test]
fn fingerprints_tell_weights_apart_and_spellings_together() {
    let original = Checkpoint::open(&data("glm_dsa_tiny")).unwrap();
    let respelt = Copy::of("glm_dsa_tiny");
    std::fs::copy(respelt.path("config_hub_style.json"), respelt.path("config.json")).unwrap();
    assert_eq!(Checkpoint::open(respelt.0.path()).unwrap().fingerprint(), original.fingerprint());
    let changed = Copy::of("glm_dsa_tiny");
    let mut bytes = std::fs::read(changed.path(SINGLE)).unwrap();
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[data] ^= 1;
    std::fs::write(changed.path(SINGLE), bytes).unwrap();
    assert_ne!(Checkpoint::open(changed.0.path()).unwrap().fingerprint(), original.fingerprint());
}

#[test]
fn folders_that_are_no_checkpoints_say_what_they_lack() {
    let error = Checkpoint::open(Path::new("no/such/folder")).unwrap_err();
    assert!(error.to_string().contains("no/such/folder") && error.hint().is_some(), "{error}");
    let copy = Copy::of("glm_dsa_tiny");
    std::fs::remove_file(copy.path(SINGLE)).unwrap();
    assert!(matches!(copy.error(&["neither model.safetensors"]), CheckpointError::NoWeights(_)));
    std::fs::remove_file(copy.path("config.json")).unwrap();
    assert!(copy.error(&["config.json", "cannot be read"]).hint().is_some());
}

#[test]
fn other_model_types_are_named() {
    let copy = Copy::of("glm_dsa_tiny").json("config.json", |c| {
        c["model_type"] = json!("glm5_next");
        c["rope_parameters"] = json!({ "full_attention": {} });
        c["vocab_size"] = json!({ "text": 1 });
    });
    assert!(copy.error(&["'glm5_next'", "glm_moe_dsa, deepseek_v32, "]).hint().is_some());
    let copy = Copy::of("glm_dsa_tiny").json("config.json", |c| drop(c.remove("model_type")));
    copy.error(&["model type '(none given)'"]);
}

#[test]
fn impossible_values_of_the_config_are_named() {
    for (key, value, words) in [
        ("hidden_act", json!("gelu"), &["hidden_act", "'gelu'"][..]),
        ("num_key_value_heads", json!(2), &["num_key_value_heads is 2"]),
        ("num_hidden_layers", json!(300), &["300 layers"]),
        ("mlp_layer_types", json!(["dense"]), &["mlp_layer_types", "length 1", "6 layers"]),
        ("topk_group", json!(9), &["topk_group is 9"]),
        ("num_experts_per_tok", json!(99), &["num_experts_per_tok is 99", "1 to 8"]),
        ("index_head_dim", json!(4), &["index_head_dim is 4", "8 dimensions"]),
        ("rope_scaling", json!({ "type": "linear", "factor": 2.0 }), &["'linear'"]),
        ("hidden_size", json!("wide"), &["config.json cannot be understood"]),
        ("index_topk_freq", json!("four"), &["config.json cannot be understood"]),
    ] {
        let copy = Copy::of("glm_dsa_tiny").json("config.json", |c| {
            c.insert(key.to_owned(), value.clone());
        });
        copy.error(words);
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named_with_their_shapes() {
    let name = "model.layers.2.self_attn.kv_b_proj.weight";
    let copy = Copy::of("glm_dsa_tiny").header(SINGLE, |h| drop(h.remove(name)));
    assert!(copy.error(&[name, "is missing", "[112, 16]"]).hint().is_some());
    let copy = Copy::of("glm_dsa_tiny").header(SINGLE, |h| h[name]["shape"] = json!([16, 112]));
    assert!(copy.error(&[name, "has shape [16, 112]", "demands [112, 16]"]).hint().is_some());
    let biased = Copy::of("glm_dsa_tiny").json("config.json", |c| c["attention_bias"] = json!(true));
    biased.error(&["model.layers.0.self_attn.q_a_proj.bias", "is missing"]);
}

#[test]
fn full_layers_without_an_indexer_are_named() {
    let copy = Copy::of("glm_locked_shared").json("config.json", |c| c["indexer_types"][4] = json!("full"));
    let error = copy.error(&["layer 4 is Full"]);
    assert!(matches!(error, CheckpointError::FullWithoutIndexer { layer: 4 }) && error.hint().is_some());
    // Half an indexer is no indexer, but what is missing is told.
    let copy =
        Copy::of("glm_dsa_tiny").header(SINGLE, |h| drop(h.remove("model.layers.3.self_attn.indexer.k_norm.bias")));
    copy.error(&["model.layers.3.self_attn.indexer.k_norm.bias", "is missing", "[16]"]);
}

#[test]
fn a_shared_layer_0_is_refused() {
    let copy = Copy::of("glm_dsa_tiny").json("config.json", |c| c["indexer_types"][0] = json!("shared"));
    assert!(copy.error(&["layer 0 is Shared"]).hint().is_some());
}

#[test]
fn unsupported_dtypes_are_named_with_their_tensor() {
    let name = "model.layers.1.mlp.experts.5.up_proj.weight";
    let copy = Copy::of("glm_dsa_tiny").header(SINGLE, |h| h[name]["dtype"] = json!("I32"));
    copy.error(&[name, "dtype I32"]);
    let copy = Copy::of("glm_dsa_tiny").header(SINGLE, |h| {
        let [from, to] = [0, 1].map(|i| h[name]["data_offsets"][i].as_u64().unwrap());
        h[name]["dtype"] = json!("F8_E4M3");
        h[name]["data_offsets"] = json!([from, from + 16 * 64]);
        let rest = to - from - 16 * 64;
        h.insert("rest".into(), json!({"dtype": "U8", "shape": [rest], "data_offsets": [from + 16 * 64, to]}));
    });
    let error = copy.error(&[name, "F8_E4M3", "weight_scale_inv' [1, 1] are missing"]);
    assert!(error.hint().unwrap().contains("FP8"));
}

#[test]
fn truncated_files_are_told_by_their_size() {
    let single = Copy::of("glm_dsa_tiny");
    let file = std::fs::File::options().write(true).open(single.path(SINGLE)).unwrap();
    for length in [1_301_543, 5_000, 3, 0] {
        file.set_len(length).unwrap();
        let error = single.error(&["'model.safetensors' is truncated", &length.to_string()]);
        assert!(error.hint().is_some());
    }
    let sharded = Copy::of("glm_sharded");
    let shard = "model-00002-of-00003.safetensors";
    std::fs::File::options().write(true).open(sharded.path(shard)).unwrap().set_len(40_000).unwrap();
    sharded.error(&[shard, "truncated", "40000", "61552"]);
    std::fs::remove_file(sharded.path(shard)).unwrap();
    sharded.error(&[shard, "is missing"]);
}

#[test]
fn headers_and_indices_that_make_no_sense_are_told() {
    let copy = Copy::of("glm_dsa_tiny").header(SINGLE, |h| h["lm_head.weight"]["shape"] = json!([128, 63]));
    copy.error(&["'model.safetensors' is not valid", "'lm_head.weight'", "[128, 63]"]);
    let copy = Copy::of("glm_dsa_tiny").header(SINGLE, |h| h["lm_head.weight"]["data_offsets"] = json!([8, 4]));
    copy.error(&["'lm_head.weight'", "8 to 4"]);
    let copy = Copy::of("glm_sharded").json(INDEX, |i| {
        i["weight_map"]["lm_head.weight"] = json!("model-00003-of-00003.safetensors");
    });
    copy.error(&["'lm_head.weight' is not in shard 'model-00003-of-00003.safetensors'"]);
    let copy = Copy::of("glm_sharded").json(INDEX, |i| drop(i.remove("weight_map")));
    copy.error(&[INDEX, "weight_map"]);
    let copy = Copy::of("glm_dsa_tiny");
    std::fs::write(copy.path(SINGLE), [&20u64.to_le_bytes()[..], b"this is not a header"].concat()).unwrap();
    copy.error(&["its header is not JSON"]);
}
