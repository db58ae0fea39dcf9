//! `indexscope report`: a session as a page to share, or one of its figures.

use std::path::{Path, PathBuf};

use super::CliError;
use super::output::print;
use super::say::say;
use crate::analysis::agreement::{self, LAGS};
use crate::analysis::{Accumulator, Metric, OverlapMatrix};
use crate::domain::Stages;
use crate::interop;
use crate::report::{Figure, Report, ReportError, StripRow};
use crate::session::{FileError, Session, TraceFile, read_trace, write_atomic};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A session, as the dashboard saves it.
    session: PathBuf,
    /// The file to write; its ending says what: .html, .md, .csv or .json; with --figure .svg, .pdf or .png.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only this figure, with its numbers as .csv beside it.
    #[arg(long, value_enum, value_name = "FIGURE")]
    figure: Option<FigureArg>,
    /// Width of the figure, such as 3.25in, 8.5cm or 234pt.
    #[arg(long, value_name = "WIDTH", default_value = "3.25in", value_parser = width, requires = "figure")]
    width: f64,
    /// Pixels per inch of a .png.
    #[arg(long, value_name = "DPI", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=4800), requires = "figure")]
    dpi: u32,
    /// A recording of the same model, for overlap and scatter, where the session's own is not wanted or not there.
    #[arg(long, value_name = "TRACE")]
    trace: Option<PathBuf>,
    /// Another recording of the same tokens as that of --trace, to compare with it.
    #[arg(long, value_name = "TRACE", requires = "trace")]
    against: Option<PathBuf>,
    /// The model's config.json or its folder, for what engines would make of the pattern.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Layers of every pipeline stage, such as 14,6x8,16.
    #[arg(long, value_name = "SIZES", requires = "config")]
    stages: Option<Stages>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FigureArg {
    Overlap,
    Trajectory,
    Pareto,
    Scatter,
}

