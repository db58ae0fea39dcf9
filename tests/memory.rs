//! Memory of a fast evaluation, counted by the allocator: no allocation of T² elements, and growth linear in T.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::{DType, Device};
use indexscope::checkpoint::{Checkpoint, Config, demands, indexer_tensors};
use indexscope::domain::Subject;
use indexscope::engine::{
    Backend, Calibration, Cancel, DeviceChoice, DtypeChoice, LocalBackend, Placement, Sequence, Settings,
};
use indexscope::model::{Attend, Model, Pass};
use serde_json::{Value, json};

/// The system's allocator, with the bytes held, the most held, and the largest allocation.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

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

/// Writes a random checkpoint with one dense and one sparse layer, both with indexers of k = 64.
fn generate(dir: &Path) {
    let config = json!({
        "model_type": "glm_moe_dsa", "vocab_size": 384, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32,
        "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
        "index_topk": 64, "index_n_heads": 2, "index_head_dim": 16, "max_position_embeddings": 4096,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = Config::parse(&config.to_string()).unwrap();
    let indexers = (0..config.num_hidden_layers).flat_map(|l| indexer_tensors(&config, l));
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

/// One test, because the counts are the process's.
#[test]
fn a_fast_evaluation_holds_no_square_of_its_context() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let evaluate = |t: usize| {
        let calibration = Calibration::new(vec![Sequence::of(ids(t))], "test", 384).unwrap();
        let placement = Placement::open(DeviceChoice::Cpu, None::<DtypeChoice>).unwrap();
        let settings = Settings { cache_bytes: 0, ..Settings::new(placement) };
        let mut backend = LocalBackend::load(&checkpoint, calibration, settings).unwrap();
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
    let (x, rotary) = (model.embed(&[ids(t)]).unwrap(), model.rope(t).unwrap());
    let largest = [false, true].map(|want_scores| {
        let mut pass = Pass { want_scores, ..Pass::new(Attend::Own) };
        counted(|| model.layer(0, &x, &rotary, &mut pass).unwrap()).1
    });
    assert!(largest[0] < 4 * t * t && largest[1] >= 4 * t * t, "{largest:?}");
}
