//! DeepSeek-V4 against numbers that this program did not make: what transformers 5.23 computes on small checkpoints.
//!
//! `deepseek_v4_odd` has layers that select at 0, 2, 3, 6 and 8, so that a site taken for a layer shows; `_tiny` has the
//! layout, names and YaRN of V4-Flash; `_fp4` its storage. `negative_controls` of `expected.json` says what a broken
//! convention does to the logits.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{DType, Device, IndexOp, Tensor};
use indexscope::checkpoint::Checkpoint;
use indexscope::model::{Attend, Indices, Model, Ops, Pass, Stream};
use serde::Deserialize;
use serde_json::{Value, json};

/// Below this distance of the k-th score to the next, rounding may decide which entry is selected.
const CLEAR_MARGIN: f32 = 1e-5;

#[derive(Deserialize)]
struct Expected {
    patterns: BTreeMap<String, Pattern>,
    sites: Vec<usize>,
    suggested_atol_logits: f32,
    negative_controls: BTreeMap<String, f32>,
}

#[derive(Deserialize)]
struct Pattern {
    sequences: BTreeMap<String, Losses>,
}

#[derive(Deserialize)]
struct Losses {
    loss: f64,
}

struct Fixture {
    name: &'static str,
    checkpoint: Checkpoint,
    expected: Expected,
    tensors: HashMap<String, Tensor>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

impl Fixture {
    fn open(name: &'static str) -> Self {
        let expected = serde_json::from_slice(&std::fs::read(data(name).join("expected.json")).unwrap()).unwrap();
        let tensors = candle_core::safetensors::load(data(name).join("expected.safetensors"), &Device::Cpu).unwrap();
        let checkpoint = Checkpoint::open(&data(name)).unwrap();
        checkpoint.check().unwrap();
        Self { name, checkpoint, expected, tensors }
    }

    fn model(&self) -> Model {
        Model::load(&self.checkpoint, &Device::Cpu, DType::F32).unwrap()
    }

    fn ids(&self, key: &str) -> Vec<u32> {
        self.tensors[key].to_dtype(DType::U32).unwrap().to_vec2().unwrap().remove(0)
    }

    /// Runs the layers; `letters` has one per site, or is empty for dense attention. Returns logits `[T, V]` and the
    /// selection of every Full site.
    fn forward(&self, model: &Model, ids: &[u32], letters: &str, ops: Ops) -> (Tensor, Vec<Indices>) {
        let ids = [ids.to_vec()];
        let (mut x, inputs) = (model.embed(&ids).unwrap(), model.inputs(&ids, 0).unwrap());
        let (mut last, mut found): (Option<Indices>, Vec<Indices>) = (None, Vec::new());
        let mut roles = letters.chars();
        for layer in 0..model.config().num_hidden_layers {
            let role = if self.expected.sites.contains(&layer) { roles.next() } else { None };
            let attend = match (role, &last) {
                (Some('S'), Some(indices)) => Attend::Given(indices),
                (Some('F'), _) => Attend::Own,
                _ => Attend::Dense,
            };
            let out = model.layer(layer, &x, &inputs, &mut Pass { ops, ..Pass::new(attend) }).unwrap();
            x = out.hidden;
            if role == Some('F') {
                found.extend(out.indices.clone());
            }
            last = out.indices.or(last);
        }
        (model.logits(&x).unwrap().i(0).unwrap(), found)
    }

