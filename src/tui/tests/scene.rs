//! A made-up model with its recording and results: the same for every test.

use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::analysis::{Metric, overlap};
use crate::domain::*;
use crate::engine::{Capabilities, Command, Coverage, LayerCoverage, ModelInfo, Update};
use crate::tui::app::{App, Engine};
use crate::tui::color::Depth;
use crate::tui::msg::{Effect, Msg};
use crate::tui::theme::Theme;
use crate::tui::update::update;
use crate::tui::{Opened, Options, ThemeChoice, Work};

/// Keys per query.
const K: usize = 32;

pub fn model(layers: usize, locked: &[usize]) -> ModelInfo {
    let constraints = Constraints { locked_shared: locked.iter().copied().collect(), ..Constraints::every(layers) };
    let reference = constraints.reference().unwrap();
    ModelInfo {
        name: "demo".into(),
        fingerprint: "sha256:demo".into(),
        model_type: "glm_moe_dsa".into(),
        index_topk: K,
        unit: SelectionUnit::Token,
        groups: 1,
        forced: 0,
        index_heads: 4,
        index: IndexSource::Checkpoint,
        constraints,
        native: reference,
        reference,
        device: "cpu".into(),
        dtype: "f32".into(),
        ops: "reference".into(),
        can: Capabilities::all(),
        data: "calibration text".into(),
        training: vec![("training text".into(), 131_072)],
        noise: None,
        sequences: 20,
        targets: 10_240,
        eligible: 9_812,
        context: 512,
        calibration: "sha256:text".into(),
    }
}

/// Sets that change slowly from layer to layer: key `i` of layer `l` moves on every 3 to 7 layers.
pub fn trace(pattern: Pattern) -> Arc<Trace> {
    let queries: Vec<Query> = (0..24).map(|q| Query { sequence: q / 12, position: 400 + q }).collect();
    let selections = (0..pattern.len()).map(|layer| {
        let own = pattern.source(layer);
        let mut selection = Selection::with_capacity(queries.len(), K);
        for q in 0..queries.len() {
            let row: Vec<u32> = (0..K).map(|i| (i * 12 + (own + i * 7 + q * 3) / (3 + i % 5) % 11) as u32).collect();
            selection.push(&row);
        }
        selection
    });
    Arc::new(Trace {
        meta: TraceMeta {
            schema: 1,
            model: "demo".into(),
            fingerprint: "sha256:demo".into(),
            pattern,
            index_topk: K,
            layers: pattern.len(),
            sites: LayerSet::default(),
            unit: SelectionUnit::Token,
            groups: 1,
            forced: 0,
            heads: 4,
            queries: QuerySampling::All,
            tokens_hash: "sha256:text".into(),
            mass_recall: None,
        },
        tokens: vec![vec![1; 512]; 2],
        selections: selections.collect(),
        queries,
    })
}

/// A loss that grows by 0.001 per Shared layer.
pub fn evaluation(pattern: Pattern, sequences: usize) -> Evaluation {
    let delta = 0.001 * pattern.shared_count() as f64;
    let bucket =
        |from: usize, delta| Bucket { from, to: from + 128, targets: 2560, loss: 2.5 - from as f64 / 1e3, delta };
    Evaluation {
        subject: Subject::Pattern(pattern),
        loss: 2.4031 + delta,
        delta: Some(Delta::measured(delta, 0.0007, 490 * sequences)),
        delta_all: delta * 0.9,
        reference_loss: 2.4031,
        agreement: Some(Agreement { same_top: 0.971, kl: 0.0041, kl_p99: 0.02 }),
        bits_per_byte: None,
        by_position: vec![bucket(0, None), bucket(128, Some(delta)), bucket(256, Some(delta * 1.2))],
        worst_sequence: Some(WorstSequence { index: 7, delta: delta * 3.0 }),
        by_cluster: Vec::new(),
        sequences: (sequences, 20),
        targets: 512 * sequences,
        eligible: 490 * sequences,
        blocks: 4 * sequences,
        resumed_from: 5,
        layer_forwards: 7.0,
        seconds: 2.1,
        origin: Origin::Measured,
    }
}

pub fn speeds(pattern: Pattern) -> Vec<Speed> {
    let faster = 1.0 + 0.01 * pattern.shared_count() as f64;
    let speed = |phase: &str, seconds: f64| Speed {
        pattern,
        phase: phase.into(),
        context: 4096,
        seconds: Timing {
            median: seconds,
            mad: seconds / 50.0,
            runs: 8,
            interval: Some((seconds * 0.98, seconds * 1.02)),
        },
        ratio: Timing { median: faster, mad: 0.02, runs: 8, interval: Some((faster - 0.03, faster + 0.02)) },
        share: PhaseShare { indexer: 0.19, topk: 0.05, attention: 0.31, mlp: 0.35, rest: 0.10 },
        ops: "reference".into(),
        origin: Origin::Measured,
    };
    vec![speed("prefill", 0.35), speed("decode", 0.014)]
}

