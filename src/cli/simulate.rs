//! `indexscope simulate`: which layers would run their indexer, engine by engine, and why.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::CliError;
use super::output::{Format, OutputArgs, Table, print_styled};
use super::served::read_config;
use crate::checkpoint::Checkpoint;
use crate::domain::{PatternSource, Sites, Stages};
use crate::input;
use crate::interop::{self, Mark, Served, SimulateError, Simulation, Strip};
use crate::shown::shown;

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// config.json, a folder that has one, or a .gguf file; with weights beside it, missing indexers are found too.
    config: PathBuf,
    /// Keys given on the engine's command line, as JSON or @FILE.
    #[arg(long, value_name = "JSON")]
    overrides: Option<String>,
    /// Layers of every pipeline stage, such as 14,6x8,16.
    #[arg(long, value_name = "SIZES")]
    stages: Option<Stages>,
    /// A pattern to compare with, in place of what most engines run.
    #[arg(long, allow_hyphen_values = true, value_name = "PATTERN")]
    pattern: Option<PatternSource>,
    #[command(flatten)]
    output: OutputArgs,
}

impl From<SimulateError> for CliError {
    fn from(error: SimulateError) -> Self {
        let hint = error.hint();
        match error {
            SimulateError::Stages(_) | SimulateError::Overrides(_) => Self::usage(error).hint(hint),
            SimulateError::Config(_) => Self::run(error).hint(hint),
        }
    }
}

/// Prints every engine's strip, the rule that led there, and what is wrong.
///
/// # Errors
/// When the config, the overrides or the stages cannot be used.
pub fn run(args: Args) -> Result<(), CliError> {
    let mut served = read_config(&args.config)?;
    let is_config = args.config.extension().is_some_and(|e| e == "json");
    let folder = (!is_config).then(|| args.config.clone());
    if let Some(overrides) = &args.overrides {
        let text = match overrides.strip_prefix('@') {
            Some(file) => input::named_text(file.as_ref(), input::TEXT)
                .map_err(|e| CliError::file("cannot read", file.as_ref(), e))?,
            None => overrides.clone(),
        };
        served = served.with_overrides(&text)?;
    }
    if let Some(stages) = args.stages {
        served = served.with_stages(stages)?;
    }
    // A folder may hold a config and no weights, or weights that cannot be read here; its config is simulated anyway.
    if let Some(checkpoint) = folder.and_then(|folder| Checkpoint::open(&folder).ok()) {
        let layers = (0..served.layers).filter(|&layer| checkpoint.stores_indexer(layer));
        served = served.clone().with_indexers(layers.collect()).with_copied_indexers(checkpoint.copied_indexers());
    }
    let simulation = interop::simulate(&served);
    let base = match &args.pattern {
        Some(spec) => wanted(spec, &served)?,
        None => simulation.usual().to_vec(),
    };
    match args.output.format() {
        Format::Text => print_styled(&to_text(&served, &simulation, &base, std::io::stdout().is_terminal())),
        _ => args.output.print(&to_json(&served, &simulation, &base), &to_table(&simulation, &base)),
    }
}

/// Returns the marks of a pattern.
fn wanted(spec: &PatternSource, served: &Served) -> Result<Vec<Mark>, CliError> {
    let sites = Sites::new(served.layers, served.sites()).map_err(|_| {
        CliError::run("no layer of this config selects keys, so that there is nothing to compare with")
            .hint("leave --pattern out")
    })?;
    let native = crate::domain::Pattern::all_full(sites.len())?;
    let pattern = super::target::pattern_of(spec, native, sites)?;
    let pattern = pattern.ok_or_else(|| {
        CliError::usage("dense attention has no layers to compare with").hint("give F/S letters, or uniform:N")
    })?;
    Ok(served.marks(pattern))
}

fn to_json(served: &Served, simulation: &Simulation, base: &[Mark]) -> Value {
    let engines = simulation.engines.iter().map(|strip| {
        let mut json = json!(strip);
        let ran = !strip.marks.is_empty();
        json["full"] = if ran { json!(strip.full()) } else { Value::Null };
        json["differs"] = json!(strip.differences(base));
        json
    });
    json!({
        "schema": 1,
        "model_type": served.model_type,
        "layers": served.layers,
        "index_topk": served.index_topk,
        "sites": served.sites(),
        "selection": served.budget(),
        "dense_up_to": served.budget().map(interop::Budget::dense_up_to),
        "stages": served.stages,
        "compared_with": base.iter().map(|mark| mark.letter()).collect::<String>(),
        "engines": engines.collect::<Vec<_>>(),
        "warnings": simulation.warnings,
        "not_simulated": simulation.not_simulated.iter().map(|(who, why)| json!({"engine": who, "reason": why})).collect::<Vec<_>>(),
    })
}

