//! Index sets that a server returned, as a trace, and the pattern that it really ran.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::Served;
use super::super::simulate::read_by;
use super::{ImportError, Response};
use crate::domain::{
    LayerSet, Pattern, Query, QuerySampling, Role, Selection, SelectionUnit, TopK, Trace, TraceMeta, hash_ids,
};

/// Decodes pieces from the middle, which have no padding, and the end, which has.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns the pattern that SGLang makes of a config; `None` where it does not get so far, or where layers select nothing.
pub fn read_by_sglang(served: &Served) -> Option<Pattern> {
    Pattern::parse(&read_by("SGLang", served).letters(), served.layers).ok()
}

/// Gathers the index sets of responses, one after another, so that one is held at a time.
#[derive(Debug)]
pub struct Importer {
    layers: usize,
    topk: usize,
    sampling: QuerySampling,
    tokens: Vec<Vec<u32>>,
    queries: Vec<Query>,
    selections: Vec<Selection>,
    /// Whether a layer's set differs from the layer's before at some query that sees more than k keys.
    differs: Vec<bool>,
    dropped: usize,
}

/// What was gathered.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedSets {
    /// The recording; its pattern is the one that ran, or the one that was expected where that cannot be told.
    pub trace: Trace,
    /// The pattern that ran: a layer whose sets are all those of the layer before reused them.
    ///
    /// `None` where no query sees more than k keys.
    pub ran: Option<Pattern>,
    /// Queries that were left out, because some layer's set holds what the query does not see.
    pub dropped: usize,
}

impl Importer {
    /// Returns an importer of a model with so many layers and `index_topk`.
    pub fn new(layers: usize, topk: usize, sampling: QuerySampling) -> Self {
        Self {
            layers,
            topk,
            sampling,
            tokens: Vec::new(),
            queries: Vec::new(),
            selections: vec![Selection::default(); layers],
            differs: vec![false; layers],
            dropped: 0,
        }
    }

    /// Returns the number of responses so far.
    pub fn responses(&self) -> usize {
        self.tokens.len()
    }

    /// Adds one response; `ids` are its tokens, where the response does not tell them.
    ///
    /// Row i is the query at position i. A query is left out where a set does not hold exactly min(i + 1, k) distinct
    /// positions up to i: servers return what was in the buffer for batches that took another path.
    ///
    /// # Errors
    /// [`ImportError::NoSets`], [`ImportError::Size`], [`ImportError::Tokens`], [`ImportError::Malformed`].
    pub fn add(&mut self, response: &Response, ids: Option<&[u32]>) -> Result<(), ImportError> {
        let place = self.tokens.len();
        let text = response.sets.as_ref().ok_or(ImportError::NoSets(place))?.trim().as_bytes();
        let width = 4 * self.layers * self.topk;
        let bytes = text.iter().rposition(|&letter| letter != b'=').map_or(0, |last| (last + 1) * 3 / 4);
        if bytes == 0 || bytes % width != 0 {
            return Err(ImportError::Size { response: place, bytes, layers: self.layers, topk: self.topk });
        }
        let rows = bytes / width;
        let ids = if response.ids.len() >= rows { &response.ids } else { ids.unwrap_or(&response.ids) };
        if ids.len() < rows {
            return Err(ImportError::Tokens { response: place, known: ids.len(), needed: rows });
        }
        let mut row = Vec::with_capacity(width + 3);
        for position in self.sampling.positions(place, rows) {
            // Four letters are three bytes; a row begins somewhere within the first three.
            let (from, to) = (position * width, (position + 1) * width);
            let piece = &text[from / 3 * 4..(to.div_ceil(3) * 4).min(text.len())];
            row.clear();
            BASE64.decode_vec(piece, &mut row).map_err(|e| {
                let reason = format!("the index sets of the query at position {position} are no base64 ({e})");
                ImportError::Malformed { response: place, reason }
            })?;
            self.push(Query { sequence: place as u32, position: position as u32 }, &row[from % 3..][..width]);
        }
        self.tokens.push(ids[..ids.len().min(rows + 1)].to_vec());
        Ok(())
    }

