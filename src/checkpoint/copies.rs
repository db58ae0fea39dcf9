//! Indexers of Shared layers that are copies of their source's: files have them, the model does not.
//!
//! GLM-5.2-FP8 and some GGUF files store an indexer for every layer, and those of Shared layers repeat the bytes of the
//! Full layer that they reuse. Such a layer has no indexer of its own; running the copy on its own input selects other
//! keys than the model was trained with.

use std::collections::BTreeMap;

use super::weights::Weights;
use super::{TensorInfo, is_indexer_tensor, layer_of};
use crate::domain::{Role, Sites};

/// Returns the Shared layers whose stored indexer equals that of the nearest earlier Full layer, bit for bit.
pub(super) fn copied(weights: &Weights, sites: Sites, roles: &[Role]) -> Vec<usize> {
    let mut indexers: BTreeMap<usize, BTreeMap<&str, &TensorInfo>> = BTreeMap::new();
    for (name, info) in weights.tensors.iter().filter(|(name, _)| is_indexer_tensor(name)) {
        let tail = name.split_once(".indexer.").map_or("", |(_, tail)| tail);
        if let Some(layer) = layer_of(name) {
            indexers.entry(layer).or_default().insert(tail, info);
        }
    }
    let bytes = |info: &TensorInfo| &weights.shards[info.shard][info.start..info.end];
    let equal = |(a, b): (&&TensorInfo, &&TensorInfo)| a.dtype == b.dtype && a.shape == b.shape && bytes(a) == bytes(b);
    let mut source = None;
    let mut found = Vec::new();
    for (layer, &role) in sites.iter().zip(roles) {
        if role == Role::Full {
            source = indexers.get(&layer);
        } else if let Some((source, own)) = source.zip(indexers.get(&layer))
            && source.keys().eq(own.keys())
            && source.values().zip(own.values()).all(equal)
        {
            found.push(layer);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::SafeTensors;
    use safetensors::tensor::TensorView;
    use serde_json::{Value, json};

    use crate::checkpoint::Checkpoint;
    use crate::mapped::Bytes;

    /// The tiny model as FFFSSF, with the indexers of `copied` replaced by layer 2's; `nudged` changes one byte of one.
    fn checkpoint(copied: &[usize], nudged: Option<usize>) -> Checkpoint {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
        let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
        config["indexer_types"] = json!(["full", "full", "full", "shared", "shared", "full"]);
        let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<(String, TensorView)> = tensors.tensors();
        let source = |name: &str, layer: usize| {
            let tail = name.strip_prefix(&format!("model.layers.{layer}.self_attn.indexer."))?;
            tensors.tensor(&format!("model.layers.2.self_attn.indexer.{tail}")).ok()
        };
        for (name, tensor) in &mut all {
            if let Some(copy) = copied.iter().find_map(|&layer| source(name, layer)) {
                *tensor = copy;
            }
        }
        let name = nudged.map(|layer| format!("model.layers.{layer}.self_attn.indexer.wk.weight"));
        let mut nudge = Vec::new();
        if let Some((_, tensor)) = all.iter_mut().find(|(n, _)| Some(n) == name.as_ref()) {
            nudge.extend_from_slice(tensor.data());
            *nudge.last_mut().unwrap() ^= 1;
            *tensor = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), &nudge).unwrap();
        }
        let written = safetensors::serialize(all, None).unwrap();
        Checkpoint::from_bytes("tiny", &config.to_string(), Bytes::Read(written)).unwrap()
    }

    #[test]
    fn shared_layers_with_their_sources_indexer_have_none_of_their_own() {
        let copies = checkpoint(&[3, 4], None);
        assert_eq!(Vec::from(copies.copied_indexers()), [3, 4]);
        assert_eq!(Vec::from(copies.constraints().locked_shared), [3, 4]);
        assert_eq!(copies.constraints().reference().unwrap(), copies.native().unwrap());
        copies.check().unwrap();
        assert!(!copies.has_indexer(3) && copies.stores_indexer(3) && copies.has_indexer(2));
        let own = checkpoint(&[], None);
        assert_eq!(own.parts(), copies.parts(), "their bytes are counted all the same");
        // One bit is another indexer; a Full layer's indexer is its own whatever it holds.
        assert_eq!(Vec::from(checkpoint(&[3, 4], Some(4)).copied_indexers()), [3]);
        assert!(checkpoint(&[1], None).copied_indexers().is_empty() && own.copied_indexers().is_empty());
    }
}
