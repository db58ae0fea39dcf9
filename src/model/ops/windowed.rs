//! Attention over the last tokens and over compressed entries, with a sink: the heads have one row per token, and per
//! entry, that is key and value; no gradient in the fast form.
//!
//! out[n] = Σ_j p[n,j] row[j],  p[n,j] = e^(scale · q[n]·row[j]) / (e^sink[n] + Σ_j e^(scale · q[n]·row[j]))

use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

use super::allowed::check;
use super::shared_rows::{Query, Rows, Scratch};
use super::stop::Stop;
use super::storage::with_floats;
use super::{Indices, MASKED};
use crate::domain::Selection;

/// Query rows per task.
const ROWS: usize = 32;

/// The operands of one attention; the queries are those of all tokens.
#[derive(Clone, Copy, Debug)]
pub struct Windowed<'a> {
    /// `[B, T, heads · dim]`.
    pub q: &'a Tensor,
    /// `[B, T, dim]`.
    pub rows: &'a Tensor,
    /// `[B, n, dim]`; `None` for no entry.
    pub entries: Option<&'a Tensor>,
    /// `[heads]`, not scaled.
    pub sinks: &'a Tensor,
    /// Tokens that a query sees, itself included.
    pub window: usize,
    /// Factor on dot products.
    pub scale: f64,
}

/// Which entries a query reads.
#[derive(Clone, Copy, Debug)]
pub enum Entries<'a> {
    /// No entry.
    None,
    /// Every entry of so many tokens that is complete.
    Complete(usize),
    /// These.
    Selected(&'a Indices),
}

impl Entries<'_> {
    fn sets(&self) -> Result<Option<&[Selection]>> {
        if let Self::Selected(indices) = self { indices.sets().map(Some) } else { Ok(None) }
    }

    /// Calls `each` with the entries that query `i` of sequence `n` reads, of `count` that there are.
    fn each(self, sets: Option<&[Selection]>, (n, i): (usize, usize), count: usize, mut each: impl FnMut(u32)) {
        match self {
            Self::None => {}
            Self::Complete(rate) => (0..((i + 1) / rate.max(1)).min(count)).for_each(|e| each(e as u32)),
            Self::Selected(_) => sets.map_or(&[][..], |sets| sets[n].row(i)).iter().for_each(|&e| each(e)),
        }
    }
}

/// Attends: `[B, T, heads · dim]`; only the rows that a query sees are read.
///
/// # Errors
/// Where shapes disagree or a tensor is not f32 on the CPU.
pub fn windowed(operands: Windowed, entries: Entries, stop: Stop) -> Result<Tensor> {
    let Windowed { q, rows, sinks, window, scale, .. } = operands;
    let ((b, t, width), dim, count) = sizes(operands, entries)?;
    let all = match operands.entries {
        Some(entries) => Tensor::cat(&[rows, entries], 1)?,
        None => rows.clone(),
    };
    let sets = entries.sets()?;
    let mut out = vec![0.0; b * t * width];
    with_floats(q, |q| {
        with_floats(&all, |all| {
            with_floats(sinks, |sinks| {
                let blocks: Vec<(usize, usize, &mut [f32])> = out
                    .chunks_mut((t * width).max(1))
                    .enumerate()
                    .flat_map(|(n, rows)| {
                        rows.chunks_mut(ROWS * width).enumerate().map(move |(i, block)| (n, i * ROWS, block))
                    })
                    .collect();
                blocks.into_par_iter().for_each(|(n, start, out)| {
                    if stop.asked() {
                        return;
                    }
                    let rows = Rows::new(&all[n * (t + count) * dim..][..(t + count) * dim], dim);
                    let (mut scratch, mut selected) = (Scratch::default(), Vec::new());
                    for (out, i) in out.chunks_mut(width).zip(start..) {
                        selected.clear();
                        selected.extend((i + 1).saturating_sub(window) as u32..=i as u32);
                        entries.each(sets, (n, i), count, |e| selected.push(t as u32 + e));
                        pulp::Arch::new().dispatch(Query {
                            q: &q[(n * t + i) * width..][..width],
                            keys: [rows, Rows::new(&[], 0)],
                            values: rows,
                            selected: &selected,
                            sinks,
                            scale: scale as f32,
                            scratch: &mut scratch,
                            out,
                        });
                    }
                });
                Ok(())
            })
        })
    })?;
    Tensor::from_vec(out, (b, t, width), q.device())
}

