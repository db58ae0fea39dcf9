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
    /// One column; half a row is the mean of so many layers. Columns are never pooled: they are those of the strip.
    Pooled(u16),
}

/// All sizes, the largest first.
const SIZES: [Cell; 16] = [
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
    Cell::Pooled(5),
    Cell::Pooled(6),
    Cell::Pooled(7),
    Cell::Pooled(8),
];

impl Cell {
    /// Returns the largest size in which all `layers` fit into `width`×`height`, or the smallest there is.
    ///
    /// Where there are fewer columns than layers, a part of the columns is seen at a time.
    pub fn fit(layers: usize, width: u16, height: u16) -> Self {
        let columns = layers.min(width as usize);
        SIZES
            .into_iter()
            .find(|c| {
                let (w, h) = (c.whole(columns).0, c.whole(layers).1);
                w <= width as usize && h <= height as usize
            })
            .unwrap_or(Self::Pooled(8))
    }

    /// Returns the size that is so many steps larger, or smaller for negative steps, of which at least one layer fits into
    /// `width`×`height`.
    pub fn zoomed(self, steps: i8, width: u16, height: u16) -> Self {
        let at = SIZES.iter().position(|c| *c == self).unwrap_or(SIZES.len() - 1) as i32;
        let at = (at - i32::from(steps)).clamp(0, SIZES.len() as i32 - 1) as usize;
        let fits = |c: &&Self| matches!(c, Self::Block { w, h } if *w <= width && *h <= height);
        SIZES[at..].iter().find(|c| c.columns() == 1 || fits(c)).copied().unwrap_or(self)
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

    /// Returns the columns per layer.
    pub fn columns(self) -> u16 {
        match self {
            Self::Block { w, .. } => w,
            Self::Half | Self::Pooled(_) => 1,
        }
    }

    /// Returns how many layers fit into so many columns, and into so many rows.
    pub fn layers(self, width: u16, height: u16) -> (usize, usize) {
        match self {
            Self::Block { w, h } => ((width / w) as usize, (height / h) as usize),
            Self::Half => (width as usize, 2 * height as usize),
            Self::Pooled(k) => (width as usize, (2 * height * k) as usize),
        }
    }

    /// Returns whether several layers share half a row.
    pub fn is_pooled(self) -> bool {
        matches!(self, Self::Pooled(_))
    }

    fn whole(self, layers: usize) -> (usize, usize) {
        match self {
            Self::Block { w, h } => (layers * w as usize, layers * h as usize),
            Self::Half => (layers, layers.div_ceil(2)),
            Self::Pooled(k) => (layers, layers.div_ceil(2 * k as usize)),
        }
    }
}