    fn worst(&self, key: &str, got: &Tensor) -> f32 {
        (got - &self.tensors[key]).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// Compares every pattern and sequence; returns how many sets were compared.
    fn compare(&self, ops: Ops) -> usize {
        let (model, mut compared) = (self.model(), 0);
        for (letters, pattern) in &self.expected.patterns {
            for (sequence, Losses { loss }) in &pattern.sequences {
                let at = format!("{} {letters} {sequence} ({ops})", self.name);
                let ids = self.ids(&format!("input_ids.{sequence}"));
                let (logits, found) = self.forward(&model, &ids, letters, ops);
                let worst = self.worst(&format!("logits.{letters}.{sequence}"), &logits);
                assert!(worst <= self.expected.suggested_atol_logits, "{at}: logits differ by {worst:e}");
                let got = mean_loss(&logits, &ids);
                assert!((got - loss).abs() <= 1e-4, "{at}: loss is {got}, not {loss}");
                compared += self.compare_sets(&at, &format!("{letters}.{sequence}"), &found);
            }
        }
        let short = self.ids("short_input_ids");
        for letters in self.expected.patterns.keys() {
            let (logits, _) = self.forward(&model, &short, letters, ops);
            let worst = self.worst("short_logits", &logits);
            assert!(worst <= self.expected.suggested_atol_logits, "{} {letters}: {worst:e} where all fit", self.name);
        }
        compared
    }

    fn compare_sets(&self, at: &str, key: &str, found: &[Indices]) -> usize {
        let want = self.tensors[&format!("topk.{key}")].to_dtype(DType::I64).unwrap().to_vec3::<i64>().unwrap();
        let margins = self.tensors[&format!("margin.{key}")].to_vec2::<f32>().unwrap();
        assert_eq!(want.len(), found.len(), "{at}: Full sites");
        let mut compared = 0;
        for (site, (got, (want, margins))) in found.iter().zip(want.iter().zip(&margins)).enumerate() {
            for (query, row) in want.iter().enumerate().filter(|&(query, _)| margins[query] > CLEAR_MARGIN) {
                let want: Vec<u32> = row.iter().filter(|&&e| e >= 0).map(|&e| e as u32).collect();
                assert_eq!(got.sets().unwrap()[0].row(query), want, "{at}: Full site {site}, query {query}");
                compared += 1;
            }
        }
        compared
    }
}

fn mean_loss(logits: &Tensor, ids: &[u32]) -> f64 {
    let rows: Vec<Vec<f32>> = logits.to_vec2().unwrap();
    let nll = |(row, &id): (&Vec<f32>, &u32)| {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - top).exp()).sum();
        sum.ln() + f64::from(top - row[id as usize])
    };
    rows.iter().zip(&ids[1..]).map(nll).sum::<f64>() / (ids.len() - 1) as f64
}

#[test]
fn odd_sizes_agree_in_both_forms_under_all_patterns() {
    let fixture = Fixture::open("deepseek_v4_odd");
    for ops in [Ops::Reference, Ops::Fast] {
        assert_eq!(fixture.compare(ops), 13 * (141 + 74), "every set is clear");
    }
}

#[test]
fn the_layout_of_flash_agrees_in_both_forms_under_all_patterns() {
    let fixture = Fixture::open("deepseek_v4_tiny");
    for ops in [Ops::Reference, Ops::Fast] {
        assert!(fixture.compare(ops) > 1000);
    }
}

#[test]
fn fp4_and_fp8_storage_is_read() {
    assert!(Fixture::open("deepseek_v4_fp4").compare(Ops::Fast) > 500);
}

