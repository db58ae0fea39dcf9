//! Muon for hidden matrices, `AdamW` for everything else.
//!
//! Both work on plain slices, and all they remember lies in [`Param`], so that a saved run goes on bit for bit.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::params::{Kind, Param, Params};
use super::{OptimizerRecipe, TrainError};

/// Decay of Muon's momentum.
const MOMENTUM: f64 = 0.95;
/// Decay of `AdamW`'s two moments.
const BETAS: (f64, f64) = (0.9, 0.95);
/// Keeps `AdamW`'s divisor above 0.
const EPS: f64 = 1e-8;
/// Coefficients of the Newton–Schulz iteration (Jordan et al., "Muon", 2024).
const NEWTON_SCHULZ: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// Newton–Schulz iterations.
const ITERATIONS: usize = 5;

/// Gradients in the order of [`Params`]; `None` where a tensor is not trained.
pub type Gradients = Vec<Option<Vec<f32>>>;

/// Changes the weights by one step at `rate` times the recipe's learning rates.
///
/// Gradients are clipped by their norm first, indexers and the rest of the model apart.
///
/// # Errors
/// [`TrainError::Model`] where candle fails.
pub fn update(
    params: &mut Params,
    mut grads: Gradients,
    recipe: &OptimizerRecipe,
    rate: f64,
) -> Result<(), TrainError> {
    for indexers in [false, true] {
        let norm = norm(params, &grads, indexers);
        if norm > recipe.clip {
            let scale = (recipe.clip / norm) as f32;
            let of_group = |p: &Param| (p.kind == Kind::Indexer) == indexers;
            for (_, grad) in params.0.iter().zip(&mut grads).filter(|(p, _)| of_group(p)) {
                grad.iter_mut().flatten().for_each(|g| *g *= scale);
            }
        }
    }
    params.0.par_iter_mut().zip(grads).try_for_each(|(param, grad)| {
        let Some(grad) = grad else { return Ok(()) };
        param.updates += 1;
        match param.kind {
            Kind::Matrix => muon(param, &grad, rate * recipe.matrix_lr, recipe.weight_decay)?,
            Kind::Embedding | Kind::Router => adamw(param, &grad, rate * recipe.embedding_lr),
            Kind::Norm => adamw(param, &grad, rate * recipe.norm_lr),
            Kind::Indexer => adamw(param, &grad, rate * recipe.indexer_lr),
            Kind::Tuned => adamw(param, &grad, rate),
            Kind::Balance => {}
        }
        Ok(())
    })
}

/// Returns the norm of the gradients of all indexers, or of everything else.
pub fn norm(params: &Params, grads: &Gradients, indexers: bool) -> f64 {
    let squares = |grad: &Vec<f32>| grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
    let group = params.0.iter().zip(grads).filter(|(p, _)| (p.kind == Kind::Indexer) == indexers);
    group.filter_map(|(_, grad)| grad.as_ref()).map(squares).sum::<f64>().sqrt()
}

/// Changes a tensor by `AdamW` without decay.
fn adamw(param: &mut Param, grad: &[f32], lr: f64) {
    let t = param.updates as i32;
    let (c1, c2) = (1.0 - BETAS.0.powi(t), 1.0 - BETAS.1.powi(t));
    let moments = param.first.iter_mut().zip(&mut param.second);
    for ((w, g), (m, v)) in param.value.iter_mut().zip(grad).zip(moments) {
        let g = f64::from(*g);
        *m = (BETAS.0 * f64::from(*m) + (1.0 - BETAS.0) * g) as f32;
        *v = (BETAS.1 * f64::from(*v) + (1.0 - BETAS.1) * g * g) as f32;
        let step = (f64::from(*m) / c1) / ((f64::from(*v) / c2).sqrt() + EPS);
        *w -= (lr * step) as f32;
    }
}

