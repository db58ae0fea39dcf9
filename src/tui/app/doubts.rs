//! What speaks against starting work that takes long.

use super::App;
use crate::engine::ModelInfo;
use crate::tui::format;

/// Seconds from which on work is not started unasked.
const LONG: f64 = 600.0;

impl App {
    /// Returns what speaks against work of about so many seconds that goes by losses; empty where nothing does.
    pub fn doubts(&self, seconds: Option<f64>) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.is_random() {
            doubts.push(
                "It would go by losses of random tokens, which say nothing about text: start with --text FILE.".into(),
            );
        }
        if self.is_short() {
            let k = self.topk().unwrap_or_default();
            doubts.push(format!(
                "No target sees more than k = {k} keys, so every pattern has the same loss: start with longer sequences (--seq-len N)."
            ));
        }
        if let Some(seconds) = seconds.filter(|seconds| *seconds > LONG) {
            doubts.push(format!("It may take up to {} at the pace of the last evaluation.", format::clock(seconds)));
        }
        doubts
    }

    /// Returns the seconds of one forward of all layers over the calibration set, at the pace of an evaluation.
    pub fn pace(&self) -> Option<f64> {
        let layers = self.pattern()?.len() as f64;
        let evaluations = self.known.results.values().filter_map(|r| r.evaluation.as_ref());
        let measured = evaluations.chain(&self.known.partial).find(|e| e.layer_forwards > 0.0)?;
        Some(measured.seconds / measured.layer_forwards * layers)
    }

    /// Returns whether losses are measured on random tokens.
    pub fn is_random(&self) -> bool {
        self.model.as_ref().is_some_and(ModelInfo::is_random)
    }
}
