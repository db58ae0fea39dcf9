//! Files of older versions, and of other programs, are read as what they were: traces and sessions.

use std::path::{Path, PathBuf};

use indexscope::checkpoint::{Checkpoint, Sidecar};
use indexscope::domain::{Query, QuerySampling};
use indexscope::session::{Session, read_trace, write_trace};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats").join(name)
}

/// The file was written by the lines of Python that README shows.
#[test]
fn a_trace_written_by_numpy_is_read() {
    let trace = read_trace(&file("numpy.safetensors")).unwrap();
    assert_eq!((trace.meta.model.as_str(), trace.meta.layers, trace.meta.index_topk), ("by numpy", 4, 8));
    assert_eq!((trace.queries.len(), trace.meta.queries), (40, QuerySampling::All));
    assert_eq!(trace.queries[7], Query { sequence: 0, position: 7 });
    assert_eq!(trace.selections[2].row(5), [0, 1, 2, 3, 4, 5]);
    assert_eq!((trace.selections[2].row(39).len(), trace.counted().count()), (8, 32));
    assert!(trace.meta.mass_recall.is_none());
}

#[test]
fn both_forms_of_schema_1_hold_the_same_recording() {
    let (whole, packed) =
        (read_trace(&file("schema1.safetensors")).unwrap(), read_trace(&file("schema1.trace")).unwrap());
    assert_eq!(whole, packed);
    assert_eq!((whole.meta.schema, whole.meta.tokens_hash.as_str()), (1, "fnv1a:b24bebb73ab14019"));
    assert_eq!(whole.selections[3].row(63), [5, 12, 17, 18, 19, 25, 28, 33, 37, 38, 39, 42, 44, 55, 58, 63]);
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.trace");
    write_trace(&again, &whole).unwrap();
    assert_eq!(read_trace(&again).unwrap(), whole);
}

/// Such files came later; those without overlap and searches are read all the same.
#[test]
fn a_session_keeps_the_overlap_and_the_flip_orders() {
    let session = Session::read(&file("session1-overlap.toml")).unwrap();
    let matrix = session.overlap.as_ref().unwrap();
    assert_eq!((matrix.layers, matrix.counted, matrix.values.len()), (12, 11_520, 144));
    assert_eq!(
        (matrix.tokens_hash.as_str(), matrix.chance),
        (session.calibration.as_str(), Some(0.183_868_089_274_216_8))
    );
    assert_eq!((matrix.get(3, 3), matrix.get(0, 1)), (Some(1.0), matrix.get(1, 0)));
    assert!((matrix.estimate(1, 0).unwrap().value - 0.188).abs() < 5e-4);
    let record = &session.searches[0];
    assert_eq!((record.order.len(), record.after(9).to_string().as_str()), (9, "FSSSSSFSSSSF"));
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.toml");
    session.write(&again).unwrap();
    assert_eq!(Session::read(&again).unwrap(), session);
}

#[test]
fn a_session_of_schema_1_is_read_and_written_without_loss() {
    let session = Session::read(&file("session1.toml")).unwrap();
    assert_eq!((session.schema, session.pattern.to_string().as_str()), (1, "FSSSFFFSSSFF"));
    assert_eq!((session.model.fingerprint.as_str(), session.current), ("602daf13878872a6", 2));
    let evaluation = session.history[1].evaluation.as_ref().unwrap();
    assert_eq!(evaluation.delta.unwrap().value, 0.209_894_949_660_681_34);
    assert_eq!((evaluation.eligible, session.history[1].speed.len()), (11_496, 2));
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.toml");
    session.write(&again).unwrap();
    assert_eq!(Session::read(&again).unwrap(), session);
}

/// Written by version 0.1.0 (commit 0d9aa06); the journal is resumed in `goldens`.
#[test]
fn files_of_version_0_1_open() {
    let (whole, packed) =
        ["v0.1/recording.safetensors", "v0.1/recording.trace"].map(|name| read_trace(&file(name)).unwrap()).into();
    assert_eq!(whole, packed);
    assert_eq!((whole.meta.model.as_str(), whole.meta.pattern.to_string().as_str()), ("glm_dsa_tiny", "FFSFFS"));
    assert_eq!(
        (whole.queries.len(), whole.meta.index_topk, whole.meta.tokens_hash.as_str()),
        (120, 16, "fnv1a:613d4593e5b96527")
    );

    let session = Session::read(&file("v0.1/search.toml")).unwrap();
    assert_eq!(
        (session.pattern.to_string().as_str(), session.calibration.as_str()),
        ("FSSSFF", "fnv1a:25a7fe46fd195a32")
    );
    assert_eq!((session.model.fingerprint.as_str(), session.searches[0].order.len()), ("360ac07d0c89aafc", 3));

    let base = Checkpoint::open(&file("../llama_rope3")).unwrap();
    let sidecar = Sidecar::open(&file("v0.1/indexers.safetensors")).unwrap();
    sidecar.check(&base).unwrap();
    assert_eq!((sidecar.shape().heads, sidecar.shape().dim, sidecar.tensors().count()), (2, 8, 20));
}