/// Changes a matrix by Muon: Nesterov momentum, made orthogonal, scaled by √max(1, outputs / inputs).
fn muon(param: &mut Param, grad: &[f32], lr: f64, decay: f64) -> Result<(), TrainError> {
    let mut ahead = Vec::with_capacity(grad.len());
    for (m, g) in param.first.iter_mut().zip(grad) {
        *m = (MOMENTUM * f64::from(*m)) as f32 + g;
        ahead.push(g + (MOMENTUM * f64::from(*m)) as f32);
    }
    let (rows, columns) = (param.shape[0], param.shape[1]);
    let step = orthogonal(&Tensor::from_vec(ahead, (rows, columns), &Device::Cpu)?)?;
    let scale = lr * (rows as f64 / columns as f64).max(1.0).sqrt();
    let step = step.flatten_all()?.to_vec1::<f32>()?;
    for (w, s) in param.value.iter_mut().zip(step) {
        *w = (f64::from(*w) * (1.0 - lr * decay) - scale * f64::from(s)) as f32;
    }
    Ok(())
}

/// Returns a matrix with the singular vectors of `g` and singular values near 1, by Newton–Schulz.
fn orthogonal(g: &Tensor) -> Result<Tensor, TrainError> {
    let (rows, columns) = g.dims2()?;
    let norm = f64::from(g.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
    let mut x = (if rows > columns { g.t()?.contiguous()? } else { g.clone() } / (norm + 1e-7))?;
    let (a, b, c) = NEWTON_SCHULZ;
    for _ in 0..ITERATIONS {
        let xxt = x.matmul(&x.t()?)?;
        let poly = ((&xxt * b)? + (xxt.matmul(&xxt)? * c)?)?;
        x = ((&x * a)? + poly.matmul(&x)?)?;
    }
    Ok(if rows > columns { x.t()?.contiguous()? } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(kind: Kind, shape: &[usize], value: &[f32]) -> Param {
        Param::new("w".into(), shape.to_vec(), kind, value.to_vec())
    }

    fn recipe() -> OptimizerRecipe {
        let text = super::super::recipe::tests::RECIPE;
        super::super::Recipe::parse(text).unwrap().optimizer
    }

    fn close(got: &[f32], want: &[f64], tolerance: f64) {
        assert!(got.iter().zip(want).all(|(g, w)| (f64::from(*g) - w).abs() < tolerance), "{got:?} is not {want:?}");
    }

    #[test]
    fn adamw_follows_a_step_by_hand() {
        let mut p = param(Kind::Norm, &[2], &[1.0, -1.0]);
        p.updates = 1;
        adamw(&mut p, &[0.5, -2.0], 0.1);
        // The first step is lr · sign(g), whatever the gradient's size.
        close(&p.value, &[0.9, -0.9], 1e-6);
        p.updates = 2;
        adamw(&mut p, &[1.0, 0.0], 0.1);
        // m = 0.9·0.05 + 0.1·1 = 0.145, v = 0.95·0.0125 + 0.05·1 = 0.061875; m̂ = m/0.19, v̂ = v/0.0975.
        let first: f64 = (0.145 / 0.19) / (0.061_875f64 / 0.0975).sqrt();
        let second: f64 = (-0.18 / 0.19) / (0.19f64 / 0.0975).sqrt();
        close(&p.value, &[0.9 - 0.1 * first, -0.9 - 0.1 * second], 1e-6);
    }

    #[test]
    fn muon_follows_a_step_by_hand() {
        // A diagonal gradient stays diagonal, so the iteration can be followed number by number.
        let polynomial = |x: f64| 3.4445 * x - 4.7750 * x.powi(3) + 2.0315 * x.powi(5);
        let iterate = |x: f64| (0..5).fold(x, |x, _| polynomial(x));
        let mut p = param(Kind::Matrix, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        muon(&mut p, &[3.0, 0.0, 0.0, 4.0], 0.1, 0.5).unwrap();
        // Momentum and look-ahead only scale this first gradient: 3/5 and 4/5 remain after normalising.
        let want = [0.95 - 0.1 * iterate(0.6), 1.9, 2.85, 3.8 - 0.1 * iterate(0.8)];
        close(&p.value, &want, 1e-5);
        assert_eq!(p.first, [3.0, 0.0, 0.0, 4.0]);
        muon(&mut p, &[0.0, 0.0, 0.0, 0.0], 0.1, 0.5).unwrap();
        close(&p.first, &[2.85, 0.0, 0.0, 3.8], 1e-6);
    }

    #[test]
    fn muon_looks_ahead_along_its_momentum() {
        let polynomial = |x: f64| 3.4445 * x - 4.7750 * x.powi(3) + 2.0315 * x.powi(5);
        let iterate = |x: f64| (0..5).fold(x, |x, _| polynomial(x));
        let mut p = param(Kind::Matrix, &[2, 2], &[0.0; 4]);
        p.first = vec![3.0, 0.0, 0.0, 4.0];
        muon(&mut p, &[4.0, 0.0, 0.0, 0.0], 0.1, 0.0).unwrap();
        // m = 0.95 · (3, 4) + (4, 0) = (6.85, 3.8); Nesterov: (4, 0) + 0.95 m = (10.5075, 3.61).
        let norm = 10.5075f64.hypot(3.61);
        close(&p.first, &[6.85, 0.0, 0.0, 3.8], 1e-6);
        close(&p.value, &[-0.1 * iterate(10.5075 / norm), 0.0, 0.0, -0.1 * iterate(3.61 / norm)], 1e-5);
    }

    #[test]
    fn muon_takes_larger_steps_where_there_are_more_outputs_than_inputs() {
        let iterate = |x: f64| (0..5).fold(x, |x, _| 3.4445 * x - 4.7750 * x.powi(3) + 2.0315 * x.powi(5));
        // One singular value, which is 1 after normalising; the scale is √max(1, rows / columns).
        for (shape, scale) in [([2, 1], 2f64.sqrt()), ([1, 2], 1.0)] {
            let mut p = param(Kind::Matrix, &shape, &[0.0; 2]);
            muon(&mut p, &[3.0, 4.0], 0.1, 0.0).unwrap();
            let step = 0.1 * scale * iterate(1.0);
            close(&p.value, &[-step * 0.6, -step * 0.8], 1e-5);
        }
    }

    #[test]
    fn orthogonal_makes_singular_values_one_in_both_shapes() {
        let tall: Vec<f32> = (0..12).map(|i| ((i * i * 7 + i) % 11) as f32 - 5.0).collect();
        let g = Tensor::from_vec(tall, (4, 3), &Device::Cpu).unwrap();
        let x = orthogonal(&g).unwrap();
        let gram: Vec<Vec<f32>> = x.t().unwrap().matmul(&x).unwrap().to_vec2().unwrap();
        for (i, row) in gram.iter().enumerate() {
            for (j, v) in row.iter().enumerate() {
                let off = if i == j { (v - 1.0).abs() } else { v.abs() };
                assert!(off < 0.6, "{gram:?}");
            }
        }
        let wide = orthogonal(&g.t().unwrap().contiguous().unwrap()).unwrap();
        let same: Vec<f32> = (wide.t().unwrap() - x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(same.iter().all(|d| d.abs() < 1e-5));
    }

    #[test]
    fn groups_are_clipped_apart_and_untrained_tensors_stay() {
        let kinds = [Kind::Norm, Kind::Indexer, Kind::Norm];
        let mut params = Params(kinds.iter().map(|k| param(*k, &[2], &[0.0, 0.0])).collect());
        let grads = vec![Some(vec![30.0, 40.0]), Some(vec![0.3, 0.4]), None];
        assert_eq!((norm(&params, &grads, false), (norm(&params, &grads, true) * 10.0).round()), (50.0, 5.0));
        update(&mut params, grads, &recipe(), 0.5).unwrap();
        close(&params.0[0].first, &[0.06, 0.08], 1e-7);
        close(&params.0[1].first, &[0.03, 0.04], 1e-7);
        close(&params.0[0].value, &[-0.005, -0.005], 1e-6);
        assert_eq!((params.0[2].updates, params.0[2].value.as_slice()), (0, &[0.0f32, 0.0][..]));
    }
}
