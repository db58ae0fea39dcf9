//! Which sequences of a text are measured on, and which are kept for judging.

use crate::engine::Sequence;

/// Stretches into which a text without known documents is divided for the split into searched and judged text.
const STRETCHES: usize = 24;

/// Which sequences are taken where there are more than asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Take {
    /// Spread evenly over all of them.
    #[default]
    Strided,
    /// The first ones; of one text these are neighbours, whose errors hold within that text only.
    First,
}

impl Take {
    /// Returns the name as given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strided => "strided",
            Self::First => "first",
        }
    }

    /// Returns which `count` of `available` things are taken, ascending; all where there are no more.
    fn of(self, available: usize, count: usize) -> Vec<usize> {
        let count = count.min(available);
        match self {
            Self::First => (0..count).collect(),
            Self::Strided => (0..count).map(|i| i * available / count).collect(),
        }
    }
}

/// All sequences of some data, in their order.
#[derive(Clone, Debug)]
pub struct Material {
    /// The sequences; the cluster of each is its document, where documents are known.
    sequences: Vec<Sequence>,
    /// Number of documents, where they are known.
    documents: Option<usize>,
}

impl Material {
    /// Returns sequences that are documents of their own.
    pub fn rows(mut sequences: Vec<Sequence>) -> Self {
        sequences.iter_mut().enumerate().for_each(|(own, s)| s.cluster = own);
        Self { documents: Some(sequences.len()), sequences }
    }

    /// Returns the pieces of known documents, each of which carries the number of its own.
    pub fn documents(sequences: Vec<Sequence>) -> Self {
        let mut numbers: Vec<usize> = sequences.iter().map(|s| s.cluster).collect();
        numbers.dedup();
        Self { sequences, documents: Some(numbers.len()) }
    }

    /// Returns the pieces of one text whose documents are not known.
    pub fn text(sequences: Vec<Sequence>) -> Self {
        Self { sequences, documents: None }
    }

    /// Returns the number of sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Takes `count` sequences, all where that is `None`.
    ///
    /// Pieces that are spread over one text are clusters of their own; its first ones are one cluster.
    pub fn take(&self, take: Take, count: Option<usize>) -> Self {
        let all: Vec<usize> = (0..self.len()).collect();
        self.pick(&all, take, count.unwrap_or(all.len()))
    }

    /// Takes `searched` sequences to search on and `judged` others to judge on, of different documents.
    ///
    /// Where documents are not known, stretches of the text stand for them. `--take first` cuts the data once.
    pub fn split(&self, take: Take, searched: usize, judged: usize) -> (Self, Self) {
        if take == Take::First {
            let rest: Vec<usize> = (searched.min(self.len())..self.len()).collect();
            return (self.take(take, Some(searched)), self.pick(&rest, take, judged));
        }
        let stretch = |i: usize| i * STRETCHES.min(self.len()) / self.len();
        let group = |i: usize| if self.documents.is_some() { self.sequences[i].cluster } else { stretch(i) };
        let all: Vec<usize> = (0..self.len()).collect();
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for group in all.chunk_by(|&a, &b| group(a) == group(b)) {
            // Whichever has less than its share so far gets the document.
            let ours_next = ours.len() * (searched + judged) <= searched * (ours.len() + others.len());
            if ours_next || judged == 0 { &mut ours } else { &mut others }.extend(group);
        }
        (self.pick(&ours, take, searched), self.pick(&others, take, judged))
    }

    /// Returns its sequences and the number of documents that they are of, where that is known.
    pub fn into_parts(self) -> (Vec<Sequence>, Option<usize>) {
        (self.sequences, self.documents)
    }

    fn pick(&self, of: &[usize], take: Take, count: usize) -> Self {
        let own_clusters = take == Take::Strided && self.documents.is_none();
        let one = |at: usize| {
            let i = of[at];
            let cluster = if own_clusters { i } else { self.sequences[i].cluster };
            Sequence { cluster, ..self.sequences[i].clone() }
        };
        let sequences: Vec<Sequence> = take.of(of.len(), count).into_iter().map(one).collect();
        let mut numbers: Vec<usize> = sequences.iter().map(|s| s.cluster).collect();
        numbers.dedup();
        Self { documents: self.documents.map(|_| numbers.len()), sequences }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns first ids and clusters.
    fn shown(material: &Material) -> Vec<(u32, usize)> {
        material.sequences.iter().map(|s| (s.ids[0], s.cluster)).collect()
    }

    fn pieces(documents: &[usize]) -> Vec<Sequence> {
        let piece = |(i, &cluster): (usize, &usize)| Sequence { cluster, ..Sequence::of(vec![i as u32]) };
        documents.iter().enumerate().map(piece).collect()
    }

    #[test]
    fn strided_pieces_span_the_text_and_are_clusters_of_their_own() {
        let text = Material::text(pieces(&[0; 10]));
        assert_eq!(shown(&text.take(Take::Strided, Some(4))), [(0, 0), (2, 2), (5, 5), (7, 7)]);
        assert_eq!(shown(&text.take(Take::First, Some(2))), [(0, 0), (1, 0)]);
        assert_eq!((text.take(Take::Strided, None).len(), text.take(Take::Strided, Some(99)).len()), (10, 10));
    }

    #[test]
    fn pieces_of_known_documents_stay_theirs() {
        let books = Material::documents(pieces(&[0, 0, 0, 1, 1, 2]));
        let taken = books.take(Take::Strided, Some(3));
        assert_eq!((shown(&taken), taken.documents), (vec![(0, 0), (2, 0), (4, 1)], Some(2)));
        let rows = Material::rows(pieces(&[0; 5]));
        assert_eq!(shown(&rows.take(Take::First, Some(2))), [(0, 0), (1, 1)]);
    }

    #[test]
    fn no_document_is_searched_and_judged_on() {
        let books = Material::documents(pieces(&[0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 5]));
        for (searched, judged) in [(3, 6), (6, 6), (8, 2), (12, 12)] {
            let (ours, others) = books.split(Take::Strided, searched, judged);
            let of = |m: &Material| m.sequences.iter().map(|s| s.cluster).collect::<std::collections::BTreeSet<_>>();
            assert!(of(&ours).is_disjoint(&of(&others)) && !of(&ours).is_empty() && !of(&others).is_empty());
            assert!(ours.len() <= searched && others.len() <= judged);
        }
        let (ours, others) = Material::rows(pieces(&[0; 6])).split(Take::Strided, 4, 2);
        assert_eq!((ours.len(), others.len()), (4, 2));
        let (ours, none) = Material::rows(pieces(&[0; 1])).split(Take::Strided, 1, 0);
        assert_eq!((ours.len(), none.len()), (1, 0));
    }

    #[test]
    fn a_long_text_is_split_by_stretches() {
        let text = Material::text(pieces(&[0; 240]));
        let (ours, others) = text.split(Take::Strided, 8, 16);
        let near = |a: &Sequence| others.sequences.iter().map(|b| a.ids[0].abs_diff(b.ids[0])).min().unwrap();
        assert_eq!((ours.len(), others.len()), (8, 16));
        assert!(ours.sequences.iter().all(|s| near(s) > 1), "{ours:?}");
        assert!(ours.sequences.last().unwrap().ids[0] > 180 && others.sequences.last().unwrap().ids[0] > 180);
        let (first, next) = text.split(Take::First, 4, 8);
        assert_eq!((shown(&first)[3], shown(&next)[0], next.len()), ((3, 0), (4, 0), 8));
    }
}
