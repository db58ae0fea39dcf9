//! One decoder layer, whatever its family.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::Tensor;

use super::indexer::{Indexer, IndexerInput};
use super::inputs::Inputs;
use super::ops::Rotary;
use super::pass::{LayerOutput, Pass};
use super::weights::Scope;
use super::{ModelError, Result, families};
use crate::checkpoint::Config;
use crate::domain::Selection;

/// What the layers of one family compute; what a family does not override, it does not support.
pub(super) trait Block: Debug + Send + Sync {
    /// Returns the family's name in errors.
    fn family(&self) -> &'static str;

    /// Returns whether the layer can choose keys by itself.
    fn can_select(&self) -> bool;

    /// Runs the layer; see [`Layer::forward`].
    fn forward(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<LayerOutput>;

    /// Returns the output of attention alone; see [`Layer::attention`].
    fn attention(&self, _x: &Tensor, _inputs: &Inputs, _pass: &mut Pass) -> Result<Tensor> {
        Err(ModelError::Unsupported { family: self.family(), what: "the output of attention alone" })
    }

    /// Returns head-averaged dense attention; see [`Layer::mean_attention`].
    fn mean_attention(&self, _x: &Tensor, _rotary: &Rotary, _rows: &[usize]) -> Result<Tensor> {
        Err(ModelError::Unsupported { family: self.family(), what: "head-averaged attention" })
    }

    /// Returns the same over a support; see [`Layer::mean_attention_within`].
    fn mean_attention_within(&self, _x: &Tensor, _: &Rotary, _rows: &[usize], _: &Selection) -> Result<Tensor> {
        Err(ModelError::Unsupported { family: self.family(), what: "head-averaged attention" })
    }

    /// Returns what a lightning indexer works on; see [`Layer::indexer_input`].
    fn indexer_input(&self, _x: &Tensor) -> Result<IndexerInput> {
        Err(ModelError::Unsupported { family: self.family(), what: "a lightning indexer of another model" })
    }

    /// Returns the layer with another lightning indexer.
    fn with_indexer(&self, _indexer: Indexer) -> Result<Arc<dyn Block>> {
        Err(ModelError::Unsupported { family: self.family(), what: "a lightning indexer of another model" })
    }
}

/// The weights of one layer, with its indexer if the checkpoint has one.
#[derive(Clone, Debug)]
pub struct Layer(Arc<dyn Block>);

impl Layer {
    /// Loads layer `l` of the model at `root`.
    pub(super) fn load(root: &Scope, config: &Config, l: usize) -> Result<Self> {
        families::load(root, config, l).map(Self)
    }

    /// Puts another indexer in the place of the layer's own.
    pub(super) fn set_indexer(&mut self, indexer: Indexer) -> Result<()> {
        self.0 = self.0.with_indexer(indexer)?;
        Ok(())
    }

    /// Returns whether the layer can be Full.
    pub fn has_indexer(&self) -> bool {
        self.0.can_select()
    }