#[test]
fn both_spellings_of_the_config_are_one_model() {
    for name in ["deepseek_v4_tiny", "deepseek_v4_fp4"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(data(name).join("config_hub_style.json"), folder.path().join("config.json")).unwrap();
        std::fs::copy(data(name).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let (hub, saved) = (Checkpoint::open(folder.path()).unwrap(), Checkpoint::open(&data(name)).unwrap());
        assert_eq!(hub.config(), saved.config(), "{name}");
        assert_eq!(hub.fingerprint(), saved.fingerprint(), "{name}");
        hub.check().unwrap();
    }
}

#[test]
fn layers_that_are_streamed_compute_the_same() {
    let fixture = Fixture::open("deepseek_v4_odd");
    let (model, ids) = (fixture.model(), [fixture.ids("input_ids.1")]);
    let stream = Stream::new(fixture.checkpoint.clone(), Device::Cpu, DType::F32);
    let (inputs, mut x) = (stream.inputs(&ids).unwrap(), stream.embedding().unwrap().embed(&ids).unwrap());
    for layer in 0..9 {
        let pass = &mut Pass { ops: Ops::Fast, ..Pass::new(Attend::Own) };
        x = stream.layer(layer).unwrap().forward(&x, &inputs, pass).unwrap().hidden;
    }
    let (want, _) = fixture.forward(&model, &ids[0], "FFFFF", Ops::Fast);
    let got = stream.head().unwrap().logits(&x).unwrap().i(0).unwrap();
    assert_eq!(got.to_vec2::<f32>().unwrap(), want.to_vec2::<f32>().unwrap());
}

#[test]
fn dense_attention_moves_the_logits_as_the_reference_says() {
    let fixture = Fixture::open("deepseek_v4_odd");
    let (model, ids) = (fixture.model(), fixture.ids("input_ids.0"));
    for ops in [Ops::Reference, Ops::Fast] {
        let (logits, _) = fixture.forward(&model, &ids, "", ops);
        let moved = fixture.worst("logits.FFFFF.0", &logits);
        let want = fixture.expected.negative_controls["dense_no_topk"];
        assert!((moved - want).abs() <= fixture.expected.suggested_atol_logits, "{ops}: {moved}, not {want}");
    }
}

/// A checkpoint with another config and other numbers in some tensors.
fn altered(
    name: &'static str,
    config: &[(&str, &str)],
    tensors: impl Fn(&str, Tensor) -> Option<Tensor>,
) -> (tempfile::TempDir, Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let mut json = std::fs::read_to_string(data(name).join("config.json")).unwrap();
    for (from, to) in config {
        assert!(json.contains(from), "{from}");
        json = json.replace(from, to);
    }
    std::fs::write(folder.path().join("config.json"), json).unwrap();
    let all = candle_core::safetensors::load(data(name).join("model.safetensors"), &Device::Cpu).unwrap();
    let all: HashMap<String, Tensor> =
        all.into_iter().filter_map(|(n, t)| Some((n.clone(), tensors(&n, t)?))).collect();
    candle_core::safetensors::save(&all, folder.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, Fixture { checkpoint, ..Fixture::open(name) })
}

/// A control: its name, what changes in the config, and what becomes of each tensor.
type Control<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a dyn Fn(&str, Tensor) -> Option<Tensor>);

/// Broken conventions that a config or tensors can express move the logits as far as they do in the reference, and a
/// hundred times further than the tolerance.
#[test]
fn broken_conventions_show_as_they_do_in_the_reference() {
    let odd = "deepseek_v4_odd";
    let keep = |_: &str, t: Tensor| Some(t);
    let no_sinks =
        |n: &str, t: Tensor| Some(if n.ends_with("attn_sink") { (t.zeros_like().unwrap() - 1e30).unwrap() } else { t });
    let no_bias = |n: &str, t: Tensor| Some(if n.ends_with("gate.bias") { t.zeros_like().unwrap() } else { t });
    let shifted = |n: &str, t: Tensor| {
        let rolled = |t: &Tensor| {
            let rows = t.dim(0).unwrap();
            Tensor::cat(&[t.narrow(0, rows - 1, 1).unwrap(), t.narrow(0, 0, rows - 1).unwrap()], 0).unwrap()
        };
        Some(if n.ends_with("tid2eid") { rolled(&t) } else { t })
    };
    let controls: [Control; 9] = [
        ("compress_layers_use_main_theta", &[("\"rope_theta\": 40000", "\"rope_theta\": 5000")], &keep),
        ("sliding_layers_use_compress_theta", &[("\"rope_theta\": 5000", "\"rope_theta\": 40000")], &keep),
        ("one_sinkhorn_iteration_less", &[("\"hc_sinkhorn_iters\": 3", "\"hc_sinkhorn_iters\": 2")], &keep),
        ("hc_eps_zero", &[("\"hc_eps\": 0.001", "\"hc_eps\": 0.0")], &keep),
        ("swiglu_limit_ignored", &[("\"swiglu_limit\": 0.6", "\"swiglu_limit\": 0.0")], &keep),
        ("window_one_too_wide", &[("\"sliding_window\": 11", "\"sliding_window\": 12")], &keep),
        ("sinks_ignored", &[], &no_sinks),
        ("router_bias_ignored", &[], &no_bias),
        ("hash_table_shifted_by_one_token", &[], &shifted),
    ];
    let weakest = controls.map(|(control, config, tensors)| {
        let (_folder, fixture) = altered(odd, config, tensors);
        let ids = fixture.ids("input_ids.0");
        let (logits, _) = fixture.forward(&fixture.model(), &ids, "FFFFF", Ops::Fast);
        let moved = fixture.worst("logits.FFFFF.0", &logits);
        let (want, tolerance) = (fixture.expected.negative_controls[control], fixture.expected.suggested_atol_logits);
        assert!(moved > 100.0 * tolerance, "{control}: {moved}");
        (control, moved, want)
    });
    // The reference's numbers are the worst over its own inputs; those of one sequence are no larger.
    for (control, moved, want) in weakest {
        assert!(moved <= want * 1.01 && moved >= want * 0.05, "{control}: {moved}, not {want}");
    }
}

