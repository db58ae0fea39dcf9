//! The selected keys of a batch, which stay where they were chosen until somebody asks for them elsewhere.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Tensor};

use super::allowed::check;
use crate::domain::Selection;

/// What stands after the last key of a padded row.
const NONE: u32 = u32::MAX;

/// The selected keys of a batch of sequences: one ascending row per query, or one per query and group of heads, those of a
/// query after each other.
///
/// They are held as they were made: as one [`Selection`] per sequence, or as a padded tensor on a device. The other form
/// is made when it is first asked for, and kept. Clones share both.
#[derive(Clone, Debug)]
pub struct Indices(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    sets: OnceLock<Vec<Selection>>,
    /// `[B, queries, k]` u32, [`NONE`] after the last key of a row.
    padded: OnceLock<Tensor>,
    /// Rows of each query.
    groups: usize,
    /// Bytes of the form that was made first.
    bytes: usize,
}

impl From<Vec<Selection>> for Indices {
    fn from(sets: Vec<Selection>) -> Self {
        Self::grouped(sets, 1)
    }
}

impl Indices {
    /// Takes sets that have `groups` rows for each query.
    pub fn grouped(sets: Vec<Selection>, groups: usize) -> Self {
        let bytes = sets.iter().map(Selection::bytes).sum();
        Self(Arc::new(Forms { sets: OnceLock::from(sets), padded: OnceLock::new(), groups, bytes }))
    }

    /// Returns the rows of each query: one per group of heads where each selects for itself.
    pub fn groups(&self) -> usize {
        self.0.groups
    }

    /// Takes rows as a kernel leaves them: `[B, queries, k]` u32, ascending, u32's largest value after the last key.
    ///
    /// # Errors
    /// Where the tensor is not such a one.
    pub fn padded(rows: Tensor) -> Result<Self> {
        check(rows.rank() == 3 && rows.dtype() == DType::U32, "the padded selection")?;
        let bytes = rows.elem_count() * size_of::<u32>();
        Ok(Self(Arc::new(Forms { sets: OnceLock::new(), padded: OnceLock::from(rows), groups: 1, bytes })))
    }

    /// Returns the number of sequences.
    pub fn sequences(&self) -> usize {
        let forms = &self.0;
        forms.sets.get().map(Vec::len).or_else(|| forms.padded.get()?.dim(0).ok()).unwrap_or(0)
    }

    /// Returns the bytes of the form that was made first.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Returns the sets of every sequence, brought to the host if they are elsewhere.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn sets(&self) -> Result<&[Selection]> {
        if let Some(sets) = self.0.sets.get() {
            return Ok(sets);
        }
        let sets = match self.0.padded.get() {
            Some(rows) => {
                let (sequences, queries, topk) = rows.dims3()?;
                let new = |_| Selection::with_capacity(queries, topk);
                let mut sets: Vec<_> = (0..sequences).map(new).collect();
                for (n, set) in sets.iter_mut().enumerate() {
                    append(&rows.get(n)?, set)?;
                }
                sets
            }
            None => Vec::new(),
        };
        Ok(self.0.sets.get_or_init(|| sets))
    }

    /// Returns the sets of some queries of one sequence; only these are brought to the host.
    ///
    /// # Errors
    /// As [`Indices::pick`].
    pub fn picked(&self, sequence: usize, queries: &[usize]) -> Result<Selection> {
        let mut picked = Selection::default();
        self.pick(sequence, queries, &mut picked)?;
        Ok(picked)
    }

    /// Appends the sets of some queries of one sequence to others; only these are brought to the host.
    ///
    /// # Errors
    /// Where there is no such sequence, or the device fails.
    pub fn pick(&self, sequence: usize, queries: &[usize], to: &mut Selection) -> Result<()> {
        check(sequence < self.sequences(), "the selection")?;
        if let (None, Some(rows)) = (self.0.sets.get(), self.0.padded.get()) {
            let at = Tensor::from_iter(queries.iter().map(|&q| q as u32), rows.device())?;
            return append(&rows.get(sequence)?.index_select(&at, 0)?, to);
        }
        let (set, groups) = (&self.sets()?[sequence], self.groups());
        queries.iter().flat_map(|q| q * groups..(q + 1) * groups).for_each(|row| to.push(set.row(row)));
        Ok(())
    }

    /// Returns the same keys on the host, without what is kept of them on a device.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn on_host(&self) -> Result<Self> {
        if self.0.padded.get().is_none() {
            return Ok(self.clone());
        }
        Ok(Self::grouped(self.sets()?.to_vec(), self.groups()))
    }

    /// Returns padded rows `[B, queries, k]` on `device`, where row i has min(k, visible) of `keys` keys.
    ///
    /// # Errors
    /// Where a row has fewer keys, or the device fails.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn on(&self, device: &Device, keys: usize) -> Result<Tensor> {
        if let Some(rows) = self.0.padded.get() {
            return rows.to_device(device);
        }
        let sets = self.sets()?;
        let queries = sets.first().map_or(0, Selection::len);
        check(queries <= keys, "the selection")?;
        let topk = sets.iter().flat_map(Selection::rows).map(<[u32]>::len).max().unwrap_or(0).max(1);
        let mut rows = vec![NONE; sets.len() * queries * topk];
        for (set, rows) in sets.iter().zip(rows.chunks_mut((queries * topk).max(1))) {
            for (i, (set, row)) in set.rows().zip(rows.chunks_mut(topk)).enumerate() {
                let visible = keys + i + 1 - queries;
                if set.len() != topk.min(visible) || set.last().is_some_and(|&last| last as usize >= visible) {
                    candle_core::bail!(
                        "query {i} has {} keys, neither all {visible} that it sees nor k = {topk}",
                        set.len()
                    );
                }
                row[..set.len()].copy_from_slice(set);
            }
        }
        let rows = Tensor::from_vec(rows, (sets.len(), queries, topk), device)?;
        Ok(self.0.padded.get_or_init(|| rows).clone())
    }
}