    /// Runs the layer on the residual stream `x` `[B, T, hidden]`.
    ///
    /// With a cache, `x` holds the tokens after the cached ones and `inputs` are theirs.
    ///
    /// # Errors
    /// [`super::ModelError::NoIndexer`] where the layer has no indexer to run.
    pub fn forward(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<LayerOutput> {
        if x.device().is_cpu() {
            // From outside the thread pool every parallel loop would be handed over and waited for on its own.
            return rayon::scope(|_| self.0.forward(x, inputs, pass));
        }
        if pass.stop.listens() {
            // Launches return at once: without waiting, every layer would be under way before a stop is heard.
            x.device().synchronize()?;
            pass.check()?;
        }
        self.0.forward(x, inputs, pass)
    }

    /// Returns the head-averaged dense causal attention of the queries at `rows`, `[R, T]` f32 on the CPU, detached.
    ///
    /// `x` `[1, T, hidden]` is the residual stream at the layer's entry, `rotary` the tables of its positions. Scores
    /// are held for one head of a few rows at a time.
    ///
    /// # Errors
    /// Where shapes disagree or a row is not below T; [`super::ModelError::Unsupported`].
    pub fn mean_attention(&self, x: &Tensor, rotary: &Rotary, rows: &[usize]) -> Result<Tensor> {
        self.0.mean_attention(x, rotary, rows)
    }

    /// Returns the same with each head's softmax over the keys of a support, one row per query.
    ///
    /// # Errors
    /// Where shapes disagree.
    pub fn mean_attention_within(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        rows: &[usize],
        support: Option<&Selection>,
    ) -> Result<Tensor> {
        match support {
            Some(support) => self.0.mean_attention_within(x, rotary, rows, support),
            None => self.0.mean_attention(x, rotary, rows),
        }
    }

    /// Returns the output of attention alone `[B, T, hidden]`, after its output projection, before the residual sum.
    ///
    /// # Errors
    /// As [`Layer::forward`]; [`super::ModelError::Unsupported`].
    pub fn attention(&self, x: &Tensor, inputs: &Inputs, pass: &mut Pass) -> Result<Tensor> {
        self.0.attention(x, inputs, pass)
    }

    /// Returns what an indexer of this layer works on, from the residual stream `x` `[1, T, hidden]` at its entry.
    ///
    /// # Errors
    /// Where shapes disagree; [`super::ModelError::Unsupported`].
    pub fn indexer_input(&self, x: &Tensor) -> Result<IndexerInput> {
        self.0.indexer_input(x)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::{DType, Device, Tensor};

    use crate::checkpoint::Checkpoint;
    use crate::model::ops::testing::{as_left, assert_close, random_indices, values};
    use crate::model::{Attend, CheckpointSource, Indices, Model, ModelError, Ops, Pass, Stop, TensorSource};

    #[test]
    fn a_stop_is_heard_between_the_parts_of_a_layer() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
        let model = Model::load(&Checkpoint::open(&folder).unwrap(), &Device::Cpu, DType::F32).unwrap();
        let ids: Vec<u32> = (0..300).map(|i| i * 7 % model.config().vocab_size as u32).collect();
        let (inputs, x) = (model.inputs(std::slice::from_ref(&ids), 0).unwrap(), model.embed(&[ids]).unwrap());
        for layer in 0..model.config().num_hidden_layers {
            let run = |after: usize| {
                let asked = AtomicUsize::new(0);
                let stale = || asked.fetch_add(1, Ordering::Relaxed) >= after;
                let mut pass = Pass { ops: Ops::Fast, stop: Stop::when(&stale), ..Pass::new(Attend::Own) };
                let output = model.layer(layer, &x, &inputs, &mut pass);
                (output, asked.into_inner())
            };
            let (whole, asked) = run(usize::MAX);
            assert!(whole.is_ok() && asked >= 10, "asked {asked} times");
            for after in 0..asked {
                assert!(
                    matches!(run(after).0, Err(ModelError::Stopped)),
                    "layer {layer}, stopped after {after} of {asked}"
                );
            }
        }
    }

    /// A checkpoint in which the first number of one tensor is NaN.
    #[derive(Debug)]
    struct Spoilt(CheckpointSource, &'static str);

    impl TensorSource for Spoilt {
        fn get(&self, name: &str, shape: &[usize], dtype: DType) -> crate::model::Result<Tensor> {
            let tensor = self.0.get(name, shape, dtype)?;
            if name != self.1 {
                return Ok(tensor);
            }
            let mut values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            values[0] = f32::NAN;
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        }

        fn contains(&self, name: &str) -> bool {
            self.0.contains(name)
        }
    }

    #[test]
    fn a_weight_that_is_no_number_does_not_vanish() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let with = |name| {
            let source = CheckpointSource { checkpoint: checkpoint.clone(), device: Device::Cpu, defer_experts: false };
            Model::new(checkpoint.config().clone(), &Spoilt(source, name), &Device::Cpu, DType::F32)
        };
        for name in ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"] {
            let model = with(Box::leak(format!("model.layers.0.self_attn.{name}.weight").into_boxed_str())).unwrap();
            let ids = [(0..40).collect()];
            let (inputs, x) = (model.inputs(&ids, 0).unwrap(), model.embed(&ids).unwrap());
            for (ops, attend) in
                [(Ops::Reference, Attend::Dense), (Ops::Reference, Attend::Own), (Ops::Fast, Attend::Own)]
            {
                let mut pass = Pass { ops, ..Pass::new(attend) };
                let hidden = model.layer(0, &x, &inputs, &mut pass).unwrap().hidden;
                let sum: f32 = hidden.sum_all().unwrap().to_scalar().unwrap();
                assert!(sum.is_nan(), "{name}, {ops} ops, {attend:?}: {sum}");
            }
        }
        for name in ["wq_b.weight", "wk.weight", "k_norm.bias", "weights_proj.weight"] {
            let tensor = Box::leak(format!("model.layers.0.self_attn.indexer.{name}").into_boxed_str());
            let error = with(tensor).unwrap_err().to_string();
            assert!(error.contains("model.layers.0.self_attn.indexer"), "{name}: {error}");
        }
    }

