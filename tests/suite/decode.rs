//! Prefill then decode gives the logits of prefill alone, and Shared layers keep no index keys.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use indexscope::checkpoint::{Attention, Checkpoint};
use indexscope::domain::{Pattern, Subject};
use indexscope::model::{Attend, Cache, Entry, Forward, Model, ModelError, Ops, Order, Pass, Unseen, Walk, Weights};

fn model(name: &str) -> Model {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    Model::load(&Checkpoint::open(&dir).unwrap(), &Device::Cpu, DType::F32).unwrap()
}

/// Runs some tokens after those in the cache; returns their logits `[n, vocab]`.
fn run(model: &Model, pattern: Pattern, ops: Ops, ids: &[u32], cache: Option<&mut Cache>) -> Tensor {
    run_all(model, pattern, ops, &[ids.to_vec()], cache).squeeze(0).unwrap()
}

/// Runs some tokens of several sequences after those in the cache; returns their logits `[B, n, vocab]`.
fn run_all(model: &Model, pattern: Pattern, ops: Ops, ids: &[Vec<u32>], cache: Option<&mut Cache>) -> Tensor {
    let inputs = model.inputs(ids, cache.as_ref().map_or(0, |c| c.len())).unwrap();
    let forward = Forward::new(0, &inputs, 1, (0, Entry::first(model.embed(ids).unwrap())));
    let mut forward = [Forward { cache, ..forward }];
    let subjects = [Subject::Pattern(pattern)];
    let walk = Walk::new(&subjects, ops);
    walk.run::<ModelError>(Weights::Resident(model), Order::Sequences, &mut forward, &mut Unseen).unwrap();
    let [forward] = forward;
    let x = forward.into_hidden().unwrap();
    model.logits(&x).unwrap()
}

#[test]
fn decode_equals_prefill() {
    let ids: Vec<u32> = (0..60).map(|i| (i * 37 + i * i * 5) % 128).collect();
    for name in ["glm_dsa_tiny", "deepseek_v32_tiny"] {
        let model = model(name);
        for (letters, ops) in [("FFFFFF", Ops::Fast), ("FSSFSS", Ops::Fast), ("FSFSFS", Ops::Reference)] {
            let pattern: Pattern = letters.parse().unwrap();
            let whole = run(&model, pattern, ops, &ids, None);
            let mut cache = model.cache(60).unwrap();
            // A prefill, a suffix on a cached prefix, then single steps.
            let cuts = [0, 30, 45].into_iter().chain(46..=60);
            let parts: Vec<Tensor> = cuts
                .clone()
                .zip(cuts.skip(1))
                .map(|(from, to)| run(&model, pattern, ops, &ids[from..to], Some(&mut cache)))
                .collect();
            let stepped = Tensor::cat(&parts, 0).unwrap();
            let worst = (stepped - whole).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-4, "{name} {letters}: logits differ by {worst:e}");
            // Going back and stepping again gives the same.
            cache.truncate(59);
            let again = run(&model, pattern, ops, &ids[59..], Some(&mut cache));
            assert_eq!(again.to_vec2::<f32>().unwrap(), parts.last().unwrap().to_vec2::<f32>().unwrap());
            let config = model.config();
            let (attention, index) = cache.bytes();
            assert_eq!(attention, 60 * 6 * 4 * (config.kv_lora_rank + config.qk_rope_head_dim));
            assert_eq!(index, 60 * pattern.full_count() * 4 * config.index_head_dim);
        }
    }
}

#[test]
fn sequences_of_a_batch_decode_as_each_does_alone() {
    let ids: Vec<u32> = (0..48).map(|i| (i * 37 + i * i * 5) % 64).collect();
    for (name, letters, topk) in [("glm_dsa_tiny", "FSSFSS", None), ("qwen3_norm", "FSSF", Some(8))] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let checkpoint = if let Some(k) = topk { checkpoint.with_topk(k).unwrap() } else { checkpoint };
        let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
        let pattern: Pattern = letters.parse().unwrap();
        let mut prefix = model.cache(44).unwrap();
        run(&model, pattern, Ops::Fast, &ids[..44], Some(&mut prefix));
        // Two query tokens of three sequences; with room for just those, and for more.
        let queries: Vec<Vec<u32>> = [1, 9, 30].map(|first| ids[first..first + 2].to_vec()).to_vec();
        for capacity in [46, 50] {
            let mut batch = prefix.repeated(3, capacity).unwrap();
            assert_eq!(batch.bytes().0, 3 * prefix.bytes().0);
            for _ in 0..2 {
                let together = run_all(&model, pattern, Ops::Fast, &queries, Some(&mut batch));
                batch.truncate(44);
                for (b, query) in queries.iter().enumerate() {
                    let alone = run(&model, pattern, Ops::Fast, query, Some(&mut prefix.repeated(1, 46).unwrap()));
                    let worst = (together.get(b).unwrap() - alone).unwrap().abs().unwrap().max_all().unwrap();
                    assert!(worst.to_scalar::<f32>().unwrap() < 1e-4, "{name}, sequence {b} of a batch");
                }
            }
        }
    }
}

#[test]
fn grouped_queries_decode_as_they_prefill() {
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + i * i * 5) % 64).collect();
    for name in ["llama_rope3", "qwen2_bias_tied", "qwen3_norm"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let checkpoint = Checkpoint::open(&dir).unwrap().with_topk(8).unwrap();
        let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
        for (letters, ops) in [("FFFF", Ops::Fast), ("FSSF", Ops::Fast), ("FSFS", Ops::Reference)] {
            let pattern: Pattern = letters.parse().unwrap();
            let whole = run(&model, pattern, ops, &ids, None);
            let mut cache = model.cache(40).unwrap();
            let cuts = [0, 20, 30].into_iter().chain(31..=40);
            let parts = cuts.clone().zip(cuts.skip(1));
            let parts: Vec<Tensor> =
                parts.map(|(from, to)| run(&model, pattern, ops, &ids[from..to], Some(&mut cache))).collect();
            let worst = (Tensor::cat(&parts, 0).unwrap() - whole).unwrap().abs().unwrap().max_all().unwrap();
            let worst = worst.to_scalar::<f32>().unwrap();
            assert!(worst < 1e-3, "{name} {letters}: logits differ by {worst:e}");
            let Attention::Gqa { num_key_value_heads, head_dim, .. } = model.config().attention else { panic!("GQA") };
            assert_eq!(cache.bytes(), (40 * 4 * 4 * 2 * num_key_value_heads * head_dim, 0));
        }
    }
}

#[test]
fn a_cache_refuses_what_it_cannot_hold() {
    let model = model("glm_dsa_tiny");
    let shared: Pattern = "FSFFFF".parse().unwrap();
    let mut cache = model.cache(4).unwrap();
    run(&model, shared, Ops::Fast, &[1, 2, 3], Some(&mut cache));
    let inputs = model.inputs(&[vec![4]], 3).unwrap();
    let x = model.embed(&[vec![4]]).unwrap();
    let step = |x: &Tensor, layer: usize, cache: &mut Cache| {
        let mut pass = Pass { cache: Some(&mut cache.layers[layer]), ..Pass::new(Attend::Own) };
        model.layer(layer, x, &inputs, &mut pass).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(step(&x, 0, &mut cache), Ok(()));
    assert_eq!(step(&x, 0, &mut cache).unwrap_err(), "the cache has room for 4 tokens, 5 were to be kept");
    let late = step(&x, 1, &mut cache).unwrap_err();
    assert!(late.contains("layer 1 has index keys of 0 tokens, but 3 precede"), "{late}");
}
