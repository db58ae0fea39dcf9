//! Engines against vectors that were computed from their released sources.

use serde_json::{Value, json};

use super::*;
use crate::domain::{Constraints, LayerSet, Pattern, Stages};

/// GLM-5.2's own pattern: Full at 0, 1, 2, 6, 10, …, 74.
const G: &str = "FFFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSSFSSS";

/// Rows in the order of the columns: transformers, vLLM, SGLang, Automodel.
const COLUMNS: [(&str, &str); 6] = [
    ("transformers", "glm_moe_dsa"),
    ("vLLM", "glm_moe_dsa"),
    ("vLLM", "deepseek_v32"),
    ("SGLang", "glm_moe_dsa"),
    ("SGLang", "deepseek_v32"),
    ("NeMo Automodel", "glm_moe_dsa"),
];

pub(super) fn served(model_type: &str, layers: usize, keys: &Value) -> Served {
    let mut config = json!({ "model_type": model_type, "num_hidden_layers": layers });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Served::parse(&config.to_string()).unwrap()
}

pub(super) fn strip(served: &Served, engine: &str) -> Strip {
    simulate(served).engines.into_iter().find(|strip| strip.engine == engine).unwrap()
}

pub(super) fn target(model_type: &str, layers: usize) -> Target {
    Target {
        model: "/models/m".into(),
        model_type: model_type.into(),
        index_topk: 2048,
        constraints: Constraints::every(layers),
        config: json!({ "model_type": model_type, "num_hidden_layers": layers, "index_topk_freq": 4 })
            .as_object()
            .cloned()
            .unwrap(),
        indexers: Some((0..layers).collect()),
    }
}

/// Returns a strip as the vectors write it: letters, then `!` and the failure's type, if any.
fn outcome(strip: &Strip) -> String {
    let failure = strip.end().map(|f| format!("!{} {}", f.error, f.when)).unwrap_or_default();
    format!("{}{failure}", strip.letters())
}

fn types(full: usize, shared: usize) -> Value {
    json!([vec!["full"; full], vec!["shared"; shared]].concat())
}

fn glm52() -> Value {
    let words: Vec<&str> = G.chars().map(|c| if c == 'F' { "full" } else { "shared" }).collect();
    json!({"indexer_types": words, "index_topk_freq": 4, "index_skip_topk_offset": 3, "index_topk_pattern": null})
}

#[test]
fn the_vectors_of_released_sources_hold() {
    let all = "FFFFFFFFFFFFF";
    let (k, t) = ("!KeyError when the config is loaded", "!TypeError when the config is loaded");
    let (tb, i) = ("!TypeError when the model is built", "!IndexError when the model is built");
    let (z, a) = ("!ZeroDivisionError when the model is built", "!AssertionError at start");
    let (v2, v3) = ("FFSSSFSSSFSSS", "FFFSSSFSSSFSS");
    let (mixed, few) = ("FFFSSSFSSSFSS", "FFFSSSSSSSSSS");
    let second = json!({"indexer_types": types(3, 10), "index_topk_freq": 4, "index_skip_topk_offset": 3, "index_topk_pattern": null});
    let first_s = "SFFSSSFSSSFSS";
    let first_s_error = "SFFSSSFSSSFSS!ValueError in the first forward";
    let zero_error = "SSSFSSSFSSSFS!ValueError in the first forward";
    let odd = "FFFSSFSSSFSSS";
    let vectors: [(Value, [&str; 6]); 16] = [
        (second.clone(), [few, mixed, mixed, few, few, few]),
        (
            json!({"index_topk_pattern": "FFSSSS"}),
            [i, "FFSSSSFFFFFFF", "FFSSSSFFFFFFF", "FFSSSSFFFFFFF", "FFSSSSFFFFFFF", i],
        ),
        (json!({"index_topk_pattern": "ffsssfsssfsss"}), [k, k, all, k, all, k]),
        (json!({"index_topk_freq": 4}), [v2; 6]),
        (json!({"index_topk_freq": 4, "index_skip_topk_offset": 3}), [v3, v3, v3, v3, v3, v2]),
        (json!({"index_topk_freq": null}), [t, t, tb, t, all, t]),
        (json!({"index_topk_pattern": first_s}), [first_s_error, first_s, first_s, first_s, first_s, first_s_error]),
        (
            json!({"indexer_types": null, "index_topk_pattern": null, "index_topk_freq": null, "index_skip_topk_offset": null}),
            [t, t, tb, t, all, t],
        ),
        (json!({}), [all; 6]),
        (json!({"indexer_types": types(13, 0), "index_topk_pattern": v2}), [all, v2, v2, all, all, all]),
        (
            json!({"index_topk_freq": 4, "index_skip_topk_offset": 0}),
            [zero_error, "SSSFSSSFSSSFS", "SSSFSSSFSSSFS", "SSSFSSSFSSSFS", a, v2],
        ),
        (
            json!({"index_topk_pattern": types(2, 11)}),
            ["FFSSSSSSSSSSS", all, all, "FFSSSSSSSSSSS", all, "FFSSSSSSSSSSS"],
        ),
        (json!({"index_topk_pattern": "FFXSSFSSSFSSS"}), [k, k, odd, k, odd, k]),
        (
            json!({"indexer_types": types(3, 10), "index_topk_freq": null, "index_skip_topk_offset": null, "index_topk_pattern": null}),
            [few, tb, tb, few, few, few],
        ),
        (json!({"indexer_types": ["full", "full", "shared"]}), [i, all, all, "FFSFFFFFFFFFF", "FFSFFFFFFFFFF", i]),
        (json!({"index_topk_freq": 0}), [all, z, z, all, a, all]),
    ];
    for (keys, wanted) in vectors {
        for ((engine, model_type), wanted) in COLUMNS.into_iter().zip(wanted) {
            let got = outcome(&strip(&served(model_type, 13, &keys), engine));
            assert_eq!(got, wanted, "{engine} {model_type} {keys}");
        }
    }
}

