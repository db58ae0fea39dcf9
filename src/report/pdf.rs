//! A scene as PDF: vectors, and text that can be searched, in the embedded font.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr};

use super::ReportError;
use super::font::{self, Font, Glyph};
use super::palette::Rgb;
use super::scene::{Anchor, Item, Scene};

const FONT: Name<'static> = Name(b"F1");
const ADOBE: SystemInfo<'static> = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };
/// How far from a circle's points the handles of its four Bézier curves lie, the radius being 1.
const HANDLE: f64 = 0.552_284_75;

impl Scene {
    /// Returns the drawing as a PDF file of one page of its size, on white; the same drawing gives the same bytes.
    ///
    /// # Errors
    /// [`ReportError::Letter`] for text that the embedded font cannot show.
    pub fn pdf(&self) -> Result<Vec<u8>, ReportError> {
        let [catalog, pages, page, content, info] = [1, 2, 3, 4, 5].map(Ref::new);
        let [type0, cid, descriptor, file, unicode] = [6, 7, 8, 9, 10].map(Ref::new);
        let font = Font::embedded();
        let mut used = BTreeMap::new();
        let drawn = packed(&self.content(&font, &mut used)?);
        let (width, height) = self.size();
        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(pages);
        pdf.pages(pages).kids([page]).count(1);
        let mut sheet = pdf.page(page);
        sheet.parent(pages).media_box(Rect::new(0.0, 0.0, width as f32, height as f32)).contents(content);
        sheet.resources().fonts().pair(FONT, type0);
        sheet.finish();
        pdf.stream(content, &drawn).filter(Filter::FlateDecode);
        pdf.document_info(info).title(TextStr(self.title())).producer(TextStr("indexscope"));

        let name = Name(font::NAME.as_bytes());
        pdf.type0_font(type0)
            .base_font(name)
            .encoding_predefined(Name(b"Identity-H"))
            .descendant_font(cid)
            .to_unicode(unicode);
        let mut letters = pdf.cid_font(cid);
        letters.subtype(CidFontType::Type2).base_font(name).system_info(ADOBE).font_descriptor(descriptor);
        letters.default_width(0.0).cid_to_gid_map_predefined(Name(b"Identity"));
        let mut widths = letters.widths();
        for glyph in used.values() {
            widths.consecutive(glyph.id, [(glyph.advance * 1e3) as f32]);
        }
        widths.finish();
        letters.finish();
        let thousands = |length: f64| (length * 1e3) as f32;
        let ((ascent, descent, capitals), [left, bottom, right, top]) = (font.heights(), font.bounds());
        pdf.font_descriptor(descriptor)
            .name(name)
            .flags(FontFlags::SYMBOLIC)
            .bbox(Rect::new(thousands(left), thousands(bottom), thousands(right), thousands(top)))
            .italic_angle(0.0)
            .ascent(thousands(ascent))
            .descent(thousands(descent))
            .cap_height(thousands(capitals))
            .stem_v(80.0)
            .font_file2(file);
        let bytes = packed(font::FILE);
        pdf.stream(file, &bytes).filter(Filter::FlateDecode).pair(Name(b"Length1"), font::FILE.len() as i32);
        let mut map = UnicodeCmap::new(Name(b"Letters"), ADOBE);
        used.values().for_each(|glyph| map.pair(glyph.id, glyph.letter));
        pdf.cmap(unicode, &map.finish());
        Ok(pdf.finish())
    }