pub fn coverage(pattern: Pattern) -> Coverage {
    let layers = (0..pattern.len())
        .filter(|&l| !pattern.is_full(l))
        .map(|layer| {
            let value = 1.0 - 0.13 * (layer - pattern.source(layer)) as f64;
            LayerCoverage { layer, overlap: Estimate { value, se: Some(0.004), n: 64 } }
        })
        .collect();
    Coverage { pattern, layers }
}

/// A session was read, and nobody else has it open.
pub fn opened(path: &str, work: Work) -> Msg {
    let file = crate::session::saved_path(path.as_ref());
    Msg::Opened(path.into(), Ok(Opened { work, file, other_text: false }))
}

/// A dashboard with its outside played by hand.
pub struct Scene {
    pub app: App,
    /// Commands posted to the worker so far.
    pub posted: Vec<Command>,
    /// Everything else that was asked of the outside.
    pub asked: Vec<Effect>,
}

impl Scene {
    /// Nothing is loaded yet.
    pub fn loading(theme: Theme) -> Self {
        let app = App::new("demo".into(), theme, Engine::Loading, None, None);
        Self { app, posted: Vec::new(), asked: Vec::new() }
    }

    /// The model is loaded, its recording made, and the reference measured.
    pub fn ready(model: ModelInfo, theme: Theme) -> Self {
        let mut scene = Self::loading(theme);
        let native = model.native;
        scene.worker(Update::Ready(Box::new(model)));
        scene.worker(Update::Recorded(trace(native)));
        scene.settle(native);
        scene
    }

    pub fn colours() -> Theme {
        Theme::new(Options::default(), Depth::True)
    }

    pub fn mono() -> Theme {
        Theme::new(Options { ascii: true, theme: ThemeChoice::Dark, ..Options::default() }, Depth::None)
    }

    /// The worker measures everything about `pattern`.
    pub fn settle(&mut self, pattern: Pattern) {
        self.worker(Update::Evaluated(Box::new(evaluation(pattern, 20))));
        self.worker(Update::Covered(coverage(pattern)));
        self.worker(Update::Measured(speeds(pattern)));
        self.worker(Update::Idle);
    }

    pub fn send(&mut self, msg: Msg) {
        for effect in update(&mut self.app, msg) {
            match effect {
                Effect::Send(command) => self.posted.push(command),
                Effect::Compare(trace, metric) => {
                    assert!(matches!(metric, Metric::Overlap | Metric::Jaccard));
                    let matrix = Arc::new(overlap::matrix(&trace, metric));
                    self.send(Msg::Matrix(trace, matrix));
                }
                other => self.asked.push(other),
            }
        }
    }

    pub fn worker(&mut self, update: Update) {
        self.send(Msg::Update(update));
    }

    /// Presses the key of each character; `^R` is Ctrl-R.
    pub fn type_keys(&mut self, keys: &str) {
        let mut chars = keys.chars();
        while let Some(c) = chars.next() {
            let (code, modifiers) = match c {
                '^' => (KeyCode::Char(chars.next().unwrap().to_ascii_lowercase()), KeyModifiers::CONTROL),
                '\n' => (KeyCode::Enter, KeyModifiers::NONE),
                '\u{1b}' => (KeyCode::Esc, KeyModifiers::NONE),
                c => (KeyCode::Char(c), KeyModifiers::NONE),
            };
            self.send(Msg::Key(KeyEvent::new(code, modifiers)));
        }
    }

    pub fn press(&mut self, code: KeyCode) {
        self.send(Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }

    /// Lets time pass.
    pub fn wait(&mut self, milliseconds: u64) {
        self.send(Msg::Tick(self.app.now + Duration::from_millis(milliseconds)));
    }

    pub fn pattern(&self) -> Pattern {
        self.app.pattern().unwrap()
    }

    /// Returns the screen as text.
    pub fn text(&mut self, width: u16, height: u16) -> String {
        super::snapshot::glyphs(&self.draw(width, height))
    }

    pub fn draw(&mut self, width: u16, height: u16) -> ratatui::buffer::Buffer {
        self.send(Msg::Resize(width, height));
        let mut buffer = ratatui::buffer::Buffer::empty(ratatui::layout::Rect::new(0, 0, width, height));
        crate::tui::view::render(&self.app, &mut buffer);
        buffer
    }
}