#[test]
fn glm_5_2_is_read_alike_and_its_overrides_are_not() {
    for (engine, model_type) in COLUMNS {
        let strip = strip(&served(model_type, 78, &glm52()), engine);
        assert_eq!((strip.letters().as_str(), strip.full()), (G, 21), "{engine} {model_type}");
    }
    let mut fewer = G.to_owned();
    fewer.replace_range(74..75, "S");
    let pattern = json!({ "index_topk_pattern": fewer }).to_string();
    let glm = served("glm_moe_dsa", 78, &glm52());
    let with = |overrides: &str, engine| strip(&glm.clone().with_overrides(overrides).unwrap(), engine);
    assert_eq!((with(&pattern, "vLLM").letters(), with(&pattern, "vLLM").full()), (fewer.clone(), 20));
    let sglang = with(&pattern, "SGLang");
    assert_eq!(sglang.letters(), G);
    assert!(sglang.warnings.iter().any(|w| w.what.contains("does nothing")), "{sglang:?}");
    let both = json!({ "index_topk_pattern": fewer, "indexer_types": null }).to_string();
    assert_eq!((with(&both, "SGLang").letters(), with(&both, "vLLM").letters()), (fewer.clone(), fewer));
}

/// The two patterns of GLM-5 that were published: 1/2 by the paper's repository, 1/4 in SGLang #21925.
const PUBLISHED: [(&str, usize); 2] = [
    ("FFSFSSSFSSFFFSSSFFFSFSSSSSSFFSFFSFFSSFFFFFFSFFFFFSFFSSSSSSFSFFFSFSSSFSFFSFFSSS", 40),
    ("FFSFSSSFSSFSFSSSSSSSFSSSSSSFSSSFSFSSSSFFFFFSSSFFSSSFSSSSSSSSFSSSFSSSSSSFSFSSSS", 22),
];

