//! How large one layer is drawn in the matrix.

/// The size of one layer; a terminal cell is about twice as high as wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// So many columns and rows; three columns and more hold a number.
    Block {
        /// Columns.
        w: u16,
        /// Rows.
        h: u16,
    },
    /// One column and half a row.
    Half,
    /// The mean of so many layers in one column and half a row.
    Pooled(u16),
}

/// All sizes, the largest first.
const SIZES: [Cell; 12] = [
    Cell::Block { w: 8, h: 4 },
    Cell::Block { w: 8, h: 3 },
    Cell::Block { w: 6, h: 3 },
    Cell::Block { w: 6, h: 2 },
    Cell::Block { w: 4, h: 2 },
    Cell::Block { w: 4, h: 1 },
    Cell::Block { w: 3, h: 1 },
    Cell::Block { w: 2, h: 1 },
    Cell::Half,
    Cell::Pooled(2),
    Cell::Pooled(3),
    Cell::Pooled(4),
];

impl Cell {
    /// Returns the largest size in which all `layers` fit into `width`×`height`, or the smallest there is.
    pub fn fit(layers: usize, width: u16, height: u16) -> Self {
        SIZES
            .into_iter()
            .find(|c| {
                let (w, h) = c.whole(layers);
                w <= width as usize && h <= height as usize
            })
            .unwrap_or(Self::Pooled(4))
    }

    /// Returns the size that is so many steps larger, or smaller for negative steps.
    pub fn zoomed(self, steps: i8) -> Self {
        let at = SIZES.iter().position(|c| *c == self).unwrap_or(SIZES.len() - 1) as i32;
        SIZES[(at - i32::from(steps)).clamp(0, SIZES.len() as i32 - 1) as usize]
    }

    /// Returns columns and rows drawn for `layers` layers within `width`×`height`, in whole layers.
    pub fn size(self, layers: usize, width: u16, height: u16) -> (u16, u16) {
        let (w, h) = self.whole(layers);
        let (step_w, step_h) = match self {
            Self::Block { w, h } => (w, h),
            _ => (1, 1),
        };
        ((w.min(width as usize) as u16 / step_w * step_w), (h.min(height as usize) as u16 / step_h * step_h))
    }

    /// Returns the columns per layer; `None` where a column stands for several layers.
    pub fn columns(self) -> Option<u16> {
        match self {
            Self::Block { w, .. } => Some(w),
            Self::Half => Some(1),
            Self::Pooled(_) => None,
        }
    }

    /// Returns how many layers fit into so many columns, and into so many rows.
    pub fn layers(self, width: u16, height: u16) -> (usize, usize) {
        match self {
            Self::Block { w, h } => ((width / w) as usize, (height / h) as usize),
            Self::Half => (width as usize, 2 * height as usize),
            Self::Pooled(k) => ((width * k) as usize, (2 * height * k) as usize),
        }
    }

    /// Returns whether several layers share one column.
    pub fn is_pooled(self) -> bool {
        matches!(self, Self::Pooled(_))
    }

    fn whole(self, layers: usize) -> (usize, usize) {
        match self {
            Self::Block { w, h } => (layers * w as usize, layers * h as usize),
            Self::Half => (layers, layers.div_ceil(2)),
            Self::Pooled(k) => (layers.div_ceil(k as usize), layers.div_ceil(2 * k as usize)),
        }
    }
}
