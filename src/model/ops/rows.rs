//! How the rows of a tensor lie in memory, for kernels that go through them 16 bytes at a time.

use candle_core::Layout;

/// Rows of the last dimension, equally far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// How many.
    pub count: usize,
    /// Elements of each.
    pub width: usize,
    /// Elements from the beginning of one to that of the next.
    pub apart: usize,
    /// Where the first begins.
    pub start: usize,
}

impl Rows {
    /// Returns how rows of two-byte elements lie; `None` where they are not equally far apart, or do not all begin and end
    /// at a multiple of 16 bytes.
    pub(super) fn of(layout: &Layout) -> Option<Self> {
        let (dims, strides, start) = (layout.dims(), layout.stride(), layout.start_offset());
        let ((&width, outer), (&one, outer_strides)) = (dims.split_last()?, strides.split_last()?);
        // Distances of dimensions that have more than one entry, innermost first; each must be the whole of the one inside.
        let mut rows = outer.iter().zip(outer_strides).rev().filter(|(n, _)| **n > 1);
        let (mut count, mut apart) = (1, width);
        if let Some((&n, &stride)) = rows.next() {
            (count, apart) = (n, stride);
        }
        for (&n, &stride) in rows {
            if stride != count * apart {
                return None;
            }
            count *= n;
        }
        let even = [width, apart, start].iter().all(|n| n.is_multiple_of(8));
        let some = width > 0 && outer.iter().all(|&n| n > 0);
        (even && some && (one == 1 || width == 1) && apart >= width).then_some(Self { count, width, apart, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::random;

    #[test]
    fn parts_of_rows_are_rows_and_turned_ones_are_not() {
        let x = random(&[2, 3, 40], 1);
        let rows = |x: &candle_core::Tensor| Rows::of(x.layout());
        assert_eq!(rows(&x), Some(Rows { count: 6, width: 40, apart: 40, start: 0 }));
        let part = x.narrow(2, 8, 16).unwrap();
        assert_eq!(rows(&part), Some(Rows { count: 6, width: 16, apart: 40, start: 8 }));
        assert_eq!(
            rows(&part.narrow(0, 1, 1).unwrap().squeeze(0).unwrap()),
            Some(Rows { count: 3, width: 16, apart: 40, start: 128 })
        );
        assert_eq!(rows(&x.narrow(1, 2, 1).unwrap()), Some(Rows { count: 2, width: 40, apart: 120, start: 80 }));
        // Of several sequences some tokens each: no one distance.
        assert_eq!(rows(&x.narrow(1, 0, 2).unwrap()), None);
        assert_eq!(rows(&x.transpose(0, 1).unwrap()), None);
        assert_eq!(rows(&x.transpose(1, 2).unwrap()), None);
        assert_eq!(rows(&x.narrow(2, 4, 16).unwrap()), None, "not at 16 bytes");
        assert_eq!(rows(&x.narrow(2, 0, 12).unwrap()), None);
        assert_eq!(rows(&random(&[1, 1, 8], 2).broadcast_as((4, 1, 8)).unwrap()), None);
        assert_eq!(rows(&random(&[24], 2)), Some(Rows { count: 1, width: 24, apart: 24, start: 0 }));
    }
}
