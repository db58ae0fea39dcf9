//! The overlap of every two layers' index sets.

use std::fmt::Write as _;

use super::{Figure, number};
use crate::domain::OverlapMatrix;
use crate::report::axes::LABEL;
use crate::report::palette::{Ink, viridis};
use crate::report::scene::{Anchor, Scene};
use crate::report::{Report, ReportError};

/// Returns the matrix, of the recording or of the session.
pub(super) fn matrix(report: &Report, figure: Figure) -> Result<&OverlapMatrix, ReportError> {
    report.overlap.as_ref().ok_or_else(|| figure.empty("the session holds no overlap"))
}

/// Draws the matrix with its colour bar, rows from top to bottom; what was borrowed in the recording stays blank.
pub(super) fn draw(report: &Report, width: f64) -> Result<Scene, ReportError> {
    let matrix = matrix(report, Figure::Overlap)?;
    let (left, top, bar) = (31.0, 6.0, 44.0);
    let side = width - left - bar;
    let mut scene = Scene::new(width, top + side + 24.0, format!("Overlap of {} layers", matrix.layers));
    let cell = side / matrix.layers as f64;
    // One shape per colour, so that 78 layers stay a small file.
    let mut shades: Vec<Vec<(f64, f64)>> = vec![Vec::new(); 64];
    let mut blank = Vec::new();
    for i in 0..matrix.layers {
        for j in 0..matrix.layers {
            let at = (left + j as f64 * cell, top + i as f64 * cell);
            match known(matrix, i, j) {
                Some(value) => shades[((value * 64.0) as usize).min(63)].push(at),
                None => blank.push(at),
            }
        }
    }
    if !blank.is_empty() {
        scene.squares(blank, (cell, cell), Ink::Grid);
    }
    for (shade, at) in shades.into_iter().enumerate().filter(|(_, at)| !at.is_empty()) {
        scene.squares(at, (cell, cell), Ink::Data(viridis(shade as f64 / 63.0)));
    }
    let step = [1, 2, 5, 10, 20].into_iter().find(|s| matrix.layers / s <= 12).unwrap_or(20);
    for layer in (0..matrix.layers).step_by(step) {
        let middle = (layer as f64 + 0.5) * cell;
        scene.text((left - 3.0, top + middle + 2.5), layer.to_string(), Ink::Dim, LABEL, Anchor::End);
        scene.text((left + middle, top + side + 9.0), layer.to_string(), Ink::Dim, LABEL, Anchor::Middle);
    }
    scene.upright((9.0, top + side / 2.0), "layer that needs indices", LABEL);
    scene.text((left + side / 2.0, top + side + 19.0), "layer that lends its set", Ink::Dim, LABEL, Anchor::Middle);
    let x = left + side + 6.0;
    for shade in 0..64 {
        let y = top + side * (1.0 - f64::from(shade + 1) / 64.0);
        scene.squares(vec![(x, y)], (7.0, side / 64.0 + 0.2), Ink::Data(viridis(f64::from(shade) / 63.0)));
    }
    for mark in [0.0, 0.5, 1.0] {
        let y = top + side * (1.0 - mark);
        scene.text((x + 9.0, y + 2.5), format!("{mark}"), Ink::Dim, LABEL, Anchor::Start);
    }
    if let Some(chance) = matrix.chance {
        let y = top + side * (1.0 - chance);
        scene.line((x - 2.0, y), (x + 9.0, y), Ink::Text, 0.8);
        scene.text((x + 10.0, y + 2.5), "chance", Ink::Text, LABEL - 1.0, Anchor::Start);
    }
    Ok(scene)
}

/// Returns the overlap of two layers; `None` where either used another one's set in the recording.
fn known(matrix: &OverlapMatrix, i: usize, j: usize) -> Option<f64> {
    matrix.get(i, j).filter(|_| i == j || (matrix.is_own(i) && matrix.is_own(j)))
}

pub(super) fn csv(report: &Report) -> Result<String, ReportError> {
    let m = matrix(report, Figure::Overlap)?;
    let mut text = format!("row,column,{},se,queries\n", m.metric);
    for i in 0..m.layers {
        for j in 0..m.layers {
            if let Some(e) = m.estimate(i, j).filter(|_| known(m, i, j).is_some()) {
                let _ = writeln!(text, "{i},{j},{},{},{}", e.value, number(e.se), e.n);
            }
        }
    }
    Ok(text)
}

pub(super) fn caption(report: &Report) -> String {
    let Some(m) = &report.overlap else { return String::new() };
    let chance = m.chance.map_or("not defined".to_owned(), |c| format!("{c:.3}"));
    let text = match m.tokens_hash.as_str() {
        "" => String::new(),
        hash if hash == report.session.calibration => " of the calibration set".to_owned(),
        hash => format!(" of other text ({hash})"),
    };
    let borrowed = match m.borrowed.len() {
        0 => "",
        _ => " Blank: layers that used another one's set in the recording.",
    };
    format!(
        "Overlap |A∩B|/k of every two layers' index sets, mean over {} of {} recorded queries{text} (those that see more \
         than k keys); two random sets would share {chance}.{borrowed} Overlap explains, loss decides: nothing is ranked \
         by it.",
        m.counted, m.queries
    )
}
