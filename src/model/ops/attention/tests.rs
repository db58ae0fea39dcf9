//! The masked op against its plain form, values and gradients.

use super::*;
use crate::model::ops::testing::{assert_close, assert_gradients, random, random_indices};
use candle_core::Device;

const SHAPE: MlaShape = MlaShape { heads: 3, nope: 5, rope: 4, value: 6 };
/// Two heads of keys and values for six of queries, nothing in common.
const GROUPED: MlaShape = MlaShape { heads: 6, nope: 5, rope: 0, value: 4 };

fn operands(shape: MlaShape, b: usize, t: usize, keys: usize) -> [Tensor; 3] {
    let MlaShape { heads, nope, rope, value } = shape;
    let (q, kv) = (heads * (nope + rope), if rope > 0 { heads } else { 2 } * (nope + value));
    [random(&[b, t, q], 1), random(&[b, keys, kv], 2), random(&[b, keys, rope], 3)]
}

#[test]
fn fused_and_plain_agree() {
    for (b, t, keys) in [(1, 1, 1), (2, 7, 7), (1, 64, 64), (2, 131, 131), (1, 1, 90), (2, 66, 100)] {
        for shape in [SHAPE, GROUPED] {
            let [q, kv, r] = operands(shape, b, t, keys);
            for allowed in [Allowed::Causal, Allowed::Selected(random_indices(b, t, keys, 5, 7))] {
                let (x, p) = mla_attention(&q, &kv, &r, shape, 0.3, &allowed, true).unwrap();
                let (y, o) = plain(&q, &kv, &r, shape, 0.3, &allowed, true).unwrap();
                assert_close(&x, &y, 2e-6);
                assert_close(&p.unwrap(), &o.unwrap(), 2e-6);
            }
        }
    }
}

#[test]
fn gradients_agree_with_the_plain_form() {
    for allowed in [Allowed::Causal, Allowed::Selected(random_indices(2, 70, 75, 9, 7))] {
        let [q, kv, r] = operands(SHAPE, 2, 70, 75);
        assert_gradients(
            &[q, kv, r],
            |x| mla_attention(&x[0], &x[1], &x[2], SHAPE, 0.3, &allowed, false).unwrap().0,
            |x| plain(&x[0], &x[1], &x[2], SHAPE, 0.3, &allowed, false).unwrap().0,
            1e-5,
        );
        let [q, kv, r] = operands(GROUPED, 2, 70, 75);
        assert_gradients(
            &[q, kv],
            |x| mla_attention(&x[0], &x[1], &r, GROUPED, 0.3, &allowed, false).unwrap().0,
            |x| plain(&x[0], &x[1], &r, GROUPED, 0.3, &allowed, false).unwrap().0,
            1e-5,
        );
    }
}

#[test]
fn a_selection_of_another_length_is_refused() {
    let [q, kv, r] = operands(SHAPE, 1, 8, 8);
    let allowed = Allowed::Selected(random_indices(1, 7, 7, 3, 1));
    assert!(mla_attention(&q, &kv, &r, SHAPE, 1.0, &allowed, false).is_err());
    assert!(q.device().same_device(&Device::Cpu));
}
