//! `indexscope worth`: what sharing indices would save, predicted from config.json alone.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::CliError;
use super::output::{OutputArgs, Table};
use super::served::config_text;
use crate::analysis::cost::Geometry;
use crate::analysis::machine::{Gpu, Machine, Sheet, Weights, saving, threshold};
use crate::checkpoint::{CONFIG_FILE, Config};
use crate::domain::{Role, SelectionUnit};
use crate::engine::geometry;
use crate::input;
use crate::interop::{IndexKeys, index_keys};

mod described;

/// The sheets that come with the program.
const SHEETS: &str = include_str!("../../assets/hardware.toml");
/// 1K … 1M tokens.
const CONTEXTS: std::ops::RangeInclusive<u32> = 10..=20;
/// Shares of layers that keep their indexer, as 1/N.
const KEEP: [usize; 4] = [1, 2, 4, 8];
/// A smaller saving is not worth a search.
const LEAST: f64 = 0.02;

/// Arguments of `worth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A config.json, the folder that holds one, or a .gguf file; no weights are read.
    config: PathBuf,
    /// CSV of requests, one a line: tokens of the prompt, tokens of the answer (0 if left out); a header is skipped.
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// A known accelerator (H100 SXM, H200, B200, A100, RTX 4090), or a TOML file in the form of assets/hardware.toml.
    #[arg(long, default_value = "H100 SXM", value_name = "NAME|FILE")]
    hardware: String,
    /// Sequences that are decoded together.
    #[arg(long, default_value = "1", value_name = "N")]
    batch: std::num::NonZeroUsize,
    /// Dtype of the weights when served.
    #[arg(long, value_enum, default_value = "fp8")]
    weights: WeightsArg,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WeightsArg {
    Fp8,
    Bf16,
}

/// What is known of a model from its config.json.
struct Subject {
    geometry: Geometry,
    /// Full layers of the checkpoint as it is.
    native: usize,
    /// What an index stands for.
    unit: SelectionUnit,
    model_type: String,
}

/// A number of Full layers, and how it is called.
struct Retention {
    name: String,
    full: usize,
}

/// The model on the accelerator, and what is asked about them.
struct Question {
    machine: Machine,
    batch: usize,
    /// Full layers of the checkpoint as it is; savings are against these.
    native: usize,
    retentions: Vec<Retention>,
    /// What an index stands for.
    unit: SelectionUnit,
    /// Engines that hold index keys of Full layers only.
    freed_by: Vec<IndexKeys>,
}

/// Predicted time of a workload.
struct Workload {
    requests: usize,
    seconds: f64,
    /// Seconds and saving, in the order of the retentions.
    savings: Vec<(f64, f64)>,
}

/// Prints what each retention would save.
///
/// # Errors
/// Files that cannot be read, or an accelerator without a sheet.
pub fn run(args: Args) -> Result<(), CliError> {
    let path = if args.config.is_dir() { args.config.join(CONFIG_FILE) } else { args.config.clone() };
    let Subject { geometry, native, unit, model_type } = subject(&path)?;
    let (sheet, gpu) = hardware(&args.hardware)?;
    let weights = if args.weights == WeightsArg::Fp8 { Weights::Fp8 } else { Weights::Bf16 };
    let sites = geometry.index.sites;
    let machine = Machine { gpu, efficiency: sheet.efficiency, weights, geometry };
    let keep = |n: usize| {
        let name = if n == 1 { "all".to_owned() } else { format!("1/{n}") };
        Retention { name, full: sites.div_ceil(n).min(native) }
    };
    let mut retentions: Vec<Retention> = KEEP.into_iter().map(keep).collect();
    retentions.push(Retention { name: "ceiling".to_owned(), full: 1 });
    let freed_by = index_keys(&model_type);
    let question = Question { machine, batch: args.batch.get(), native, retentions, unit, freed_by };
    let workload = args.workload.as_deref().map(|path| Ok::<_, CliError>(question.workload(&requests(path)?)));
    let workload = workload.transpose()?;
    let model = path.display().to_string();
    args.output.print(&question.to_json(&model, workload.as_ref()), &question.to_table(&model, workload.as_ref()))
}

/// Reads the model's sizes from its config.
fn subject(path: &Path) -> Result<Subject, CliError> {
    let text = config_text(path)?;
    let config = match Config::parse(&text) {
        Ok(config) => config,
        Err(error) => return Ok(described::read(path, &text)?.ok_or(error)?),
    };
    let model_type = config.family.model_type().to_owned();
    if config.family.is_dense() {
        return Err(CliError::run(format!(
            "'{}' is of type {model_type}, which has no indexers to share",
            path.display()
        ))
        .hint("give the config.json of a DSA model, such as DeepSeek-V3.2 or GLM-5"));
    }
    let native = config.roles.iter().filter(|&&role| role == Role::Full).count().max(1);
    Ok(Subject { geometry: geometry(&config), native, unit: config.unit(), model_type })
}

