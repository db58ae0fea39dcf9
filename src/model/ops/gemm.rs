//! Strided matrix products on slices, checked against their bounds.

use gemm::Parallelism;

/// A strided view of a matrix: element (r, c) lies at `r · row + c · col`.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

fn last(rows: usize, cols: usize, row: usize, col: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 }
}

impl<'a> Mat<'a> {
    /// Views `data` as `rows` rows of `cols` adjacent values, `row` apart.
    pub(super) fn new(data: &'a [f32], rows: usize, cols: usize, row: usize) -> Self {
        assert!(last(rows, cols, row, 1) <= data.len(), "the matrix reaches beyond its slice");
        Self { data, rows, cols, row, col: 1 }
    }

    /// Returns the transposed view.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// dst = (if `add` { dst } else { 0 }) + scale · a·b, single-threaded; `dst` has rows `row` apart.
///
/// # Panics
/// Where shapes disagree or `dst` is too short.
#[allow(unsafe_code)]
pub(super) fn matmul(dst: &mut [f32], row: usize, a: Mat, b: Mat, scale: f32, add: bool) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    assert!(last(a.rows, b.cols, row, 1) <= dst.len(), "the product reaches beyond its slice");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    // SAFETY: `Mat::new` and the assertion above keep every access inside the three slices, and `dst` is borrowed
    // mutably, so that it cannot alias `a` or `b`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            dst.as_mut_ptr(),
            1,
            row as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_transposes_and_accumulation() {
        // a is the left 2×2 part of a 2×3 buffer; b is given transposed.
        let (a, b) = ([1.0, 2.0, 9.0, 3.0, 4.0, 9.0], [5.0, 7.0, 6.0, 8.0]);
        let mut out = [10.0f32; 6];
        matmul(&mut out, 3, Mat::new(&a, 2, 2, 3), Mat::new(&b, 2, 2, 2).t(), 0.5, true);
        assert_eq!(out, [19.5, 21.0, 10.0, 31.5, 35.0, 10.0]);
        matmul(&mut out, 3, Mat::new(&a, 2, 2, 3), Mat::new(&b, 2, 2, 2).t(), 1.0, false);
        assert_eq!(out, [19.0, 22.0, 10.0, 43.0, 50.0, 10.0]);
    }
}