    #[test]
    fn keys_left_on_a_device_are_attended_to_as_those_on_the_host() {
        for (name, tokens) in [("glm_dsa_tiny", 90), ("llama_rope3", 60)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
            let model = Model::load(&Checkpoint::open(&folder).unwrap(), &Device::Cpu, DType::F32).unwrap();
            let ids: Vec<u32> = (0..tokens).map(|i| i * 7 % model.config().vocab_size as u32).collect();
            let batch = [ids.clone(), ids.iter().rev().copied().collect()];
            let (x, inputs, tokens) = (model.embed(&batch).unwrap(), model.inputs(&batch, 0).unwrap(), ids.len());
            let given = random_indices(2, tokens, tokens, model.config().index_topk, 3);
            for ops in [Ops::Fast, Ops::Reference] {
                let run = |indices: &Indices| {
                    let mut pass = Pass { ops, ..Pass::new(Attend::Given(indices)) };
                    model.layer(1, &x, &inputs, &mut pass).unwrap()
                };
                let left = as_left(&given, tokens);
                let (want, got) = (run(&given), run(&left));
                assert_eq!(values(&got.hidden), values(&want.hidden), "{name}, {ops}");
                // What the layer passes on to the next is what it was given, brought to the host once.
                let (passed, here) = (got.indices.unwrap(), left.sets().unwrap());
                assert!(std::ptr::eq(passed.sets().unwrap(), here) && here == given.sets().unwrap());
            }
        }
    }

    #[test]
    fn mean_attention_is_that_of_the_dense_pass() {
        for name in ["glm_dsa_tiny", "deepseek_groups_yarn", "glm_bias_yarn", "llama_rope3", "qwen3_norm"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
            let model = Model::load(&Checkpoint::open(&folder).unwrap(), &Device::Cpu, DType::F32).unwrap();
            let ids: Vec<u32> = (0..60).map(|i| i * 7 % model.config().vocab_size as u32).collect();
            let inputs = model.inputs(std::slice::from_ref(&ids), 0).unwrap();
            let mut x = model.embed(&[ids]).unwrap();
            for layer in 0..model.config().num_hidden_layers {
                let mut pass = Pass { want_probs: true, ..Pass::new(Attend::Dense) };
                let output = model.layer(layer, &x, &inputs, &mut pass).unwrap();
                let probs = output.probs.unwrap().squeeze(0).unwrap();
                let rows = [59usize, 0, 7, 31];
                let want: Vec<_> = rows.iter().map(|&r| probs.get(r).unwrap()).collect();
                let want = Tensor::stack(&want, 0).unwrap();
                assert_close(&model.mean_attention(layer, &x, &inputs.rotary, &rows).unwrap(), &want, 1e-5);
                x = output.hidden;
            }
        }
    }
}