    /// Draws everything, and adds the glyphs that are used.
    fn content(&self, font: &Font, used: &mut BTreeMap<u16, Glyph>) -> Result<Vec<u8>, ReportError> {
        let (width, height) = self.size();
        let mut out = Content::new();
        // Scenes count downwards from the top.
        out.transform([1.0, 0.0, 0.0, -1.0, 0.0, height as f32]);
        fill(&mut out, (255, 255, 255));
        out.rect(0.0, 0.0, width as f32, height as f32).fill_nonzero();
        for item in self.items() {
            match item {
                Item::Line { from, to, ink, width, dashed } => {
                    stroke(&mut out, ink.css().1, *width);
                    out.set_dash_pattern(if *dashed { vec![2.0, 2.0] } else { vec![] }, 0.0);
                    out.move_to(from.0 as f32, from.1 as f32).line_to(to.0 as f32, to.1 as f32).stroke();
                    out.set_dash_pattern([], 0.0);
                }
                Item::Path { points, ink, width } => {
                    stroke(&mut out, ink.css().1, *width);
                    let Some((first, rest)) = points.split_first() else { continue };
                    out.move_to(first.0 as f32, first.1 as f32);
                    for point in rest {
                        out.line_to(point.0 as f32, point.1 as f32);
                    }
                    out.stroke();
                }
                Item::Squares { at, size, ink } => {
                    // A thin edge of the same colour closes the seams that viewers leave between neighbours.
                    fill(&mut out, ink.css().1);
                    stroke(&mut out, ink.css().1, 0.25);
                    for corner in at {
                        out.rect(corner.0 as f32, corner.1 as f32, size.0 as f32, size.1 as f32);
                    }
                    out.fill_nonzero_and_stroke();
                }
                Item::Circle { at, radius, ink, filled } => {
                    stroke(&mut out, ink.css().1, 0.8);
                    fill(&mut out, ink.css().1);
                    circle(&mut out, *at, *radius);
                    if *filled {
                        out.fill_nonzero_and_stroke()
                    } else {
                        out.stroke()
                    };
                }
                Item::Text { at, text, ink, size, anchor, turned } => {
                    let glyphs = font.glyphs(text)?;
                    let back = font::width(&glyphs) * size * anchor.share();
                    let matrix = if *turned {
                        [0.0, -1.0, -1.0, 0.0, at.0, at.1 + back]
                    } else {
                        [1.0, 0.0, 0.0, -1.0, at.0 - back, at.1]
                    };
                    fill(&mut out, ink.css().1);
                    out.begin_text().set_font(FONT, *size as f32).set_text_matrix(matrix.map(|m| m as f32));
                    let codes: Vec<u8> = glyphs.iter().flat_map(|glyph| glyph.id.to_be_bytes()).collect();
                    out.show(Str(&codes)).end_text();
                    used.extend(glyphs.into_iter().map(|glyph| (glyph.id, glyph)));
                }
            }
        }
        Ok(out.finish().to_vec())
    }
}

impl Anchor {
    /// Returns the share of a text's width that lies before its anchor.
    pub(super) fn share(self) -> f64 {
        match self {
            Self::Start => 0.0,
            Self::Middle => 0.5,
            Self::End => 1.0,
        }
    }
}

fn parts((r, g, b): Rgb) -> [f32; 3] {
    [r, g, b].map(|part| f32::from(part) / 255.0)
}

fn fill(out: &mut Content, rgb: Rgb) {
    let [r, g, b] = parts(rgb);
    out.set_fill_rgb(r, g, b);
}

fn stroke(out: &mut Content, rgb: Rgb, width: f64) {
    let [r, g, b] = parts(rgb);
    out.set_stroke_rgb(r, g, b).set_line_width(width as f32);
}

fn circle(out: &mut Content, (x, y): (f64, f64), radius: f64) {
    let handle = radius * HANDLE;
    let quarter =
        |(sin, cos): (f64, f64)| move |a: f64, b: f64| ((x + a * cos - b * sin) as f32, (y + a * sin + b * cos) as f32);
    out.move_to((x + radius) as f32, y as f32);
    for turn in [(0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)] {
        let at = quarter(turn);
        let ((x1, y1), (x2, y2), (x3, y3)) = (at(radius, handle), at(handle, radius), at(0.0, radius));
        out.cubic_to(x1, y1, x2, y2, x3, y3);
    }
    out.close_path();
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes what is written")
}
