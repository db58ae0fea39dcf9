//! The sequences on which patterns are judged.

use crate::domain::{TopK, hash_ids};

/// One sequence of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The token ids.
    pub ids: Vec<u32>,
    /// Which tokens are scored as targets, one entry per id; `None` scores all. The first is never a target.
    pub mask: Option<Vec<bool>>,
    /// Bytes of text that the scored targets stand for; `None` for bare ids.
    pub bytes: Option<usize>,
    /// Number of its cluster: sequences of one cluster depend on each other, those of different ones do not.
    ///
    /// Sequences of one document are one cluster, and so is a text that is taken piece after piece; a piece that was
    /// drawn from far away is its own.
    pub cluster: usize,
}

impl Sequence {
    /// Returns an unmasked sequence of bare ids.
    pub fn of(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }

    /// Iterates over the positions of scored queries: position p is scored by how well it predicts token p + 1.
    pub fn queries(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.ids.len().saturating_sub(1)).filter(|&p| self.mask.as_ref().is_none_or(|m| m[p + 1]))
    }

    /// Keeps the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        if len < self.ids.len() {
            self.ids.truncate(len);
            self.bytes = None;
            if let Some(mask) = &mut self.mask {
                mask.truncate(len);
            }
        }
    }
}

/// What a set of random tokens is called.
pub const RANDOM_TOKENS: &str = "random tokens";

/// A fixed set of sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    sequences: Vec<Sequence>,
    data: String,
    documents: Option<usize>,
}

impl Calibration {
    /// Checks and takes sequences; `data` says what they are, such as [`RANDOM_TOKENS`].
    ///
    /// # Errors
    /// One sentence, where there is nothing to score, a mask has another length, or an id is outside the vocabulary.
    pub fn new(sequences: Vec<Sequence>, data: impl Into<String>, vocab_size: usize) -> Result<Self, String> {
        for (i, sequence) in sequences.iter().enumerate() {
            if let Some(mask) = sequence.mask.as_ref().filter(|m| m.len() != sequence.ids.len()) {
                return Err(format!("sequence {i} has {} ids but a mask of {}", sequence.ids.len(), mask.len()));
            }
            if sequence.ids.is_empty() {
                return Err(format!("sequence {i} is empty"));
            }
            if let Some(id) = sequence.ids.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(format!("sequence {i} has token id {id}, outside the vocabulary of {vocab_size}"));
            }
        }
        if sequences.iter().all(|s| s.queries().next().is_none()) {
            return Err("there is no target to score: a sequence needs at least two tokens".to_owned());
        }
        Ok(Self { sequences, data: data.into(), documents: None })
    }

    /// Returns the set with the number of documents that it is of; `None` where they are not known.
    #[must_use]
    pub fn of_documents(self, documents: Option<usize>) -> Self {
        Self { documents, ..self }
    }

    /// Returns the number of documents that the sequences are of, where they are known.
    pub fn documents(&self) -> Option<usize> {
        self.documents
    }

    /// Returns the sequences.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Returns what the set is made of.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Returns the number of clusters of its sequences.
    pub fn clusters(&self) -> usize {
        self.sequences.iter().map(|s| s.cluster).collect::<std::collections::HashSet<_>>().len()
    }

    /// Returns the number of scored targets.
    pub fn targets(&self) -> usize {
        self.sequences.iter().map(|s| s.queries().count()).sum()
    }

    /// Returns the number of scored targets whose query sees more than k units.
    pub fn eligible(&self, topk: TopK) -> usize {
        self.sequences.iter().map(|s| s.queries().filter(|&p| topk.counts(p)).count()).sum()
    }

    /// Returns the length of the longest sequence.
    pub fn longest(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0)
    }

    /// Returns a fingerprint of ids and masks.
    pub fn hash(&self) -> String {
        let masks: Vec<Vec<u32>> = self
            .sequences
            .iter()
            .filter_map(|s| s.mask.as_ref())
            .map(|m| m.iter().map(|&b| b.into()).collect())
            .collect();
        hash_ids(self.sequences.iter().map(|s| s.ids.as_slice()).chain(masks.iter().map(Vec::as_slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SelectionUnit;

    #[test]
    fn targets_follow_the_mask_and_the_context() {
        let masked = Sequence { mask: Some(vec![true, false, true, true]), ..Sequence::of(vec![1, 2, 3, 4]) };
        assert_eq!(masked.queries().collect::<Vec<_>>(), [1, 2]);
        let set = Calibration::new(vec![masked.clone(), Sequence::of(vec![5, 6])], "ids", 8).unwrap();
        assert_eq!((set.targets(), set.eligible(TopK { unit: SelectionUnit::Token, k: 2 }), set.longest()), (3, 1, 4));
        let unmasked = Calibration::new(vec![Sequence::of(masked.ids), Sequence::of(vec![5, 6])], "ids", 8).unwrap();
        assert_ne!(set.hash(), unmasked.hash());
    }

    #[test]
    fn impossible_sequences_are_named() {
        let refusal = |s: Sequence| Calibration::new(vec![s], "ids", 8).unwrap_err();
        assert!(refusal(Sequence::of(vec![1])).contains("at least two"));
        assert!(refusal(Sequence::of(vec![])).contains("sequence 0 is empty"));
        assert!(refusal(Sequence::of(vec![1, 9])).contains("token id 9"));
        assert!(refusal(Sequence { mask: Some(vec![true]), ..Sequence::of(vec![1, 2]) }).contains("mask of 1"));
    }
}
