//! The model card: what the demo was trained to be good for, measured on text that it has not seen.

use std::fmt;

use candle_core::{DType, Device};
use rayon::prelude::*;

use super::TrainError;
use crate::checkpoint::Checkpoint;
use crate::domain::{Delta, Pattern, Role, Selection, Subject, median_mad};
use crate::model::ops::cross_entropy;
use crate::model::tokenizer::Tokenizer;
use crate::model::{At, Entry, Forward, Indices, Model, Ops, Order, Ran, Route, Visitor, Walk, Weights};

/// What each layer attends to.
#[derive(Clone, Copy)]
enum Keys {
    Subject(Subject),
    /// The last `index_topk` tokens, in every layer.
    Window,
}

/// What a trained model measures up to; differences are over targets whose query sees more than `index_topk` keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Sequences and targets measured.
    pub targets: (usize, usize),
    /// Bits per byte of text under dense attention.
    pub dense_bits_per_byte: f64,
    /// Mean loss under dense attention, nats per token.
    pub dense_loss: f64,
    /// Mean loss with every layer Full, nats per token.
    pub full_loss: f64,
    /// All layers see the last `index_topk` tokens only, against all-Full.
    pub window: Delta,
    /// uniform:4 against all-Full.
    pub uniform4: Delta,
    /// Each layer from 1 on made Shared alone, against all-Full.
    pub flips: Vec<Delta>,
}

