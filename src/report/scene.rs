//! A drawing in points (1/72 inch), and its form as SVG.

use std::fmt::Write as _;

use super::palette::{Ink, hex};
use crate::shown::shown;

/// The fonts of figures, the first one that there is.
pub(super) const FONTS: &str = "DejaVu Sans, Helvetica, Arial, sans-serif";

/// Where a text is anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// One thing drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Line { from: (f64, f64), to: (f64, f64), ink: Ink, width: f64, dashed: bool },
    Path { points: Vec<(f64, f64)>, ink: Ink, width: f64 },
    Squares { at: Vec<(f64, f64)>, size: (f64, f64), ink: Ink },
    Circle { at: (f64, f64), radius: f64, ink: Ink, filled: bool },
    Text { at: (f64, f64), text: String, ink: Ink, size: f64, anchor: Anchor, turned: bool },
}

/// A drawing: shapes and texts at positions in points, the origin at the top left.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    width: f64,
    height: f64,
    title: String,
    items: Vec<Item>,
}

impl Scene {
    /// Returns an empty drawing of a size in points; the title is for readers who hear the page.
    pub(super) fn new(width: f64, height: f64, title: impl Into<String>) -> Self {
        Self { width, height, title: title.into(), items: Vec::new() }
    }

    /// Returns width and height in points.
    pub fn size(&self) -> (f64, f64) {
        (self.width, self.height)
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64) {
        self.items.push(Item::Line { from, to, ink, width, dashed: false });
    }

    pub(super) fn dashes(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink) {
        self.items.push(Item::Line { from, to, ink, width: 0.6, dashed: true });
    }

    pub(super) fn path(&mut self, points: Vec<(f64, f64)>, ink: Ink, width: f64) {
        self.items.push(Item::Path { points, ink, width });
    }

    /// Adds equal rectangles of one colour by their top left corners.
    pub(super) fn squares(&mut self, at: Vec<(f64, f64)>, size: (f64, f64), ink: Ink) {
        self.items.push(Item::Squares { at, size, ink });
    }

    pub(super) fn circle(&mut self, at: (f64, f64), radius: f64, ink: Ink, filled: bool) {
        self.items.push(Item::Circle { at, radius, ink, filled });
    }

    pub(super) fn text(&mut self, at: (f64, f64), text: impl Into<String>, ink: Ink, size: f64, anchor: Anchor) {
        self.items.push(Item::Text { at, text: text.into(), ink, size, anchor, turned: false });
    }

    /// Adds a text that reads upwards, centred.
    pub(super) fn upright(&mut self, at: (f64, f64), text: impl Into<String>, size: f64) {
        self.items.push(Item::Text {
            at,
            text: text.into(),
            ink: Ink::Dim,
            size,
            anchor: Anchor::Middle,
            turned: true,
        });
    }

    /// Returns the drawing as an SVG file on white.
    pub fn svg(&self) -> String {
        let ground = format!("<rect width=\"{}\" height=\"{}\" fill=\"#ffffff\"/>\n", n(self.width), n(self.height));
        self.render("xmlns=\"http://www.w3.org/2000/svg\" ", &ground, |ink| hex(ink.css().1))
    }

    /// Returns the drawing as part of a page, whose CSS variables give the colours.
    pub(super) fn inline(&self) -> String {
        self.render("", "", |ink| match ink.css() {
            ("", rgb) => hex(rgb),
            (variable, _) => format!("var({variable})"),
        })
    }

    fn render(&self, attributes: &str, ground: &str, color: impl Fn(Ink) -> String) -> String {
        let (w, h) = (n(self.width), n(self.height));
        let mut out = format!(
            "<svg {attributes}role=\"img\" width=\"{w}pt\" height=\"{h}pt\" viewBox=\"0 0 {w} {h}\" \
             font-family=\"{FONTS}\">\n<title>{}</title>\n{ground}",
            escape(&self.title)
        );
        for item in &self.items {
            let _ = writeln!(out, "{}", element(item, &color));
        }
        out + "</svg>\n"
    }
}

fn element(item: &Item, color: &impl Fn(Ink) -> String) -> String {
    match item {
        Item::Line { from, to, ink, width, dashed } => format!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\"{}/>",
            n(from.0),
            n(from.1),
            n(to.0),
            n(to.1),
            color(*ink),
            n(*width),
            if *dashed { " stroke-dasharray=\"2 2\"" } else { "" }
        ),
        Item::Path { points, ink, width } => {
            let points: Vec<String> = points.iter().map(|p| format!("{} {}", n(p.0), n(p.1))).collect();
            let (d, ink) = (points.join("L"), color(*ink));
            format!("<path d=\"M{d}\" fill=\"none\" stroke=\"{ink}\" stroke-width=\"{}\"/>", n(*width))
        }
        Item::Squares { at, size, ink } => {
            let (w, h) = (n(size.0), n(size.1));
            let d: Vec<String> = at.iter().map(|p| format!("M{} {}h{w}v{h}h-{w}z", n(p.0), n(p.1))).collect();
            let (d, ink) = (d.concat(), color(*ink));
            // The thin edge closes the seams that print leaves between neighbours.
            format!(
                "<path d=\"{d}\" fill=\"{ink}\" stroke=\"{ink}\" stroke-width=\"0.25\" shape-rendering=\"crispEdges\"/>"
            )
        }
        Item::Circle { at, radius, ink, filled } => {
            let (x, y, r, ink) = (n(at.0), n(at.1), n(*radius), color(*ink));
            let fill = if *filled { ink.as_str() } else { "none" };
            format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{fill}\" stroke=\"{ink}\" stroke-width=\"0.8\"/>")
        }
        Item::Text { at, text, ink, size, anchor, turned } => {
            let (x, y) = (n(at.0), n(at.1));
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let turn = if *turned { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            format!(
                "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{turn}>{}</text>",
                n(*size),
                color(*ink),
                escape(text)
            )
        }
    }
}

/// Returns a length without needless digits.
fn n(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns a text as it stands in XML.
pub(super) fn escape(text: &str) -> String {
    shown(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
