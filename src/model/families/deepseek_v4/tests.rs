//! The layers alone against what transformers 5.23 computes; `tests/reference.rs` holds whole forwards against it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};

use super::Decoder;
use crate::checkpoint::{Checkpoint, Compression};
use crate::model::ends::{Embedding, Head};
use crate::model::inputs::Inputs;
use crate::model::layer::Block;
use crate::model::ops::Indices;
use crate::model::weights::Scope;
use crate::model::{Attend, CheckpointSource, Ops, Pass};

struct Fixture {
    checkpoint: Checkpoint,
    blocks: Vec<Decoder>,
    embedding: Embedding,
    head: Head,
    tensors: HashMap<String, Tensor>,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        checkpoint.check().unwrap();
        let source = CheckpointSource { checkpoint: checkpoint.clone(), device: Device::Cpu, defer_experts: false };
        let (root, config) = (Scope::root(&source, DType::F32), checkpoint.config().clone());
        let blocks = (0..config.num_hidden_layers).map(|l| Decoder::load(&root, &config, l).unwrap()).collect();
        let embedding = Embedding::load(&root, &config).unwrap();
        let head = Head::load(&root, &config, Some(&embedding)).unwrap();
        let tensors = candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
        Self { checkpoint, blocks, embedding, head, tensors }
    }

    fn ids(&self, key: &str) -> Vec<u32> {
        let ids = self.tensors[key].to_dtype(DType::U32).unwrap();
        ids.to_vec2().unwrap().remove(0)
    }

    /// Runs all layers; returns the streams before each layer and after the last, and each site's own selections.
    fn run(&self, ids: &[u32], roles: &str, ops: Ops) -> (Vec<Tensor>, Vec<Indices>) {
        let config = self.checkpoint.config();
        let ids = [ids.to_vec()];
        let inputs = Inputs::new(config, &ids, 0, &Device::Cpu).unwrap();
        let mut streams = vec![self.embedding.embed(&ids).unwrap()];
        let (mut last, mut own): (Option<Indices>, _) = (None, Vec::new());
        let mut roles = roles.chars();
        for (block, kind) in self.blocks.iter().zip(&config.deepseek_v4.as_ref().unwrap().layers) {
            let full = matches!(kind, Compression::Selected(_)) && roles.next() == Some('F');
            let attend = match &last {
                Some(indices) if !full => Attend::Given(indices),
                _ => Attend::Own,
            };
            let out = block.forward(streams.last().unwrap(), &inputs, &mut Pass { ops, ..Pass::new(attend) }).unwrap();
            streams.push(out.hidden);
            if full {
                own.push(out.indices.clone().unwrap());
            }
            last = out.indices.or(last);
        }
        (streams, own)
    }

    fn worst(&self, key: &str, got: &Tensor) -> f32 {
        (got - &self.tensors[key]).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }
}

#[test]
fn every_stage_of_the_odd_fixture_is_that_of_the_reference() {
    let fixture = Fixture::open("deepseek_v4_odd");
    for ops in [Ops::Reference, Ops::Fast] {
        let (streams, own) = fixture.run(&fixture.ids("dbg.input_ids"), "FFFFF", ops);
        let at = |l: usize| streams[l].i(0).unwrap();
        // A wrong epsilon shows from 1e-5 on.
        assert!(fixture.worst("dbg.layer0.streams_in", &at(0)) <= 1e-6);
        let first = fixture.worst("dbg.layer0.streams_out", &at(1));
        assert!(first <= 5e-6, "{ops}: {first:e} after the first layer");
        let last: Vec<Tensor> = streams.iter().map(|x| x.i((0, 44)).unwrap()).collect();
        let last = fixture.worst("dbg.streams", &Tensor::stack(&last, 0).unwrap());
        assert!(last <= 1e-4, "{ops}: {last:e} over the layers");
        let logits = fixture.head.logits(streams.last().unwrap()).unwrap().i(0).unwrap();
        let logits = fixture.worst("dbg.logits", &logits);
        assert!(logits <= 2.1e-4, "{ops}: {logits:e} in the logits");
        for (layer, own) in [0, 2, 3, 6, 8].into_iter().zip(&own) {
            let want: Vec<Vec<i64>> =
                fixture.tensors[&format!("dbg.topk.layer{layer}")].to_dtype(DType::I64).unwrap().to_vec2().unwrap();
            for (query, want) in want.iter().enumerate() {
                let want: Vec<u32> = want.iter().filter(|&&e| e >= 0).map(|&e| e as u32).collect();
                assert_eq!(own.sets().unwrap()[0].row(query), want, "{ops}: layer {layer}, query {query}");
            }
        }
    }
}

#[test]
fn frequencies_are_those_of_the_reference() {
    for name in ["deepseek_v4_odd", "deepseek_v4_tiny"] {
        let fixture = Fixture::open(name);
        let config = fixture.checkpoint.config();
        let compress = &config.deepseek_v4.as_ref().unwrap().compress_rope;
        for (key, rope) in [("dbg.inv_freq_main", &config.rope), ("dbg.inv_freq_compress", compress)] {
            let got = crate::model::rope::frequencies(rope, config.qk_rope_head_dim);
            let want: Vec<f32> = fixture.tensors[key].to_vec1().unwrap();
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{name}: {got:?}, {want:?}");
            assert_eq!(got.len(), want.len());
        }
    }
}
