//! Differences of the loss as every subcommand prints them.

use serde_json::{Value, json};

use crate::domain::{Delta, MIN_CLUSTERS, Spread};
use crate::engine::ModelInfo;

/// Adds a difference to a JSON object: `name`, `name_se`, `name_se_blocks`, its interval and its clusters.
///
/// The last two are `interval` and `clusters` for `delta` itself, and carry the name of any other difference.
pub fn insert(json: &mut Value, name: &str, delta: Option<Delta>) {
    let key = |suffix: &str| if name == "delta" { suffix.to_owned() } else { format!("{name}_{suffix}") };
    json[name] = json!(delta.map(|d| d.value));
    json[format!("{name}_se")] = json!(delta.and_then(|d| d.se));
    json[format!("{name}_se_blocks")] = json!(delta.and_then(|d| d.se_blocks));
    json[key("interval")] = json!(delta.and_then(|d| d.interval));
    json[key("clusters")] = json!(delta.map(|d| d.clusters));
}

/// Returns a difference with its error, such as `+0.0123 ± 0.0004`.
pub fn text(delta: Option<Delta>) -> String {
    delta.map_or("-".to_owned(), |d| format!("{:+.4} ± {}", d.value, error(d.spread()).unwrap_or("?".to_owned())))
}

/// Returns the error of a difference, such as `0.0004` or `0.0004 (within)`; `-` where there is none.
pub fn error_of(delta: Option<Delta>) -> String {
    delta.and_then(|d| error(d.spread())).unwrap_or("-".to_owned())
}

fn error(spread: Spread) -> Option<String> {
    let se = spread.value()?;
    Some(if spread.mark().is_empty() { format!("{se:.4}") } else { format!("{se:.4} ({})", spread.mark()) })
}

/// Returns what errors marked `(within)` mean, if any of these is one.
pub fn note(deltas: impl IntoIterator<Item = Option<Delta>>) -> Option<String> {
    let few = deltas.into_iter().flatten().find(|d| matches!(d.spread(), Spread::Within(_)))?;
    Some(format!(
        "(within): within-document only, over blocks of 128 targets: {} independent sequences or documents say nothing about other text, {MIN_CLUSTERS} do",
        few.clusters
    ))
}

/// Returns what low precision alone moves, where that was measured.
pub fn noise(info: &ModelInfo) -> Option<String> {
    let noise = info.noise?;
    Some(format!(
        "near-ties of {}: the reference run again differs from itself by {:+.4} nats on {} eligible targets",
        info.dtype, noise.delta, noise.targets
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_hold_within_documents_are_marked() {
        let few = Delta { se_blocks: Some(0.0033), clusters: 4, ..Delta::bare(0.0179, 1916) };
        assert_eq!(text(Some(few)), "+0.0179 ± 0.0033 (within)");
        assert_eq!(error_of(Some(few)), "0.0033 (within)");
        assert!(note([None, Some(few)]).unwrap().contains("4 independent"));
        let sure = Delta::measured(0.0179, 0.0041, 9000);
        assert_eq!((text(Some(sure)), note([Some(sure)])), ("+0.0179 ± 0.0041".to_owned(), None));
        assert_eq!((text(Some(Delta::bare(0.1, 3))), text(None)), ("+0.1000 ± ?".to_owned(), "-".to_owned()));
    }

    #[test]
    fn json_has_the_clustered_error_and_the_one_of_blocks() {
        let mut json = json!({});
        insert(&mut json, "delta", Some(Delta::measured(0.5, 0.1, 90)));
        insert(&mut json, "step", None);
        assert_eq!((json["delta_se"].as_f64(), json["delta_se_blocks"].as_f64()), (Some(0.1), Some(0.08)));
        assert_eq!(
            (json["clusters"].as_u64(), json["interval"][0].as_f64().map(|low| low < 0.5)),
            (Some(24), Some(true))
        );
        assert!(json["step_se"].is_null() && json["step_interval"].is_null());
    }
}
