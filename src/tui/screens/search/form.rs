//! The settings of a search, as they are typed.

use crate::domain::{Goal, Keep, LayerSet, Method, SearchSettings, Stages, Strategy};
use crate::tui::input::Input;

/// One line of the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// The strategy.
    #[default]
    Method,
    /// Whether swaps refine what was found.
    Swap,
    /// Whether so many layers are kept, or a loss is not exceeded.
    Goal,
    /// How many layers stay Full.
    Keep,
    /// The loss that is not exceeded.
    MaxDelta,
    /// Pipeline stages.
    Stages,
    /// Whether every stage flips a layer in each step.
    Block,
    /// Layers that stay Full.
    LockFull,
    /// Layers that are Shared from the start.
    LockShared,
    /// Seed of everything drawn at random.
    Seed,
}

impl Field {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Swap => "then swaps",
            Self::Goal => "goal",
            Self::Keep => "keep Full",
            Self::MaxDelta => "Δloss at most",
            Self::Stages => "stages",
            Self::Block => "block search",
            Self::LockFull => "stay Full",
            Self::LockShared => "Shared from the start",
            Self::Seed => "seed",
        }
    }

    /// Returns what it means, and how it is typed.
    pub fn doc(self) -> &'static str {
        match self {
            Self::Method => "←→ changes; lazy and racing come to greedy's pattern with fewer forwards",
            Self::Swap => "←→ changes; exchanges a Full and a Shared layer while that lowers the loss",
            Self::Goal => "←→ changes; the best pattern of a size, or the smallest within a loss",
            Self::Keep => "a share such as 1/4 or 0.25, or a number of layers",
            Self::MaxDelta => "nats over eligible targets, confirmed on text that the search never saw",
            Self::Stages => "layers per pipeline stage, such as 14,6x8,16; their first layers stay Full",
            Self::Block => "←→ changes; every stage commits its best flip in each step",
            Self::LockFull | Self::LockShared => "layers such as 3,17-20; empty for none",
            Self::Seed => "a whole number",
        }
    }

    /// Returns whether it is changed by typing.
    pub fn is_typed(self) -> bool {
        !matches!(self, Self::Method | Self::Swap | Self::Goal | Self::Block)
    }
}

/// The settings as they are typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// The line that is changed.
    pub field: Field,
    /// The strategy.
    pub strategy: Strategy,
    /// Whether swaps refine what was found.
    pub swap: bool,
    /// Whether a loss is given, not a number of layers.
    pub within: bool,
    /// Whether every stage flips a layer in each step.
    pub block: bool,
    keep: Input,
    max_delta: Input,
    stages: Input,
    lock_full: Input,
    lock_shared: Input,
    seed: Input,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            field: Field::default(),
            strategy: Strategy::Racing,
            swap: false,
            within: false,
            block: false,
            keep: Input::new("1/4"),
            max_delta: Input::new("0.01"),
            stages: Input::default(),
            lock_full: Input::default(),
            lock_shared: Input::default(),
            seed: Input::new("0"),
        }
    }
}

impl Form {
    /// Returns the lines that matter, given what the others say.
    pub fn fields(&self) -> Vec<Field> {
        let goal = if self.within { Field::MaxDelta } else { Field::Keep };
        let mut fields = vec![Field::Method, Field::Swap, Field::Goal, goal, Field::Stages];
        if !self.stages.text().trim().is_empty() {
            fields.push(Field::Block);
        }
        fields.extend([Field::LockFull, Field::LockShared, Field::Seed]);
        fields
    }

    /// Returns the text of a line that is typed.
    pub fn input(&self, field: Field) -> Option<&Input> {
        Some(match field {
            Field::Keep => &self.keep,
            Field::MaxDelta => &self.max_delta,
            Field::Stages => &self.stages,
            Field::LockFull => &self.lock_full,
            Field::LockShared => &self.lock_shared,
            Field::Seed => &self.seed,
            _ => return None,
        })
    }

