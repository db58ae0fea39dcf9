//! MiniMax-M3 against what transformers 5.23 computes on a small checkpoint.
//!
//! `tests/data/minimax_m3_tiny` holds the checkpoint in both spellings of its config, and the expected values: losses of
//! every pattern, logits of three, and the block sets of every Full site with their margins.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{DType, Device, Tensor};
use indexscope::checkpoint::{Attention, Checkpoint, Config, Part};
use indexscope::model::{Attend, CheckpointSource, Indices, Model, Ops, Pass, TensorSource};
use serde::Deserialize;
use serde_json::Value;

/// Below this distance of the k-th score to the next, rounding may decide which block is selected.
const CLEAR_MARGIN: f32 = 1e-5;

#[derive(Deserialize)]
struct Expected {
    patterns: BTreeMap<String, Losses>,
    sites: Vec<usize>,
    suggested_atol_logits: f32,
    negative_controls: BTreeMap<String, Control>,
}

#[derive(Deserialize)]
struct Losses {
    loss_per_sequence: Vec<f64>,
    short_loss: f64,
}

#[derive(Deserialize)]
struct Control {
    max_logit_change: f64,
    loss_change: f64,
    sets_changed_at_first_site: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/minimax_m3_tiny")
}

fn expected() -> (Expected, HashMap<String, Tensor>) {
    let values = serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    (values, candle_core::safetensors::load(folder().join("expected.safetensors"), &Device::Cpu).unwrap())
}

fn ids(tensor: &Tensor) -> Vec<Vec<u32>> {
    tensor.to_dtype(DType::U32).unwrap().to_vec2().unwrap()
}

