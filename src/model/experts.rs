//! The routed experts of a sparse layer, all held or each loaded when a token is first routed to it.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Tensor};

use super::Result;
use super::mlp::{Activation, Mlp};
use super::ops::{expert_table, few_experts};
use super::weights::{Scope, TensorSource};
use crate::checkpoint::Config;

/// Routed experts by their number.
#[derive(Clone, Debug)]
pub(super) enum Experts {
    /// All in memory.
    Held {
        /// By their number.
        all: Vec<Mlp>,
        /// Where their weights lie on a device, once that was asked for; `None` where no kernel reads them from there.
        table: OnceLock<Option<Tensor>>,
    },
    /// In memory once they have been asked for.
    Deferred {
        /// Those asked for so far.
        loaded: Vec<OnceLock<Mlp>>,
        /// Where the others are.
        shelf: Shelf,
    },
}

/// Where experts are loaded from.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    source: Arc<dyn TensorSource + Send + Sync>,
    /// Name of the experts in the checkpoint, without the last dot.
    at: String,
    dtype: DType,
    /// Widths of the residual stream and of an expert.
    sizes: (usize, usize),
    activation: Activation,
}

impl Experts {
    /// Loads the experts under `mlp.experts`, unless the source defers that.
    pub(super) fn load(scope: &Scope, config: &Config) -> Result<Self> {
        let (sizes, count) = ((config.hidden_size, config.moe_intermediate_size), config.n_routed_experts);
        let activation = Activation::of(config);
        Ok(match scope.source.deferred() {
            None => Self::Held {
                all: (0..count).map(|e| Mlp::load(&scope.at(e), sizes, activation)).collect::<Result<_>>()?,
                table: OnceLock::new(),
            },
            Some(source) => Self::Deferred {
                loaded: vec![OnceLock::new(); count],
                shelf: Shelf { source, at: scope.path().to_owned(), dtype: scope.dtype, sizes, activation },
            },
        })
    }

    /// Returns the number of experts.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Held { all, .. } => all.len(),
            Self::Deferred { loaded, .. } => loaded.len(),
        }
    }

    /// Applies the experts `ids` to few tokens where both are; operands as in [`few_experts`]. `None` where no kernel does.
    pub(super) fn few(&self, x: &Tensor, ids: &Tensor, weights: &Tensor) -> Result<Option<Tensor>> {
        let Self::Held { all, table } = self else { return Ok(None) };
        // The kernel knows the plain activation only.
        if ids.elem_count() > all.len() || all.iter().any(|mlp| !mlp.is_plain()) {
            return Ok(None);
        }
        let known = if let Some(known) = table.get() {
            known
        } else {
            let made = expert_table(&all.iter().map(Mlp::weights).collect::<Vec<_>>())?;
            table.get_or_init(|| made)
        };
        let (Some(table), Some(first)) = (known, all.first()) else { return Ok(None) };
        Ok(few_experts(x, ids, weights, table, first.weights()[0].dim(0)?)?)
    }

    /// Returns one expert, loading it if need be.
    pub(super) fn get(&self, expert: usize) -> Result<&Mlp> {
        match self {
            Self::Held { all, .. } => Ok(&all[expert]),
            Self::Deferred { loaded, shelf } => {
                if let Some(mlp) = loaded[expert].get() {
                    return Ok(mlp);
                }
                let mlp = shelf.load(expert)?;
                Ok(loaded[expert].get_or_init(|| mlp))
            }
        }
    }
}

impl Shelf {
    fn load(&self, expert: usize) -> Result<Mlp> {
        let scope = Scope::root(&*self.source, self.dtype).at(&self.at).at(expert);
        Mlp::load(&scope, self.sizes, self.activation)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use candle_core::Device;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::model::layer::Layer;
    use crate::model::{Attend, CheckpointSource, Pass, Stream};

    /// Notes what is asked for, and hands itself out for experts.
    #[derive(Clone, Debug)]
    struct Noting {
        inner: CheckpointSource,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl TensorSource for Noting {
        fn get(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
            self.asked.lock().unwrap().push(name.to_owned());
            self.inner.get(name, shape, dtype)
        }

        fn contains(&self, name: &str) -> bool {
            self.inner.contains(name)
        }

        fn deferred(&self) -> Option<Arc<dyn TensorSource + Send + Sync>> {
            Some(Arc::new(self.clone()))
        }
    }

    #[test]
    fn only_experts_that_tokens_are_routed_to_are_loaded_and_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/glm_dsa_tiny");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let inner = CheckpointSource { checkpoint: checkpoint.clone(), device: Device::Cpu, defer_experts: true };
        let source = Noting { inner, asked: Arc::default() };
        let layer = Layer::load(&Scope::root(&source, DType::F32), checkpoint.config(), 1).unwrap();
        let loads = |e: usize| {
            let name = format!("model.layers.1.mlp.experts.{e}.up_proj.weight");
            source.asked.lock().unwrap().iter().filter(|asked| **asked == name).count()
        };
        assert!((0..8).all(|e| loads(e) == 0));
        let stream = Stream::new(checkpoint, Device::Cpu, DType::F32);
        let x = stream.embedding().unwrap().embed(&[vec![3]]).unwrap();
        let inputs = stream.inputs(&[vec![3]]).unwrap();
        for _ in 0..2 {
            let output = layer.forward(&x, &inputs, &mut Pass::new(Attend::Own)).unwrap();
            let routed: Vec<usize> = output.expert_load.unwrap().iter().map(|&n| n as usize).collect();
            assert_eq!(routed.iter().sum::<usize>(), 2, "top-2 of one token");
            assert!((0..8).all(|e| loads(e) == routed[e]));
        }
    }
}
