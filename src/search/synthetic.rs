//! Evaluators with invented losses whose optimum is known.

use super::{Affinity, AffinityKind, Evaluate, Layout, Measured, Part, SearchError, Unit, Watch};
use crate::domain::{Pattern, Role, SearchProgress};

/// Blocks per part, and targets per block.
const BLOCKS: usize = 4;
const TARGETS: usize = 128;

/// A loss by formula, the same on every part up to noise that is fixed by pattern, part and block.
pub(super) struct Synthetic {
    layout: Layout,
    reference: Pattern,
    loss: Box<dyn Fn(Pattern) -> f64>,
    noise: f64,
    /// Units left before the evaluator interrupts.
    pub fuel: usize,
    /// Units measured.
    pub measured: usize,
}

impl Synthetic {
    pub(super) fn new(layers: usize, parts: usize, noise: f64, loss: impl Fn(Pattern) -> f64 + 'static) -> Self {
        let part = Part { blocks: vec![TARGETS; BLOCKS], targets: BLOCKS * TARGETS, sequences: 1 };
        let reference = Pattern::all_full(layers).unwrap();
        Self {
            layout: Layout { parts: vec![part; parts] },
            reference,
            loss: Box::new(loss),
            noise,
            fuel: usize::MAX,
            measured: 0,
        }
    }

    /// Returns one whose damage is the sum of each Shared layer's.
    pub(super) fn additive(damages: Vec<f64>, parts: usize, noise: f64) -> Self {
        Self::new(damages.len(), parts, noise, move |p| {
            (0..p.len()).filter(|&l| p.role(l) == Role::Shared).map(|l| damages[l]).sum()
        })
    }
}

impl Evaluate for Synthetic {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn measure(&mut self, units: &[Unit], done: &mut dyn FnMut(Measured)) -> Result<(), SearchError> {
        for &(pattern, part) in units {
            if self.fuel == 0 {
                return Err(SearchError::Interrupted);
            }
            self.fuel -= 1;
            self.measured += 1;
            let is_reference = pattern == self.reference;
            let loss = (self.loss)(pattern);
            let noise = |block: usize| {
                let bits: u64 = (0..pattern.len()).filter(|&l| pattern.is_full(l)).map(|l| 1u64 << l).sum();
                let mut random = super::random::Random::new(bits, (part * BLOCKS + block) as u64);
                let sum: usize = (0..12).map(|_| random.below(1000)).sum();
                (sum as f64 / 1000.0 - 6.0) * self.noise
            };
            done(Measured {
                pattern,
                part,
                blocks: (0..BLOCKS).map(|b| if is_reference { 0.0 } else { loss + noise(b) }).collect(),
                nll: 0.0,
                is_reference,
                layers: pattern.len(),
                seconds: 0.5,
            });
        }
        Ok(())
    }

    fn affinity(&mut self, _: AffinityKind) -> Result<Affinity, SearchError> {
        let layers = self.reference.len();
        let values = (0..layers * layers).map(|i| -((i / layers) as f64 - (i % layers) as f64).powi(2)).collect();
        Ok(Affinity { layers, values, layer_forwards: 0.0, seconds: 0.0 })
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub(super) struct Kept {
    pub measured: Vec<Measured>,
    pub progress: Vec<SearchProgress>,
}

impl Watch for Kept {
    fn measured(&mut self, measured: &Measured) {
        self.measured.push(measured.clone());
    }

    fn progress(&mut self, progress: &SearchProgress) {
        self.progress.push(progress.clone());
    }
}
