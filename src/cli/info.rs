//! `indexscope info`: what a checkpoint is, without a forward.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::CliError;
use super::index::IndexArgs;
use super::interrupt::cancel_on_interrupt;
use super::output::{OutputArgs, Table};
use super::target;
use super::worker::WorkerArgs;
use crate::checkpoint::{Checkpoint, CheckpointError, Config, MlpKind, layer_of};
use crate::domain::{IndexSource, LayerSet, SelectionUnit, Site};
use crate::engine::describe_workers;
use crate::interop::{Target, indexer_rope_warning};

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, ORG/NAME[@REVISION] of the Hub, demo, or a config.json alone.
    model: String,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints type, layers, top-k, native pattern, locked layers and bytes by part.
///
/// # Errors
/// When the checkpoint cannot be opened, or its config and tensors contradict each other.
pub fn run(args: Args) -> Result<(), CliError> {
    if let Some(config) = target::bare_config(Path::new(&args.model)) {
        return super::info_config::run(&config, &args.output);
    }
    let checkpoint = args.index.open(&args.model, args.output.quiet())?;
    match checkpoint.check() {
        Ok(()) => {}
        // What cannot be computed with can still be described and exported.
        Err(
            error @ (CheckpointError::UnsupportedDtype { .. }
            | CheckpointError::MissingScales { .. }
            | CheckpointError::Quantised(_)
            | CheckpointError::GgufDsa(_)),
        ) => args.output.warn(&error.to_string()),
        Err(error) => return Err(target::told(error)),
    }
    if let Some(warning) = indexer_rope_warning(&Target::of(&checkpoint)) {
        args.output.warn(&format!("{}; {}", warning.what, warning.advice));
    }
    let (mut json, mut table) = (to_json(&checkpoint)?, to_table(&checkpoint)?);
    let workers = args.worker.addresses(&args.model)?;
    if !workers.is_empty() {
        let info = describe_workers(&workers, checkpoint.name(), &cancel_on_interrupt())?;
        let (can, lacks) = info.can.names();
        json["worker"] = json!({
            "engine": info.ops, "dtype": info.dtype, "device": info.device, "workers": workers.len(),
            "fingerprint": info.fingerprint, "can": can, "lacks": lacks,
        });
        let workers = if workers.len() == 1 { String::new() } else { format!("{} workers, ", workers.len()) };
        table.notes.push(format!("worker: {workers}{}, {} on {}", info.ops, info.dtype, info.device));
        table.notes.push(format!("the worker can: {}; it lacks: {}", can.join(", "), lacks.join(", ")));
    }
    args.output.print(&json, &table)
}

fn to_json(checkpoint: &Checkpoint) -> Result<Value, CliError> {
    let config = checkpoint.config();
    let native = checkpoint.native().map_err(target::told)?;
    let constraints = checkpoint.constraints();
    let sparse = config.mlp.iter().filter(|&&kind| kind == MlpKind::Sparse).count();
    let parts = checkpoint.parts();
    Ok(json!({
        "schema": 1,
        "model": checkpoint.name(),
        "fingerprint": checkpoint.fingerprint(),
        "model_type": config.family.model_type(),
        "layers": config.num_hidden_layers,
        "dense_layers": config.num_hidden_layers - sparse,
        "sparse_layers": sparse,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "index": config.index.to_string(),
        "index_topk": config.index_topk,
        "unit": config.unit(),
        "residual_streams": config.residual_width() / config.hidden_size.max(1),
        "groups": config.index_groups(),
        "sites": config.sites().iter().collect::<Vec<_>>(),
        "index_heads": config.index_n_heads,
        "index_head_dim": config.index_head_dim,
        "native": native,
        "full": native.full_count(),
        "shared": native.shared_count(),
        "reference": constraints.reference()?,
        "locked_shared": locked_layers(checkpoint).iter().collect::<Vec<_>>(),
        "copied_indexers": checkpoint.copied_indexers().iter().collect::<Vec<_>>(),
        "quantised": checkpoint.quantised(),
        "indexer_tensors": indexers(checkpoint).0,
        "indexer_layers": indexers(checkpoint).1,
        "dtypes": dtypes(checkpoint),
        "bytes": parts.iter().map(|p| p.bytes).sum::<u64>(),
        "params": parts.iter().map(|p| p.params).sum::<u64>(),
        "parts": parts,
    }))
}

/// Returns what top-k counts, where that is not single keys of all heads.
fn counted(config: &Config) -> String {
    let unit = config.unit();
    if unit == SelectionUnit::Token {
        return String::new();
    }
    let groups = match config.index_groups() {
        1 => String::new(),
        n => format!(" in each of {n} groups of heads ({} always the nearest)", config.index_forced()),
    };
    format!(" {} of {} keys{groups},", unit.plural(), unit.tokens(0).len())
}

