//! The Tokens screen: which keys two layers select for one query, and the text that these keys are.

mod density;
pub mod keys;
mod text;
pub mod update;
mod view;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

use super::{Needs, ScreenSpec, nowhere};
use crate::domain::{Query, SelectionUnit, Trace, intersection_len};
use crate::tui::app::App;

/// The screen.
pub const SPEC: ScreenSpec = ScreenSpec {
    name: "Tokens",
    key: "2",
    help: "Show what two layers select for one query",
    needs: Needs::Pattern,
    actions: keys::ACTIONS,
    wheel: Some(["text-up", "text-down"]),
    draw: |app, _, body, buf| view::draw(app, body, buf),
    hit: nowhere,
};

/// The texts of token ids, as far as they are known.
pub type Texts = HashMap<u32, String>;

/// Queries that are compared at most when the one is sought at which two layers differ most.
const COMPARED: usize = 2048;

/// What the screen remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The query looked at, as its place in the recording; `None` for the last one of the first sequence that counts.
    pub query: Option<usize>,
    /// Lines that the text is scrolled back.
    pub back: usize,
    /// Whether only keys that one of the two layers lacks are shown, with their neighbours.
    pub only_differences: bool,
    /// The text that was looked for last.
    pub needle: String,
    /// How many queries that share less were looked at already.
    pub rank: Option<usize>,
}

/// Which of two layers select a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Neither.
    Neither,
    /// The layer that needs indices.
    OnlyA,
    /// The layer that would lend them.
    OnlyB,
    /// Both.
    Both,
}

/// The sets of the pair looked at, for one query.
#[derive(Clone, Copy, Debug)]
pub struct PairSets<'a> {
    /// The query.
    pub query: Query,
    /// What the sets hold.
    pub unit: SelectionUnit,
    /// What the layer that needs indices selects: ascending units.
    pub a: &'a [u32],
    /// What the layer that would lend them selects.
    pub b: &'a [u32],
}

impl PairSets<'_> {
    /// Returns which of the two select the key at `position`.
    pub fn chosen(&self, position: usize) -> Chosen {
        let unit = self.unit.holding(position);
        let holds = |set: &[u32]| set.binary_search(&unit).is_ok();
        match (holds(self.a), holds(self.b)) {
            (true, true) => Chosen::Both,
            (true, false) => Chosen::OnlyA,
            (false, true) => Chosen::OnlyB,
            (false, false) => Chosen::Neither,
        }
    }

    /// Returns the number of units that both select.
    pub fn shared(&self) -> usize {
        intersection_len(self.a, self.b)
    }

    /// Returns the positions up to the query's that only one of the two selects, ascending.
    pub fn differences(&self) -> Vec<usize> {
        let lacks = |other: &'_ [u32]| {
            let other = other.to_vec();
            move |p: &&u32| other.binary_search(p).is_err()
        };
        let mut all: Vec<usize> = self
            .a
            .iter()
            .filter(lacks(self.b))
            .chain(self.b.iter().filter(lacks(self.a)))
            .flat_map(|&unit| self.unit.tokens(unit))
            .filter(|&position| position <= self.query.position as usize)
            .collect();
        all.sort_unstable();
        all
    }
}

impl App {
    /// Returns the query looked at, as its place in the recording; `None` without a recording.
    pub fn query(&self) -> Option<usize> {
        let trace = self.trace.as_ref().filter(|t| !t.queries.is_empty())?;
        let default = || {
            let first = trace.counted().next().unwrap_or(0);
            let sequence = trace.queries[first].sequence;
            trace.queries.iter().rposition(|q| q.sequence == sequence).unwrap_or(first)
        };
        Some(self.screens.tokens.query.unwrap_or_else(default).min(trace.queries.len() - 1))
    }