/// Appends padded rows `[queries, k]`.
fn append(rows: &Tensor, to: &mut Selection) -> Result<()> {
    let topk = rows.dim(1)?;
    let keys = rows.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u32>()?;
    keys.chunks(topk.max(1)).for_each(|row| to.push(&row[..row.partition_point(|&key| key != NONE)]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{as_left, random_indices};

    #[test]
    fn both_forms_hold_the_same_keys() {
        for (t, keys, k) in [(1, 1, 1), (7, 7, 3), (9, 30, 40), (1, 20, 6)] {
            let made = random_indices(2, t, keys, k, 3);
            let left = as_left(&made, keys);
            assert_eq!((left.sequences(), made.sequences()), (2, 2));
            assert_eq!(left.sets().unwrap(), made.sets().unwrap());
            assert_eq!(left.on_host().unwrap().sets().unwrap(), made.sets().unwrap());
            assert_eq!(left.on(&Device::Cpu, keys).unwrap().dims(), [2, t, k.min(keys)]);
        }
    }

    #[test]
    fn the_other_form_is_made_only_when_asked_for_and_shared() {
        let left = as_left(&random_indices(2, 7, 9, 3, 3), 9);
        let (clone, bytes) = (left.clone(), left.bytes());
        let some = left.picked(1, &[6, 0]).unwrap();
        assert!(left.0.sets.get().is_none(), "only some rows were asked for");
        assert_eq!(some.rows().collect::<Vec<_>>(), [6, 0].map(|q| clone.sets().unwrap()[1].row(q)));
        assert!(left.0.sets.get().is_some());
        assert_eq!(left.picked(1, &[6, 0]).unwrap(), some);
        // What a budget was charged does not change.
        assert_eq!((left.bytes(), bytes), (2 * 7 * 3 * 4, 2 * 7 * 3 * 4));

        let made = random_indices(2, 7, 9, 3, 3);
        made.sets().unwrap();
        assert!(made.0.padded.get().is_none());
        made.clone().on(&Device::Cpu, 9).unwrap();
        assert!(made.0.padded.get().is_some(), "layers that share it upload it once");
        assert!(made.on_host().unwrap().0.padded.get().is_none());
    }

    #[test]
    fn queries_of_several_groups_are_picked_with_all_their_rows() {
        let mut set = Selection::default();
        (0..6u32).for_each(|row| set.push(&[row]));
        let grouped = Indices::grouped(vec![set], 2);
        let rows = |indices: &Indices| indices.picked(0, &[2, 0]).unwrap().rows().map(|row| row[0]).collect::<Vec<_>>();
        assert_eq!(rows(&grouped), [4, 5, 0, 1]);
        assert_eq!(rows(&grouped.on_host().unwrap()), [4, 5, 0, 1]);
    }

    #[test]
    fn what_is_no_selection_is_told() {
        let short = |rows: &[&[u32]]| {
            let mut set = Selection::default();
            rows.iter().for_each(|row| set.push(row));
            Indices::from(vec![set]).on(&Device::Cpu, rows.len())
        };
        assert!(short(&[&[0], &[0, 1], &[0, 1]]).is_ok());
        let error = short(&[&[0], &[1], &[0, 1]]).unwrap_err().to_string();
        assert!(error.contains("query 1 has 1 keys"), "{error}");
        assert!(short(&[&[1]]).is_err(), "the query does not see that key");
        let rows = Tensor::zeros((2, 3), DType::U32, &Device::Cpu).unwrap();
        assert!(Indices::padded(rows).is_err());
        let made = random_indices(2, 1, 1, 1, 1);
        assert!(made.picked(2, &[0]).is_err() && as_left(&made, 1).picked(2, &[0]).is_err());
    }
}
