//! `indexscope import indices`: a server's index sets as a trace.

use std::path::PathBuf;

use serde_json::json;

use super::output::{OutputArgs, Table};
use super::served::{read, read_config, told, topk};
use super::tokens::read_tokens;
use super::{CliError, record};
use crate::domain::{Pattern, PatternSource, QuerySampling, Sites};
use crate::interop::import::{Importer, ServedSets, read_by_sglang, responses};
use crate::interop::{Family, Served};
use crate::session::write_trace;

/// Arguments of `import indices`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Responses of SGLang's /generate with "return_indexer_topk": true: an object, an array, or one per line; one file
    /// is held in memory at a time.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The config.json that was served, or its folder.
    #[arg(long, value_name = "CONFIG")]
    config: PathBuf,
    /// The trace to write: packed, a quarter of the size or less, if its name ends in .trace; else safetensors.
    #[arg(long, value_name = "TRACE")]
    out: PathBuf,
    /// The pattern that the server was meant to run: another one is an error; by default what SGLang makes of the config,
    /// and another one a warning.
    #[arg(long, value_name = "P")]
    pattern: Option<PatternSource>,
    /// k, where another one was served than the config says.
    #[arg(long, value_name = "K")]
    index_topk: Option<usize>,
    /// all, or how many positions of each prompt are drawn.
    #[arg(long, default_value = "all", value_name = "all|N", value_parser = record::sampling)]
    queries: QuerySampling,
    /// The prompts' token ids, where the responses do not tell them: a JSON array of arrays, in order.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Writes the trace and says which pattern ran.
///
/// # Errors
/// Files, responses that do not hold what is needed, and a pattern other than `--pattern`, after the trace is written.
pub fn run(args: Args) -> Result<(), CliError> {
    let served = read_config(&args.config)?;
    if served.family == Family::DeepseekV4 || served.family == Family::DeepseekV41 {
        return Err(CliError::run(format!(
            "index sets of model type '{}' are of compressed entries of some layers, which no trace holds",
            served.model_type
        ))
        .hint("glm_moe_dsa and deepseek_v32 can be imported"));
    }
    let (layers, k) = (served.layers, topk(args.index_topk, Some(&served))?);
    let meant = expected(&args, &served)?;
    let prompts = args.tokens.as_deref().map(read_tokens).transpose()?.unwrap_or_default();
    let mut importer = Importer::new(layers, k, args.queries);
    for path in &args.files {
        let bytes = read(path)?;
        for response in responses(&bytes, &[]).map_err(|e| told(path, e))? {
            let ids = prompts.get(importer.responses()).map(|p| p.ids.as_slice());
            importer.add(&response, ids).map_err(|e| told(path, e))?;
        }
    }
    let heads = served.index_heads();
    let fallback = meant.map_or_else(|| Pattern::all_full(layers), Ok)?;
    let sets = importer.finish(&served.model_type, heads, fallback).map_err(|e| told(&args.files[0], e))?;
    write_trace(&args.out, &sets.trace)?;
    let differs = differences(&sets, meant);
    print(&args, &sets, meant, &differs)?;
    check(&args, &sets, meant, &differs)
}

/// Returns the pattern that was meant to run: the one given, or SGLang's reading of the config where it gets so far.
fn expected(args: &Args, served: &Served) -> Result<Option<Pattern>, CliError> {
    let layers = served.layers;
    let read = read_by_sglang(served);
    let Some(spec) = &args.pattern else { return Ok(read) };
    let native = read.map_or_else(|| Pattern::all_full(layers), Ok)?;
    let pattern = super::target::pattern_of(spec, native, Sites::every(native.len()))?;
    pattern.map(Some).ok_or_else(|| CliError::usage("dense attention selects nothing that could be imported"))
}

/// Returns the layers at which what ran differs from what was meant.
fn differences(sets: &ServedSets, meant: Option<Pattern>) -> Vec<usize> {
    let Some((ran, meant)) = sets.ran.zip(meant) else { return Vec::new() };
    (0..ran.len()).filter(|&layer| ran.is_full(layer) != meant.is_full(layer)).collect()
}

fn print(args: &Args, sets: &ServedSets, meant: Option<Pattern>, differs: &[usize]) -> Result<(), CliError> {
    let (trace, counted) = (&sets.trace, sets.trace.counted().count());
    let (out, ran) = (args.out.display().to_string(), sets.ran.map(|p| p.to_string()));
    let mut table = Table::new(["trace", "ran", "layers", "prompts", "queries", "left out", "k"]);
    table.rows.push(vec![
        out.clone(),
        ran.clone().unwrap_or_else(|| "-".to_owned()),
        trace.meta.layers.to_string(),
        trace.tokens.len().to_string(),
        trace.queries.len().to_string(),
        sets.dropped.to_string(),
        trace.meta.index_topk.to_string(),
    ]);
    let json = json!({
        "schema": 1,
        "trace": out,
        "ran": ran,
        "expected": meant.map(|p| p.to_string()),
        "differs": differs,
        "layers": trace.meta.layers,
        "sequences": trace.tokens.len(),
        "queries": trace.queries.len(),
        "counted": counted,
        "dropped": sets.dropped,
        "index_topk": trace.meta.index_topk,
        "origin": "imported",
    });
    table.notes.push(format!(
        "imported from SGLang's responses; {counted} queries see more than {} keys",
        trace.meta.index_topk
    ));
    args.output.print(&json, &table)
}

/// Says what is wrong with what ran.
fn check(args: &Args, sets: &ServedSets, meant: Option<Pattern>, differs: &[usize]) -> Result<(), CliError> {
    if sets.dropped > 0 {
        args.output.warn(&format!(
            "{} queries were left out: some layer's set holds what the query does not see (batches that computed no top-k)",
            sets.dropped
        ));
    }
    let Some(ran) = sets.ran else {
        args.output.warn("no query sees more than index_topk keys: which pattern ran cannot be told");
        return Ok(());
    };
    if differs.is_empty() {
        return Ok(());
    }
    let layers: Vec<String> = differs.iter().map(ToString::to_string).collect();
    let (meant, layers) = (meant.map_or_else(String::new, |p| p.to_string()), layers.join(", "));
    if args.pattern.is_none() {
        let config = args.config.display();
        args.output.warn(&format!(
            "the server ran {ran}, and SGLang should make {meant} of '{config}': they differ at layers {layers}"
        ));
        return Ok(());
    }
    let what = format!("the server ran {ran}, not {meant}: they differ at layers {layers}");
    Err(CliError::run(what)
        .hint("'indexscope simulate CONFIG' says which engine reads the config how; the trace was written"))
}
