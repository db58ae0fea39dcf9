//! A scene as PNG: the same shapes and letters, in pixels.

use tiny_skia::{Color, FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform};
use ttf_parser::OutlineBuilder;

use super::ReportError;
use super::font::{self, Font};
use super::palette::Ink;
use super::scene::{Item, Scene};

/// Most pixels of a side.
const MOST: f64 = 20_000.0;

impl Scene {
    /// Returns the drawing as a PNG file on white, with `dpi` pixels an inch; the file says so.
    ///
    /// # Errors
    /// [`ReportError::Letter`] for text that the embedded font cannot show, [`ReportError::Pixels`] for a size beyond
    /// 20,000 pixels or below one.
    pub fn png(&self, dpi: f64) -> Result<Vec<u8>, ReportError> {
        let scale = dpi / 72.0;
        let (width, height) = self.size();
        let pixels = [width, height].map(|side| (side * scale).round());
        let too_many = ReportError::Pixels { width: pixels[0], height: pixels[1] };
        if pixels.iter().any(|side| !(1.0..=MOST).contains(side)) {
            return Err(too_many);
        }
        let Some(mut canvas) = Pixmap::new(pixels[0] as u32, pixels[1] as u32) else { return Err(too_many) };
        canvas.fill(Color::WHITE);
        self.paint(&mut canvas, scale as f32)?;
        Ok(encode(&canvas, dpi))
    }

    fn paint(&self, canvas: &mut Pixmap, scale: f32) -> Result<(), ReportError> {
        let font = Font::embedded();
        let whole = Transform::from_scale(scale, scale);
        for item in self.items() {
            match item {
                Item::Line { from, to, ink, width, dashed } => {
                    let dash = if *dashed { StrokeDash::new(vec![2.0, 2.0], 0.0) } else { None };
                    let stroke = Stroke { width: *width as f32, dash, ..Stroke::default() };
                    line(canvas, &[*from, *to], *ink, &stroke, whole);
                }
                Item::Path { points, ink, width } => {
                    let stroke = Stroke { width: *width as f32, line_join: LineJoin::Round, ..Stroke::default() };
                    line(canvas, points, *ink, &stroke, whole);
                }
                Item::Squares { at, size, ink } => {
                    // Whole pixels, so that neighbours meet without a seam.
                    let paint = Paint { anti_alias: false, ..paint(*ink) };
                    for (x, y) in at {
                        if let Some(square) = Rect::from_xywh(*x as f32, *y as f32, size.0 as f32, size.1 as f32) {
                            canvas.fill_rect(square, &paint, whole, None);
                        }
                    }
                }
                Item::Circle { at, radius, ink, filled } => {
                    let Some(path) = PathBuilder::from_circle(at.0 as f32, at.1 as f32, *radius as f32) else {
                        continue;
                    };
                    if *filled {
                        canvas.fill_path(&path, &paint(*ink), FillRule::Winding, whole, None);
                    }
                    canvas.stroke_path(&path, &paint(*ink), &Stroke { width: 0.8, ..Stroke::default() }, whole, None);
                }
                Item::Text { at, text, ink, size, anchor, turned } => {
                    let glyphs = font.glyphs(text)?;
                    let unit = (size * font.unit()) as f32;
                    let mut x = -font::width(&glyphs) * size * anchor.share();
                    let place = Transform::from_translate(at.0 as f32, at.1 as f32).post_concat(whole);
                    let turn = if *turned { Transform::from_rotate(-90.0) } else { Transform::identity() };
                    for glyph in glyphs {
                        let mut outline = Outline(PathBuilder::new());
                        font.outline(glyph, &mut outline);
                        let glyph_place = Transform::from_row(unit, 0.0, 0.0, -unit, x as f32, 0.0)
                            .post_concat(turn)
                            .post_concat(place);
                        // A space has no outline.
                        if let Some(path) = outline.0.finish() {
                            canvas.fill_path(&path, &paint(*ink), FillRule::Winding, glyph_place, None);
                        }
                        x += glyph.advance * size;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the picture as a file.
fn encode(canvas: &Pixmap, dpi: f64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, canvas.width(), canvas.height());
    encoder.set_color(png::ColorType::Rgb);
    let per_metre = (dpi / 0.0254).round() as u32;
    let size = png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter };
    encoder.set_pixel_dims(Some(size));
    let rgb: Vec<u8> = canvas.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
    let mut writer = encoder.write_header().expect("memory takes what is written");
    writer.write_image_data(&rgb).expect("as many bytes as pixels");
    writer.finish().expect("memory takes what is written");
    file
}

fn paint(ink: Ink) -> Paint<'static> {
    let (r, g, b) = ink.css().1;
    let mut paint = Paint::default();
    paint.set_color_rgba8(r, g, b, 255);
    paint
}

fn line(canvas: &mut Pixmap, points: &[(f64, f64)], ink: Ink, stroke: &Stroke, whole: Transform) {
    if let Some(path) = polyline(points) {
        canvas.stroke_path(&path, &paint(ink), stroke, whole, None);
    }
}

fn polyline(points: &[(f64, f64)]) -> Option<Path> {
    let (first, rest) = points.split_first()?;
    let mut path = PathBuilder::new();
    path.move_to(first.0 as f32, first.1 as f32);
    rest.iter().for_each(|(x, y)| path.line_to(*x as f32, *y as f32));
    path.finish()
}

/// Takes an outline of the font.
struct Outline(PathBuilder);

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.0.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.0.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.0.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.0.close();
    }
}