impl Card {
    /// Measures a checkpoint on a text, cut into sequences of `length` tokens.
    ///
    /// # Errors
    /// [`TrainError`] where the text is shorter than a sequence or the model fails.
    pub fn measure(
        checkpoint: &Checkpoint,
        tokenizer: &Tokenizer,
        text: &str,
        length: usize,
    ) -> Result<Self, TrainError> {
        let model = Model::load(checkpoint, &Device::Cpu, DType::F32)?;
        let layers = model.config().num_hidden_layers;
        let ids = tokenizer.encode(text)?;
        let sequences: Vec<Vec<u32>> = ids.chunks_exact(length.max(2)).map(<[u32]>::to_vec).collect();
        if sequences.is_empty() {
            return Err(TrainError::Short { path: "the text".into(), tokens: ids.len(), needed: length });
        }
        let all_full = Pattern::all_full(layers)?;
        let dense = losses(&model, &sequences, Keys::Subject(Subject::Dense))?;
        let full = losses(&model, &sequences, Keys::Subject(Subject::Pattern(all_full)))?;
        let mean =
            |nll: &[Vec<f64>]| nll.iter().flatten().sum::<f64>() / nll.iter().map(Vec::len).sum::<usize>() as f64;
        let bytes = sequences.iter().map(|s| tokenizer.byte_len(&s[1..])).sum::<Result<usize, _>>()?;
        let nats: f64 = dense.iter().flatten().sum();
        let delta = |keys| -> Result<Delta, TrainError> {
            let nll = losses(&model, &sequences, keys)?;
            Ok(paired(&nll, &full, model.config().index_topk))
        };
        Ok(Self {
            targets: (sequences.len(), dense.iter().map(Vec::len).sum()),
            dense_bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
            dense_loss: mean(&dense),
            full_loss: mean(&full),
            window: delta(Keys::Window)?,
            uniform4: delta(Keys::Subject(Subject::Pattern(Pattern::uniform(layers, 4)?)))?,
            flips: (1..layers)
                .map(|layer| delta(Keys::Subject(Subject::Pattern(all_full.with(layer, Role::Shared)?))))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Returns the goals in words, what was measured, and whether they are met.
    pub fn goals(&self) -> Vec<(&'static str, String, bool)> {
        let sigmas = |e: &Delta| e.se.map_or(0.0, |se| e.value / se);
        let apart = |e: &Delta| format!("{:+.4} ± {:.4} nats, {:.1} se", e.value, e.se.unwrap_or(f64::NAN), sigmas(e));
        let excess = 100.0 * (self.full_loss / self.dense_loss - 1.0);
        let flips: Vec<f64> = self.flips.iter().map(|e| e.value).collect();
        let largest = flips.iter().copied().fold(f64::MIN, f64::max);
        let median = median_mad(&flips).map_or(0.0, |(median, _)| median);
        let clear = self.flips.iter().filter(|e| sigmas(e) > 3.0).count();
        vec![
            (
                "dense attention below 1.88 bits/byte (xz -9 on such pages)",
                format!("{:.3} bits/byte, {:.4} nats/token", self.dense_bits_per_byte, self.dense_loss),
                self.dense_bits_per_byte < 1.88,
            ),
            (
                "all-Full within 2 % of dense",
                format!("{excess:+.2} %, {:.4} nats/token", self.full_loss),
                excess.abs() < 2.0,
            ),
            (
                "last index_topk tokens worse than all-Full by more than 5 se",
                apart(&self.window),
                sigmas(&self.window) > 5.0,
            ),
            ("uniform:4 worse than all-Full by more than 5 se", apart(&self.uniform4), sigmas(&self.uniform4) > 5.0),
            (
                "largest single flip at least 5 times the median",
                format!("{largest:+.4} against {median:+.4} nats"),
                largest >= 5.0 * median && largest > 0.0,
            ),
            ("at least 3 single flips above 3 se", format!("{clear} of {}", self.flips.len()), clear >= 3),
        ]
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sequences, {} targets; ± is one standard error over sequences\n",
            self.targets.0, self.targets.1
        )?;
        for (goal, measured, met) in self.goals() {
            writeln!(f, "{}  {goal}: {measured}", if met { "yes" } else { "NO " })?;
        }
        writeln!(f, "\nlayer made Shared alone, against all-Full:")?;
        for (layer, e) in (1..).zip(&self.flips) {
            writeln!(f, "{layer:>4}  {:+.4} ± {:.4}", e.value, e.se.unwrap_or(f64::NAN))?;
        }
        Ok(())
    }
}

/// Returns every target's loss, sequence by sequence.
fn losses(model: &Model, sequences: &[Vec<u32>], keys: Keys) -> Result<Vec<Vec<f64>>, TrainError> {
    sequences.par_iter().map(|ids| sequence_losses(model, ids, keys)).collect()
}

fn sequence_losses(model: &Model, ids: &[u32], keys: Keys) -> Result<Vec<f64>, TrainError> {
    let (subject, window) = match keys {
        Keys::Subject(subject) => (subject, None),
        Keys::Window => (Subject::Dense, Some(window(ids.len(), model.config().index_topk))),
    };
    let batch = [ids.to_vec()];
    let inputs = model.inputs(&batch, 0)?;
    let mut forward = [Forward::new(0, &inputs, 1, (0, Entry::first(model.embed(&batch)?)))];
    let walk = Walk::new(std::slice::from_ref(&subject), Ops::Fast);
    walk.run::<TrainError>(Weights::Resident(model), Order::Sequences, &mut forward, &mut Given(window))?;
    let [forward] = forward;
    let x = forward.into_hidden()?;
    let logits = model.logits(&x)?.squeeze(0)?;
    let nll = cross_entropy(&logits.narrow(0, 0, ids.len() - 1)?, &ids[1..])?.to_vec1::<f32>()?;
    Ok(nll.into_iter().map(f64::from).collect())
}

/// Gives every layer the same keys, where there are any.
struct Given(Option<Indices>);

impl Visitor<TrainError> for Given {
    fn enter(&mut self, _: &At, route: Route<'static>) -> Result<Route<'_>, TrainError> {
        Ok(self.0.as_ref().map_or(route, Route::Given))
    }

    fn ran(&mut self, _: &At, _: &Ran) -> Result<(), TrainError> {
        Ok(())
    }
}

fn window(length: usize, topk: usize) -> Indices {
    let mut rows = Selection::default();
    for i in 0..length as u32 {
        rows.push(&((i + 1).saturating_sub(topk as u32)..=i).collect::<Vec<_>>());
    }
    vec![rows].into()
}

/// Compares over eligible targets, those of positions that see more than `topk` keys.
fn paired(nll: &[Vec<f64>], reference: &[Vec<f64>], topk: usize) -> Delta {
    let differences =
        |(a, b): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> { a.iter().zip(b).skip(topk).map(|(a, b)| a - b).collect() };
    let differences: Vec<Vec<f64>> = nll.iter().zip(reference).map(differences).collect();
    let found = Delta::paired(differences.iter().map(Vec::as_slice).enumerate());
    let none = Delta { value: 0.0, se: None, n: 0, se_blocks: None, clusters: 0, interval: None };
    found.map_or(none, |(delta, _)| delta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_the_last_keys() {
        let rows = window(4, 2);
        let rows: Vec<&[u32]> = rows.sets().unwrap()[0].rows().collect();
        assert_eq!(rows, [&[0][..], &[0, 1], &[1, 2], &[2, 3]]);
    }

    #[test]
    fn differences_skip_what_cannot_change() {
        let reference = vec![vec![1.0; 600]; 8];
        let mut changed = reference.clone();
        for sequence in &mut changed {
            sequence[..32].fill(9.0);
            sequence[32..].fill(1.5);
        }
        let e = paired(&changed, &reference, 32);
        assert_eq!((e.value, e.se, e.n), (0.5, Some(0.0), 8 * 568));
    }

    #[test]
    fn goals_are_judged_by_their_numbers() {
        let at = |value, se| Delta::measured(value, se, 100);
        let mut card = Card {
            targets: (1, 1),
            dense_bits_per_byte: 1.5,
            dense_loss: 3.0,
            full_loss: 3.03,
            window: at(0.5, 0.05),
            uniform4: at(0.2, 0.02),
            flips: [0.01, 0.01, 0.01, 0.05, 0.06].map(|v| at(v, 0.002)).to_vec(),
        };
        assert!(card.goals().iter().all(|(_, _, met)| *met), "{card}");
        card.dense_loss = 2.9;
        card.window = at(0.2, 0.05);
        card.flips[4] = at(0.049, 0.1);
        let met: Vec<bool> = card.goals().iter().map(|(_, _, met)| *met).collect();
        assert_eq!(met, [true, false, false, true, true, true]);
        assert!(card.to_string().contains("NO   all-Full within 2 % of dense: +4.48 %"), "{card}");
    }
}