    /// Adds the sets of one query, i32 `[layers, k]`, if all are of that query.
    fn push(&mut self, query: Query, row: &[u8]) {
        let keys = |layer: &[u8]| keys(layer, query.visible(SelectionUnit::Token).min(self.topk), query);
        let Some(sets) = row.chunks_exact(4 * self.topk).map(keys).collect::<Option<Vec<_>>>() else {
            self.dropped += 1;
            return;
        };
        let counts = TopK { unit: SelectionUnit::Token, k: self.topk }.counts(query.position as usize);
        for (layer, set) in sets.iter().enumerate() {
            self.selections[layer].push(set);
            self.differs[layer] |= counts && (layer == 0 || *set != sets[layer - 1]);
        }
        self.queries.push(query);
    }

    /// Returns the recording of a model of this name with so many indexer heads.
    ///
    /// # Errors
    /// [`ImportError::NoRows`] where nothing is left.
    pub fn finish(self, model: &str, heads: usize, expected: Pattern) -> Result<ServedSets, ImportError> {
        if self.queries.is_empty() {
            return Err(ImportError::NoRows(self.dropped));
        }
        let role = |layer: usize| if self.differs[layer] { Role::Full } else { Role::Shared };
        // Layer 0 is Full as soon as one query can tell.
        let ran = Pattern::from_fn(self.layers, role).ok();
        let meta = TraceMeta {
            schema: 1,
            model: model.to_owned(),
            fingerprint: String::new(),
            pattern: ran.unwrap_or(expected),
            index_topk: self.topk,
            layers: self.layers,
            sites: LayerSet::default(),
            unit: SelectionUnit::Token,
            groups: 1,
            forced: 0,
            heads,
            queries: self.sampling,
            tokens_hash: hash_ids(self.tokens.iter().map(Vec::as_slice)),
            mass_recall: None,
        };
        let (tokens, queries, selections) = (self.tokens, self.queries, self.selections);
        Ok(ServedSets { trace: Trace { meta, tokens, queries, selections }, ran, dropped: self.dropped })
    }
}