    /// Returns the text of the chosen line for changing, if it is typed.
    pub fn typed(&mut self) -> Option<&mut Input> {
        Some(match self.field {
            Field::Keep => &mut self.keep,
            Field::MaxDelta => &mut self.max_delta,
            Field::Stages => &mut self.stages,
            Field::LockFull => &mut self.lock_full,
            Field::LockShared => &mut self.lock_shared,
            Field::Seed => &mut self.seed,
            _ => return None,
        })
    }

    /// Returns what a line says.
    pub fn value(&self, field: Field) -> String {
        let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
        match field {
            Field::Method => self.strategy.name().to_owned(),
            Field::Swap => yes(self.swap),
            Field::Goal if self.within => "the fewest Full layers within a loss".to_owned(),
            Field::Goal => "the lowest loss with so many Full layers".to_owned(),
            Field::Block => yes(self.block),
            typed => self.input(typed).map_or_else(String::new, |input| input.text().to_owned()),
        }
    }

    /// Moves to the line so many further down.
    pub fn step(&mut self, by: isize) {
        let fields = self.fields();
        let at = fields.iter().position(|f| *f == self.field).unwrap_or_default();
        let to = fields[at.saturating_add_signed(by).min(fields.len() - 1)];
        if to != self.field {
            self.field = to;
            self.propose();
        }
    }

    /// Makes what the chosen line says a proposal, if it is typed.
    pub fn propose(&mut self) {
        if let Some(input) = self.typed() {
            input.select();
        }
    }

    /// Changes a line that is not typed.
    pub fn turn(&mut self, forward: bool) {
        match self.field {
            Field::Method => {
                let all = Strategy::ALL;
                let at = all.iter().position(|s| *s == self.strategy).unwrap_or_default();
                let next = if forward { at + 1 } else { at + all.len() - 1 };
                self.strategy = all[next % all.len()];
            }
            Field::Swap => self.swap = !self.swap,
            Field::Goal => self.within = !self.within,
            Field::Block => self.block = !self.block,
            _ => {}
        }
    }

    /// Returns the settings for a model of so many layers, or what is still wrong with them.
    ///
    /// # Errors
    /// A sentence for the person who is typing.
    pub fn settings(&self, layers: usize) -> Result<SearchSettings, String> {
        let goal = if self.within {
            let most = self.max_delta.text().trim().parse::<f64>().ok().filter(|d| d.is_finite());
            Goal::MaxDelta(most.ok_or("the loss is a number of nats, such as 0.01")?)
        } else {
            let keep: Keep = self.keep.text().trim().parse().map_err(|e| format!("{e}"))?;
            let full = keep.count(layers);
            if full > layers {
                return Err(format!("{full} Full layers are more than the model's {layers}"));
            }
            Goal::Keep(full)
        };
        let stages = match self.stages.text().trim() {
            "" => None,
            text => {
                let stages: Stages = text.parse().map_err(|e| format!("{e}"))?;
                stages.check(layers).map_err(|e| e.to_string())?;
                Some(stages)
            }
        };
        let seed = self.seed.text().trim().parse().map_err(|_| "the seed is a whole number".to_owned())?;
        Ok(SearchSettings {
            method: Method { strategy: self.strategy, swap: self.swap },
            goal,
            lock_full: layer_set(self.lock_full.text(), layers)?,
            lock_shared: layer_set(self.lock_shared.text(), layers)?,
            block_search: self.block && stages.is_some(),
            stages,
            seed,
            strict: false,
        })
    }
}

/// Reads layers such as `3,17-20`.
fn layer_set(text: &str, layers: usize) -> Result<LayerSet, String> {
    let mut set = LayerSet::default();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.trim().parse::<usize>().ok().filter(|l| *l < layers);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first..=last).for_each(|l| set.insert(l)),
            _ => return Err(format!("'{part}' is not a layer or a range of layers 0 to {}", layers - 1)),
        }
    }
    Ok(set)
}