/// Runs the model; `letters` has one per site. Returns logits `[B, T, V]` and the selection of every Full site.
fn forward(model: &Model, letters: &str, ids: &[Vec<u32>], ops: Ops) -> (Tensor, Vec<Indices>) {
    let Attention::MiniMaxM3(own) = model.config().attention else { panic!("MiniMax-M3 expected") };
    let inputs = model.inputs(ids, 0).unwrap();
    let (mut x, mut roles) = (model.embed(ids).unwrap(), letters.chars());
    let (mut last, mut found): (Option<Indices>, Vec<Indices>) = (None, Vec::new());
    for layer in 0..model.config().num_hidden_layers {
        let role = if own.sites.contains(layer) { roles.next() } else { None };
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
    (model.logits(&x).unwrap(), found)
}

/// Returns the mean loss of each sequence.
fn losses(logits: &Tensor, ids: &[Vec<u32>]) -> Vec<f64> {
    let rows = logits.to_dtype(DType::F64).unwrap().to_vec3::<f64>().unwrap();
    let nll = |row: &[f64], id: u32| {
        let top = row.iter().copied().fold(f64::MIN, f64::max);
        top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln() - row[id as usize]
    };
    let one = |(rows, ids): (&Vec<Vec<f64>>, &Vec<u32>)| {
        rows.iter().zip(&ids[1..]).map(|(row, &id)| nll(row, id)).sum::<f64>() / (ids.len() - 1) as f64
    };
    rows.iter().zip(ids).map(one).collect()
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    f64::from((a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap())
}

/// Returns how many sets differ from `topk.P` where the margin is clear, and how many are clear.
fn wrong_sets(tensors: &HashMap<String, Tensor>, letters: &str, found: &[Indices]) -> (usize, usize) {
    let rows =
        |tensor: &Tensor, width: usize, dtype: DType| tensor.to_dtype(dtype).unwrap().reshape(((), width)).unwrap();
    let topk = &tensors[&format!("topk.{letters}")];
    let (sites, sequences, groups, tokens, kb) = topk.dims5().unwrap();
    assert_eq!(sites, found.len(), "{letters}: Full sites");
    let want: Vec<Vec<i64>> = rows(topk, kb, DType::I64).to_vec2().unwrap();
    let margins: Vec<f32> = tensors[&format!("margin.{letters}")].flatten_all().unwrap().to_vec1().unwrap();
    let (mut wrong, mut clear) = (0, 0);
    for (at, (want, margin)) in want.iter().zip(margins).enumerate() {
        if margin <= CLEAR_MARGIN {
            continue;
        }
        let (i, g, n) = (at % tokens, at / tokens % groups, at / (tokens * groups) % sequences);
        let want: Vec<u32> = want.iter().filter(|&&block| block >= 0).map(|&block| block as u32).collect();
        let sets = &found[at / (tokens * groups * sequences)].sets().unwrap()[n];
        clear += 1;
        wrong += usize::from(sets.row(i * groups + g) != want);
    }
    (wrong, clear)
}

fn load(checkpoint: &Checkpoint) -> Model {
    checkpoint.check().unwrap();
    Model::load(checkpoint, &Device::Cpu, DType::F32).unwrap()
}

#[test]
fn losses_logits_and_sets_are_those_of_transformers_in_both_forms() {
    let (expected, tensors) = expected();
    let model = load(&Checkpoint::open(&folder()).unwrap());
    let ids = ids(&tensors["input_ids"]);
    for (letters, want) in &expected.patterns {
        for ops in [Ops::Reference, Ops::Fast] {
            let (logits, found) = forward(&model, letters, &ids, ops);
            for (got, want) in losses(&logits, &ids).iter().zip(&want.loss_per_sequence) {
                assert!((got - want).abs() < 1e-4, "{letters} ({ops}): loss is {got}, not {want}");
            }
            if let Some(want) = tensors.get(&format!("logits.{letters}")) {
                let worst = furthest(&logits, want);
                assert!(worst <= f64::from(expected.suggested_atol_logits), "{letters} ({ops}): {worst:e}");
            }
            let (wrong, clear) = wrong_sets(&tensors, letters, &found);
            assert!(wrong == 0 && clear == found.len() * 400, "{letters} ({ops}): {wrong} of {clear} sets differ");
        }
    }
}

#[test]
fn a_short_context_knows_no_pattern() {
    let (expected, tensors) = expected();
    let model = load(&Checkpoint::open(&folder()).unwrap());
    let ids = ids(&tensors["short_input_ids"]);
    let mut all = Vec::new();
    for (letters, want) in &expected.patterns {
        let (logits, _) = forward(&model, letters, &ids, Ops::Fast);
        assert!((losses(&logits, &ids)[0] - want.short_loss).abs() < 1e-4, "{letters}");
        assert!(furthest(&logits, &tensors["short_logits.FFFFFF"].unsqueeze(0).unwrap()) < 5e-4, "{letters}");
        all.push(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the same bits under every pattern");
}

#[test]
fn both_spellings_of_the_config_are_one_model() {
    let config = |file: &str| Config::parse(&std::fs::read_to_string(folder().join(file)).unwrap()).unwrap();
    assert_eq!(config("config.json"), config("config_hub_style.json"));
    let (expected, _) = expected();
    let Attention::MiniMaxM3(own) = config("config.json").attention else { panic!("MiniMax-M3 expected") };
    assert_eq!(Vec::from(own.sites), expected.sites);
}

#[test]
fn vision_projector_and_mtp_are_skipped_and_counted() {
    let checkpoint = Checkpoint::open(&folder()).unwrap();
    assert!(checkpoint.tensors().all(|(name, _)| name.starts_with("model.") || name == "lm_head.weight"));
    let bytes = |part| checkpoint.parts().iter().find(|p| p.part == part).map_or(0, |p| p.bytes);
    assert_eq!(bytes(Part::Mtp), 64);
    assert!(bytes(Part::Vision) > 0 && bytes(Part::Indexer) > 0 && bytes(Part::Router) > 0);
    assert_eq!(bytes(Part::Other), 0);
}

/// The checkpoint with some tensors replaced.
#[derive(Debug)]
struct Changed(CheckpointSource, Swap);

/// Changes the config.
type Edit = fn(&mut Config);
/// Changes a tensor.
type Swap = fn(&str, Tensor) -> candle_core::Result<Tensor>;

impl TensorSource for Changed {
    fn get(&self, name: &str, shape: &[usize], dtype: DType) -> indexscope::model::Result<Tensor> {
        Ok((self.1)(name, self.0.get(name, shape, dtype)?)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Mistakes that a config or other tensors can express move the logits as much as the second implementation says, which
/// is more than a hundred times the tolerance of the comparison above.
#[test]
fn negative_controls_change_what_they_should() {
    let (expected, tensors) = expected();
    let checkpoint = Checkpoint::open(&folder()).unwrap();
    let ids = ids(&tensors["input_ids"]);
    let weakest = expected.negative_controls.values().map(|c| c.max_logit_change).fold(f64::MAX, f64::min);
    assert!(f64::from(expected.suggested_atol_logits) < weakest / 100.0);
    let same: Edit = |_| {};
    let kept: Swap = |_, tensor| Ok(tensor);
    let controls: [(&str, Edit, Swap); 7] = [
        ("norm_without_plus_1", same, |name, tensor| if name.contains("norm") { tensor - 1.0 } else { Ok(tensor) }),
        ("no_swiglu_clamp", |config| own(config).swiglu_limit = 1e30, kept),
        ("rope_whole_head", |config| (config.qk_nope_head_dim, config.qk_rope_head_dim) = (0, 16), kept),
        ("no_forced_local", |config| own(config).index_local_blocks = 0, kept),
        ("routed_factor_dropped", |config| config.routed_scaling_factor = 1.0, kept),
        ("router_bias_ignored", same, |name, tensor| {
            if name.contains("e_score_correction_bias") { tensor.zeros_like() } else { Ok(tensor) }
        }),
        ("dense", same, kept),
    ];
    for (name, edit, swap) in controls {
        let mut config = checkpoint.config().clone();
        edit(&mut config);
        let source = CheckpointSource { checkpoint: checkpoint.clone(), device: Device::Cpu, defer_experts: false };
        let model = Model::new(config, &Changed(source, swap), &Device::Cpu, DType::F32).unwrap();
        let letters = if name == "dense" { "------" } else { "FFFFFF" };
        let (logits, found) = forward(&model, letters, &ids, Ops::Fast);
        let (want, right) = (&expected.negative_controls[name], &tensors["logits.FFFFFF"]);
        let moved = furthest(&logits, right);
        assert!((moved - want.max_logit_change).abs() < 1e-3, "{name}: {moved}, not {}", want.max_logit_change);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let change = mean(&losses(&logits, &ids)) - mean(&expected.patterns["FFFFFF"].loss_per_sequence);
        assert!((change - want.loss_change).abs() < 1e-4, "{name}: {change}, not {}", want.loss_change);
        if name != "dense" {
            let first = tensors["topk.FFFFFF"].narrow(0, 0, 1).unwrap();
            let margin = tensors["margin.FFFFFF"].narrow(0, 0, 1).unwrap();
            let first = HashMap::from([("topk.F".to_owned(), first), ("margin.F".to_owned(), margin)]);
            assert_eq!(wrong_sets(&first, "F", &found[..1]).0, want.sets_changed_at_first_site, "{name}");
        }
    }
}

fn own(config: &mut Config) -> &mut indexscope::checkpoint::MiniMaxM3 {
    match &mut config.attention {
        Attention::MiniMaxM3(own) => own,
        _ => panic!("MiniMax-M3 expected"),
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_indexscope");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json", "--quiet"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes the fixture's sequences as `--tokens` takes them.
fn tokens(dir: &Path) -> String {
    let path = dir.join("tokens.json");
    std::fs::write(&path, serde_json::to_string(&ids(&expected().1["input_ids"])).unwrap()).unwrap();
    path.display().to_string()
}

#[test]
fn eval_finds_the_losses_resident_and_streamed_and_over_sites_and_layers() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens, patterns) = (folder().display().to_string(), tokens(dir.path()), expected().0.patterns);
    let mut arguments = vec!["eval", &model, "--tokens", &tokens];
    // The second time over all layers, of which the first selects nothing.
    let forms = ["", "-"].map(|first| patterns.keys().map(move |letters| format!("--pattern={first}{letters}")));
    let all: Vec<String> = forms.into_iter().flatten().collect();
    arguments.extend(all.iter().map(String::as_str));
    for more in [&[][..], &["--stream"], &["--attention", "reference"], &["--attention", "reference", "--stream"]] {
        let report = json(&[&arguments, more].concat());
        // Queries that see more than four blocks of eight keys; the last has no target.
        assert_eq!(report["eligible"].as_u64(), Some(2 * (99 - 32)), "{report}");
        let results = report["results"].as_array().unwrap();
        assert_eq!(results.len(), 2 * patterns.len());
        for (result, (letters, want)) in results.iter().zip(patterns.iter().cycle()) {
            let want = want.loss_per_sequence.iter().sum::<f64>() / 2.0;
            let got = result["loss"].as_f64().unwrap();
            assert!((got - want).abs() < 1e-4, "{letters} {more:?}: {got}, not {want}");
            assert_eq!(result["pattern"].as_str(), Some(letters.as_str()));
        }
    }
}

#[test]
fn a_resumed_evaluation_is_a_fresh_one_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (folder().display().to_string(), tokens(dir.path()));
    let loss = |patterns: &[&str]| {
        let mut arguments = vec!["eval", &model, "--tokens", &tokens];
        patterns.iter().for_each(|pattern| arguments.extend(["--pattern", pattern]));
        let last = json(&arguments)["results"].as_array().unwrap().last().unwrap().clone();
        last["loss"].as_f64().unwrap().to_bits()
    };
    assert_eq!(loss(&["FSFFFF", "FFFFSS", "FSFFSF"]), loss(&["FSFFSF"]));
}

#[test]
fn overlap_is_taken_per_group_and_pooled_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (folder().display().to_string(), tokens(dir.path()));
    let trace = dir.path().join("trace").display().to_string();
    for more in [&[][..], &["--stream"]] {
        json(&[&["record", &model, "--tokens", &tokens, "--out", &trace], more].concat());
        let matrix = |group: &[&str]| {
            let json = json(&[&["overlap", trace.as_str()], group].concat());
            assert_eq!(json["groups"].as_u64(), Some(2));
            assert_eq!(json["layers"], serde_json::json!([1, 2, 3, 4, 5, 6]));
            let rows: Vec<Vec<f64>> = serde_json::from_value(json["matrix"].clone()).unwrap();
            assert_eq!(rows.len(), 6);
            let pairs: Vec<f64> =
                (0..6).flat_map(|i| (i + 1..6).map(move |j| (i, j))).map(|(i, j)| rows[i][j]).collect();
            (pairs.iter().sum::<f64>() / pairs.len() as f64, json["chance"].as_f64())
        };
        let of = |group: &str| matrix(&["--group", group]);
        let (mean, chance) = matrix(&[]);
        assert!((mean - 0.574_387_254_901_960_9).abs() < 1e-12, "transformers finds it in the same sets: {mean}");
        assert!((mean - f64::midpoint(of("0").0, of("1").0)).abs() < 1e-12);
        assert!(of("pooled").0 > mean + 0.05, "{:?}", of("pooled"));
        assert_eq!(of("pooled").1, None);
        // One of four blocks is the query's own; three are drawn from the others.
        let visible = (32..100).map(|position| (position / 8 + 1) as f64);
        let wanted = visible.map(|n| (1.0 + 9.0 / (n - 1.0)) / 4.0).sum::<f64>() / 68.0;
        assert!((chance.unwrap() - wanted).abs() < 1e-12, "{chance:?}, not {wanted}");
    }
    let output = run(&["overlap", &trace, "--group", "2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no group 2"), "{output:?}");
}

#[test]
fn what_does_not_carry_over_is_refused_by_name_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (folder().display().to_string(), tokens(dir.path()));
    let out = dir.path().join("out").display().to_string();
    for arguments in [
        &["eval", &model, "--pattern", "native", "--tokens", &tokens, "--index", "oracle"][..],
        &["eval", &model, "--pattern", "native", "--chat", &tokens],
        &["record", &model, "--tokens", &tokens, "--out", &out, "--mass-recall", "4"],
        &["train", "indexers", &model, "--tokens", &tokens, "--seq-len", "50", "--out", &out],
    ] {
        let output = run(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("minimax_m3_vl") && text.contains("hint: "), "{arguments:?}: {text}");
    }
}

#[test]
fn info_reads_the_text_part() {
    let info = json(&["info", &folder().display().to_string()]);
    assert_eq!((info["native"].as_str(), info["full"].as_u64()), (Some("FFFFFF"), Some(6)));
    assert_eq!(info["model_type"].as_str(), Some("minimax_m3_vl"));
}

#[test]
fn search_finds_a_pattern_over_the_sites() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (folder().display().to_string(), tokens(dir.path()));
    let session = dir.path().join("session.toml").display().to_string();
    let found = json(&["search", &model, "--tokens", &tokens, "--keep", "3", "--session", &session]);
    let pattern = found["pattern"].as_str().unwrap();
    assert_eq!((pattern.len(), pattern.matches('F').count()), (6, 3), "{found}");
}

#[test]
fn decode_goes_on_where_prefill_ends() {
    let (_, tensors) = expected();
    let model = load(&Checkpoint::open(&folder()).unwrap());
    let ids = ids(&tensors["input_ids"])[..1].to_vec();
    let Attention::MiniMaxM3(own) = model.config().attention else { panic!("MiniMax-M3 expected") };
    for (letters, ops) in [("FFFFFF", Ops::Fast), ("FSFSFS", Ops::Fast), ("FSFSFS", Ops::Reference)] {
        let (want, _) = forward(&model, letters, &ids, ops);
        let mut cache = model.cache(100).unwrap();
        let mut step = |from: usize, n: usize| {
            let some = [ids[0][from..from + n].to_vec()];
            let (inputs, mut x) = (model.inputs(&some, from).unwrap(), model.embed(&some).unwrap());
            let (mut last, mut roles): (Option<Indices>, _) = (None, letters.chars());
            for layer in 0..model.config().num_hidden_layers {
                let role = if own.sites.contains(layer) { roles.next() } else { None };
                let attend = match (role, &last) {
                    (Some('S'), Some(indices)) => Attend::Given(indices),
                    (Some('F'), _) => Attend::Own,
                    _ => Attend::Dense,
                };
                let mut pass = Pass { ops, cache: Some(&mut cache.layers[layer]), ..Pass::new(attend) };
                let out = model.layer(layer, &x, &inputs, &mut pass).unwrap();
                x = out.hidden;
                last = out.indices.or(last);
            }
            model.logits(&x).unwrap()
        };
        let parts: Vec<Tensor> =
            std::iter::once((0, 90)).chain((90..100).map(|at| (at, 1))).map(|(from, n)| step(from, n)).collect();
        let worst = furthest(&Tensor::cat(&parts, 1).unwrap(), &want);
        assert!(worst < 5e-5, "{letters} ({ops}): {worst:e}");
    }
}
