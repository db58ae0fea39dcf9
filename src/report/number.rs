//! Numbers as a page shows them: sign, spread, sample size, unit.

use crate::domain::{Delta, Origin, Speed};

/// Returns a whole number in groups of three.
pub(super) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a difference in nats with its standard error, such as `+0.0102 ± 0.0007`; `(within)` follows an error that
/// holds within the documents measured only, and `± ?` stands where there is too little to tell.
pub(super) fn delta(delta: Delta) -> String {
    let spread = delta.spread();
    let se = spread.value().map_or("?".to_owned(), |se| format!("{se:.4}"));
    let mark = if spread.mark().is_empty() { String::new() } else { format!(" ({})", spread.mark()) };
    format!("{} ± {se}{mark}", signed(delta.value))
}

/// Returns a number with its sign, four decimals, and a true minus.
pub(super) fn signed(value: f64) -> String {
    format!("{value:+.4}").replace('-', "−")
}

/// Returns a ratio of times with its 95 % interval, where there are enough runs for one.
pub(super) fn ratio(speed: &Speed) -> String {
    let interval = speed.ratio.interval.map_or(String::new(), |(low, high)| format!(" ({low:.2} to {high:.2})"));
    format!("{:.2}×{interval}", speed.ratio.median)
}

/// Returns the word for an origin.
pub(super) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Measured => "measured",
        Origin::Predicted => "predicted",
        Origin::Stale => "stale",
        Origin::Imported => "imported",
    }
}
