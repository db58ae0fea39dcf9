//! Laws of what engines run: each formula against its definition said again, and exports against what is read of them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::simulate_tests::{served, strip, target};
use super::strip::Mark;
use super::*;
use crate::domain::{Pattern, Role, Stages};

/// The same, for where a variable has the name.
fn of_keys(model_type: &str, layers: usize, keys: &Value) -> Served {
    served(model_type, layers, keys)
}

/// Each formula, as its definition says: layers are counted until the next Full one is due.
fn counted(layers: usize, freq: usize, fulls: usize) -> String {
    let mut letters = String::new();
    for layer in 0..layers {
        let due = layer < fulls || (layer + 1 - fulls).is_multiple_of(freq);
        letters.push(if due { 'F' } else { 'S' });
    }
    letters
}

proptest! {
    #[test]
    fn formulas_are_those_of_their_definition(layers in 1usize..80, freq in 1usize..9, offset in 1usize..9) {
        let keys = json!({"index_topk_freq": freq, "index_skip_topk_offset": offset});
        let glm = served("glm_moe_dsa", layers, &keys);
        let v32 = served("deepseek_v32", layers, &keys);
        // V: the first `offset` layers, then every freq-th.
        for strip in [strip(&glm, "transformers"), strip(&glm, "vLLM"), strip(&v32, "vLLM"), strip(&v32, "SGLang"), strip(&v32, "vllm-ascend"), strip(&v32, "TensorRT-LLM"), strip(&v32, "xLLM"), strip(&v32, "slime, miles")] {
            prop_assert_eq!(strip.letters(), counted(layers, freq, offset), "{}", strip.engine);
        }
        prop_assert_eq!(strip(&glm, "NeMo Automodel").letters(), counted(layers, freq, 2));
        // A: one layer more than V before the first Shared one, where sharing is on at all.
        let on = json!({"index_topk_freq": freq, "index_skip_topk_offset": offset, "use_index_cache": true});
        prop_assert_eq!(strip(&served("deepseek_v32", layers, &on), "ROCm ATOM").letters(), counted(layers, freq, offset + 1));
        // P: layer 0, then every freq-th.
        let toml = json!({ "topk_freq": freq }).to_string();
        let prime = served("deepseek_v32", layers, &json!({})).with_overrides(&toml).unwrap();
        prop_assert_eq!(strip(&prime, "prime-rl").letters(), counted(layers, freq, 1));
        let longcat = served("longcat_flash", layers, &json!({ "cli_factor": freq, "index_topk": 8 }));
        prop_assert_eq!(strip(&longcat, "SGLang").letters(), counted(layers, freq, 1));
        let megatron = json!({"dsa_indexer_topk_freq": freq, "dsa_indexer_skip_topk_offset": offset - 1});
        let megatron = strip(&served("glm_moe_dsa", layers, &megatron), "megatron-core");
        prop_assert_eq!(megatron.letters(), counted(layers, freq, (offset - 1).max(1)));
    }

    #[test]
    fn explicit_patterns_are_read_back_by_every_reader_of_them(bits: u128, layers in 1usize..100) {
        let letters: String = (0..layers).map(|l| if l == 0 || bits >> l & 1 == 1 { 'F' } else { 'S' }).collect();
        let words: Vec<&str> = letters.chars().map(|c| if c == 'F' { "full" } else { "shared" }).collect();
        let keys = json!({"indexer_types": words, "index_topk_pattern": letters, "use_index_cache": true});
        for model_type in ["glm_moe_dsa", "deepseek_v32"] {
            for strip in simulate(&served(model_type, layers, &keys)).engines {
                let ignores = ["megatron-core", "mlx-lm", "slime, miles"].contains(&strip.engine)
                    || (model_type == "deepseek_v32" && ["transformers", "NeMo Automodel"].contains(&strip.engine));
                if ignores {
                    prop_assert!(!strip.marks.contains(&Mark::Shared), "{}", strip.engine);
                } else {
                    prop_assert_eq!(strip.letters(), letters.clone(), "{} {}", strip.engine, model_type);
                }
            }
        }
    }

    /// Export, then simulate: the pattern comes back, or the export was refused for a reason that holds.
    #[test]
    fn what_is_exported_is_what_runs(bits: u128, sizes in vec(1usize..12, 1..6), engine in select(&Engine::ALL[..]), glm: bool, freq in 0usize..6) {
        let layers = sizes.iter().sum();
        let stages: Stages = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",").parse().unwrap();
        let pattern = match freq {
            0 => Pattern::from_fn(layers, |l| if l == 0 || bits >> l & 1 == 1 { Role::Full } else { Role::Shared }),
            freq => Pattern::freq(layers, freq, 1 + (bits % 5) as usize),
        }
        .unwrap();
        let target = target(if glm { "glm_moe_dsa" } else { "deepseek_v32" }, layers);
        let heads = stages.shared_heads(pattern);
        match export(engine, &target, pattern, &stages) {
            Ok(out) => {
                let served = served(&target.model_type, layers, &json!({ "index_topk_freq": 4 }));
                let quoted = |option: &str| out.argument.strip_prefix(option).and_then(|json| json.strip_suffix('\'')).map(str::to_owned);
                let served = match engine {
                    Engine::Vllm | Engine::VllmAscend => served.with_overrides(&quoted("--hf-overrides '").unwrap()).unwrap(),
                    Engine::Sglang => served.with_overrides(&quoted("--json-model-override-args '").unwrap()).unwrap(),
                    Engine::Megatron => {
                        let fields = out.argument.lines().map(|line| line.trim_end_matches(',').split_once('=').unwrap());
                        let fields: serde_json::Map<String, Value> =
                            fields.map(|(key, value)| (key.to_owned(), value.parse::<i64>().unwrap().into())).collect();
                        served.with_overrides(&Value::Object(fields).to_string()).unwrap()
                    }
                    Engine::Automodel => {
                        let keys: Value = serde_json::from_str(&out.argument).unwrap();
                        of_keys(&target.model_type, layers, &keys)
                    }
                    Engine::Transformers if !out.argument.contains("indexer_types") => served,
                    Engine::Transformers => {
                        let words: Vec<&str> = pattern.roles().map(|r| if r == Role::Full { "full" } else { "shared" }).collect();
                        let loop_over = format!("for c in \"{pattern}\"]");
                        prop_assert!(out.argument.contains(&loop_over));
                        served.with_overrides(&json!({ "indexer_types": words }).to_string()).unwrap()
                    }
                };
                let strip = strip(&served.with_stages(stages).unwrap(), engine.row());
                prop_assert_eq!(strip.letters(), pattern.to_string());
                prop_assert_eq!(strip.end(), None);
                prop_assert!(!strip.warnings.iter().any(|w| w.what.contains("stage")), "{:?}", strip.warnings);
            }
            Err(ExportError::StageHead { .. }) => {
                prop_assert!(!heads.is_empty() && matches!(engine, Engine::Vllm | Engine::Megatron));
            }
            Err(ExportError::NotExpressible { .. }) => prop_assert_eq!((engine, freq), (Engine::Megatron, 0)),
            Err(ExportError::NotRead { .. }) => {
                prop_assert!(!glm && matches!(engine, Engine::Transformers | Engine::Automodel));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
        // The written config is read alike by everyone who reads the family's patterns at all.
        let screen = simulate_pattern(&target, pattern, &Stages::one(layers)).unwrap();
        prop_assert_eq!(screen.engines[1].letters(), pattern.to_string());
    }
}
