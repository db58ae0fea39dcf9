//! What every part of the screen looks like: roles, shades of data, glyphs.

use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier, Style};

use super::color::{DataMap, Depth, Rgb};
use super::{Options, ThemeChoice};

/// What a piece of text is, as far as its looks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ordinary text.
    Text,
    /// Labels, units, what is stale.
    Dim,
    /// Keys and whatever can be acted on.
    Accent,
    /// Better, or done.
    Good,
    /// Worth a look.
    Warn,
    /// Worse, or failed.
    Bad,
    /// A Full layer.
    Full,
    /// The second of two things that are compared: the pattern B, what only the second layer selects.
    Second,
    /// A Shared layer.
    Shared,
    /// The cursor.
    Cursor,
    /// Lines and boxes.
    Border,
    /// The first and the last line of the screen.
    Header,
}

/// One value of a data map with what lies over it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shade {
    /// 0 to 1; `None` where there is no measurement.
    pub value: Option<f64>,
    /// Whether it steps back behind its neighbours.
    pub faded: bool,
    /// Whether the crosshair passes over it.
    pub crossed: bool,
    /// Whether the cursor is here.
    pub cursor: bool,
}

impl Shade {
    /// Returns a plain shade of `value`.
    pub fn of(value: Option<f64>) -> Self {
        Self { value, faded: false, crossed: false, cursor: false }
    }
}

/// The looks of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours of the terminal.
    pub depth: Depth,
    /// Which background the colours are for.
    pub background: ThemeChoice,
    /// Whether only ASCII is drawn.
    pub ascii: bool,
    /// The map of data colours.
    pub map: DataMap,
}

const RAMP: [char; 10] = [' ', '·', ':', '-', '=', '+', '*', '#', '%', '@'];

impl Theme {
    /// Returns the looks that `options` ask for on a terminal of this depth.
    pub fn new(options: Options, depth: Depth) -> Self {
        Self { depth, background: options.theme, ascii: options.ascii, map: DataMap::default() }
    }

    /// Returns the style of a role.
    pub fn role(self, role: Role) -> Style {
        let style = Style::default();
        if self.depth == Depth::None {
            return match role {
                Role::Text | Role::Shared | Role::Header | Role::Border => style,
                Role::Dim => style.add_modifier(Modifier::DIM),
                Role::Accent | Role::Good | Role::Full | Role::Second | Role::Warn => {
                    style.add_modifier(Modifier::BOLD)
                }
                Role::Bad => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
                Role::Cursor => style.add_modifier(Modifier::REVERSED),
            };
        }
        match role {
            Role::Text => style,
            Role::Full => {
                let color = self.rgb(Role::Full);
                style.fg(self.color(color.ink())).bg(self.color(color))
            }
            Role::Cursor => style.add_modifier(Modifier::REVERSED | Modifier::BOLD),
            Role::Header => style.fg(self.color(self.rgb(Role::Header))).bg(self.color(self.bar())),
            other => style.fg(self.color(self.rgb(other))),
        }
    }

    /// Returns the colour of a role where 24 bits can be shown.
    pub fn rgb(self, role: Role) -> Rgb {
        let dark = self.background == ThemeChoice::Dark;
        let pick = |on_dark: Rgb, on_light: Rgb| if dark { on_dark } else { on_light };
        match role {
            Role::Text | Role::Cursor => pick(Rgb(208, 212, 220), Rgb(30, 34, 42)),
            Role::Dim | Role::Shared => pick(Rgb(136, 141, 152), Rgb(98, 102, 112)),
            Role::Accent => pick(Rgb(98, 180, 240), Rgb(0, 92, 160)),
            Role::Good => pick(Rgb(60, 190, 140), Rgb(0, 112, 74)),
            Role::Warn => pick(Rgb(236, 220, 92), Rgb(116, 96, 0)),
            Role::Bad => pick(Rgb(255, 105, 97), Rgb(176, 30, 20)),
            Role::Second => pick(Rgb(214, 140, 190), Rgb(150, 50, 110)),
            Role::Full => pick(Rgb(230, 159, 0), Rgb(205, 130, 0)),
            Role::Border => pick(Rgb(96, 101, 112), Rgb(150, 154, 162)),
            Role::Header => pick(Rgb(200, 205, 215), Rgb(40, 44, 54)),
        }
    }

