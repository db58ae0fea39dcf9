//! The tree of patterns that were tried: undo goes to the parent, redo to the branch taken last.

use std::time::Duration;

use super::{Step, Work};
use crate::domain::Pattern;

/// Most patterns that are kept, and how many more may gather before the oldest ones are forgotten: what is autosaved
/// stays below some megabytes, however long one edits.
const MOST: usize = 4096;
const MORE: usize = 1024;

/// One pattern in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The pattern.
    pub pattern: Pattern,
    /// The node from which it was made.
    pub parent: Option<usize>,
    /// What was done.
    pub change: String,
    /// When, since the start of the dashboard; `None` if it came from a file of earlier work.
    pub at: Option<Duration>,
    redo: Option<usize>,
}

/// All patterns of a session, and the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    nodes: Vec<Node>,
    current: usize,
    /// Where one was before going straight to another node; undo returns there.
    left: Option<usize>,
}

impl History {
    /// Returns a history of one pattern, which is there from the start.
    pub fn new(pattern: Pattern, change: &str) -> Self {
        let at = Some(Duration::ZERO);
        let node = Node { pattern, parent: None, change: change.to_owned(), at, redo: None };
        Self { nodes: vec![node], current: 0, left: None }
    }

    /// Returns the history of a saved piece of work; `None` if it is empty or refers to what is not there.
    pub fn from_work(work: &Work) -> Option<Self> {
        let sound = work.current < work.steps.len()
            && work.steps.iter().enumerate().all(|(i, s)| s.parent.is_none_or(|p| p < i));
        let node =
            |s: &Step| Node { pattern: s.pattern, parent: s.parent, change: s.change.clone(), at: None, redo: None };
        sound.then(|| {
            let mut history = Self { nodes: work.steps.iter().map(node).collect(), current: work.current, left: None };
            for child in 0..history.nodes.len() {
                if let Some(parent) = history.nodes[child].parent {
                    history.nodes[parent].redo = Some(child);
                }
            }
            history.remember_path();
            history
        })
    }

    /// Returns the current pattern.
    pub fn pattern(&self) -> Pattern {
        self.nodes[self.current].pattern
    }

    /// Returns the current index.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Returns all nodes in the order in which they were made.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds a pattern made from the current one and goes there.
    pub fn push(&mut self, pattern: Pattern, change: String, at: Duration) {
        let node = Node { pattern, parent: Some(self.current), change, at: Some(at), redo: None };
        self.left = None;
        self.nodes.push(node);
        self.nodes[self.current].redo = Some(self.nodes.len() - 1);
        self.current = self.nodes.len() - 1;
        if self.nodes.len() > MOST + MORE {
            self.forget(self.nodes.len() - MOST);
        }
    }

    /// Forgets the first entries, which the current one is not among; what was made from one of them has no parent any more.
    fn forget(&mut self, count: usize) {
        self.nodes.drain(..count);
        for node in &mut self.nodes {
            node.parent = node.parent.and_then(|parent| parent.checked_sub(count));
            node.redo = node.redo.and_then(|redo| redo.checked_sub(count));
        }
        self.current -= count;
    }

    /// Goes straight to a node that exists; undo returns from there.
    pub fn go(&mut self, node: usize) {
        if node < self.nodes.len() && node != self.current {
            self.left = Some(self.current);
            self.current = node;
            self.remember_path();
        }
    }

    /// Goes to the parent, or back after [`History::go`]; returns what was undone.
    pub fn undo(&mut self) -> Option<String> {
        if let Some(left) = self.left.take() {
            let gone = std::mem::replace(&mut self.current, left);
            self.remember_path();
            return Some(format!("going to #{gone}"));
        }
        let parent = self.nodes[self.current].parent?;
        let change = self.nodes[self.current].change.clone();
        self.nodes[parent].redo = Some(self.current);
        self.current = parent;
        Some(change)
    }

    /// Goes to the branch taken last; returns what was done again.
    pub fn redo(&mut self) -> Option<String> {
        self.current = self.nodes[self.current].redo?;
        self.left = None;
        Some(self.nodes[self.current].change.clone())
    }

    /// Returns whether there is something to go back to.
    pub fn can_undo(&self) -> bool {
        self.left.is_some() || self.nodes[self.current].parent.is_some()
    }

