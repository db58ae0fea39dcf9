//! Colours as numbers, data maps, and what becomes of them on terminals with fewer colours.

use ratatui::style::Color;

use super::ColorChoice;

/// A colour with 8 bits per channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    /// Returns the colour that is `share` of the way from this one to `other`.
    pub fn toward(self, other: Self, share: f64) -> Self {
        let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share.clamp(0.0, 1.0)).round() as u8;
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }

    /// Returns the relative luminance of WCAG 2, 0 to 1.
    pub fn luminance(self) -> f64 {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// Returns the contrast ratio of WCAG 2, 1 to 21.
    pub fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Returns black or white, whichever is easier to read on this colour.
    pub fn ink(self) -> Self {
        let (black, white) = (Self(0, 0, 0), Self(255, 255, 255));
        if self.contrast(black) >= self.contrast(white) { black } else { white }
    }

    fn distance(self, other: Self) -> u32 {
        let square = |a: u8, b: u8, weight: u32| weight * u32::from(a.abs_diff(b)).pow(2);
        square(self.0, other.0, 3) + square(self.1, other.1, 4) + square(self.2, other.2, 2)
    }
}

/// How many colours the terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// None: letters, shapes and weights only.
    None,
    /// The sixteen of the terminal's own palette.
    Ansi,
    /// The 6×6×6 cube and the greys.
    Indexed,
    /// 24 bits.
    True,
}

impl Depth {
    /// Returns the depth that the flag and the environment ask for: flag before `NO_COLOR` before `COLORTERM`, `TERM`.
    pub fn detect(choice: ColorChoice, env: impl Fn(&str) -> Option<String>) -> Self {
        let term = env("TERM").unwrap_or_default();
        let no_color = env("NO_COLOR").is_some_and(|v| !v.is_empty());
        match choice {
            ColorChoice::Never => return Self::None,
            ColorChoice::Auto if no_color || term == "dumb" => return Self::None,
            _ => {}
        }
        let colorterm = env("COLORTERM").unwrap_or_default();
        if colorterm == "truecolor" || colorterm == "24bit" || term.ends_with("-direct") {
            Self::True
        } else if term.contains("256") {
            Self::Indexed
        } else {
            Self::Ansi
        }
    }

    /// Returns the terminal colour nearest to `rgb`, or the default where there are no colours.
    pub fn color(self, rgb: Rgb) -> Color {
        match self {
            Self::True => Color::Rgb(rgb.0, rgb.1, rgb.2),
            Self::Indexed => Color::Indexed(nearest_indexed(rgb)),
            Self::Ansi => nearest_ansi(rgb),
            Self::None => Color::Reset,
        }
    }
}

/// Returns the RGB value of the cube or grey with this index (16 to 255).
pub fn indexed_rgb(index: u8) -> Rgb {
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    if index >= 232 {
        let grey = 8 + 10 * (index - 232);
        return Rgb(grey, grey, grey);
    }
    let i = usize::from(index.saturating_sub(16));
    Rgb(STEPS[i / 36 % 6], STEPS[i / 6 % 6], STEPS[i % 6])
}

fn nearest_indexed(rgb: Rgb) -> u8 {
    (16..=255).min_by_key(|&i| indexed_rgb(i).distance(rgb)).unwrap_or(16)
}

fn nearest_ansi(rgb: Rgb) -> Color {
    const PALETTE: [(Color, Rgb); 14] = [
        (Color::Black, Rgb(0, 0, 0)),
        (Color::Red, Rgb(170, 0, 0)),
        (Color::Green, Rgb(0, 170, 0)),
        (Color::Yellow, Rgb(170, 120, 0)),
        (Color::Blue, Rgb(0, 60, 190)),
        (Color::Magenta, Rgb(170, 0, 170)),
        (Color::Cyan, Rgb(0, 150, 170)),
        (Color::Gray, Rgb(185, 185, 185)),
        (Color::DarkGray, Rgb(100, 100, 100)),
        (Color::LightRed, Rgb(255, 100, 80)),
        (Color::LightGreen, Rgb(90, 230, 90)),
        (Color::LightYellow, Rgb(250, 230, 60)),
        (Color::LightBlue, Rgb(110, 160, 255)),
        (Color::White, Rgb(255, 255, 255)),
    ];
    PALETTE.iter().min_by_key(|(_, c)| c.distance(rgb)).map_or(Color::Reset, |(color, _)| *color)
}