#[test]
fn the_published_patterns_of_glm_5_reach_every_engine_that_reads_patterns() {
    for (letters, full) in PUBLISHED {
        let pattern: Pattern = letters.parse().unwrap();
        assert_eq!((pattern.len(), pattern.full_count()), (78, full));
        // As published, for vLLM: the pattern alone, in the file and on the command line.
        let published = json!({ "index_topk_pattern": letters });
        for (engine, model_type) in COLUMNS {
            let ignored = model_type == "deepseek_v32" && engine == "transformers";
            let strip = strip(&served(model_type, 78, &published), engine);
            assert!(ignored || strip.letters() == letters, "{engine} {model_type}: {}", strip.letters());
        }
        let overridden = served("glm_moe_dsa", 78, &json!({})).with_overrides(&published.to_string()).unwrap();
        assert_eq!(strip(&overridden, "vLLM").letters(), letters);
        assert_eq!(strip(&overridden, "SGLang").full(), 78, "the config class has filled indexer_types before");
        // Exported, whoever takes patterns gets it; who is told a frequency only says so.
        let target = target("glm_moe_dsa", 78);
        for engine in Engine::ALL {
            match export(engine, &target, pattern, &Stages::one(78)) {
                Ok(out) => assert!(out.argument.contains(letters) || engine == Engine::Automodel, "{engine}"),
                Err(error) => {
                    assert!(
                        matches!(error, ExportError::NotExpressible { .. }) && engine == Engine::Megatron,
                        "{error}"
                    );
                }
            }
        }
        let strips = simulate_pattern(&target, pattern, &"38,40".parse().unwrap()).unwrap().engines;
        let deaf = ["megatron-core", "mlx-lm", "slime, miles"];
        for strip in strips.iter().filter(|strip| !deaf.contains(&strip.engine)) {
            assert_eq!(strip.letters(), letters, "{}", strip.engine);
        }
    }
    let full = |letters: &str| letters.chars().map(|c| c == 'F').collect::<Vec<_>>();
    let [half, quarter] = PUBLISHED.map(|(letters, _)| full(letters));
    assert!(quarter.iter().zip(&half).all(|(quarter, half)| !quarter || *half), "both lie on one flip order");
}