    /// Returns what the pair of layers looked at selects for the query looked at.
    pub fn pair_sets(&self) -> Option<PairSets<'_>> {
        let trace = self.trace.as_ref()?;
        sets(trace, self.cursor.row, self.cursor.column, self.query()?)
    }

    /// Returns the ids of the sequence of the query looked at.
    pub fn query_ids(&self) -> &[u32] {
        let sequence = || {
            let trace = self.trace.as_ref()?;
            trace.tokens.get(trace.queries[self.query()?].sequence as usize)
        };
        sequence().map_or(&[], Vec::as_slice)
    }

    /// Returns a token's text, or its id in brackets of its own where the text is not known.
    pub fn token_text(&self, id: u32) -> Cow<'_, str> {
        match self.texts.get(&id) {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(format!(" {id}")),
        }
    }

    /// Returns the query of the given rank from the one at which the two layers share least; with the number compared.
    ///
    /// Of long recordings at most 2,048 queries, evenly spread, are compared, so that a key is answered at once.
    pub fn least_shared(&self, rank: usize) -> Option<(usize, usize)> {
        let trace = self.trace.as_ref()?;
        let counted: Vec<usize> = trace.counted().collect();
        let step = counted.len().div_ceil(COMPARED).max(1);
        let mut shared: Vec<(f64, usize)> = counted
            .iter()
            .step_by(step)
            .filter_map(|&q| {
                let sets = sets(trace, self.cursor.row, self.cursor.column, q)?;
                Some((sets.shared() as f64 / sets.a.len().max(1) as f64, q))
            })
            .collect();
        shared.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
        let at = rank.checked_rem(shared.len())?;
        Some((shared[at].1, shared.len()))
    }

    /// Returns the next recorded query, around the end, with whose token `needle` ends in the text.
    pub fn find_text(&self, needle: &str) -> Option<usize> {
        let trace = self.trace.as_ref()?;
        let here = trace.queries[self.query()?];
        let count = trace.tokens.len();
        (0..=count).find_map(|n| {
            let sequence = (here.sequence as usize + n) % count;
            let found = self.occurrences(&trace.tokens[sequence], needle);
            let wanted = |position: &&usize| match n {
                0 => **position > here.position as usize,
                _ if n == count => **position <= here.position as usize,
                _ => true,
            };
            found.iter().filter(wanted).find_map(|&position| {
                let query = self.query_at(sequence, position)?;
                (trace.queries[query].position as usize == position).then_some(query)
            })
        })
    }

    /// Returns the first recorded query of a sequence at or after a position.
    pub fn query_at(&self, sequence: usize, position: usize) -> Option<usize> {
        let queries = &self.trace.as_ref()?.queries;
        let compare = |q: &Query| match (q.sequence as usize).cmp(&sequence) {
            Ordering::Equal if (q.position as usize) < position => Ordering::Less,
            order => order,
        };
        let at = queries.partition_point(|q| compare(q) == Ordering::Less);
        queries.get(at).filter(|q| q.sequence as usize == sequence).map(|_| at)
    }

    /// Returns the positions of the tokens that end where `needle` ends.
    fn occurrences(&self, ids: &[u32], needle: &str) -> Vec<usize> {
        let mut text = String::new();
        let places: Vec<Range<usize>> = ids
            .iter()
            .map(|&id| {
                let from = text.len();
                text.push_str(&self.token_text(id));
                from..text.len()
            })
            .collect();
        let ends = text.match_indices(needle).map(|(at, found)| at + found.len());
        ends.map(|end| places.partition_point(|place| place.end < end)).collect()
    }
}

/// Returns what two layers select for a query; where each group of heads selects for itself, the first group.
fn sets(trace: &Trace, a: usize, b: usize, query: usize) -> Option<PairSets<'_>> {
    let (a, b) = (trace.selections.get(a)?, trace.selections.get(b)?);
    let row = query * trace.meta.groups;
    Some(PairSets { query: trace.queries[query], unit: trace.meta.unit, a: a.row(row), b: b.row(row) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_marks_its_tokens_up_to_the_query() {
        let query = Query { sequence: 0, position: 21 };
        let sets = |a, b| PairSets { query, unit: SelectionUnit::Block(8), a, b };
        let pair = sets(&[0, 2], &[1, 2]);
        assert_eq!([3, 8, 21].map(|position| pair.chosen(position)), [Chosen::OnlyA, Chosen::OnlyB, Chosen::Both]);
        assert_eq!((pair.shared(), pair.differences()), (1, (0..16).collect()));
        // The query's own block ends with the query.
        assert_eq!(sets(&[2], &[0]).differences(), (0..8).chain(16..22).collect::<Vec<_>>());
    }
}
