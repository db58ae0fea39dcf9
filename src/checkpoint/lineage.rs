//! Which model a checkpoint is, whatever the form of its weights: what decides whether a sidecar belongs to it.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{Checkpoint, CheckpointError, Dtype, Sidecar};

impl Checkpoint {
    /// Returns a short hash of the model that survives a change of format: its type, sizes and input norms.
    ///
    /// Quantising a model leaves its norms as they were, so that a GGUF file and the folder that it was made from are of
    /// one lineage, and indexers trained for one serve the other; training a model changes them.
    ///
    /// # Errors
    /// [`CheckpointError::NoTensor`] where a norm is missing.
    pub fn lineage(&self) -> Result<String, CheckpointError> {
        let config = self.base().config();
        let (layers, hidden) = (config.num_hidden_layers, config.hidden_size);
        let mut hash = Sha256::new();
        hash.update(format!("{} {layers} {hidden} {}", config.family.model_type(), config.vocab_size));
        for layer in 0..layers {
            let name = format!("model.layers.{layer}.input_layernorm.weight");
            let dtype = self.tensor(&name).map(|info| info.dtype.clone());
            let bytes = self.bytes(&name)?;
            // Every stored form of a norm becomes f32 without loss, but for f64, which nobody stores.
            match dtype {
                Some(Dtype::BF16) => bytes.chunks_exact(2).for_each(|b| hash.update([0, 0, b[0], b[1]])),
                Some(Dtype::F16) => bytes.chunks_exact(2).for_each(|b| {
                    hash.update(half::f16::from_le_bytes([b[0], b[1]]).to_f32().to_le_bytes());
                }),
                _ => hash.update(bytes),
            }
        }
        Ok(hash.finalize().iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
    }

    /// Returns the dtypes that the model's weights are stored in, such as `F32, Q4_1, Q8_0`.
    pub fn stored(&self) -> String {
        let dtypes: BTreeSet<String> = self.base().tensors().map(|(_, info)| info.dtype.to_string()).collect();
        dtypes.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// Returns the checkpoint with the indexers of a sidecar, which replace its own where both have a layer.
    ///
    /// # Errors
    /// [`CheckpointError::Sidecar`] where they do not belong to it; sizes that do not fit.
    pub fn with_sidecar(&self, sidecar: &Sidecar) -> Result<Self, CheckpointError> {
        sidecar.check(self.base())?;
        self.with_indexers(sidecar.path(), sidecar.shape())
    }

    /// The same, whichever model of the same shape they were trained for.
    ///
    /// # Errors
    /// [`CheckpointError::Sidecar`] where they do not fit its layers.
    pub fn with_foreign_sidecar(&self, sidecar: &Sidecar) -> Result<Self, CheckpointError> {
        sidecar.check_layers(self.base())?;
        self.with_indexers(sidecar.path(), sidecar.shape())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::SafeTensors;
    use safetensors::tensor::{Dtype as Stored, TensorView};

    use super::super::{SidecarError, SidecarHeader, Trained, indexer_tensors, sidecar_bytes};
    use super::*;

    const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/glm_dsa_tiny");

    /// The tiny checkpoint in `folder`, its weights rounded to bf16 and its input norms moved by `by`.
    fn written(folder: &Path, by: f32, half: bool) -> Checkpoint {
        std::fs::copy(Path::new(TINY).join("config.json"), folder.join("config.json")).unwrap();
        let stored = std::fs::read(Path::new(TINY).join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&stored).unwrap();
        let converted: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, view)| {
                let by = if name.ends_with("input_layernorm.weight") { by } else { 0.0 };
                let values = view.data().chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                let values = values.map(|v| half::bf16::from_f32(v + by));
                let bytes = values
                    .flat_map(|v| if half { v.to_le_bytes().to_vec() } else { v.to_f32().to_le_bytes().to_vec() });
                (name.to_owned(), view.shape().to_vec(), bytes.collect())
            })
            .collect();
        let dtype = if half { Stored::BF16 } else { Stored::F32 };
        let views = converted.iter().map(|(n, s, b)| (n, TensorView::new(dtype, s.clone(), b).unwrap()));
        std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        Checkpoint::open(folder).unwrap()
    }

    #[test]
    fn the_lineage_survives_a_change_of_format_but_no_training() {
        let [wide, half, trained] = [(0.0, false), (0.0, true), (0.01, true)].map(|(by, half)| {
            let folder = tempfile::tempdir().unwrap();
            written(folder.path(), by, half).lineage().unwrap()
        });
        assert_eq!(half, wide);
        assert_ne!(trained, wide);
    }

    #[test]
    fn a_sidecar_tells_where_it_comes_from() {
        let [wide, half, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let base = written(wide.path(), 0.0, false);
        let trained = Trained { model: "wide".into(), weights: base.stored(), ..Trained::default() };
        let header = SidecarHeader::new(&base.lineage().unwrap(), base.config(), vec![0], trained);
        let demands = indexer_tensors(base.config(), 0);
        let values: Vec<Vec<f32>> = demands.iter().map(|d| vec![0.5; d.shape.iter().product()]).collect();
        let tensors: Vec<(&str, &[usize], &[f32])> =
            demands.iter().zip(&values).map(|(d, v)| (d.name.as_str(), d.shape.as_slice(), v.as_slice())).collect();
        let path = wide.path().join("sidecar.safetensors");
        std::fs::write(&path, sidecar_bytes(&header, &tensors).unwrap()).unwrap();
        let sidecar = Sidecar::open(&path).unwrap();

        // The same weights, the same weights in another form, another model.
        assert!(base.with_sidecar(&sidecar).is_ok());
        assert_eq!((base.stored().as_str(), sidecar.caveat(&base)), ("F32", None));
        let half = written(half.path(), 0.0, true);
        assert!(half.with_sidecar(&sidecar).is_ok());
        let caveat = sidecar.caveat(&half).unwrap();
        assert!(
            caveat.contains("trained on 'wide', whose weights are F32;") && caveat.ends_with("are BF16"),
            "{caveat}"
        );
        let other = written(other.path(), 0.01, false);
        let refused = other.with_sidecar(&sidecar).unwrap_err();
        assert!(matches!(&refused, CheckpointError::Sidecar(SidecarError::Base { .. })), "{refused}");
        assert!(
            refused.to_string().contains("belongs to the model 'wide', ")
                && refused.hint().unwrap().contains("--foreign-index")
        );
        assert!(other.with_foreign_sidecar(&sidecar).unwrap().has_indexer(0));
        assert!(sidecar.caveat(&other).unwrap().contains("trained for another model, 'wide', "));
    }
}