#[test]
fn other_families_and_engines_follow_their_own_rules() {
    let hy = served("hy_v4", 13, &json!({ "layer_types": vec!["indexed_attention"; 13] }));
    for engine in ["transformers", "vLLM", "SGLang"] {
        assert_eq!(strip(&hy, engine).letters(), "FFSSSFSSSFSSS", "{engine}");
    }
    let ratios = [vec![0; 2], vec![2; 18], vec![1; 20]].concat();
    let v41 = json!({"index_source_layer_ids": [2, 8, 14, 20, 24, 28, 32, 36], "kv_source_layer_ids": [2, 8, 14, 20], "compress_ratios": ratios});
    let v41 = served("deepseek_v41", 40, &v41);
    for engine in ["vLLM", "SGLang", "mlx-lm"] {
        assert_eq!(strip(&v41, engine).letters(), "--FSSSSSFSSSSSFSSSSSFSSSFSSSFSSSFSSSFSSS", "{engine}");
    }
    // V4-Flash: 21 layers of ratio 4, the even ones from 2 to 42.
    let ratios: Vec<u32> = (0..43).map(|l| if l >= 2 && l % 2 == 0 { 4 } else { 128 }).collect();
    let v4 = |more: Value| {
        let mut keys = json!({ "compress_ratios": ratios, "index_topk_freq": 4 });
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        served("deepseek_v4", 43, &keys)
    };
    let own = |strip: Strip| strip.letters().replace('-', "");
    assert_eq!(own(strip(&v4(json!({})), "vllm-ascend")), "F".repeat(21));
    let on = v4(json!({"use_index_cache": true}));
    assert_eq!(own(strip(&on, "vllm-ascend")), "FFSSSFSSSFSSSFSSSFSSS");
    let split = on.clone().with_stages("20,23".parse().unwrap()).unwrap();
    assert_eq!(own(strip(&split, "vllm-ascend")), "FFSSSFSSSFSSSFSSSFSSS");
    let split = on.with_stages("18,25".parse().unwrap()).unwrap();
    assert_eq!(own(strip(&split, "vllm-ascend")), "FFSSSFSSFFSSSFSSSFSSS");
    for engine in ["vLLM", "SGLang", "transformers"] {
        let strip = strip(&v4(json!({})), engine);
        assert_eq!(own(strip.clone()), "F".repeat(21), "{engine}");
        assert!(strip.warnings.iter().any(|w| w.what.contains("index_topk_freq")), "{strip:?}");
    }
    let sparse: Vec<u32> = (0..60).map(|l| u32::from(l >= 3)).collect();
    let m3 = json!({"model_type": "minimax_m3_vl", "text_config": {
        "num_hidden_layers": 60, "sparse_attention_config": {"sparse_attention_freq": sparse},
        "use_index_cache": true, "index_topk_freq": 4}});
    let m3 = Served::parse(&m3.to_string()).unwrap();
    assert_eq!(strip(&m3, "vLLM (ROCm, MiniMax-M3)").full(), 15);
    assert_eq!(strip(&m3, "vLLM").full(), 57);
    let flat = m3.with_overrides(r#"{"index_topk_freq": 2}"#).unwrap();
    assert!(outcome(&strip(&flat, "vLLM (ROCm, MiniMax-M3)")).starts_with("!ValueError"));
    let megatron = |freq, offset| {
        let keys = json!({"dsa_indexer_topk_freq": freq, "dsa_indexer_skip_topk_offset": offset});
        strip(&served("glm_moe_dsa", 13, &keys), "megatron-core").letters()
    };
    assert_eq!((megatron(4, 0).as_str(), megatron(4, 3).as_str()), ("FSSSFSSSFSSSF", "FFFSSSFSSSFSS"));
    assert_eq!(
        strip(&served("glm_moe_dsa", 78, &json!({"index_topk_freq": 4, "index_skip_topk_offset": 3})), "ROCm ATOM")
            .full(),
        22
    );
}

/// Every warning of a simulation.
fn said(served: &Served) -> String {
    let simulation = simulate(served);
    let own = simulation.engines.iter().flat_map(|strip| &strip.warnings);
    let all = simulation.warnings.iter().chain(own).map(|w| format!("{}; {}", w.what, w.advice));
    all.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_wrong_with_a_config_is_said() {
    let pattern = "FSSSFS";
    for (model_type, keys, words) in [
        ("glm_moe_dsa", json!({"index_topk_pattern": "FFS"}), "3 entries for 6 layers"),
        ("deepseek_v32", json!({"index_topk_freq": null}), "index_topk_freq null"),
        (
            "glm_moe_dsa",
            json!({"indexer_types": types(6, 0), "index_topk_pattern": pattern}),
            "differ at layers 1, 2, 3, 5",
        ),
        ("glm_moe_dsa", json!({"index_topk_freq": 4}), "four different formulas"),
        ("glm_moe_dsa", json!({"index_topk_pattern": pattern, "index_topk": 2048}), "at most 2048 visible tokens"),
        ("glm_moe_dsa", json!({"index_topk_pattern": pattern, "num_nextn_predict_layers": 1}), "MTP"),
        ("glm_moe_dsa", json!({"index_topk_pattern": pattern}), "--enable-dbo"),
        ("glm_moe_dsa", json!({}), "indexer_rope_interleave is absent: vLLM 0.33.0 and SGLang 0.5.23 rotate"),
        ("glm_moe_dsa", json!({"indexer_rope_interleave": false}), "indexer_rope_interleave is false"),
        ("deepseek_v32", json!({"indexer_rope_interleave": true}), "indexer_rope_interleave is true"),
        ("glm_moe_dsa", json!({"index_topk_pattern": pattern}), "--enable-two-batch-overlap"),
        ("deepseek_v32", json!({"index_topk_pattern": "fsssfs"}), "upper-case"),
        ("deepseek_v4", json!({"index_topk_pattern": pattern}), "count either"),
        ("deepseek_v32", json!({"index_topk_pattern": "SFSSFS"}), "layer 0 has no earlier indices on its stage"),
    ] {
        let text = said(&served(model_type, 6, &keys));
        assert!(text.contains(words), "{keys}: {text}");
    }
    let staged = served("glm_moe_dsa", 6, &json!({ "index_topk_pattern": pattern }));
    let staged = staged.with_stages("2,4".parse().unwrap()).unwrap();
    assert!(said(&staged).contains("layer 2 has no earlier indices on its stage"), "{}", said(&staged));
    let bare = served("glm_moe_dsa", 6, &json!({})).with_indexers(LayerSet::from_iter([0, 4]));
    assert!(said(&bare).contains("runs the indexer of layers 1, 2, 3, 5"), "{}", said(&bare));
    let full = served("glm_moe_dsa", 6, &json!({ "index_topk_pattern": pattern }));
    assert!(said(&full.with_indexers((0..6).collect())).contains("KeyError"));
    let late = served("glm_moe_dsa", 6, &json!({})).with_overrides(r#"{"index_topk_freq": 2}"#).unwrap();
    assert!(said(&late).contains("the command line and config.json differ"), "{}", said(&late));
    let nested = json!({"model_type": "wrapper", "text_config": {"model_type": "glm_moe_dsa", "num_hidden_layers": 6}});
    let nested = Served::parse(&nested.to_string()).unwrap().with_overrides(r#"{"index_topk_freq": 2}"#).unwrap();
    assert!(said(&nested).contains("not nested in text_config"), "{}", said(&nested));
}

#[test]
fn the_pairs_that_the_model_was_trained_with_are_no_warning() {
    for (model_type, keys) in [
        ("glm_moe_dsa", json!({"indexer_rope_interleave": true})),
        ("deepseek_v32", json!({})),
        ("deepseek_v32", json!({"indexer_rope_interleave": false})),
    ] {
        let text = said(&served(model_type, 6, &keys));
        assert!(!text.contains("indexer_rope_interleave"), "{text}");
    }
}

#[test]
fn configs_that_cannot_be_used_say_why() {
    for (json, words) in [
        ("[]", "invalid type"),
        (r#"{"model_type": "x"}"#, "num_hidden_layers"),
        (r#"{"num_hidden_layers": 999}"#, "999 layers"),
    ] {
        let error = Served::parse(json).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let glm = served("glm_moe_dsa", 6, &json!({}));
    assert!(matches!(glm.clone().with_overrides("4"), Err(SimulateError::Overrides(_))));
    assert!(matches!(glm.with_stages("2,3".parse().unwrap()), Err(SimulateError::Stages(_))));
}

/// Executed: the config classes of transformers 5.23.0 on these lists, with 2 layers.
#[test]
fn layer_types_are_checked_as_transformers_checks_them() {
    let (indexed, field, class) =
        ("indexed_attention", "StrictDataclassFieldValidationError", "StrictDataclassClassValidationError");
    let glm = ["glm_moe_dsa", "glm5_next", "hy_v4", "mistral_large4", "deepseek_v32", "dots3_note", "minimax_m3_vl"];
    let plain = ["deepseek_v3", "longcat_flash"];
    for (types, of_fields, of_attributes) in [
        (json!([indexed, "deepseek_sparse_attention"]), None, None),
        (json!(null), None, None),
        (json!([indexed, "sparse"]), Some(class), Some(class)),
        (json!([indexed]), Some(class), Some(class)),
        (json!([indexed, indexed, indexed]), Some(class), Some(class)),
        (json!([]), Some(class), Some(class)),
        (json!(indexed), Some(field), Some(class)),
        (json!([1, 1]), Some(field), Some(class)),
    ] {
        for (models, want) in [(&glm[..], of_fields), (&plain[..], of_attributes)] {
            for model in models {
                let served = served(model, 2, &json!({ "layer_types": types, "num_hidden_layers": 2 }));
                let failure = strip(&served, "transformers").failure.map(|failure| failure.error);
                assert_eq!(failure, want, "{model} {types}");
            }
        }
    }
    let v4 = |types: Value| {
        let served = served("deepseek_v4", 2, &json!({ "layer_types": types }));
        strip(&served, "transformers").failure.map(|failure| failure.error)
    };
    let csa = "compressed_sparse_attention";
    assert_eq!([v4(json!([csa, csa])), v4(json!([csa, csa, csa]))], [None, None]);
    assert_eq!([v4(json!([csa, indexed])), v4(json!([csa]))], [Some(class); 2]);
    // The engines that load the same class fail likewise, and an override comes after the check.
    let glm = served("glm_moe_dsa", 2, &json!({ "layer_types": [indexed] }));
    for engine in ["vLLM", "SGLang"] {
        assert_eq!(strip(&glm, engine).failure.map(|failure| failure.error), Some(class), "{engine}");
    }
    let fewer = served("glm_moe_dsa", 2, &json!({ "layer_types": [indexed, indexed] }));
    let fewer = fewer.with_overrides(r#"{"num_hidden_layers": 1}"#).unwrap();
    assert_eq!(strip(&fewer, "vLLM").failure, None);
}

#[test]
fn copies_of_indexers_are_named_with_the_engines_that_would_run_them() {
    let keys = json!({ "indexer_types": ["full", "full", "full", "shared", "shared", "full"] });
    let copies = served("glm_moe_dsa", 6, &keys).with_copied_indexers([3, 4].into_iter().collect());
    let text = said(&copies);
    assert!(text.contains("copies of the source layer's indexer in layers 3, 4; vLLM, "), "{text}");
    let both = json!({ "indexer_types": keys["indexer_types"], "index_topk_pattern": "FFFSSF" });
    let text = said(&served("glm_moe_dsa", 6, &both).with_copied_indexers([3, 4].into_iter().collect()));
    assert!(!text.contains("; vLLM, ") && text.contains("in layers 3, 4"), "{text}");
    assert!(!said(&served("glm_moe_dsa", 6, &keys)).contains("copies of"));
}
