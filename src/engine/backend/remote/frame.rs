//! Frames of the worker protocol: a JSON object on one line, and raw bytes where it announces some.

use std::io::{self, BufRead, Read, Write};

use serde_json::Value;

/// Most bytes of a frame's line.
const LINE: u64 = 4 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// The JSON object.
    pub head: Value,
    /// The bytes after it.
    pub body: Vec<u8>,
}

impl Frame {
    /// Reads a frame with at most `most()` bytes behind its line, asked once the line is there; `None` at the end of the
    /// stream.
    pub(super) fn read(from: &mut impl BufRead, most: impl Fn() -> u64) -> io::Result<Option<Self>> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut line = Vec::new();
        (&mut *from).take(LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Err(wrong(format!("a frame's line ends after {} bytes without a newline", line.len())));
        }
        let head: Value = serde_json::from_slice(&line).map_err(|e| {
            let start = String::from_utf8_lossy(&line[..line.len().min(60)]).replace(char::is_control, " ");
            wrong(format!("a line is no JSON object ({e}): {start}"))
        })?;
        if !head.is_object() {
            return Err(wrong(format!("a line is no JSON object but {}", kind(&head))));
        }
        let bytes = match &head["bytes"] {
            Value::Null => 0,
            n => n.as_u64().filter(|n| *n <= most()).ok_or_else(|| {
                wrong(format!("a frame announces {n} bytes, and at most {} can follow this request", most()))
            })?,
        };
        let mut body = Vec::new();
        from.take(bytes).read_to_end(&mut body)?;
        if (body.len() as u64) < bytes {
            return Err(wrong(format!("a frame announces {bytes} bytes and has {}", body.len())));
        }
        Ok(Some(Self { head, body }))
    }

    /// Writes the frame and flushes.
    pub(super) fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        if !self.body.is_empty() {
            self.head["bytes"] = self.body.len().into();
        }
        let mut line = self.head.to_string().into_bytes();
        line.push(b'\n');
        to.write_all(&line)?;
        to.write_all(&self.body)?;
        to.flush()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads little-endian f32s.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

/// Reads little-endian i32s.
pub(super) fn ints(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_come_back_as_written() {
        let frames = [
            Frame { head: json!({"id": 1, "do": "losses"}), body: Vec::new() },
            Frame { head: json!({"id": 1, "bytes": 4}), body: vec![10, 13, 0, 255] },
        ];
        let mut stream = Vec::new();
        frames.iter().for_each(|frame| frame.clone().write(&mut stream).unwrap());
        let mut from = stream.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut from, || 4).unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut from, || 4).unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_said_and_nothing_large_is_allocated() {
        for (text, want) in [
            ("{\"id\":1", "without a newline"),
            ("Loading checkpoint shards: 100%\n", "no JSON object"),
            ("[1]\n", "but a list"),
            ("{\"bytes\":99999999999999}\n", "at most 16"),
            ("{\"bytes\":-1}\n", "announces -1 bytes"),
            ("{\"bytes\":8}\nabc", "announces 8 bytes and has 3"),
        ] {
            let error = Frame::read(&mut text.as_bytes(), || 16).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
