//! Sidecars written and read back, and those that are refused.

use super::*;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/glm_dsa_tiny");

/// A sidecar of all layers but the last two, all weights ½, changed by `edit`.
fn written(folder: &Path, edit: impl Fn(&mut SidecarHeader, &mut Vec<(String, Vec<usize>)>)) -> PathBuf {
    let base = Checkpoint::open(Path::new(TINY)).unwrap();
    let layers: Vec<usize> = (0..base.config().num_hidden_layers - 2).collect();
    let demands = layers.iter().flat_map(|&l| indexer_tensors(base.config(), l));
    let mut tensors: Vec<(String, Vec<usize>)> = demands.map(|d| (d.name, d.shape)).collect();
    let trained = Trained { tokens: 5, kl: vec![0.25], ..Trained::default() };
    let mut header = SidecarHeader::new(&base.lineage().unwrap(), base.config(), layers, trained);
    edit(&mut header, &mut tensors);
    let values: Vec<Vec<f32>> = tensors.iter().map(|(_, s)| vec![0.5; s.iter().product()]).collect();
    let views: Vec<(&str, &[usize], &[f32])> =
        tensors.iter().zip(&values).map(|((n, s), v)| (n.as_str(), s.as_slice(), v.as_slice())).collect();
    let path = folder.join("sidecar.safetensors");
    std::fs::write(&path, sidecar_bytes(&header, &views).unwrap()).unwrap();
    path
}

fn refused(path: &Path) -> String {
    let base = Checkpoint::open(Path::new(TINY)).unwrap();
    Sidecar::open(path).and_then(|s| s.check(&base)).unwrap_err().to_string()
}

#[test]
fn what_was_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), |_, _| {});
    let base = Checkpoint::open(Path::new(TINY)).unwrap();
    let sidecar = Sidecar::open(&path).unwrap();
    sidecar.check(&base).unwrap();
    let header = sidecar.header();
    assert_eq!((header.trained.tokens, header.trained.kl.as_slice()), (5, &[0.25][..]));
    assert_eq!(sidecar.shape().of(base.config()), *base.config());
    assert_eq!(sidecar.tensors().count(), 5 * header.layers.len());
    let half = half::f16::from_f32(0.5).to_le_bytes();
    assert!(
        sidecar
            .tensors()
            .all(|(_, info, bytes)| { bytes.len() == 2 * info.elements() && bytes.chunks(2).all(|b| b == half) })
    );
}

#[test]
fn one_sidecar_over_another_has_the_layers_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let under = Sidecar::open(&written(folder.path(), |header, _| {
        header.trained.kl = (0..header.layers.len()).map(|l| l as f64).collect();
    }))
    .unwrap();
    let other = folder.path().join("over");
    std::fs::create_dir(&other).unwrap();
    let path = written(&other, |header, tensors| {
        header.layers = vec![1];
        header.trained.kl = vec![0.125];
        tensors.retain(|(name, _)| layer_of(name) == Some(1));
    });
    let over = Sidecar::open(&path).unwrap().over(&under).unwrap();
    std::fs::write(&path, over).unwrap();
    let both = Sidecar::open(&path).unwrap();
    both.check(&Checkpoint::open(Path::new(TINY)).unwrap()).unwrap();
    assert_eq!(both.header().layers, under.header().layers);
    assert_eq!((both.header().trained.kl[0], both.header().trained.kl[1]), (0.0, 0.125));
    let foreign = Sidecar::open(&written(&other, |header, _| header.dim *= 2)).unwrap();
    assert!(foreign.over(&under).unwrap_err().contains("not of one model and size"));
}

#[test]
fn what_does_not_belong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = written(folder.path(), |header, _| header.base = "0123".into());
    assert!(refused(&other).contains("belongs to the model 0123 (glm_moe_dsa)"), "{}", refused(&other));
    let short = written(folder.path(), |_, tensors| {
        tensors.pop();
    });
    assert!(refused(&short).contains("weights_proj.weight' is missing"), "{}", refused(&short));
    let wide = written(folder.path(), |header, _| header.dim *= 2);
    assert!(refused(&wide).contains("no indexer for layer 0: tensor 'model.layers.0.self_attn.indexer.wq_b"));
    let beyond = written(folder.path(), |header, _| header.layers = vec![99]);
    assert!(refused(&beyond).contains("layer 99"));
    let newer = written(folder.path(), |header, _| header.schema = 7);
    assert!(refused(&newer).contains("schema is 7"));
    let trace = written(folder.path(), |header, _| header.kind = "trace".into());
    assert!(refused(&trace).contains("its kind is \"trace\""));
    let checkpoint = Path::new(TINY).join("model.safetensors");
    assert!(refused(&checkpoint).contains("its metadata has no 'indexscope'"));
}

#[test]
fn a_file_that_is_cut_off_or_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), |_, _| {});
    let bytes = std::fs::read(&path).unwrap();
    for length in [bytes.len() - 1, 100, 3] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(refused(&path).contains("sidecar.safetensors' cannot be read"), "{}", refused(&path));
    }
    assert!(refused(&folder.path().join("no.safetensors")).contains("no.safetensors"));
}
