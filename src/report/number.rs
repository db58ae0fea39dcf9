//! Numbers as a page shows them: sign, spread, sample size, unit.

use crate::domain::{Estimate, Origin, Speed};

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

/// Returns a difference in nats with its standard error; `± ?` where there are too few blocks to tell.
pub(super) fn delta(estimate: Estimate) -> String {
    let se = estimate.se.map_or("?".to_owned(), |se| format!("{se:.4}"));
    format!("{} ± {se}", signed(estimate.value))
}

/// Returns a number with its sign, four decimals, and a true minus.
pub(super) fn signed(value: f64) -> String {
    format!("{value:+.4}").replace('-', "−")
}

/// Returns a ratio of times with its spread over runs.
pub(super) fn ratio(speed: &Speed) -> String {
    format!("{:.2}× ± {:.2}", speed.ratio.median, speed.ratio.mad)
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