/// The same in candle's stock ops, with every row scored and the others masked: the oracle, and the form for other
/// devices.
///
/// # Errors
/// Where shapes disagree.
pub fn windowed_plain(operands: Windowed, entries: Entries) -> Result<Tensor> {
    let Windowed { q, rows, sinks, window, scale, .. } = operands;
    let ((b, t, width), dim, count) = sizes(operands, entries)?;
    let (heads, keys) = (width / dim, t + count);
    let all = match operands.entries {
        Some(entries) => Tensor::cat(&[rows, entries], 1)?,
        None => rows.clone(),
    };
    let sets = entries.sets()?;
    let mut mask = vec![0u8; b * t * keys];
    for (row, at) in mask.chunks_mut(keys.max(1)).zip(0..) {
        let (n, i) = (at / t, at % t);
        row[(i + 1).saturating_sub(window)..=i].fill(1);
        entries.each(sets, (n, i), count, |e| row[t + e as usize] = 1);
    }
    let mask = Tensor::from_vec(mask, (b, t, 1, keys), q.device())?.broadcast_as((b, t, heads, keys))?;
    let scores = (q.reshape((b, t * heads, dim))?.matmul(&all.transpose(1, 2)?.contiguous()?)? * scale)?;
    let scores = scores.reshape((b, t, heads, keys))?;
    let scores = mask.where_cond(&scores, &Tensor::full(MASKED, scores.shape(), q.device())?)?;
    let sinks = sinks.to_dtype(DType::F32)?.reshape((1, 1, heads, 1))?.broadcast_as((b, t, heads, 1))?;
    let p = candle_nn::ops::softmax(&Tensor::cat(&[&scores, &sinks.contiguous()?], 3)?, D::Minus1)?;
    let p = p.narrow(3, 0, keys)?.contiguous()?.reshape((b, t * heads, keys))?;
    p.matmul(&all)?.reshape((b, t, width))
}

/// Checks the operands and returns (B, T, heads · dim), dim and the number of entries.
fn sizes(operands: Windowed, entries: Entries) -> Result<((usize, usize, usize), usize, usize)> {
    let Windowed { q, rows, sinks, window, .. } = operands;
    let ((b, t, width), dim) = (q.dims3()?, rows.dim(2)?);
    check(window > 0 && rows.dims() == [b, t, dim] && width == sinks.dim(0)? * dim, "q, the rows or the sinks")?;
    let count = match operands.entries {
        Some(entries) => {
            let (of, count, wide) = entries.dims3()?;
            check(of == b && wide == dim, "the entries")?;
            count
        }
        None => 0,
    };
    if let Some(sets) = entries.sets()? {
        let inside = |s: &Selection| s.rows().all(|row| row.last().is_none_or(|&e| (e as usize) < count));
        check(sets.len() == b && sets.iter().all(|s| s.len() == t && inside(s)), "the selection of entries")?;
    }
    Ok(((b, t, width), dim, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random};

    #[test]
    fn both_forms_agree_over_windows_entries_and_sinks() {
        for (heads, t, dim, window, rate, k) in [
            (1, 1, 4, 1, 4, 1),
            (3, 40, 7, 5, 4, 3),
            (9, 70, 16, 100, 3, 2),
            (2, 33, 5, 1, 33, 1),
            (5, 64, 20, 11, 4, 99),
        ] {
            let n = t / rate;
            let (q, rows) = (random(&[2, t, heads * dim], 1), random(&[2, t, dim], 2));
            let entries = (n > 0).then(|| random(&[2, n, dim], 3));
            let sinks = random(&[heads], 4);
            let operands =
                Windowed { q: &q, rows: &rows, entries: entries.as_ref(), sinks: &sinks, window, scale: 0.7 };
            let mut set = Selection::default();
            for i in 0..t {
                let seen: Vec<u32> = (0..((i + 1) / rate) as u32).collect();
                set.push(&seen[seen.len().saturating_sub(k)..]);
            }
            let indices = Indices::from(vec![set.clone(), set]);
            for seen in [Entries::None, Entries::Complete(rate), Entries::Selected(&indices)] {
                let want = windowed_plain(operands, seen).unwrap();
                assert_close(&windowed(operands, seen, Stop::NEVER).unwrap(), &want, 3e-6);
            }
        }
    }

    #[test]
    fn an_entry_that_is_not_there_is_refused() {
        let (q, rows, sinks) = (random(&[1, 2, 3], 1), random(&[1, 2, 3], 2), random(&[1], 3));
        let operands = Windowed { q: &q, rows: &rows, entries: None, sinks: &sinks, window: 2, scale: 1.0 };
        let mut set = Selection::default();
        set.push(&[]);
        set.push(&[0]);
        let indices = Indices::from(vec![set]);
        assert!(windowed(operands, Entries::Selected(&indices), Stop::NEVER).is_err());
        assert!(windowed_plain(operands, Entries::Selected(&indices)).is_err());
    }
}