impl From<FigureArg> for Figure {
    fn from(figure: FigureArg) -> Self {
        match figure {
            FigureArg::Overlap => Self::Overlap,
            FigureArg::Trajectory => Self::Trajectory,
            FigureArg::Pareto => Self::Pareto,
            FigureArg::Scatter => Self::Scatter,
        }
    }
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

/// Reads a width and returns points.
fn width(text: &str) -> Result<f64, String> {
    let units = [("in", 72.0), ("cm", 72.0 / 2.54), ("mm", 72.0 / 25.4), ("pt", 1.0)];
    let points =
        units.iter().find_map(|(unit, points)| Some(text.strip_suffix(unit)?.trim().parse::<f64>().ok()? * points));
    match points {
        Some(points) if (100.0..=3000.0).contains(&points) => Ok(points),
        Some(_) => Err("it must be between 100pt (1.4in) and 3000pt".to_owned()),
        None => Err("it must be a number with in, cm, mm or pt, such as 3.25in".to_owned()),
    }
}

/// Writes the page or the figure.
///
/// # Errors
/// When a file cannot be read or written, belongs to another model, or holds nothing to draw.
pub fn run(args: Args) -> Result<(), CliError> {
    let report = gather(&args)?;
    let ending = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let Some(figure) = args.figure else {
        let text = match ending {
            "html" => report.html(),
            "md" => report.markdown(),
            "csv" => report.csv(),
            "json" => format!("{:#}\n", report.json()),
            _ => return Err(unknown(&args.out, "a page is .html, .md, .csv or .json; figures need --figure")),
        };
        replacing(&args.out);
        write_atomic(&args.out, text.as_bytes())?;
        return print(&format!("{}\n", args.out.display()));
    };
    let figure = Figure::from(figure);
    let scene = figure.draw(&report, args.width)?;
    let drawn = match ending {
        "svg" => scene.svg().into_bytes(),
        "pdf" => scene.pdf()?,
        "png" => scene.png(f64::from(args.dpi))?,
        _ => return Err(unknown(&args.out, "a figure is .svg, .pdf or .png")),
    };
    let numbers = args.out.with_extension("csv");
    replacing(&args.out);
    replacing(&numbers);
    write_atomic(&args.out, &drawn)?;
    write_atomic(&numbers, figure.csv(&report)?.as_bytes())?;
    print(&format!("{}\n{}\n", args.out.display(), numbers.display()))
}

/// Says so where a file of before is replaced.
fn replacing(path: &Path) {
    if path.exists() {
        say(&format!("note: '{}' was there already and is replaced", path.display()));
    }
}

fn unknown(path: &Path, hint: &str) -> CliError {
    CliError::usage(format!("'{}' has no ending that says what to write", path.display())).hint(hint)
}

/// Reads everything that the report tells.
fn gather(args: &Args) -> Result<Report, CliError> {
    let session = Session::read(&args.session)?;
    let recorded = args.trace.as_deref().map(|path| overlap(path, &session)).transpose()?;
    let target = args.config.as_deref().map(interop::Target::of_config).transpose()?;
    let layers = target.as_ref().map_or(session.pattern.len(), |target| target.sites().layers());
    let stages = args.stages.clone().unwrap_or_else(|| Stages::one(layers));
    if let Some(target) = &target {
        target.constraints.check(session.pattern)?;
    }
    let source = args.session.display().to_string();
    let mut report = assemble(session, source, recorded, target.as_ref().map(|target| (target, &stages)))?;
    if let Some(path) = &args.trace {
        let trace = read_trace(path)?;
        let over_time = LAGS.map(|lag| agreement::temporal(&trace, lag));
        report.temporal = over_time.into_iter().filter(|one| one.pairs > 0).collect();
        if let Some(other) = &args.against {
            let with = agreement::between(&trace, &read_trace(other)?, Metric::Overlap).map_err(|e| {
                CliError::run(format!("'{}' and '{}': {e}", path.display(), other.display()))
                    .hint("record both from the same tokens, with the same index_topk")
            })?;
            report.agreement = Some((other.display().to_string(), with));
        }
    }
    Ok(report)
}

/// Returns the report of a session read from `source`, with what engines would make of its pattern where the model is
/// known; a recording takes the place of the one that the session holds.
///
/// # Errors
/// [`interop::SimulateError`] where the stages hold another number of layers.
pub(super) fn assemble(
    session: Session,
    source: String,
    recorded: Option<OverlapMatrix>,
    engines: Option<(&interop::Target, &Stages)>,
) -> Result<Report, interop::SimulateError> {
    let (mut strips, mut notes) = (Vec::new(), Vec::new());
    if let Some((target, stages)) = engines {
        let simulation = interop::simulate_pattern(target, session.pattern, stages)?;
        strips = simulation.engines.iter().map(row).collect();
        notes.push(format!(
            "config.json of '{}' with the pattern written into it, stages {stages}; ? marks what no release was read for",
            target.model
        ));
        let own = simulation.engines.iter().flat_map(|strip| strip.warnings.iter().map(move |w| (strip.engine, w)));
        let all = simulation.warnings.iter().map(|w| ("any engine", w)).chain(own);
        notes.extend(all.map(|(who, w)| format!("{who}: {}; {}", w.what, w.advice)));
    }
    let versions = vec![("indexscope".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    let overlap = recorded.or_else(|| session.overlap.clone());
    Ok(Report { session, source, overlap, temporal: Vec::new(), agreement: None, strips, notes, versions })
}

fn row(strip: &interop::Strip) -> StripRow {
    let end = strip.failure.as_ref().map(|f| format!("; fails: {} {}: {}", f.error, f.when, f.reason));
    StripRow {
        engine: format!("{} {}{}", strip.engine, strip.version, if strip.verified { "" } else { " ?" }),
        letters: strip.letters(),
        note: format!("{}{}", strip.rule, end.unwrap_or_default()),
    }
}

/// Returns the overlap of a recording of the session's model.
fn overlap(path: &Path, session: &Session) -> Result<OverlapMatrix, CliError> {
    let file = TraceFile::open(path)?;
    let meta = match &file {
        TraceFile::Whole(trace) => &trace.meta,
        TraceFile::Packed(trace) => trace.meta(),
    };
    if !session.model.is(&meta.fingerprint) {
        let message =
            format!("'{}' is of model '{}', the session of '{}'", path.display(), meta.model, session.model.name);
        return Err(CliError::run(message).hint("record the session's model: indexscope record MODEL --out TRACE"));
    }
    Ok(match &file {
        TraceFile::Whole(trace) => crate::analysis::overlap::matrix(trace, Metric::Overlap),
        TraceFile::Packed(trace) => {
            let mut pieces = Accumulator::new(trace.meta(), trace.queries(), Metric::Overlap);
            for piece in trace.pieces() {
                pieces.add(&piece.map_err(|e: FileError| CliError::from(e))?);
            }
            pieces.finish()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_read_in_their_units() {
        assert_eq!(width("3.25in"), Ok(234.0));
        assert_eq!(width("234pt"), Ok(234.0));
        assert!((width("8.255cm").unwrap() - 234.0).abs() < 1e-9);
        for text in ["3.25", "in", "1in", "1e9cm", "-3in", "NaNin"] {
            assert!(width(text).is_err(), "{text}");
        }
    }
}