    /// Returns the background of the first and the last line.
    pub fn bar(self) -> Rgb {
        if self.background == ThemeChoice::Dark { Rgb(36, 41, 54) } else { Rgb(222, 226, 234) }
    }

    /// Returns the colour that the terminal's background is taken to have; it is never painted.
    pub fn ground(self) -> Rgb {
        if self.background == ThemeChoice::Dark { Rgb(13, 15, 20) } else { Rgb(255, 255, 255) }
    }

    /// Returns the terminal's colour for `rgb`.
    pub fn color(self, rgb: Rgb) -> Color {
        self.depth.color(rgb)
    }

    /// Paints two values into one cell, one above the other.
    pub fn paint_pair(self, cell: &mut Cell, upper: Shade, lower: Shade) {
        if self.depth > Depth::Ansi {
            let blank = Shade::of(None);
            match (upper.value.is_some(), lower.value.is_some()) {
                (false, false) => self.paint(cell, if upper.cursor || lower.cursor { upper } else { blank }),
                (true, false) => {
                    cell.set_char('▀').set_style(Style::default().fg(self.color(self.tint(upper))));
                }
                (false, true) => {
                    cell.set_char('▄').set_style(Style::default().fg(self.color(self.tint(lower))));
                }
                (true, true) => {
                    let style = Style::default().fg(self.color(self.tint(upper))).bg(self.color(self.tint(lower)));
                    cell.set_char('▀').set_style(style);
                }
            }
            return;
        }
        let mean = match (upper.value, lower.value) {
            (Some(a), Some(b)) => Some(f64::midpoint(a, b)),
            (a, b) => a.or(b),
        };
        let both = Shade {
            value: mean,
            faded: upper.faded && lower.faded,
            crossed: upper.crossed || lower.crossed,
            cursor: upper.cursor || lower.cursor,
        };
        self.paint(cell, both);
    }

    /// Paints one value into a whole cell.
    pub fn paint(self, cell: &mut Cell, shade: Shade) {
        let Some(value) = shade.value else {
            cell.set_char(if shade.cursor { '◆' } else { ' ' });
            return;
        };
        match self.depth {
            Depth::True | Depth::Indexed => {
                cell.set_char(' ').set_style(Style::default().bg(self.color(self.tint(shade))));
            }
            Depth::Ansi => {
                const STEPS: [(char, Color, Color); 9] = [
                    (' ', Color::Blue, Color::Blue),
                    ('░', Color::Cyan, Color::Blue),
                    ('▒', Color::Cyan, Color::Blue),
                    ('▓', Color::Cyan, Color::Blue),
                    ('█', Color::Cyan, Color::Cyan),
                    ('░', Color::LightYellow, Color::Cyan),
                    ('▒', Color::LightYellow, Color::Cyan),
                    ('▓', Color::LightYellow, Color::Cyan),
                    ('█', Color::LightYellow, Color::LightYellow),
                ];
                let (glyph, fg, bg) = STEPS[step(value, STEPS.len())];
                cell.set_char(glyph).set_style(Style::default().fg(fg).bg(bg));
                if shade.cursor {
                    cell.set_char('◆').set_style(Style::default().fg(Color::Black).bg(Color::White));
                }
            }
            Depth::None => {
                cell.set_char(RAMP[step(value, RAMP.len())]);
                if shade.cursor {
                    cell.set_char('◆').set_style(self.role(Role::Cursor));
                } else if shade.crossed {
                    cell.set_style(Style::default().add_modifier(Modifier::BOLD));
                } else if shade.faded {
                    cell.set_style(Style::default().add_modifier(Modifier::DIM));
                }
            }
        }
    }

    /// Returns the colour of a shade, crosshair and fading included.
    pub fn tint(self, shade: Shade) -> Rgb {
        let text = self.rgb(Role::Text);
        if shade.cursor {
            return text.toward(Rgb(255, 255, 255), if self.background == ThemeChoice::Dark { 1.0 } else { 0.0 });
        }
        let mut color = self.map.sample(shade.value.unwrap_or(0.0));
        if shade.faded {
            color = color.toward(self.ground(), 0.45);
        }
        if shade.crossed {
            color = color.toward(text, 0.18);
        }
        color
    }

