//! Pages and figures of a session that was measured, and of one that was not.

use super::*;
use crate::analysis::Metric;
use crate::analysis::agreement::LayerAgreement;
use crate::domain::{Delta, Estimate, Goal, Pattern, Query, SearchRecord, SearchSettings, Strategy, Validation};
use crate::session::SessionModel;

#[test]
fn a_page_holds_what_recordings_say() {
    let page = report().markdown();
    for line in [
        "| layer | next query |",
        "| 0 | 0.875 ± 0.010 |",
        "| 1 | – |",
        "| chance | 0.250 |",
        "| 0 | 0.625 | 50.0 % | 0.125 at 1:70 |",
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    let json = report().json();
    assert_eq!((&json["temporal"][0]["pairs"], &json["recordings"]["with"]), (&json!(90), &json!("other.trace")));
}

fn report() -> Report {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/sessions/demo-tour.toml");
    let session = Session::read(path.as_ref()).unwrap();
    let layers = session.pattern.len();
    let value = |i: usize, j: usize| 1.0 - i.abs_diff(j) as f64 * 0.05;
    let overlap = OverlapMatrix {
        metric: Metric::Overlap,
        layers,
        values: (0..layers * layers).map(|at| value(at / layers, at % layers)).collect(),
        se: vec![Some(0.01); layers * layers],
        chance: Some(0.2),
        queries: 512,
        counted: 480,
        borrowed: vec![],
        tokens_hash: "fnv1a:b7f94e2a196b18b9".into(),
    };
    let strip =
        StripRow { engine: "vLLM 0.33.0".into(), letters: session.pattern.to_string(), note: "a <rule>".into() };
    Report {
        session,
        source: "sessions/demo-tour.toml".into(),
        overlap: Some(overlap),
        temporal: vec![Temporal {
            lag: 1,
            pairs: 90,
            chance: Some(0.25),
            sites: vec![0, 1],
            layers: vec![Some(Estimate { value: 0.875, se: Some(0.01), n: 90 }), None],
        }],
        agreement: Some((
            "other.trace".into(),
            Agreement {
                metric: Metric::Overlap,
                queries: 100,
                counted: 90,
                chance: Some(0.25),
                sites: vec![0],
                layers: vec![LayerAgreement {
                    mean: Some(Estimate { value: 0.625, se: None, n: 90 }),
                    identical: Some(0.5),
                    worst: Some((Query { sequence: 1, position: 70 }, 0.125)),
                }],
                by_position: vec![],
            },
        )),
        strips: vec![strip],
        notes: vec!["a | note".into()],
        versions: vec![("indexscope".into(), "0.1.0".into())],
    }
}

/// Checks that every element that is opened is closed, in order.
fn assert_well_formed(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in markup.split('<').skip(1).map(|part| part.split('>').next().unwrap()) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        match tag {
            _ if tag.starts_with('!') || tag.ends_with('/') || name == "meta" => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name)),
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_one_file_with_every_part() {
    let html = report().html();
    let page = html.split("<main>").nth(1).unwrap().split("</main>").next().unwrap();
    assert_well_formed(page);
    for part in [
        "+0.0129 ± 0.0026",
        "11,496",
        "fnv1a:b7f94e2a196b18b9",
        "602daf13878872a6",
        "measured",
        "arXiv 2603.12201",
        "a &lt;rule&gt;",
        "ρ = ",
        "prefers-color-scheme:dark",
        "@media print",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert_eq!(html.matches("<svg").count(), 4);
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("src="), "nothing is loaded");
}

#[test]
fn nothing_of_the_session_is_lost() {
    let report = report();
    // As text: the parser that reads it back here rounds the last bit of some numbers, which the file does not.
    let whole = json!(report.session).to_string();
    assert!(report.json().to_string().contains(&whole));
    assert!(report.html().contains(&whole.replace("</", "<\\/")));
    let read: Session = serde_json::from_str(&whole).unwrap();
    assert_eq!((read.history.len(), read.current, read.pattern), (3, 2, report.session.pattern));
    assert_eq!(read.model, report.session.model);
}

#[test]
fn markdown_and_csv_hold_the_same_numbers() {
    let report = report();
    let markdown = report.markdown();
    for part in ["+0.2099 ± 0.0205", "| # | change |", "a \\| note", "`FSSSFFFSSSFF`"] {
        assert!(markdown.contains(part), "{part}: {markdown}");
    }
    let csv = report.csv();
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!((columns.len(), columns[0]), (1 + report.session.history.len(), 37));
    assert!(columns.iter().all(|n| *n == columns[0]), "{columns:?}");
    assert!(csv.contains("0.20989494966068134"), "full precision: {csv}");
}

#[test]
fn figures_are_drawn_at_the_width_asked_for() {
    let report = report();
    for figure in Figure::ALL {
        let svg = figure.draw(&report, 234.0).unwrap().svg();
        assert!(svg.contains("width=\"234pt\"") && svg.contains("font-family=\"DejaVu Sans"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_well_formed(&svg);
        assert!(figure.csv(&report).unwrap().lines().count() > 3);
        assert!(!figure.caption(&report).is_empty());
    }
    let scatter = Figure::Scatter.csv(&report).unwrap();
    assert!(scatter.contains("FSFSFSFSFSFS,6,0.3"), "six neighbours at 0.05 each: {scatter}");
    assert!(!scatter.contains("FFFFFFFFFFFF"), "the reference gives nothing up: {scatter}");
    assert_eq!(scatter.lines().count(), 1 + 2 + 9, "two patterns of the history, nine of the search: {scatter}");
    let trajectory = Figure::Trajectory.csv(&report).unwrap();
    assert!(trajectory.contains("\nsearch 1 lazy,9,2,FSSSSSFSSSSF,3,0.0484"), "{trajectory}");
    assert_eq!(trajectory.lines().count(), 1 + 3 + 9, "{trajectory}");
}

#[test]
fn what_is_not_there_is_not_drawn() {
    let pattern: Pattern = "FSFS".parse().unwrap();
    let session = Session::new(SessionModel { name: "m".into(), ..SessionModel::default() }, pattern);
    let report = Report { session, overlap: None, strips: vec![], notes: vec![], ..report() };
    for figure in Figure::ALL {
        let error = figure.draw(&report, 234.0).unwrap_err();
        assert!(error.to_string().contains(figure.name()) && error.hint().is_some(), "{error}");
    }
    let html = report.html();
    assert!(!html.contains("<svg") && html.contains("FSFS".replace("FSFS", "<b>F</b>S<b>F</b>S").as_str()), "{html}");
}

#[test]
fn every_search_is_a_line_and_one_without_flips_a_dot() {
    let mut report = report();
    let flips = report.session.searches[0].clone();
    let result = SearchRecord {
        order: vec![],
        settings: SearchSettings::new(Strategy::Uniform, Goal::Keep(3)),
        ..flips.clone()
    };
    let elsewhere = SearchRecord { calibration: "fnv1a:0".into(), ..flips };
    report.session.searches.extend([result, elsewhere]);
    let csv = Figure::Trajectory.csv(&report).unwrap();
    assert!(csv.contains("search 2 uniform,1,,FSSSSSFSSSSF,3,0.0484") && csv.contains("search 3 lazy,9,2,"), "{csv}");
    assert_eq!(Figure::Scatter.csv(&report).unwrap().lines().count(), 12, "other text is not mixed in");
    let svg = Figure::Trajectory.draw(&report, 234.0).unwrap().svg();
    assert!(svg.contains("uniform to 3 Full, 11,496 targets"), "{svg}");
    let markdown = report.markdown();
    assert!(markdown.contains("| calibration set |") && markdown.contains("| fnv1a:0 |"), "{markdown}");
}

#[test]
fn what_was_judged_on_unseen_text_is_told() {
    let mut report = report();
    let delta = Some(Delta::measured(0.0123, 0.004, 4321));
    report.session.history[2].validation = Some(Validation { loss: 2.5, delta, sequences: 8, data: "v, 1".into() });
    assert!(report.markdown().contains("+0.0123 ± 0.0040 of 4,321"));
    assert!(report.csv().contains(",0.0123,0.004,4321,\"v, 1\"\n"), "{}", report.csv());
}

#[test]
fn borrowed_rows_stay_blank_and_do_not_count() {
    let mut report = report();
    if let Some(matrix) = &mut report.overlap {
        matrix.borrowed = vec![3];
        matrix.tokens_hash = "fnv1a:0".into();
    }
    let csv = Figure::Overlap.csv(&report).unwrap();
    assert!(!csv.contains("\n3,4,") && csv.contains("\n3,3,1,") && csv.contains("\n4,5,"), "{csv}");
    let caption = Figure::Overlap.caption(&report);
    assert!(caption.contains("of other text (fnv1a:0)") && caption.contains("Blank:"), "{caption}");
    let scatter = Figure::Scatter.csv(&report).unwrap();
    assert!(!scatter.contains("\nFFFS"), "what layer 3 gives up is not known: {scatter}");
}

#[test]
fn unknown_spread_is_said() {
    let few = Delta::bare(-0.5, 10);
    assert_eq!(number::delta(few), "−0.5000 ± ?");
    assert_eq!(number::grouped(1_234_567), "1,234,567");
}

#[test]
fn a_pdf_is_vectors_of_the_width_asked_for_with_its_font() {
    let report = report();
    for figure in Figure::ALL {
        let scene = figure.draw(&report, 234.0).unwrap();
        let pdf = scene.pdf().unwrap();
        let text = String::from_utf8_lossy(&pdf);
        assert!(pdf.starts_with(b"%PDF-1.") && text.trim_end().ends_with("%%EOF"));
        for part in ["/MediaBox [0 0 234 ", "/BaseFont /INDEXS+DejaVuSans", "/FontFile2", "/ToUnicode"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("/Image"), "nothing is a picture of itself");
        assert_eq!(pdf, scene.pdf().unwrap(), "the same drawing gives the same bytes");
    }
}

#[test]
fn a_png_has_the_pixels_of_its_width_and_is_drawn_on() {
    let report = report();
    for figure in Figure::ALL {
        let scene = figure.draw(&report, 234.0).unwrap();
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(scene.png(100.0).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let info = reader.info();
        assert_eq!((info.width, info.pixel_dims.unwrap().xppu), (325, 3937));
        // Axes, points and letters are dark; letters alone are, left of the axis.
        let dark = |x: usize, y: usize| pixels[(y * 325 + x) * 3..][..3].iter().all(|&c| c < 160);
        let letters = (0..info.height as usize).flat_map(|y| (0..40).map(move |x| (x, y))).filter(|&(x, y)| dark(x, y));
        assert!(letters.count() > 40, "{figure:?}");
        assert!(matches!(scene.png(1e6), Err(ReportError::Pixels { .. })) && scene.png(f64::NAN).is_err());
    }
}

#[test]
fn a_letter_outside_the_font_is_an_error_not_a_gap() {
    let mut scene = Scene::new(100.0, 50.0, "t");
    scene.text((5.0, 5.0), "層", palette::Ink::Text, 7.0, scene::Anchor::Start);
    for error in [scene.pdf().unwrap_err(), scene.png(72.0).unwrap_err()] {
        assert!(error.to_string().contains("'層' (U+5C64)") && error.hint().unwrap().contains(".svg"), "{error}");
    }
}