/// Returns a layer's set in ascending order; `None` if it is not `count` distinct positions that the query sees.
fn keys(layer: &[u8], count: usize, query: Query) -> Option<Vec<u32>> {
    let all = layer.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut set = all.filter(|&key| key != -1).map(|key| u32::try_from(key).ok()).collect::<Option<Vec<u32>>>()?;
    set.sort_unstable();
    let is_of_query = set.last().is_some_and(|&key| key <= query.position);
    (set.len() == count && is_of_query && set.windows(2).all(|w| w[0] < w[1])).then_some(set)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;

    const ALL: QuerySampling = QuerySampling::All;

    /// A response whose sets are `rows[query][layer]`, padded to `k` with −1.
    fn response(rows: &[Vec<Vec<i32>>], k: usize, ids: Vec<u32>) -> Response<'static> {
        let padded = rows.iter().flatten().flat_map(|set| {
            let padding = (set.len()..k).map(|_| -1);
            set.iter().copied().chain(padding).flat_map(i32::to_le_bytes).collect::<Vec<u8>>()
        });
        let sets = Some(Cow::Owned(BASE64_STANDARD.encode(padded.collect::<Vec<u8>>())));
        Response { ids, prompt: None, sets }
    }

    fn import(response: &Response, layers: usize, k: usize) -> Result<ServedSets, ImportError> {
        let mut importer = Importer::new(layers, k, ALL);
        importer.add(response, None)?;
        importer.finish("m", 4, Pattern::all_full(layers).unwrap())
    }

    #[test]
    fn sets_are_sorted_and_the_pattern_is_what_ran() {
        let rows = [
            vec![vec![0], vec![0], vec![0]],
            vec![vec![1, 0], vec![0, 1], vec![0, 1]],
            vec![vec![2, 0], vec![0, 2], vec![1, 2]],
        ];
        let got = import(&response(&rows, 2, vec![7, 8, 9, 10]), 3, 2).unwrap();
        assert_eq!((got.ran.unwrap().to_string().as_str(), got.dropped), ("FSF", 0));
        assert_eq!((got.trace.tokens[0].len(), got.trace.queries.len()), (4, 3));
        assert_eq!(got.trace.selections[0].rows().collect::<Vec<_>>(), [&[0][..], &[0, 1], &[0, 2]]);
        // What sees no more than k keys cannot tell.
        let short = import(&response(&rows[..2], 2, vec![7, 8]), 3, 2).unwrap();
        assert_eq!((short.ran, short.trace.meta.pattern.to_string().as_str()), (None, "FFF"));
    }

    #[test]
    fn rows_that_cannot_be_of_their_query_are_left_out() {
        for bad in [vec![0, 3], vec![2, 2], vec![0], vec![0, -5], vec![0, 0]] {
            let rows = [vec![vec![0], vec![0]], vec![vec![0, 1], vec![0, 1]], vec![vec![0, 2], bad]];
            let got = import(&response(&rows, 2, vec![1, 2, 3]), 2, 2).unwrap();
            assert_eq!((got.dropped, got.trace.queries.len()), (1, 2));
        }
        let slots = response(&[vec![vec![900], vec![901]]], 2, vec![1]);
        assert_eq!(import(&slots, 2, 2), Err(ImportError::NoRows(1)));
    }

    #[test]
    fn sizes_and_tokens_must_fit() {
        let one = response(&[vec![vec![0], vec![0]]], 2, vec![]);
        assert_eq!(import(&one, 2, 2), Err(ImportError::Tokens { response: 0, known: 0, needed: 1 }));
        let other = Err(ImportError::Size { response: 0, bytes: 16, layers: 3, topk: 2 });
        assert_eq!(import(&one, 3, 2), other);
        let mut importer = Importer::new(2, 2, ALL);
        importer.add(&one, Some(&[5, 6])).unwrap();
        assert_eq!(importer.responses(), 1);
        let spoiled = Response { sets: Some(Cow::Borrowed("AAAA*AAAAAAAAAAAAAAAAA==")), ..one };
        let told = importer.add(&spoiled, Some(&[5, 6])).unwrap_err().to_string();
        assert!(
            told.starts_with("response 1 cannot be understood: the index sets of the query at position 0"),
            "{told}"
        );
        assert_eq!(importer.add(&Response { sets: None, ..spoiled }, None), Err(ImportError::NoSets(1)));
    }

    proptest! {
        /// Rows of any width lie across the groups of base64 in every way.
        #[test]
        fn sampled_queries_have_the_sets_of_all(layers in 1usize..4, k in 1usize..6, len in 1usize..20, n in 1usize..20) {
            let set = |t: usize, l: usize| (0..(t + 1).min(k)).map(|i| (t - (i + l) % (t + 1)) as i32).collect();
            let rows: Vec<Vec<Vec<i32>>> = (0..len).map(|t| (0..layers).map(|l| set(t, l)).collect()).collect();
            let response = response(&rows, k, (0..len as u32).collect());
            let whole = import(&response, layers, k).unwrap().trace;
            let mut some = Importer::new(layers, k, QuerySampling::Sampled { per_sequence: n, seed: 3 });
            some.add(&response, None).unwrap();
            let some = some.finish("m", 4, Pattern::all_full(layers).unwrap()).unwrap().trace;
            prop_assert_eq!(some.queries.len(), n.min(len));
            for (q, query) in some.queries.iter().enumerate() {
                for (a, b) in some.selections.iter().zip(&whole.selections) {
                    prop_assert_eq!(a.row(q), b.row(query.position as usize));
                }
            }
        }
    }
}
