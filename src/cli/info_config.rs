//! `indexscope info` for a config.json without weights.

use std::path::Path;

use serde_json::json;

use super::CliError;
use super::output::{OutputArgs, Table};
use super::served::read_config;
use crate::domain::Pattern;
use crate::interop::{Budget, Target, simulate};

/// Prints which layers select keys, by which unit, and the config's own pattern.
///
/// # Errors
/// When the config cannot be used.
pub fn run(config: &Path, output: &OutputArgs) -> Result<(), CliError> {
    let served = read_config(config)?;
    let (sites, budget) = (served.sites(), served.budget());
    let native = if sites.is_empty() { None } else { Some(Target::of_config(config)?.native()?) };
    let over_layers = native.map(|native| served.marks(native).iter().map(|mark| mark.letter()).collect::<String>());
    for warning in &simulate(&served).warnings {
        output.warn(&format!("{}; {}", warning.what, warning.advice));
    }
    let dense_up_to = budget.map(Budget::dense_up_to);
    let json = json!({
        "schema": 1,
        "model": config,
        "model_type": served.model_type,
        "layers": served.layers,
        "sites": sites,
        "index_topk": served.index_topk,
        "index_heads": served.index_heads(),
        "selection": budget,
        "dense_up_to": dense_up_to,
        "native": native,
        "native_over_layers": over_layers,
        "full": native.map(Pattern::full_count),
        "shared": native.map(Pattern::shared_count),
        "weights": false,
    });
    let mut table = Table::new(["what", "value"]);
    let mut row = |name: &str, value: String| table.rows.push(vec![name.to_owned(), value]);
    row("config", config.display().to_string());
    row("model type", served.model_type.clone());
    row("layers", format!("{}, of which {} select keys", served.layers, sites.len()));
    if let (Some(budget), Some(tokens)) = (budget, dense_up_to) {
        row("selection", format!("{budget}; all that is visible up to {tokens} tokens"));
    }
    match (native, over_layers) {
        (Some(native), Some(letters)) => {
            row(
                "native pattern",
                format!("{letters} ({} Full, {} Shared)", native.full_count(), native.shared_count()),
            );
        }
        _ => row("native pattern", "none: no layer selects keys".to_owned()),
    }
    row("weights", "none here: which layers have an indexer of their own is not known".to_owned());
    output.print(&json, &table)
}
