//! A checksum inside a file that begins with JSON, or is JSON: `"crc32":"…"`, the CRC-32 of the whole file with
//! [`BLANK`] in its place. It may stand in JSON that is a string of the file's JSON. Files of version 0.1 have none.

use std::ops::Range;

/// The key whose value is the checksum.
pub const KEY: &str = "crc32";
/// What stands in the checksum's place until a file is sealed.
pub const BLANK: &str = "________";

/// What comes before the checksum, as compact JSON writes it, by itself and within a string.
const MARKS: [&[u8]; 2] = [b"\"crc32\":\"", b"\\\"crc32\\\":\\\""];
/// Bytes among which it is looked for.
const HEAD: usize = 64 << 20;

fn place(bytes: &[u8]) -> Option<Range<usize>> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let end = |mark: &[u8]| Some(head.windows(mark.len()).position(|window| window == mark)? + mark.len());
    let start = MARKS.into_iter().find_map(end)?;
    (start + BLANK.len() <= bytes.len()).then(|| start..start + BLANK.len())
}

fn checksum(bytes: &[u8], place: &Range<usize>) -> String {
    let mut crc = crc32fast::Hasher::new();
    [&bytes[..place.start], BLANK.as_bytes(), &bytes[place.end..]].iter().for_each(|part| crc.update(part));
    format!("{:08x}", crc.finalize())
}

/// Replaces [`BLANK`] by the checksum.
pub fn seal(bytes: &mut [u8]) {
    if let Some(place) = place(bytes) {
        let sum = checksum(bytes, &place);
        bytes[place].copy_from_slice(sum.as_bytes());
    }
}

/// Returns whether a file does not match its checksum.
pub fn is_damaged(bytes: &[u8]) -> bool {
    place(bytes).is_some_and(|place| checksum(bytes, &place).as_bytes() != &bytes[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let plain = format!(r#"{{"a":[1,2.5],"crc32":"{BLANK}","b":"c"}} and data"#);
        let within = format!(r#"{{"m":{{"k":"{{\"a\":1,\"crc32\":\"{BLANK}\"}}"}}}} and data"#);
        for (text, mark) in [(plain, MARKS[0]), (within, MARKS[1])] {
            let mut bytes = text.into_bytes();
            seal(&mut bytes);
            assert!(!is_damaged(&bytes) && !String::from_utf8_lossy(&bytes).contains(BLANK));
            let mark = place(&bytes).unwrap().start - mark.len()..place(&bytes).unwrap().start;
            // Within the key itself a change makes the file one without a checksum, in which nothing else has changed.
            for bit in (0..bytes.len() * 8).filter(|bit| !mark.contains(&(bit / 8))) {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(is_damaged(&bytes), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(is_damaged(&bytes[..bytes.len() - 1]));
        }
        assert!(!is_damaged(br#"{"a":1}"#) && !is_damaged(b""));
    }
}