/// Returns what chooses the keys of a Full layer.
fn chooser(config: &Config) -> String {
    let heads = format!("{} heads of {}", config.index_n_heads, config.index_head_dim);
    match &config.index {
        IndexSource::Checkpoint => format!("indexers of {heads}"),
        IndexSource::Oracle => "each layer's own attention (oracle)".to_owned(),
        IndexSource::Sidecar(name) => format!("indexers of {heads} from {name}"),
    }
}

fn to_table(checkpoint: &Checkpoint) -> Result<Table, CliError> {
    let config = checkpoint.config();
    let native = checkpoint.native().map_err(target::told)?;
    let sparse = config.mlp.iter().filter(|&&kind| kind == MlpKind::Sparse).count();
    let parts = checkpoint.parts();
    let main = |bytes: bool| {
        let of = |p: &&crate::checkpoint::PartSize| !p.part.is_skipped();
        parts.iter().filter(of).map(|p| if bytes { p.bytes } else { p.params }).sum::<u64>()
    };
    let stored: Vec<String> = dtypes(checkpoint).into_iter().map(|(name, n)| format!("{name} {}", size(n))).collect();
    let mut table = Table::new(["part", "bytes", "parameters", "share"]);
    table.notes = vec![
        format!("{}: {}, fingerprint {}", checkpoint.name(), config.family.model_type(), checkpoint.fingerprint()),
        format!(
            "layers: {} ({} dense, {sparse} sparse), hidden {}, vocabulary {}",
            config.num_hidden_layers,
            config.num_hidden_layers - sparse,
            config.hidden_size,
            config.vocab_size
        ),
        format!(
            "top-k {}{} of up to {} tokens, by {}",
            config.index_topk,
            counted(config),
            config.max_position_embeddings,
            chooser(config)
        ),
        selecting(config),
        format!("native pattern: {native} ({} Full, {} Shared)", native.full_count(), native.shared_count()),
        locked(checkpoint),
        format!("indexer tensors: {} in {} layers", indexers(checkpoint).0, indexers(checkpoint).1),
        format!("stored as: {}", stored.join(", ")),
    ];
    for part in &parts {
        let share = if part.part.is_skipped() {
            "-".to_owned()
        } else {
            format!("{:.1} %", 100.0 * part.bytes as f64 / main(true) as f64)
        };
        table.rows.push(vec![part.part.to_string(), size(part.bytes), part.params.to_string(), share]);
    }
    table.rows.push(vec![
        "all that is run".to_owned(),
        size(main(true)),
        main(false).to_string(),
        "100.0 %".to_owned(),
    ]);
    Ok(table)
}

/// Returns which layers select, and what several residual streams cost.
fn selecting(config: &Config) -> String {
    let (sites, streams) = (config.sites(), config.residual_width() / config.hidden_size.max(1));
    let which = if sites.is_every_layer() {
        "every layer selects".to_owned()
    } else {
        let layers: Vec<String> = sites.iter().map(|layer| layer.to_string()).collect();
        format!("{} of {} layers select: {}", sites.len(), sites.layers(), layers.join(", "))
    };
    if streams == 1 {
        return which;
    }
    format!("{which}; {streams} residual streams: kept states hold {streams} times the hidden width per token")
}

/// Returns the layers that are locked Shared.
fn locked_layers(checkpoint: &Checkpoint) -> LayerSet {
    let constraints = checkpoint.constraints();
    constraints.locked_shared.iter().filter_map(|site| constraints.sites.layer(Site(site))).collect()
}

/// Returns the number of indexer tensors that the files hold for main layers, and the number of these layers.
fn indexers(checkpoint: &Checkpoint) -> (usize, usize) {
    let layers: LayerSet = checkpoint.indexer_tensors().filter_map(layer_of).collect();
    (checkpoint.indexer_tensors().count(), layers.len())
}

/// Returns which layers are locked Shared, and why.
fn locked(checkpoint: &Checkpoint) -> String {
    let (all, copied) = (locked_layers(checkpoint), checkpoint.copied_indexers());
    let absent = all.iter().filter(|&layer| !copied.contains(layer)).collect();
    let listed = |why: &str, layers: LayerSet| {
        let numbers: Vec<String> = layers.iter().map(|l| l.to_string()).collect();
        (!layers.is_empty()).then(|| format!("({why}): {} layers: {}", layers.len(), numbers.join(", ")))
    };
    let copied: LayerSet = all.iter().filter(|&layer| copied.contains(layer)).collect();
    let reasons =
        [listed("no indexer in the checkpoint", absent), listed("indexer copied from the source layer", copied)];
    let reasons: Vec<String> = reasons.into_iter().flatten().collect();
    if reasons.is_empty() { "locked Shared: none".to_owned() } else { format!("locked Shared {}", reasons.join("; ")) }
}

/// Returns stored bytes by dtype, MTP layers apart.
fn dtypes(checkpoint: &Checkpoint) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for (_, info) in checkpoint.tensors() {
        *sizes.entry(info.dtype.name().to_owned()).or_default() += info.byte_len() as u64;
    }
    sizes
}

/// Returns a number of bytes with a binary unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_carry_a_unit() {
        assert_eq!([0, 1023, 1536, 3 << 30].map(size), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