    /// Returns the style of a difference from −1 (blue, less) to 1 (pink, more); nothing stands out at 0.
    pub fn on_difference(self, value: f64) -> Style {
        if self.depth <= Depth::Ansi {
            return self.role(if value < 0.0 { Role::Bad } else { Role::Text });
        }
        let end = if value < 0.0 { Rgb(0, 114, 178) } else { Rgb(214, 140, 190) };
        let middle = if self.background == ThemeChoice::Dark { Rgb(70, 74, 84) } else { Rgb(232, 232, 232) };
        Style::default().bg(self.color(middle.toward(end, value.abs())))
    }

    /// Returns the style of a number written on a shade: black or white ink on its colour.
    pub fn on_shade(self, shade: Shade) -> Style {
        if self.depth <= Depth::Ansi {
            return if shade.cursor { self.role(Role::Cursor) } else { Style::default() };
        }
        let color = self.tint(shade);
        Style::default().fg(self.color(color.ink())).bg(self.color(color))
    }
}

fn step(value: f64, steps: usize) -> usize {
    ((value.clamp(0.0, 1.0) * (steps - 1) as f64).round() as usize).min(steps - 1)
}

/// Returns the ASCII character that stands for `glyph`, one for one, so that nothing moves.
pub fn plain(glyph: char) -> char {
    match glyph {
        c if c.is_ascii() => c,
        '│' | '┊' | '├' | '┤' => '|',
        '─' | '–' | '−' | '▃' | '┄' => '-',
        '╭' | '╮' | '╰' | '╯' | '▅' => '+',
        '●' | '▆' | '▒' | '•' => '*',
        '◌' | '○' | '◇' => 'o',
        '≈' => '~',
        '≠' => '!',
        '✗' | '×' => 'x',
        '◆' => 'X',
        '▸' | '▶' | '→' | '›' => '>',
        '←' => '<',
        '▾' | '↓' => 'v',
        '↑' | '▲' => '^',
        'Δ' => 'd',
        'ρ' => 'r',
        '▁' | '·' | '…' => '.',
        '▂' => ':',
        '▄' | '░' | '≤' => '=',
        '▇' | '▓' => '%',
        '█' | '▀' | '■' => '#',
        '╱' => '/',
        '␣' => '_',
        '↵' => '$',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(background: ThemeChoice, depth: Depth) -> Theme {
        Theme::new(Options { theme: background, ..Options::default() }, depth)
    }

    #[test]
    fn text_is_readable_on_both_backgrounds() {
        for background in [ThemeChoice::Dark, ThemeChoice::Light] {
            let theme = theme(background, Depth::True);
            for role in
                [Role::Text, Role::Dim, Role::Shared, Role::Accent, Role::Good, Role::Warn, Role::Bad, Role::Second]
            {
                let contrast = theme.rgb(role).contrast(theme.ground());
                assert!(contrast >= 4.5, "{role:?} on {background:?}: {contrast:.2}");
            }
            assert!(theme.rgb(Role::Header).contrast(theme.bar()) >= 4.5);
            assert!(theme.rgb(Role::Accent).contrast(theme.bar()) >= 4.5, "{background:?}");
        }
    }

    #[test]
    fn without_colours_values_are_a_ramp() {
        let theme = theme(ThemeChoice::Dark, Depth::None);
        let glyph = |value| {
            let mut cell = Cell::default();
            theme.paint(&mut cell, Shade::of(Some(value)));
            cell.symbol().to_owned()
        };
        assert_eq!([0.0, 0.5, 1.0].map(glyph), [" ", "+", "@"]);
    }

    #[test]
    fn a_pair_is_two_colours_in_one_cell() {
        let theme = theme(ThemeChoice::Dark, Depth::True);
        let mut cell = Cell::default();
        theme.paint_pair(&mut cell, Shade::of(Some(1.0)), Shade::of(Some(0.0)));
        assert_eq!((cell.symbol(), cell.fg, cell.bg), ("▀", Color::Rgb(253, 231, 37), Color::Rgb(68, 1, 84)));
    }
}
