//! The font of figures: Latin, Greek and the signs that figures use of DejaVu Sans, embedded, so that a figure looks the
//! same on every machine. `assets/fonts` holds its licence; it was cut by fontTools' `pyftsubset --no-hinting`.

use ttf_parser::{Face, GlyphId, OutlineBuilder};

use super::ReportError;

/// The font file.
pub(super) const FILE: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans.ttf");

/// The name of the font in files that embed it; six letters before the sign say that it is a part of that font.
pub(super) const NAME: &str = "INDEXS+DejaVuSans";

/// The font, ready to be asked.
pub(super) struct Font(Face<'static>);

/// One letter of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Glyph {
    /// The letter.
    pub letter: char,
    /// Its number in the font.
    pub id: u16,
    /// Its width, 1 being the size of the text.
    pub advance: f64,
}

impl Font {
    /// Returns the embedded font.
    pub fn embedded() -> Self {
        Self(Face::parse(FILE, 0).expect("the embedded font is whole; a test reads it"))
    }

    /// Returns the glyphs of a text, from left to right.
    ///
    /// # Errors
    /// [`ReportError::Letter`] for a letter that the font does not have.
    pub fn glyphs(&self, text: &str) -> Result<Vec<Glyph>, ReportError> {
        text.chars().map(|letter| self.glyph(letter).ok_or(ReportError::Letter { letter })).collect()
    }

    fn glyph(&self, letter: char) -> Option<Glyph> {
        let id = self.0.glyph_index(letter)?;
        let advance = f64::from(self.0.glyph_hor_advance(id)?) * self.unit();
        Some(Glyph { letter, id: id.0, advance })
    }

    /// Draws the outline of a glyph in units of the font, the y axis upwards.
    pub fn outline(&self, glyph: Glyph, builder: &mut dyn OutlineBuilder) {
        self.0.outline_glyph(GlyphId(glyph.id), builder);
    }

    /// Returns one unit of the font, the size of the text being 1.
    pub fn unit(&self) -> f64 {
        1.0 / f64::from(self.0.units_per_em())
    }

    /// Returns ascent, descent and height of capitals, the size of the text being 1.
    pub fn heights(&self) -> (f64, f64, f64) {
        let letter = self.0.glyph_index('H').and_then(|id| self.0.glyph_bounding_box(id));
        let capitals = letter.map_or(self.0.ascender(), |bounds| bounds.y_max);
        let of = |height: i16| f64::from(height) * self.unit();
        (of(self.0.ascender()), of(self.0.descender()), of(capitals))
    }

    /// Returns left, bottom, right and top of all glyphs together, the size of the text being 1.
    pub fn bounds(&self) -> [f64; 4] {
        let all = self.0.global_bounding_box();
        [all.x_min, all.y_min, all.x_max, all.y_max].map(|at| f64::from(at) * self.unit())
    }
}

/// Returns the width of glyphs, the size of the text being 1.
pub(super) fn width(glyphs: &[Glyph]) -> f64 {
    glyphs.iter().map(|glyph| glyph.advance).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_font_has_the_letters_of_figures_and_names_others() {
        let font = Font::embedded();
        let glyphs = font.glyphs("Δloss − ρ = 0.92 × L11 µ ≈ ±").unwrap();
        assert!(glyphs.iter().all(|glyph| glyph.id > 0 && glyph.advance > 0.0));
        let (one, two) = (font.glyphs("0").unwrap(), font.glyphs("00").unwrap());
        assert!((width(&two) - 2.0 * width(&one)).abs() < 1e-9);
        let error = font.glyphs("層").unwrap_err();
        assert!(error.to_string().contains('層'), "{error}");
        let (ascent, descent, capitals) = font.heights();
        assert!(ascent > capitals && capitals > 0.5 && descent < 0.0);
    }
}