/// A map from 0–1 to colours, safe for colour-blind eyes and rising in luminance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataMap {
    /// Violet, green, yellow.
    #[default]
    Viridis,
    /// Blue, grey, yellow.
    Cividis,
    /// Black, red, pale.
    Magma,
    /// Black to white.
    Grey,
}

impl DataMap {
    /// Returns the next map.
    pub fn next(self) -> Self {
        match self {
            Self::Viridis => Self::Cividis,
            Self::Cividis => Self::Magma,
            Self::Magma => Self::Grey,
            Self::Grey => Self::Viridis,
        }
    }

    /// Returns the map's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viridis => "viridis",
            Self::Cividis => "cividis",
            Self::Magma => "magma",
            Self::Grey => "grey",
        }
    }

    /// Returns the colour of `value`; values outside 0–1 take the nearest end.
    pub fn sample(self, value: f64) -> Rgb {
        let anchors = self.anchors();
        let at = value.clamp(0.0, 1.0) * (anchors.len() - 1) as f64;
        let low = (at as usize).min(anchors.len() - 2);
        anchors[low].toward(anchors[low + 1], at - low as f64)
    }

    fn anchors(self) -> &'static [Rgb] {
        match self {
            Self::Viridis => &[
                Rgb(68, 1, 84),
                Rgb(71, 44, 122),
                Rgb(59, 81, 139),
                Rgb(44, 113, 142),
                Rgb(33, 144, 141),
                Rgb(39, 173, 129),
                Rgb(92, 200, 99),
                Rgb(170, 220, 50),
                Rgb(253, 231, 37),
            ],
            Self::Cividis => {
                &[Rgb(0, 34, 78), Rgb(65, 77, 107), Rgb(124, 123, 120), Rgb(188, 175, 111), Rgb(254, 232, 56)]
            }
            Self::Magma => &[
                Rgb(0, 0, 4),
                Rgb(28, 16, 68),
                Rgb(79, 18, 123),
                Rgb(129, 37, 129),
                Rgb(181, 54, 122),
                Rgb(229, 80, 100),
                Rgb(251, 135, 97),
                Rgb(254, 194, 135),
                Rgb(252, 253, 191),
            ],
            Self::Grey => &[Rgb(12, 12, 12), Rgb(245, 245, 245)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    #[test]
    fn the_flag_beats_no_color_beats_the_terminal() {
        let rich = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor")];
        let silent = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("NO_COLOR", "1")];
        assert_eq!(Depth::detect(ColorChoice::Auto, env(&rich)), Depth::True);
        assert_eq!(Depth::detect(ColorChoice::Auto, env(&silent)), Depth::None);
        assert_eq!(Depth::detect(ColorChoice::Always, env(&silent)), Depth::True);
        assert_eq!(Depth::detect(ColorChoice::Never, env(&rich)), Depth::None);
        assert_eq!(Depth::detect(ColorChoice::Auto, env(&rich[..1])), Depth::Indexed);
        assert_eq!(Depth::detect(ColorChoice::Auto, env(&[("TERM", "linux")])), Depth::Ansi);
        assert_eq!(Depth::detect(ColorChoice::Auto, env(&[("TERM", "dumb")])), Depth::None);
    }

    #[test]
    fn data_maps_rise_in_luminance() {
        for map in [DataMap::Viridis, DataMap::Cividis, DataMap::Magma, DataMap::Grey] {
            let light: Vec<f64> = (0..=100).map(|i| map.sample(f64::from(i) / 100.0).luminance()).collect();
            assert!(light.windows(2).all(|w| w[1] >= w[0] - 0.002), "{}", map.name());
        }
        assert_eq!(DataMap::Viridis.sample(-1.0), Rgb(68, 1, 84));
        assert_eq!(DataMap::Viridis.sample(2.0), Rgb(253, 231, 37));
    }

    #[test]
    fn fewer_colours_stay_near() {
        for index in 16..=255 {
            assert_eq!(indexed_rgb(nearest_indexed(indexed_rgb(index))), indexed_rgb(index));
        }
        assert_eq!(Depth::Ansi.color(Rgb(250, 225, 40)), Color::LightYellow);
        assert_eq!(Depth::None.color(Rgb(1, 2, 3)), Color::Reset);
    }
}
