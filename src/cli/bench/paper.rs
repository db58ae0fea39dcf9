//! What the `IndexCache` paper reports of the 30B model: arXiv 2603.12201, Table 1 and the figure on indexer shares.

use serde_json::{Value, json};

/// The geometry that the figures are of.
const GEOMETRY: &str = "glm-4.7-flash-dsa";
/// How far a context may be from the paper's to stand beside it, as a share.
const NEAR: f64 = 0.05;

/// Figures at one context; of three retentions: all Full, 1/2, 1/4.
struct Row {
    /// Tokens.
    context: usize,
    /// Seconds of a prefill.
    prefill: [f64; 3],
    /// Tokens a second for each request.
    decode: [f64; 3],
    /// Share of the indexers in prefill and in decode, all layers Full.
    indexer: [f64; 2],
}

const TABLE: [Row; 4] = [
    Row { context: 10_000, prefill: [0.57, 0.47, 0.45], decode: [73.5, 84.5, 91.0], indexer: [0.27, 0.27] },
    Row { context: 60_000, prefill: [3.38, 2.86, 2.59], decode: [67.0, 80.0, 89.5], indexer: [0.50, 0.31] },
    Row { context: 120_000, prefill: [8.57, 6.57, 5.66], decode: [63.0, 77.0, 88.0], indexer: [0.68, 0.38] },
    Row { context: 200_000, prefill: [19.5, 13.7, 10.7], decode: [58.0, 73.0, 86.0], indexer: [0.81, 0.41] },
];

/// Returns the rows that stand beside the contexts timed; all of them where none of those is near one.
fn rows(contexts: &[usize]) -> Vec<&'static Row> {
    let near = |row: &Row| contexts.iter().any(|&c| (c as f64 / row.context as f64 - 1.0).abs() <= NEAR);
    let beside: Vec<&Row> = TABLE.iter().filter(|row| near(row)).collect();
    if beside.is_empty() { TABLE.iter().collect() } else { beside }
}

/// Returns whether a model is the paper's, whatever was changed of it.
fn is_papers(geometry: Option<&str>) -> bool {
    geometry == Some(GEOMETRY)
}

/// Returns the paper's figures as lines under a table; none for other geometries.
pub(super) fn notes(geometry: Option<&str>, changed: bool, contexts: &[usize]) -> Vec<String> {
    if !is_papers(geometry) {
        return Vec::new();
    }
    let of = if changed { ", of the model without the changes made here" } else { "" };
    let first = format!(
        "the paper (arXiv 2603.12201, SGLang on a node of eight H100, data-parallel attention{of}), all Full, 1/2 and 1/4:"
    );
    let line = |row: &Row| {
        let [prefill, decode] = row.indexer.map(|share| format!("{:.0} %", share * 100.0));
        let seconds = |i: usize| format!("{:.2} s ({:.2}x)", row.prefill[i], row.prefill[0] / row.prefill[i]);
        let pace = |i: usize| format!("{:.1} tokens/s ({:.2}x)", row.decode[i], row.decode[i] / row.decode[0]);
        format!(
            "  {}K: prefill {:.2} s, {}, {}, indexers {prefill} of all Full; decode {:.1} tokens/s per request, {}, {}, indexers {decode}",
            row.context / 1000,
            row.prefill[0],
            seconds(1),
            seconds(2),
            row.decode[0],
            pace(1),
            pace(2)
        )
    };
    std::iter::once(first).chain(rows(contexts).into_iter().map(line)).collect()
}

/// Returns the same as JSON; null for other geometries.
pub(super) fn json(geometry: Option<&str>, contexts: &[usize]) -> Value {
    if !is_papers(geometry) {
        return Value::Null;
    }
    let row = |row: &Row| {
        json!({
            "context": row.context,
            "retention": [1.0, 0.5, 0.25],
            "prefill": {"seconds": row.prefill, "indexer": row.indexer[0]},
            "decode": {"tokens_per_second": row.decode, "indexer": row.indexer[1]},
        })
    };
    let rows: Vec<Value> = rows(contexts).into_iter().map(row).collect();
    json!({"source": "arXiv 2603.12201, Table 1 and profiling figure; SGLang on eight H100", "results": rows})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_rows_stand_beside_near_contexts() {
        let contexts = |timed: &[usize]| rows(timed).iter().map(|r| r.context).collect::<Vec<_>>();
        assert_eq!(contexts(&[10_240, 200_000]), [10_000, 200_000]);
        assert_eq!(contexts(&[24]).len(), 4);
        assert_eq!((notes(Some("glm-5"), false, &[]).len(), json(None, &[])), (0, Value::Null));
        let lines = notes(Some(GEOMETRY), false, &[200_000]);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("19.50 s, 13.70 s (1.42x), 10.70 s (1.82x), indexers 81 %"), "{}", lines[1]);
        assert!(
            lines[1].contains("58.0 tokens/s per request, 73.0 tokens/s (1.26x), 86.0 tokens/s (1.48x)"),
            "{}",
            lines[1]
        );
        assert!(notes(Some(GEOMETRY), true, &[])[0].contains("without the changes made here"));
    }
}