/// Finds an accelerator by its name, whatever its case and spaces, or reads the first of a file.
fn hardware(asked: &str) -> Result<(Sheet, Gpu), CliError> {
    let plain = |name: &str| name.to_lowercase().replace([' ', '-', '_'], "");
    let known: Sheet = toml::from_str(SHEETS).expect("a test reads the embedded sheets");
    if let Some(gpu) = known.gpu.iter().find(|gpu| plain(&gpu.name).starts_with(&plain(asked)) && !asked.is_empty()) {
        let gpu = gpu.clone();
        return Ok((known, gpu));
    }
    let path = Path::new(asked);
    if !path.is_file() {
        let names: Vec<&str> = known.gpu.iter().map(|gpu| gpu.name.as_str()).collect();
        return Err(CliError::run(format!("'{asked}' is neither a known accelerator nor a file"))
            .hint(format!("use one of {}, or a file in the form of assets/hardware.toml", names.join(", "))));
    }
    let text = input::named_text(path, input::TEXT).map_err(|e| CliError::file("cannot read", path, e))?;
    let sheet: Sheet =
        toml::from_str(&text).map_err(|e| CliError::file("cannot read the hardware sheet", path, e.message()))?;
    match sheet.gpu.first().cloned() {
        Some(gpu) => Ok((sheet, gpu)),
        None => Err(CliError::file("cannot use the hardware sheet", path, "it has no [[gpu]]")),
    }
}

/// Reads requests: tokens of prompt and answer.
fn requests(path: &Path) -> Result<Vec<(usize, usize)>, CliError> {
    let text = input::named_text(path, input::TEXT).map_err(|e| CliError::file("cannot read", path, e))?;
    let mut requests = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let numbers: Result<Vec<usize>, _> = line.split(',').take(2).map(|cell| cell.trim().parse()).collect();
        match numbers.as_deref() {
            Ok([prompt, rest @ ..]) if *prompt > 0 => requests.push((*prompt, rest.first().copied().unwrap_or(0))),
            Err(_) if at == 0 => {}
            _ => {
                let reason = format!("line {} is '{line}', which is no 'prompt,answer' in tokens", at + 1);
                return Err(CliError::file("cannot use the workload", path, reason));
            }
        }
    }
    if requests.is_empty() {
        return Err(CliError::file("cannot use the workload", path, "it has no requests"));
    }
    Ok(requests)
}

impl Question {
    fn prefill(&self, context: usize, full: usize) -> f64 {
        self.machine.prefill(context, full).total()
    }

    fn decode(&self, context: usize, full: usize) -> f64 {
        self.machine.decode(context, self.batch, full).total()
    }

    /// Returns the shortest contexts at which prefill and decode save enough.
    fn thresholds(&self, full: usize) -> [Option<usize>; 2] {
        let longest = 1 << CONTEXTS.end();
        [
            threshold(longest, LEAST, |t| saving(self.prefill(t, full), self.prefill(t, self.native))),
            threshold(longest, LEAST, |t| saving(self.decode(t, full), self.decode(t, self.native))),
        ]
    }

    fn index_bytes(&self, context: usize, full: usize) -> f64 {
        self.machine.geometry.index_key_bytes(self.machine.widths()) * (context * full) as f64
    }

    /// Sums prefill, and decode at the mean context of the answer, over requests.
    fn workload(&self, requests: &[(usize, usize)]) -> Workload {
        let seconds = |full: usize| -> f64 {
            let one = |&(prompt, answer): &(usize, usize)| {
                let step = if answer == 0 { 0.0 } else { self.decode(prompt + answer / 2, full) / self.batch as f64 };
                self.prefill(prompt, full) + answer as f64 * step
            };
            requests.iter().map(one).sum()
        };
        let now = seconds(self.native);
        let after = |r: &Retention| (seconds(r.full), saving(seconds(r.full), now));
        Workload { requests: requests.len(), seconds: now, savings: self.retentions.iter().map(after).collect() }
    }

