//! Memory counted by the allocator: a fast evaluation has no allocation of T² elements and grows linearly in T; a step of
//! training indexers stays within what it was allowed.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device};
use indexscope::checkpoint::{Checkpoint, Config, IndexerShape, Sidecar, demands, indexer_tensors};
use indexscope::domain::{Subject, Targets};
use indexscope::engine::{
    Calibration, Cancel, DeviceChoice, DtypeChoice, Placement, Runtime, Sequence, Settings, Source,
};
use indexscope::model::{Attend, Model, Pass};
use indexscope::train::indexers::{IndexerRecipe, IndexerRun, Setup, SparseTarget, memory};
use serde_json::{Value, json};

/// The system's allocator, with the bytes held, the most held, and the largest allocation.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Held by a test that counts, because the counts are the process's.
static TURN: Mutex<()> = Mutex::new(());

fn count(bytes: usize) {
    LARGEST.fetch_max(bytes, Relaxed);
    PEAK.fetch_max(HELD.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is handed on to the system's allocator as it came; counting touches no memory of the caller.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and returns the bytes of its largest allocation, and the most held beyond what was held before.
fn counted<R>(work: impl FnOnce() -> R) -> (R, usize, usize) {
    let before = HELD.load(Relaxed);
    LARGEST.store(0, Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    (result, LARGEST.load(Relaxed), PEAK.load(Relaxed) - before)
}

/// A model with one dense and one sparse layer, both with indexers of k = 64.
fn mla() -> Value {
    json!({
        "model_type": "glm_moe_dsa", "vocab_size": 384, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32,
        "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
        "index_topk": 64, "index_n_heads": 2, "index_head_dim": 16, "max_position_embeddings": 4096,
    })
}

/// A dense model without indexers.
fn gqa() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 384, "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 160, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    })
}

/// Writes a random checkpoint.
fn generate(dir: &Path, config: &Value) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = Config::parse(&config.to_string()).unwrap();
    let own = if config.family.is_dense() { 0 } else { config.num_hidden_layers };
    let indexers = (0..own).flat_map(|l| indexer_tensors(&config, l));
    let (mut header, mut data, mut seed) = (serde_json::Map::new(), Vec::<u8>::new(), 1u64);
    for demand in demands(&config).into_iter().chain(indexers) {
        let begin = data.len();
        for _ in 0..demand.shape.iter().product::<usize>() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = ((seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.2;
            data.extend(if demand.name.contains("norm") { 1.0f32 } else { noise }.to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": demand.shape, "data_offsets": [begin, data.len()]});
        header.insert(demand.name, entry);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

fn ids(t: usize) -> Vec<u32> {
    (0..t as u32).map(|i| i * i % 383).collect()
}

#[test]
fn a_fast_evaluation_holds_no_square_of_its_context() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), &mla());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let evaluate = |t: usize| {
        let calibration = Calibration::new(vec![Sequence::of(ids(t))], "test", 384).unwrap();
        let placement = Placement::open(DeviceChoice::Cpu, None::<DtypeChoice>).unwrap();
        let settings = Settings { cache_bytes: 0, ..Settings::new(placement) };
        let mut backend =
            Source::new(checkpoint.clone(), calibration, Runtime::Process(settings)).open(&Cancel::never()).unwrap();
        // With logits and loss.
        counted(|| {
            let subject = Subject::Pattern("FF".parse().unwrap());
            backend.evaluate(subject, &Cancel::never(), &mut |_| {}).unwrap()
        })
    };
    let t = 4096;
    let (_, _, half) = evaluate(t / 2);
    let (evaluation, largest, peak) = evaluate(t);
    println!("largest allocation {largest} bytes, at most {peak} held at {t} tokens, {half} at half of them");
    assert_eq!(evaluation.eligible, t - 1 - 64);
    assert!(largest < t * t, "an allocation of {largest} bytes: T² elements, be they bytes");
    assert!(peak < 5 * half / 2, "{half} bytes at {} tokens, {peak} at {t}", t / 2);

    // The count sees a square where there is one.
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    let t = 1024;
    let batch = [ids(t)];
    let (x, inputs) = (model.embed(&batch).unwrap(), model.inputs(&batch, 0).unwrap());
    let largest = [false, true].map(|want_scores| {
        let mut pass = Pass { want_scores, ..Pass::new(Attend::Own) };
        counted(|| model.layer(0, &x, &inputs, &mut pass).unwrap()).1
    });
    assert!(largest[0] < 4 * t * t && largest[1] >= 4 * t * t, "{largest:?}");
}

/// The trained weights of a sidecar, without what its header says about time.
fn weights(path: &Path) -> Vec<u8> {
    Sidecar::open(path).unwrap().tensors().flat_map(|(_, _, bytes)| bytes.to_vec()).collect()
}

#[test]
fn a_step_of_training_indexers_stays_within_the_memory_allowed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let wide = IndexerShape { heads: 3, dim: 64, rope_dims: 16 };
    let small = IndexerShape { heads: 2, dim: 16, rope_dims: 8 };
    for (config, shape, targets, lm_lr) in [
        (gqa(), wide, Targets::Own, None),
        (gqa(), wide, Targets::Served, None),
        (mla(), small, Targets::Own, None),
        (mla(), small, Targets::Served, Some(1e-3)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), &config);
        let base = Checkpoint::open(dir.path()).unwrap();
        let layers = base.config().num_hidden_layers;
        let pattern = if targets == Targets::Own { "F".repeat(layers) } else { format!("F{}", "S".repeat(layers - 1)) };
        let seq_len = 512;
        let recipe = |rows| IndexerRecipe {
            seed: 1,
            base: String::new(),
            tokens: String::new(),
            pattern: pattern.parse().unwrap(),
            layers: (0..layers).filter(|&l| pattern.as_bytes()[l] == b'F').collect(),
            targets,
            seq_len,
            rows,
            steps: 1,
            sparse_steps: 1,
            lr: 1e-3,
            index_topk: 128,
            lm_lr,
            sparse_target: SparseTarget::default(),
        };
        let train = |recipe: IndexerRecipe, out: &str| {
            let texts = vec![("text".to_owned(), ids(4 * seq_len))];
            let written = dir.path().join(out);
            let ((), _, peak) = counted(|| {
                let (start, model, out) = (None, None, Some(written.as_path()));
                let setup = Setup { checkpoint: &base, recipe, shape, texts, start, out, model, resume: false };
                let mut run = IndexerRun::prepare(setup).unwrap();
                assert!(run.run(&false.into(), &mut |_| {}).unwrap());
                // Where the rest of the model learned, too, there is no sidecar to be read.
                if lm_lr.is_some() {
                    run.write(&written).unwrap();
                    run.discard_state().unwrap();
                }
            });
            (peak as u64, weights(&written))
        };
        let (fixed, per_row) = memory(&base, &recipe(1), shape);
        for rows in [16, 400] {
            let allowed = fixed + rows as u64 * per_row + per_row / 2;
            let mut limited = recipe(seq_len);
            limited.limit((fixed, per_row), Some(allowed)).unwrap();
            assert_eq!(limited.rows, rows);
            let (peak, trained) = train(limited, "limited");
            println!("{targets:?} {} {lm_lr:?} {rows} rows: {peak} of {allowed} bytes", config["model_type"]);
            assert!(peak <= allowed, "{rows} rows held {peak} bytes, but {allowed} are allowed");
            // A bound changes nothing but the number of rows.
            if rows == 16 {
                assert!(trained == train(recipe(rows), "asked").1);
            }
        }
        assert!(recipe(9).limit((fixed, per_row), Some(fixed + per_row - 1)).is_err());
    }
}
