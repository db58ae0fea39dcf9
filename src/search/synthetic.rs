//! Evaluators with invented losses whose optimum is known.

use std::collections::HashSet;

use super::{Affinity, AffinityKind, Evaluate, Layout, Measured, Part, SearchError, Unit, Watch};
use crate::domain::{Pattern, Rng, Role, SearchProgress};

/// Blocks per part, and targets per block.
const BLOCKS: usize = 4;
const TARGETS: usize = 128;

/// A loss by formula of the pattern and the block; layers are counted as by an engine that runs common prefixes once.
pub(super) struct Synthetic {
    layout: Layout,
    reference: Pattern,
    loss: Box<dyn Fn(Pattern, usize) -> f64>,
    prefixes: HashSet<(usize, String)>,
    /// Units left before the evaluator interrupts.
    pub fuel: usize,
    /// Units measured.
    pub measured: usize,
}

impl Synthetic {
    /// Returns one whose loss is the same on every block up to noise that is fixed by pattern and block.
    pub(super) fn new(layers: usize, parts: usize, noise: f64, loss: impl Fn(Pattern) -> f64 + 'static) -> Self {
        Self::by_block(layers, parts, move |pattern, block| loss(pattern) + noise * normal(bits(pattern), block))
    }

    /// Returns one whose loss is given for each block.
    fn by_block(layers: usize, parts: usize, loss: impl Fn(Pattern, usize) -> f64 + 'static) -> Self {
        let part = |cluster| Part {
            blocks: vec![TARGETS; BLOCKS],
            clusters: vec![cluster; BLOCKS],
            targets: BLOCKS * TARGETS,
            sequences: 1,
        };
        let reference = Pattern::all_full(layers).unwrap();
        Self {
            layout: Layout { parts: (0..parts).map(part).collect() },
            reference,
            loss: Box::new(loss),
            prefixes: HashSet::new(),
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

    /// Returns one whose damage is the sum of each Shared layer's, which is `spread` more on every other part and as much
    /// less on those between: with an even number of parts the mean is the damage.
    pub(super) fn alternating(damages: Vec<f64>, parts: usize, spread: f64) -> Self {
        Self::by_block(damages.len(), parts, move |p, block| {
            let spread = if (block / BLOCKS).is_multiple_of(2) { spread } else { -spread };
            (0..p.len()).filter(|&l| p.role(l) == Role::Shared).map(|l| damages[l] + spread).sum()
        })
    }

    /// Returns one like a trained model: most layers give up next to nothing, a few much, more the farther their
    /// source is; each block takes it differently, and what two layers give up does not simply add.
    pub(super) fn deep(layers: usize, parts: usize, seed: u64) -> Self {
        let mut random = Rng::new(seed, 1);
        // From 0.0002 to 0.03 nats, evenly on the logarithm.
        let harm: Vec<f64> = (0..layers).map(|_| 2e-4 * 150f64.powf(random.below(1000) as f64 / 1000.0)).collect();
        Self::by_block(layers, parts, move |pattern, block| {
            let borrowed = |l: &usize| pattern.role(*l) == Role::Shared;
            let one = |l: usize| {
                let source = pattern.source(l);
                let own = normal(seed ^ (l * 128 + source) as u64, block);
                (harm[l] + 0.004 * own) * ((l - source) as f64).sqrt()
            };
            let sum: f64 = (0..layers).filter(borrowed).map(one).sum();
            sum + 0.3 * sum.abs() * sum + 0.001 * normal(seed ^ bits(pattern), block)
        })
    }
}

/// Returns a number of a normal distribution, always the same for the same key and block.
fn normal(key: u64, block: usize) -> f64 {
    let mut random = Rng::new(key, block as u64);
    let sum: usize = (0..12).map(|_| random.below(1000)).sum();
    sum as f64 / 1000.0 - 6.0
}

fn bits(pattern: Pattern) -> u64 {
    (0..pattern.len()).filter(|&l| pattern.is_full(l)).map(|l| 1u64 << l).sum()
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
            let loss = |block: usize| (self.loss)(pattern, part * BLOCKS + block);
            let letters = pattern.to_string();
            let fresh = |&to: &usize| self.prefixes.insert((part, letters[..to].to_owned()));
            let layers = (1..=pattern.len()).filter(fresh).count();
            done(Measured {
                pattern,
                part,
                blocks: (0..BLOCKS).map(|b| if is_reference { 0.0 } else { loss(b) }).collect(),
                nll: 0.0,
                is_reference,
                layers,
                seconds: 0.5,
            });
        }
        Ok(())
    }

    /// Mass recall falls with the distance; by cosine the first layer serves all but the last, which needs itself.
    fn affinity(&mut self, kind: AffinityKind) -> Result<Affinity, SearchError> {
        let layers = self.reference.len();
        let value = |layer: usize, lender: usize| match kind {
            AffinityKind::MassRecall => -(layer as f64 - lender as f64).powi(2),
            AffinityKind::OutputCosine => f64::from(u8::from(lender == if layer + 1 == layers { layer } else { 0 })),
        };
        let values = (0..layers * layers).map(|i| value(i / layers, i % layers)).collect();
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