    fn to_json(&self, model: &str, workload: Option<&Workload>) -> Value {
        let machine = &self.machine;
        let phase = |after: f64, before: f64| json!({"seconds": after, "saving": saving(after, before), "speedup": before / after});
        let at = |full: usize, context: usize| {
            let (bytes, all) = (self.index_bytes(context, full), self.index_bytes(context, self.native));
            json!({
                "context": context,
                "prefill": phase(self.prefill(context, full), self.prefill(context, self.native)),
                "decode": phase(self.decode(context, full), self.decode(context, self.native)),
                "index_key_bytes": bytes,
                "index_key_bytes_saved": all - bytes,
            })
        };
        let contexts = || CONTEXTS.map(|bits| 1usize << bits);
        let results = self.retentions.iter().map(|r| {
            let [prefill, decode] = self.thresholds(r.full);
            json!({
                "keep": r.name,
                "full": r.full,
                "shared": machine.geometry.index.sites - r.full,
                "shortest_context": {"saving": LEAST, "prefill": prefill, "decode": decode},
                "contexts": contexts().map(|t| at(r.full, t)).collect::<Vec<_>>(),
            })
        });
        let share = contexts().map(|t| {
            let (prefill, decode) = (machine.prefill(t, self.native), machine.decode(t, self.batch, self.native));
            json!({"context": t, "prefill": prefill.share(), "decode": decode.share()})
        });
        let mut json = json!({
            "schema": 1,
            "model": model,
            "origin": "predicted",
            "hardware": machine.gpu,
            "efficiency": machine.efficiency,
            "weights": if machine.weights == Weights::Fp8 { "fp8" } else { "bf16" },
            "batch": self.batch,
            "layers": machine.geometry.layers(),
            "sites": machine.geometry.index.sites,
            "native_full": self.native,
            "index_topk": machine.geometry.index.topk,
            "unit": self.unit,
            "indexer_share": share.collect::<Vec<_>>(),
            "results": results.collect::<Vec<_>>(),
            "index_key_bytes_per_token_and_layer": machine.geometry.index_key_bytes(machine.widths()),
            "index_keys_freed_by": self.freed_by,
        });
        if let Some(w) = workload {
            let of = |(r, &(seconds, saving)): (&Retention, &(f64, f64))| json!({"keep": r.name, "full": r.full, "seconds": seconds, "saving": saving});
            let results: Vec<Value> = self.retentions.iter().zip(&w.savings).map(of).collect();
            json["workload"] = json!({"requests": w.requests, "seconds": w.seconds, "results": results});
        }
        json
    }

    fn to_table(&self, model: &str, workload: Option<&Workload>) -> Table {
        let mut table = Table::new([
            "context",
            "keep",
            "full",
            "prefill s",
            "saving",
            "decode ms",
            "saving",
            "index keys MiB",
            "saved MiB",
        ]);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        for context in CONTEXTS.map(|bits| 1usize << bits) {
            for r in &self.retentions {
                let (prefill, decode) = (self.prefill(context, r.full), self.decode(context, r.full));
                let mib = |full: usize| self.index_bytes(context, full) / f64::from(1 << 20);
                table.rows.push(vec![
                    format!("{}K", context >> 10),
                    r.name.clone(),
                    r.full.to_string(),
                    format!("{prefill:.3}"),
                    percent(saving(prefill, self.prefill(context, self.native))),
                    format!("{:.2}", decode * 1e3),
                    percent(saving(decode, self.decode(context, self.native))),
                    format!("{:.1}", mib(r.full)),
                    format!("{:.1}", mib(self.native) - mib(r.full)),
                ]);
            }
        }
        table.notes = self.notes(model);
        if let Some(w) = workload {
            let each = self.retentions.iter().zip(&w.savings);
            let each: Vec<String> = each.map(|(r, &(_, saving))| format!("{} {}", r.name, percent(saving))).collect();
            let Workload { requests, seconds, .. } = w;
            table
                .notes
                .push(format!("workload: {requests} requests, {seconds:.2} s as it is; saving {}", each.join(", ")));
        }
        table
    }

