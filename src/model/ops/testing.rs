//! Helpers of the ops' tests: seeded tensors, comparison of values and of gradients.

use candle_core::{Device, Tensor, Var};

use super::{Indices, top_k_row};
use crate::domain::{Rng, Selection};

/// Seeded numbers, uniform in −1..1.
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut rng = Rng::from_state(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    move || (rng.next_u64() >> 40) as f32 / 8_388_608.0 - 1.0
}

pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut next = noise(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Random sets of `k` visible keys for the last `t` of `keys` positions.
pub(crate) fn random_indices(b: usize, t: usize, keys: usize, k: usize, seed: u64) -> Indices {
    let mut next = noise(seed);
    let selections = (0..b).map(|_| {
        let mut selection = Selection::default();
        for i in 0..t {
            let scores: Vec<f32> = (0..=keys - t + i).map(|_| next()).collect();
            top_k_row(&scores, k, &mut Vec::new(), &mut selection);
        }
        selection
    });
    selections.collect::<Vec<_>>().into()
}

/// The same keys as a kernel would leave them on a device.
pub(crate) fn as_left(indices: &Indices, keys: usize) -> Indices {
    let rows = Indices::from(indices.sets().unwrap().to_vec()).on(&Device::Cpu, keys).unwrap();
    Indices::padded(rows).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    for (i, (x, y)) in values(a).iter().zip(values(b)).enumerate() {
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "element {i}: {x} is not {y}");
    }
}

/// Compares the gradients of Σ weights·f(x) under two forms of the same function, for every input; `tolerance` is of an
/// input's largest gradient.
pub(crate) fn assert_gradients(
    inputs: &[Tensor],
    fused: impl Fn(&[Tensor]) -> Tensor,
    plain: impl Fn(&[Tensor]) -> Tensor,
    tolerance: f32,
) {
    let gradients = |f: &dyn Fn(&[Tensor]) -> Tensor| {
        let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let out = f(&tensors);
        let weights = random(out.dims(), 99);
        let grads = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        tensors.iter().map(|t| grads.get(t).expect("every input gets a gradient").clone()).collect::<Vec<_>>()
    };
    for (input, (a, b)) in gradients(&fused).iter().zip(gradients(&plain)).enumerate() {
        assert_eq!(a.dims(), b.dims());
        let largest = values(&b).iter().fold(0f32, |largest, g| largest.max(g.abs()));
        assert!(largest > 0.0, "input {input} has no gradient");
        for (i, (x, y)) in values(a).iter().zip(values(&b)).enumerate() {
            assert!((x - y).abs() <= tolerance * largest, "input {input}, element {i}: {x} is not {y}, of {largest}");
        }
    }
}