/// Returns the name of a strip's engine with its version; `?` marks what no release was read for.
fn name(strip: &Strip) -> String {
    format!("{} {}{}", strip.engine, strip.version, if strip.verified { "" } else { " ?" })
}

/// Returns what ends an engine, or why it has no strip.
fn end(strip: &Strip) -> Option<String> {
    strip.end().map(|f| format!("{} {}: {}", f.error, f.when, f.reason))
}

fn to_text(served: &Served, simulation: &Simulation, base: &[Mark], colour: bool) -> String {
    let width = simulation.engines.iter().map(|strip| name(strip).chars().count()).max().unwrap_or(0);
    let k = served.budget().map_or(String::new(), |budget| format!(", {budget}"));
    let sites = match served.sites().len() {
        all if all == served.layers => String::new(),
        some => format!(" ({some} select keys)"),
    };
    let mut text =
        format!("{}, {} layers{sites}{k}, stages {}\n\n", shown(&served.model_type), served.layers, served.stages);
    let mut line = |left: &str, right: &str| {
        let _ = writeln!(text, "{}", format!("{left:<width$}  {right}").trim_end());
    };
    for strip in &simulation.engines {
        let differences = strip.differences(base);
        let letter = |(layer, mark): (usize, &Mark)| {
            // Bold red: the strip's own letter stays, so that nothing is lost without colours.
            let (on, off) = if colour && differences.contains(&layer) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            [on, mark.letter().encode_utf8(&mut [0; 4]), off].concat()
        };
        let drawn: String = strip.marks.iter().enumerate().map(letter).collect();
        let full = if strip.marks.is_empty() { "–".to_owned() } else { format!("{drawn}  {} F", strip.full()) };
        line(&name(strip), &full);
        line("", &shown(&strip.rule));
        if let Some(end) = end(strip) {
            line("", &shown(&format!("fails: {end}")));
        }
        if !differences.is_empty() {
            let layers: Vec<String> = differences.iter().map(ToString::to_string).collect();
            line("", &format!("differs at {}", layers.join(", ")));
        }
    }
    let unverified = simulation.engines.iter().any(|strip| !strip.verified);
    if unverified {
        text += "\n? from a snapshot or pull request: not read in a release\n";
    }
    text.push('\n');
    for (who, warning) in warnings(simulation) {
        let _ = writeln!(text, "{who}: {}; {}", shown(&warning.what), shown(&warning.advice));
    }
    text += "\nnot simulated:\n";
    for (who, why) in &simulation.not_simulated {
        let _ = writeln!(text, "{who}: {why}");
    }
    text
}

/// Returns all warnings with whom they concern, the same warning of several engines once.
fn warnings(simulation: &Simulation) -> Vec<(String, &interop::Warning)> {
    let mut all: Vec<(String, &interop::Warning)> =
        simulation.warnings.iter().map(|warning| ("any engine".to_owned(), warning)).collect();
    for (strip, warning) in simulation.engines.iter().flat_map(|strip| strip.warnings.iter().map(move |w| (strip, w))) {
        match all.iter_mut().find(|(_, known)| *known == warning) {
            Some((who, _)) => *who = format!("{who}, {}", strip.engine),
            None => all.push((strip.engine.to_owned(), warning)),
        }
    }
    all
}

fn to_table(simulation: &Simulation, base: &[Mark]) -> Table {
    let mut table =
        Table::new(["engine", "version", "verified", "strip", "full", "differs", "rule", "failure", "warnings"]);
    for strip in &simulation.engines {
        let join = |list: Vec<String>| list.join(" ");
        table.rows.push(vec![
            strip.engine.to_owned(),
            strip.version.to_owned(),
            if strip.verified { "yes" } else { "no" }.to_owned(),
            strip.letters(),
            if strip.marks.is_empty() { String::new() } else { strip.full().to_string() },
            join(strip.differences(base).iter().map(ToString::to_string).collect()),
            strip.rule.clone(),
            end(strip).unwrap_or_default(),
            strip.warnings.iter().map(|w| format!("{}; {}", w.what, w.advice)).collect::<Vec<_>>().join(" / "),
        ]);
    }
    table.notes = simulation.warnings.iter().map(|w| format!("{}; {}", w.what, w.advice)).collect();
    table
}