    fn notes(&self, model: &str) -> Vec<String> {
        let machine = &self.machine;
        let mut notes = vec![
            format!(
                "{model} on {}: predicted from counted operations and bytes at stated efficiencies, nothing was run",
                machine.gpu.name
            ),
            format!(
                "against the {} Full of {} layers that select {} {} in config.json; 'ceiling' keeps the first only; decode \
                 of {} sequence(s)",
                self.native,
                machine.geometry.index.sites,
                machine.geometry.index.topk,
                self.unit.plural(),
                self.batch
            ),
        ];
        let tokens = |context: Option<usize>| match context {
            None => "no context up to 1M".to_owned(),
            Some(1) => "any context".to_owned(),
            Some(t) => format!("{t} tokens"),
        };
        for r in self.retentions.iter().filter(|r| r.full < self.native) {
            let [prefill, decode] = self.thresholds(r.full).map(tokens);
            notes.push(format!(
                "{}: saves {:.0} % of prefill from {prefill} on, of decode from {decode} on",
                r.name,
                LEAST * 100.0
            ));
        }
        let frees: Vec<String> = self.freed_by.iter().map(|one| format!("{} ({})", one.engine, one.version)).collect();
        notes.push(if frees.is_empty() {
            "'saved MiB' is memory of index keys that no layer reads: no engine is known to give it back for this model"
                .to_owned()
        } else {
            format!(
                "'saved MiB' is memory that these engines give back, as they hold index keys of Full layers only: {}",
                frees.join(", ")
            )
        });
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 30B model of the IndexCache paper: GLM-4.7-Flash with the indexer of GLM-5.
    const PAPER: &str = "tests/data/indexcache_30b.json";

    fn paper() -> Machine {
        let (sheet, gpu) = hardware("H100 SXM").unwrap();
        let config = Config::parse(&std::fs::read_to_string(PAPER).unwrap()).unwrap();
        Machine { gpu, efficiency: sheet.efficiency, weights: Weights::Fp8, geometry: geometry(&config) }
    }

    const LENGTHS: [usize; 4] = [10_000, 60_000, 120_000, 200_000];

    #[test]
    fn indexer_shares_of_prefill_are_near_the_papers() {
        let machine = paper();
        let shares = LENGTHS.map(|t| machine.prefill(t, 47).share());
        // At 10K the model falls short by ten points: chunks and launches cost more than it knows.
        for ((share, paper), tolerance) in
            shares.into_iter().zip([0.27, 0.50, 0.68, 0.81]).zip([0.12, 0.05, 0.05, 0.05])
        {
            assert!((share - paper).abs() < tolerance, "{shares:?}");
        }
    }

    #[test]
    fn a_quarter_of_the_indexers_speeds_up_as_in_the_paper() {
        let machine = paper();
        let speedup = |t| machine.prefill(t, 47).total() / machine.prefill(t, 12).total();
        let prefill = LENGTHS.map(speedup);
        let paper = [0.57 / 0.45, 3.38 / 2.59, 8.57 / 5.66, 19.5 / 10.7];
        // The paper's own shares would mean 2.5× at 200K, not 1.82×, if nothing else took time: hence `other`.
        for ((speedup, paper), tolerance) in prefill.into_iter().zip(paper).zip([0.18, 0.05, 0.05, 0.05]) {
            assert!((speedup / paper - 1.0).abs() < tolerance, "{prefill:?}");
        }
        let decode = LENGTHS.map(|t| machine.decode(t, 1, 47).total() / machine.decode(t, 1, 12).total());
        for (speedup, paper) in decode.into_iter().zip([91.0 / 73.5, 89.5 / 67.0, 88.0 / 63.0, 86.0 / 58.0]) {
            assert!((speedup / paper - 1.0).abs() < 0.05, "{decode:?}");
        }
    }

    #[test]
    fn in_other_families_only_indexers_of_their_sites_can_be_saved() {
        let (sheet, gpu) = hardware("H200").unwrap();
        let ratios: Vec<usize> = (0..43).map(|l| [4, 128][l % 2] * usize::from(l >= 2)).collect();
        let v4 = format!(r#"{{"model_type": "deepseek_v4", "compress_ratios": {ratios:?}}}"#);
        let sparse: Vec<usize> = (0..60).map(|l| usize::from(l >= 3)).collect();
        let m3 = format!(
            r#"{{"model_type": "minimax_m3_vl", "text_config": {{"num_hidden_layers": 60,
            "rope_parameters": {{"rope_theta": 5e6, "partial_rotary_factor": 0.5}},
            "sparse_attention_config": {{"sparse_attention_freq": {sparse:?}}}}}}}"#
        );
        for (json, bytes) in [(v4, 33.0), (m3, 256.0)] {
            let config = Config::parse(&json).unwrap();
            let efficiency = sheet.efficiency;
            let machine = Machine { gpu: gpu.clone(), efficiency, weights: Weights::Fp8, geometry: geometry(&config) };
            // FP8 keys of 128 and their scale, a quarter per token; bf16 keys.
            assert_eq!(machine.geometry.index_key_bytes(machine.widths()), bytes);
            let sites = machine.geometry.index.sites;
            let share = |t: usize| machine.decode(t, 1, sites).share();
            assert!(share(1 << 12) < share(1 << 16) && share(1 << 16) < share(1 << 20) && share(1 << 20) < 1.0);
            let saved = |full| saving(machine.prefill(1 << 17, full).total(), machine.prefill(1 << 17, sites).total());
            assert!(saved(sites) == 0.0 && saved(sites / 2) > 0.0 && saved(sites / 4) > saved(sites / 2));
        }
    }

    #[test]
    fn every_sheet_is_read_and_found_by_its_name() {
        let sheet: Sheet = toml::from_str(SHEETS).unwrap();
        assert_eq!(sheet.gpu.len(), 5);
        for gpu in &sheet.gpu {
            assert!(!gpu.source.is_empty() && gpu.bandwidth_gbs > 0.0);
            assert_eq!(hardware(&gpu.name.to_lowercase().replace(' ', "-")).unwrap().1, *gpu);
        }
        assert!(hardware("no such thing").is_err() && hardware("").is_err());
    }
}
