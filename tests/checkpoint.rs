//! Opening checkpoints: what is read, and what each kind of bad input is called.

#![allow(clippy::unwrap_used)] // a helper that fails fails the test

use std::path::{Path, PathBuf};

use indexscope::checkpoint::{Checkpoint, Config, Family, MlpKind};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn given_fixtures_open_and_hold_what_their_config_demands() {
    for (name, family, topk) in
        [("glm_dsa_tiny", Family::GlmMoeDsa, 16), ("deepseek_v32_tiny", Family::DeepseekV32, 16)]
    {
        let checkpoint = Checkpoint::open(&data(name)).unwrap();
        checkpoint.check().unwrap();
        let config = checkpoint.config();
        assert_eq!((checkpoint.name(), config.family, config.index_topk), (name, family, topk));
        assert_eq!(config.mlp[..2], [MlpKind::Dense, MlpKind::Sparse]);
        assert_eq!(checkpoint.native().unwrap().to_string(), "FFFFFF");
        assert!(checkpoint.constraints().locked_shared.is_empty());
        assert!(checkpoint.tensors().all(|(name, _)| !name.starts_with("model.layers.6.")), "MTP is skipped");
        assert_eq!(checkpoint.fingerprint().len(), 16);
    }
}

#[test]
fn both_spellings_of_config_json_mean_the_same() {
    for name in ["glm_dsa_tiny", "deepseek_v32_tiny"] {
        let parse = |file| Config::parse(&std::fs::read_to_string(data(name).join(file)).unwrap()).unwrap();
        assert_eq!(parse("config.json"), parse("config_hub_style.json"), "{name}");
    }
}
