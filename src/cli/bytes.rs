//! Numbers of bytes as people write and read them.

/// Parses a number of bytes, such as `4GiB`, `512 MiB`, `1.5G` or `65536`.
///
/// # Errors
/// One sentence with the text that was given.
pub fn parse(text: &str) -> Result<usize, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        "t" => Some(40),
        _ => None,
    };
    let bytes = number.trim().parse::<f64>().ok().zip(shift).map(|(n, shift)| n * (1u64 << shift) as f64);
    match bytes {
        Some(bytes) if bytes >= 0.0 && bytes.is_finite() => Ok(bytes as usize),
        _ => Err(format!("'{text}' is not a number of bytes such as 512MiB or 4GiB")),
    }
}

/// Returns a number of bytes for people, such as `1.5 GiB`.
pub fn show(n: u64) -> String {
    let (value, unit) = match n {
        0..0x10_0000 => (n as f64 / 1024.0, "KiB"),
        0x10_0000..0x4000_0000 => (n as f64 / 1024f64.powi(2), "MiB"),
        _ => (n as f64 / 1024f64.powi(3), "GiB"),
    };
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        let read = ["0", "65536", "1k", "512MiB", "4 GiB", "1.5g", "2TB"].map(|t| parse(t).unwrap());
        assert_eq!(read, [0, 65_536, 1024, 512 << 20, 4 << 30, 3 << 29, 2 << 40]);
        for wrong in ["", "GiB", "-1", "4 GiX", "nan", "1e999"] {
            assert_eq!(parse(wrong), Err(format!("'{wrong}' is not a number of bytes such as 512MiB or 4GiB")));
        }
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!([512, 3 << 20, 3 << 29].map(show), ["0.5 KiB", "3.0 MiB", "1.5 GiB"]);
    }
}
