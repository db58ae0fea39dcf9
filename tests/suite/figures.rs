//! Figures as files: every figure of the tour's session as SVG, PDF and PNG, of the sizes asked for, saying the same.

use std::collections::HashMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::{Command, Output};

use flate2::read::ZlibDecoder;

/// Width asked for, in points: 3.25 inches, a column of a paper.
const WIDTH: f64 = 234.0;

fn report(figure: &str, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_indexscope"));
    command.args(["report", "sessions/demo-tour.toml", "--figure", figure, "--out"]);
    command.arg(out).args(more).output().unwrap()
}

/// Writes a figure, which names the file and its numbers, and returns its bytes.
fn written(figure: &str, out: &Path, more: &[&str]) -> Vec<u8> {
    let output = report(figure, out, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = format!("{}\n{}\n", out.display(), out.with_extension("csv").display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), told);
    fs::read(out).unwrap()
}

/// Returns size, in points, and texts of an SVG file, in the order in which they are drawn.
fn svg(bytes: Vec<u8>) -> ((f64, f64), Vec<String>) {
    let text = String::from_utf8(bytes).unwrap();
    let length = |name: &str| {
        let value = text.split_once(&format!(" {name}=\"")).unwrap().1;
        value.split_once("pt\"").unwrap().0.parse().unwrap()
    };
    let texts = text.split("<text ").skip(1).map(|part| {
        let inside = part.split_once('>').unwrap().1.split_once("</text>").unwrap().0;
        inside.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    });
    ((length("width"), length("height")), texts.collect())
}

/// A PDF file, as far as these figures need one to be read.
struct Pdf {
    text: String,
    /// What its streams hold, inflated where they are packed.
    streams: Vec<Vec<u8>>,
}

impl Pdf {
    fn read(bytes: &[u8]) -> Self {
        assert!(bytes.starts_with(b"%PDF-1.") && bytes.trim_ascii_end().ends_with(b"%%EOF"));
        // Every object begins where the table at the end says.
        // One character per byte, so that places in the one are places in the other.
        let text: String = bytes.iter().map(|&b| if b.is_ascii() { char::from(b) } else { '?' }).collect();
        let table: usize = text.rsplit_once("startxref").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        let entries = text[table..].lines().skip(2).take_while(|line| !line.starts_with("trailer"));
        let offsets = entries.filter(|line| line.trim_end().ends_with('n')).map(|line| line[..10].parse().unwrap());
        let offsets: Vec<usize> = offsets.collect();
        assert!(offsets.len() >= 10, "{offsets:?}");
        assert!(offsets.iter().enumerate().all(|(i, &at)| text[at..].starts_with(&format!("{} 0 obj", i + 1))));
        let streams = text.match_indices("\nstream\n").map(|(at, found)| {
            let length = text[..at].rsplit_once("/Length ").unwrap().1;
            let length: usize = length.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            let raw = &bytes[at + found.len()..][..length];
            let mut inflated = Vec::new();
            match ZlibDecoder::new(raw).read_to_end(&mut inflated) {
                Ok(_) => inflated,
                Err(_) => raw.to_vec(),
            }
        });
        Self { streams: streams.collect(), text }
    }

    /// Returns width and height of its page, in points.
    fn size(&self) -> (f64, f64) {
        let numbers = self.text.split_once("/MediaBox [").unwrap().1.split_once(']').unwrap().0;
        let numbers: Vec<f64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[..2], [0.0, 0.0]);
        (numbers[2], numbers[3])
    }

    /// Returns its texts as a reader would copy them: glyphs, through the map of the font.
    fn texts(&self) -> Vec<String> {
        let holds = |part: &[u8], stream: &&Vec<u8>| stream.windows(part.len()).any(|w| w == part);
        let map = self.streams.iter().find(|s| holds(b"begincmap", s)).unwrap();
        let map = String::from_utf8(map.clone()).unwrap();
        let letter = |line: &str| {
            let mut codes =
                line.split_whitespace().map(|c| u32::from_str_radix(c.trim_matches(['<', '>']), 16).unwrap());
            Some((codes.next()?, char::from_u32(codes.next()?)?))
        };
        let lines = map.split("beginbfchar\n").skip(1).flat_map(|part| part.split_once("endbfchar").unwrap().0.lines());
        let letters: HashMap<u32, char> = lines.filter_map(letter).collect();
        let drawing = self.streams.iter().find(|s| holds(b" Tf\n", s)).unwrap();
        let drawing: String = drawing.iter().map(|&b| char::from(b)).collect();
        let shown = drawing.split("\nBT\n").skip(1).map(|part| part.split_once(" Tm\n").unwrap().1);
        let shown = shown.map(|part| part.split_once(" Tj\nET").unwrap().0);
        let texts = shown.map(|string| {
            let bytes = string_bytes(string);
            bytes.chunks(2).map(|code| letters[&(u32::from(code[0]) << 8 | u32::from(code[1]))]).collect()
        });
        texts.collect()
    }
}