    /// Returns whether there is a branch to follow.
    pub fn can_redo(&self) -> bool {
        self.nodes[self.current].redo.is_some()
    }

    /// Returns whether a node lies between the first one and the current one, both included.
    pub fn is_on_path(&self, node: usize) -> bool {
        let parent = |at: &usize| self.nodes[*at].parent;
        std::iter::successors(Some(self.current), parent).any(|at| at == node)
    }

    /// Makes redo lead along the path to the current node.
    fn remember_path(&mut self) {
        let mut at = self.current;
        while let Some(parent) = self.nodes[at].parent {
            self.nodes[parent].redo = Some(at);
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_edit_after_undo_keeps_the_other_branch() {
        let mut history = History::new(p("FFF"), "opened");
        history.push(p("FSF"), "a".into(), Duration::ZERO);
        assert_eq!(history.undo().as_deref(), Some("a"));
        history.push(p("FFS"), "b".into(), Duration::ZERO);
        assert_eq!((history.nodes().len(), history.pattern()), (3, p("FFS")));
        history.undo();
        assert_eq!(history.redo().as_deref(), Some("b"));
        assert_eq!(history.redo(), None);
    }

    #[test]
    fn going_straight_to_an_entry_is_undone_by_returning() {
        let mut history = History::new(p("FFF"), "opened");
        history.push(p("FSF"), "a".into(), Duration::ZERO);
        history.push(p("FSS"), "b".into(), Duration::ZERO);
        history.undo();
        history.undo();
        history.push(p("FFS"), "c".into(), Duration::ZERO);
        history.go(2);
        assert_eq!((history.pattern(), [1, 2, 3].map(|n| history.is_on_path(n))), (p("FSS"), [true, true, false]));
        assert_eq!(history.undo().as_deref(), Some("going to #2"));
        assert_eq!(history.current(), 3);
        history.go(1);
        assert_eq!(history.redo().as_deref(), Some("b"));
        assert_eq!(history.undo().as_deref(), Some("b"), "what was gone away from is forgotten by a step");
    }

    #[test]
    fn the_oldest_entries_of_a_long_history_are_forgotten() {
        let mut history = History::new(p("FFF"), "opened");
        for i in 0..100_000 {
            history.push(p(if i % 2 == 0 { "FSF" } else { "FFF" }), i.to_string(), Duration::ZERO);
            assert!(history.nodes().len() <= MOST + MORE);
        }
        assert_eq!(history.nodes()[history.current()].change, "99999");
        assert!(history.nodes().iter().enumerate().all(|(i, node)| node.parent == i.checked_sub(1)));
        let undone = (0..2 * MOST).take_while(|_| history.undo().is_some()).count();
        assert_eq!((undone, history.current()), (history.nodes().len() - 1, 0));
        assert_eq!((0..2 * MOST).take_while(|_| history.redo().is_some()).count(), undone);
    }

    #[test]
    fn unsound_work_is_refused() {
        let step = |parent| Step {
            pattern: p("FF"),
            parent,
            change: String::new(),
            evaluation: None,
            speed: Vec::new(),
            validation: None,
        };
        assert!(
            History::from_work(&Work { steps: vec![], current: 0, named: vec![], search: None, overlap: None })
                .is_none()
        );
        assert!(
            History::from_work(&Work {
                steps: vec![step(Some(0))],
                current: 0,
                named: vec![],
                search: None,
                overlap: None
            })
            .is_none()
        );
        assert!(
            History::from_work(&Work {
                steps: vec![step(None), step(Some(0))],
                current: 1,
                named: vec![],
                search: None,
                overlap: None
            })
            .is_some()
        );
    }

    proptest! {
        #[test]
        fn redo_undoes_undo(edits in proptest::collection::vec(any::<bool>(), 1..40)) {
            let mut history = History::new(p("FFFFFFFF"), "opened");
            for (i, edit) in edits.iter().enumerate() {
                if *edit {
                    history.push(p("FSFFFFFF"), i.to_string(), Duration::ZERO);
                } else {
                    let before = history.current();
                    if history.undo().is_some() {
                        history.redo();
                        prop_assert_eq!(history.current(), before);
                        history.undo();
                    }
                }
            }
        }
    }
}