#[test]
fn a_site_that_shares_needs_no_indexer_and_one_that_does_not_names_its_layer() {
    let without = |n: &str, t: Tensor| if n.contains("layers.3.attn.indexer") { None } else { Some(t) };
    let (_folder, fixture) = altered("deepseek_v4_odd", &[], without);
    let error = fixture.checkpoint.check().unwrap_err();
    assert!(error.to_string().contains("layer 3 is Full"), "{error}");
    let (model, ids) = (fixture.model(), fixture.ids("input_ids.1"));
    assert!(!model.has_indexer(3) && model.has_indexer(2) && !model.has_indexer(1));
    let (logits, _) = fixture.forward(&model, &ids, "FFSSS", Ops::Fast);
    assert!(fixture.worst("logits.FFSSS.1", &logits) <= fixture.expected.suggested_atol_logits);
}

#[test]
fn what_is_missing_is_named_as_the_file_would_spell_it() {
    for (gone, want) in [
        ("layers.1.attn.compressor.ape", "tensor 'layers.1.attn.compressor.ape' is missing"),
        ("layers.2.ffn.experts.4.w3.weight", "tensor 'layers.2.ffn.experts.4.w3.weight' is missing"),
        ("layers.0.ffn.gate.tid2eid", "tensor 'layers.0.ffn.gate.tid2eid' is missing"),
        ("hc_head.hc_fn", "tensor 'hc_head_fn' is missing"),
    ] {
        let without = |n: &str, t: Tensor| if n.ends_with(gone) { None } else { Some(t) };
        let error = altered("deepseek_v4_odd", &[], without).1.checkpoint.check().unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let wide = |n: &str, t: Tensor| Some(if n.ends_with("tid2eid") { (t + 7.0).unwrap() } else { t });
    let error = Model::load(&altered("deepseek_v4_odd", &[], wide).1.checkpoint, &Device::Cpu, DType::F32).unwrap_err();
    assert!(
        error.to_string().contains("names expert 7, but there are 7 experts")
            || error.to_string().contains("names expert"),
        "{error}"
    );
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_indexscope")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json", "--quiet"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes both sequences of a fixture as tokens.
fn tokens(fixture: &Fixture, folder: &Path) -> String {
    let path = folder.join("tokens.json");
    std::fs::write(&path, json!([fixture.ids("input_ids.0"), fixture.ids("input_ids.1")]).to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn eval_gives_the_losses_of_the_reference_over_sites() {
    let (fixture, folder) = (Fixture::open("deepseek_v4_odd"), tempfile::tempdir().unwrap());
    let (model, tokens) = ("tests/data/deepseek_v4_odd", tokens(&fixture, folder.path()));
    let letters: Vec<&str> = fixture.expected.patterns.keys().map(String::as_str).collect();
    let patterns = letters.iter().flat_map(|letters| ["--pattern", letters]);
    let arguments: Vec<&str> =
        ["eval", model, "--tokens", &tokens].into_iter().chain(patterns).chain(["--pattern", "dense"]).collect();
    let numbers = |json: &Value| -> Vec<(f64, f64)> {
        let number = |value: &Value| value.as_f64().unwrap();
        json["results"].as_array().unwrap().iter().map(|r| (number(&r["loss"]), number(&r["delta_all"]))).collect()
    };
    let fast = json(&arguments);
    // Positions from 31 on see more than 7 entries; the last token of a sequence has no target.
    assert_eq!((&fast["targets"], &fast["eligible"]), (&json!(140 + 73), &json!(109 + 42)));
    for (letters, (loss, _)) in letters.iter().zip(numbers(&fast)) {
        let of = |sequence: &str| fixture.expected.patterns[*letters].sequences[sequence].loss;
        let want = (of("0") * 140.0 + of("1") * 73.0) / 213.0;
        assert!((loss - want).abs() <= 1e-4, "{letters}: {loss}, not {want}");
    }
    let streamed = json(&[&arguments[..], &["--stream"]].concat());
    assert_eq!(numbers(&streamed), numbers(&fast), "one layer at a time changes no number");
    let reference = json(&[&arguments[..], &["--attention", "reference"]].concat());
    for ((a, _), (b, _)) in numbers(&reference).into_iter().zip(numbers(&fast)) {
        assert!((a - b).abs() <= 1e-5, "{a}, {b}");
    }
    // The same pattern over all layers, and one that has a letter too many.
    let over_layers = json(&["eval", model, "--tokens", &tokens, "--pattern", "F-SF--S-F"]);
    assert_eq!(over_layers["results"][0]["pattern"], json!("FSFSF"));
    let output = run(&["eval", model, "--tokens", &tokens, "--pattern", "FFFFFF"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("hint: "), "{error}");
}

#[test]
fn recordings_hold_the_entries_of_the_reference() {
    let (fixture, folder) = (Fixture::open("deepseek_v4_odd"), tempfile::tempdir().unwrap());
    let (model, tokens) = ("tests/data/deepseek_v4_odd", tokens(&fixture, folder.path()));
    let mut want = [[0.0; 5]; 5];
    for sequence in 0..2 {
        let sets = fixture.tensors[&format!("topk.FFFFF.{sequence}")].to_dtype(DType::I64).unwrap();
        let sets: Vec<Vec<Vec<i64>>> = sets.to_vec3().unwrap();
        for (i, row) in want.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                for (a, b) in sets[i].iter().zip(&sets[j]).skip(31) {
                    let both = a.iter().filter(|e| b.contains(e)).count();
                    *cell += both as f64 / 7.0 / (110.0 + 43.0);
                }
            }
        }
    }
    for name in ["sets.trace", "sets.safetensors"] {
        let trace = folder.path().join(name).display().to_string();
        for stream in [&[][..], &["--stream"]] {
            json(&[&["record", model, "--tokens", &tokens, "--out", &trace], stream].concat());
            let overlap = json(&["overlap", &trace]);
            assert_eq!(overlap["counted"], json!(110 + 43), "{overlap}");
            for (i, row) in want.iter().enumerate() {
                for (j, want) in row.iter().enumerate() {
                    let got = overlap["matrix"][i][j].as_f64().unwrap();
                    assert!((got - want).abs() < 1e-6, "sites {i}, {j}: {got}, not {want}");
                }
            }
        }
    }
}

#[test]
fn searches_run_over_sites() {
    let (fixture, folder) = (Fixture::open("deepseek_v4_odd"), tempfile::tempdir().unwrap());
    let (model, tokens) = ("tests/data/deepseek_v4_odd", tokens(&fixture, folder.path()));
    let session = folder.path().join("searched.toml").display().to_string();
    let found = json(&["search", model, "--tokens", &tokens, "--keep", "2", "--session", &session]).to_string();
    assert!(found.contains("\"FSSFS\"") || found.contains("SSS"), "{found}");
    let info = json(&["info", model]);
    assert_eq!((&info["layers"], &info["model_type"]), (&json!(9), &json!("deepseek_v4")));
}

#[test]
fn what_does_not_carry_over_is_refused_by_name() {
    let (fixture, folder) = (Fixture::open("deepseek_v4_odd"), tempfile::tempdir().unwrap());
    let (model, tokens) = ("tests/data/deepseek_v4_odd", tokens(&fixture, folder.path()));
    let out = folder.path().join("out.safetensors").display().to_string();
    for arguments in [
        &["eval", model, "--tokens", &tokens, "--pattern", "all-full", "--index", "oracle"][..],
        &["record", model, "--tokens", &tokens, "--out", &out, "--mass-recall", "4"],
        &["train", "indexers", model, "--tokens", &tokens, "--out", &out, "--seq-len", "128"],
        &["bench", model, "--context", "64", "--pattern", "uniform:2"],
    ] {
        let output = run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {error}");
        assert!(error.contains("deepseek_v4") && error.contains("hint: "), "{arguments:?}: {error}");
    }
}
