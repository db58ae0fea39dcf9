//! Numbers as text: units, signs, spreads.

use crate::domain::Spread;

/// Returns a loss in nats, such as `2.4127`.
pub fn loss(value: f64) -> String {
    format!("{value:.4}")
}

/// Returns a difference with its sign, such as `+0.0096`; an exact zero has none.
pub fn delta(value: f64) -> String {
    if value == 0.0 { "0.0000".to_owned() } else { format!("{value:+.4}").replace('-', "−") }
}

/// Returns a spread such as `±0.0007`, `±0.0007 within` where it says nothing about other text, or `±–` where it
/// cannot be told.
pub fn spread(spread: Spread, ascii: bool) -> String {
    let sign = if ascii { "+/-" } else { "±" };
    let mark = spread.mark();
    let space = if mark.is_empty() { "" } else { " " };
    spread.value().map_or_else(|| format!("{sign}–"), |se| format!("{sign}{se:.4}{space}{mark}"))
}

/// Returns the same where there is little room, such as `±0.0007`; in parentheses where it says nothing about other
/// text.
pub fn short_spread(spread: Spread, ascii: bool) -> String {
    let sign = if ascii { "+/-" } else { "±" };
    match spread.value() {
        None => format!("{sign}–"),
        Some(se) if spread.mark().is_empty() => format!("{sign}{se:.4}"),
        Some(se) => format!("({sign}{se:.4})"),
    }
}

/// Returns a share as whole percent, such as `31 %`.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Returns memory in use, in all and free, such as `61.3 of 139.8 GiB, 78.5 free`.
pub fn memory(free: u64, total: u64) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!("{:.1} of {:.1} GiB, {:.1} free", gib(total.saturating_sub(free)), gib(total), gib(free))
}

/// Returns a whole number with thin groups of three digits, such as `12 288`.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(c);
    }
    text
}

/// Returns seconds as `0:04` or `1:02:03`.
pub fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

/// Returns seconds left as a range such as `1:02–1:47:44`; both ends at once where they read the same.
pub fn range((low, high): (f64, f64)) -> String {
    let (low, high) = (clock(low), clock(high));
    if low == high { high } else { format!("{low}–{high}") }
}

/// Returns a rate such as `11.8k tok/s` or `71 tok/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 99_950.0 => format!("{:.0}k tok/s", r / 1000.0),
        r if r >= 1000.0 => format!("{:.1}k tok/s", r / 1000.0),
        r if r >= 100.0 => format!("{r:.0} tok/s"),
        r => format!("{r:.1} tok/s"),
    }
}

/// Returns a duration of work, such as `2.1 s` or `85 ms`.
pub fn took(seconds: f64) -> String {
    if seconds < 0.995 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 99.95 {
        format!("{seconds:.1} s")
    } else {
        clock(seconds)
    }
}

/// Cuts `text` to `width` characters, the last one an ellipsis where something is lost.
pub fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

/// Returns a value ×100 without decimals, such as `82`.
pub fn hundredths(value: f64) -> String {
    format!("{:.0}", value * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_sign_and_unit() {
        assert_eq!(memory(84_288_733_184, 150_109_110_272), "61.3 of 139.8 GiB, 78.5 free");
        assert_eq!([0.0, 0.00961, -0.0006].map(delta), ["0.0000", "+0.0096", "−0.0006"]);
        assert_eq!(
            (spread(Spread::Clustered(0.00069), false), spread(Spread::Unknown, true)),
            ("±0.0007".into(), "+/-–".into())
        );
        assert_eq!(spread(Spread::Within(0.0007), false), "±0.0007 within");
        assert_eq!(short_spread(Spread::Blocks(0.0007), true), "(+/-0.0007)");
        assert_eq!([7, 8192, 1_234_567].map(count), ["7", "8 192", "1 234 567"]);
        assert_eq!([3.6, 75.0, 3723.0].map(clock), ["0:04", "1:15", "1:02:03"]);
        assert_eq!([(62.0, 6464.0), (3.6, 4.4)].map(range), ["1:02–1:47:44", "0:04"]);
        assert_eq!([11_800.0, 71.0, 250_000.0].map(rate), ["11.8k tok/s", "71.0 tok/s", "250k tok/s"]);
        assert_eq!([0.085, 2.1, 120.0].map(took), ["85 ms", "2.1 s", "2:00"]);
        assert_eq!((fit("abcdef", 4), fit("abc", 4), fit("abc", 0)), ("abc…".into(), "abc".into(), String::new()));
    }
}
