//! Which patterns a search may visit.

use std::ops::Range;

use super::SearchError;
use crate::domain::{Constraints, Goal, LayerSet, Pattern, PatternError, Role, SearchSettings, Stages};

/// The patterns that a model and the settings of a search allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// All free layers Full.
    pub start: Pattern,
    /// Layers that stay Full.
    pub full: LayerSet,
    /// Layers that stay Shared.
    pub shared: LayerSet,
    /// The pipeline stages, one of all layers where none were given.
    pub stages: Vec<Range<usize>>,
}

impl Space {
    /// Combines what the model allows with what was asked for.
    ///
    /// # Errors
    /// [`SearchError::Failed`] where the two, or parts of what was asked for, contradict each other.
    pub fn new(constraints: &Constraints, settings: &SearchSettings) -> Result<Self, SearchError> {
        let layers = constraints.len();
        let outside = settings.lock_full.iter().chain(settings.lock_shared.iter()).find(|&l| l >= layers);
        if let Some(layer) = outside {
            return Err(impossible(&PatternError::NoLayer { layer, last: layers - 1 }, "name layers of this model"));
        }
        let stages = ranges(settings.stages.as_ref(), layers)?;
        let shared: LayerSet = constraints.locked_shared.iter().chain(settings.lock_shared.iter()).collect();
        let heads = stages.iter().map(|stage| stage.start);
        let full: LayerSet = std::iter::once(0).chain(settings.lock_full.iter()).chain(heads).collect();
        if let Some(layer) = full.iter().find(|&l| shared.contains(l)) {
            return Err(SearchError::failed(
                format!("layer {layer} would have to be Full and Shared at once"),
                if constraints.locked_shared.contains(layer) {
                    "the checkpoint has no indexer for it: leave it out of --lock-full, and let no stage begin with it"
                } else {
                    "layer 0, the first layer of every stage and --lock-full stay Full: take it from --lock-shared"
                },
            ));
        }
        let start = Pattern::from_fn(layers, |l| if shared.contains(l) { Role::Shared } else { Role::Full });
        let start = start.map_err(|e| impossible(&e, ""))?;
        let space = Self { start, full, shared, stages };
        if let Goal::Keep(keep) = settings.goal
            && keep < space.full.len()
        {
            return Err(SearchError::failed(
                format!("{keep} Full layers were asked for, but {} must stay Full", space.full.len()),
                "keep more layers, or lock fewer (layer 0 and the first layer of every stage are always locked)",
            ));
        }
        Ok(space)
    }

    /// Returns the number of layers.
    pub fn layers(&self) -> usize {
        self.start.len()
    }

    /// Returns the layers that are neither locked Full nor locked Shared.
    pub fn free(&self) -> impl Iterator<Item = usize> {
        (0..self.layers()).filter(|&l| !self.full.contains(l) && !self.shared.contains(l))
    }

    /// Returns the largest number of flips that a goal allows.
    pub(super) fn most_flips(&self, goal: Goal) -> usize {
        let free = self.free().count();
        match goal {
            Goal::Keep(full) => self.start.full_count().saturating_sub(full).min(free),
            Goal::MaxDelta(_) => free,
        }
    }

    /// Returns the layers of a stage that could become Shared.
    pub(super) fn candidates(&self, pattern: Pattern, stage: &Range<usize>) -> Vec<usize> {
        self.free().filter(|&l| stage.contains(&l) && pattern.is_full(l)).collect()
    }

    /// Returns whether a pattern keeps to the space.
    pub fn allows(&self, pattern: Pattern) -> bool {
        pattern.len() == self.layers()
            && self.full.iter().all(|l| pattern.is_full(l))
            && !self.shared.iter().any(|l| pattern.is_full(l))
    }
}

/// Returns the layers of every stage.
fn ranges(stages: Option<&Stages>, layers: usize) -> Result<Vec<Range<usize>>, SearchError> {
    let one = Stages::one(layers);
    let stages = stages.unwrap_or(&one);
    let hint = "name each stage's number of layers, such as 14,6x8,16 for a stage of 14, six of 8 and one of 16";
    stages.check(layers).map_err(|e| SearchError::failed(e.to_string(), hint))?;
    let begins: Vec<usize> = stages.heads().iter().collect();
    let ends = begins.iter().copied().skip(1).chain([layers]);
    Ok(begins.iter().zip(ends).map(|(&begin, end)| begin..end).collect())
}

fn impossible(error: &PatternError, hint: &str) -> SearchError {
    SearchError::failed(error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Strategy;

    fn space(settings: SearchSettings) -> Result<Space, SearchError> {
        let constraints = Constraints { locked_shared: LayerSet::from_iter([4]), ..Constraints::every(6) };
        Space::new(&constraints, &settings)
    }

    fn keep(n: usize) -> SearchSettings {
        SearchSettings::new(Strategy::Greedy, Goal::Keep(n))
    }

    #[test]
    fn locks_and_stages_shape_the_space() {
        let space = space(SearchSettings {
            stages: Some("3,3".parse().unwrap()),
            lock_shared: [1].into_iter().collect(),
            ..keep(2)
        })
        .unwrap();
        assert_eq!(space.start.to_string(), "FSFFSF");
        assert_eq!(space.free().collect::<Vec<_>>(), [2, 5]);
        assert_eq!(space.candidates(space.start, &space.stages[0]), [2]);
        assert!(space.allows("FSSFSS".parse().unwrap()));
        for wrong in ["FSSSSS", "FFSFSS", "FSSFFS", "FSSF"] {
            assert!(!space.allows(wrong.parse().unwrap()), "{wrong}");
        }
    }

    #[test]
    fn contradictions_are_named() {
        for (want, settings) in [
            ("layer 4 would", SearchSettings { lock_full: [4].into_iter().collect(), ..keep(3) }),
            ("layer 0 would", SearchSettings { lock_shared: [0].into_iter().collect(), ..keep(3) }),
            ("layer 9 does not exist", SearchSettings { lock_full: [9].into_iter().collect(), ..keep(3) }),
            ("hold 5 layers", SearchSettings { stages: Some("3,2".parse().unwrap()), ..keep(3) }),
            ("3 must stay Full", SearchSettings { lock_full: [1, 2].into_iter().collect(), ..keep(2) }),
        ] {
            let error = space(settings).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