/// Returns the bytes of a string of PDF, `(…)` with escapes or `<…>` in hexadecimal digits.
fn string_bytes(string: &str) -> Vec<u8> {
    if let Some(digits) = string.strip_prefix('<') {
        let digits = digits.trim_end_matches('>').as_bytes();
        return digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect();
    }
    let inside = string.strip_prefix('(').unwrap().strip_suffix(')').unwrap();
    let (mut bytes, mut rest) = (Vec::new(), inside.chars());
    while let Some(c) = rest.next() {
        bytes.push(match (c, rest.as_str()) {
            ('\\', escaped) if escaped.starts_with(|c: char| c.is_digit(8)) => {
                let (digits, after) = escaped.split_at(3);
                rest = after.chars();
                u8::from_str_radix(digits, 8).unwrap()
            }
            ('\\', _) => match rest.next().unwrap() {
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'b' => 8,
                'f' => 12,
                other => u8::try_from(other).unwrap(),
            },
            _ => u8::try_from(c).unwrap(),
        });
    }
    bytes
}

#[test]
fn every_figure_is_the_same_as_svg_pdf_and_png() {
    let folder = tempfile::tempdir().unwrap();
    for figure in ["overlap", "trajectory", "pareto", "scatter"] {
        let out = |ending: &str| folder.path().join(format!("{figure}.{ending}"));
        let ((width, height), texts) = svg(written(figure, &out("svg"), &["--width", "3.25in"]));
        let numbers = fs::read_to_string(out("csv")).unwrap();
        assert!((width, numbers.lines().count() > 2, texts.len() > 6) == (WIDTH, true, true), "{width} {texts:?}");

        let pdf = Pdf::read(&written(figure, &out("pdf"), &["--width", "234pt"]));
        let page = pdf.size();
        assert!(page.0 == WIDTH && (page.1 - height).abs() < 0.01, "{page:?} is not {WIDTH} × {height}");
        assert_eq!(pdf.text.matches("/Type /Page\n").count(), 1, "one page");
        assert_eq!(pdf.texts(), texts, "{figure}: what can be copied from the page");

        let png = written(figure, &out("png"), &["--width", "3.25in", "--dpi", "200"]);
        let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        let info = reader.info();
        // 3.25 inches of 200 pixels, and 200 pixels per inch in pixels per metre.
        assert_eq!((info.width, info.pixel_dims.unwrap().xppu), (650, 7874));
        assert!((f64::from(info.height) - height / 72.0 * 200.0).abs() <= 1.0, "{} of {height}", info.height);
        let dark = pixels[..frame.buffer_size()].chunks(3).filter(|p| p.iter().all(|&c| c < 128)).count();
        assert!(dark > 500, "{figure}: {dark} dark pixels");
        assert_eq!(fs::read_to_string(out("csv")).unwrap(), numbers, "the same numbers beside each");
    }
}

#[test]
fn what_cannot_be_drawn_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for (name, more, said) in [
        ("a.gif", [].as_slice(), "a figure is .svg, .pdf or .png"),
        ("a.png", &["--dpi", "0"], "0 is not in 1..=4800"),
        ("a.pdf", &["--width", "3"], "a number with in, cm, mm or pt"),
    ] {
        let output = report("pareto", &folder.path().join(name), more);
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && err.contains(said) && err.contains("hint: "), "{name}: {err}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
