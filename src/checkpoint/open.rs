//! A checkpoint: config, headers of every shard, access to bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::dtype::Tensors;
use super::families::{self, Stored};
use super::safetensors::CONFIG_FILE;
use super::weights::{Weights, map};
use super::{
    Attention, Blocks, CheckpointError, Config, Demand, MlpKind, ModelFolder, PartSize, TensorInfo, Vocabulary, copies,
    diagnose, fingerprint, gguf_config, is_indexer_tensor, is_scale, layer_of, layout, parts,
};
use crate::domain::{Constraints, LayerSet, Pattern, Role};
use crate::mapped::Bytes;

/// Where a checkpoint comes from.
#[derive(Clone, Debug)]
enum Place {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(Arc<Vocabulary>),
    /// The program itself.
    Embedded,
}

/// What a config says, and what it does not say of the weights.
struct Architecture {
    config: Config,
    blocks: Blocks,
    json: Option<String>,
    quantised: Option<String>,
}

/// A checkpoint, opened without reading its weights.
///
/// Cheap to clone; the bytes of a tensor are read from disk when they are touched.
#[derive(Clone, Debug)]
pub struct Checkpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    place: Place,
    config: Config,
    /// config.json, or what a GGUF file's metadata says in its words; `None` for dense GGUF files.
    json: Option<String>,
    /// The quantised format that the weights are in, where it is none that is read.
    quantised: Option<String>,
    /// Blocks of FP8 weights that share a scale.
    blocks: Blocks,
    weights: Weights,
    /// Tensors of MTP layers, vision and the like, which are not part of the model here.
    skipped: Tensors,
    /// Indexers of Shared layers that repeat their source's, which are not part of the model either.
    copies: Tensors,
    /// The checkpoint before another index source or k was chosen.
    base: Option<Checkpoint>,
    fingerprint: OnceLock<String>,
}

impl Checkpoint {
    /// Opens a folder with config.json and safetensors, single or sharded, or a GGUF file.
    ///
    /// # Errors
    /// [`CheckpointError`] about files, config or headers; [`Checkpoint::check`] compares the two.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if dir.is_file() && dir.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            return Self::from_gguf(dir, map(dir)?);
        }
        if !dir.is_dir() {
            return Err(match diagnose::what_is(dir) {
                Some((what, hint)) => CheckpointError::NotACheckpoint { path: dir.to_owned(), what, hint },
                None => CheckpointError::NotAFolder(dir.to_owned()),
            });
        }
        let folder = ModelFolder::new(dir);
        let path = dir.join(CONFIG_FILE);
        let json = folder.text(CONFIG_FILE).map_err(|e| CheckpointError::io(&path, e))?;
        let json = json.ok_or_else(|| CheckpointError::io(&path, std::io::ErrorKind::NotFound.into()))?;
        if diagnose::is_lfs_pointer(json.as_bytes()) {
            return Err(CheckpointError::LfsPointer(path));
        }
        let config = Config::parse(&json)?;
        let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned();
        let blocks = Blocks::parse(&json)?;
        let weights = Weights::open(&folder, dir)?;
        let modelopt = folder.text("hf_quant_config.json").ok().flatten();
        let quantised = diagnose::quantised_by(&json, modelopt.as_deref(), &weights.tensors);
        Ok(Self::new(
            name,
            Place::Folder(dir.to_owned()),
            Architecture { config, blocks, json: Some(json), quantised },
            weights,
        ))
    }

    /// Opens the bytes of the GGUF file `path`.
    pub(crate) fn from_gguf(path: &Path, bytes: Bytes) -> Result<Self, CheckpointError> {
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let (metadata, weights) = Weights::from_gguf(path, bytes)?;
        let (config, json) = gguf_config::config(&name, &metadata, &weights)?;
        let place = Place::Gguf(Arc::new(Vocabulary::read(&metadata)));
        Ok(Self::new(name, place, Architecture { config, blocks: Blocks::default(), json, quantised: None }, weights))
    }

    /// Opens a checkpoint that is part of the program.
    ///
    /// # Errors
    /// [`CheckpointError`] about the config or the header.
    pub fn from_static(name: &str, config_json: &str, safetensors: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::from_bytes(name, config_json, Bytes::Static(safetensors))
    }

    /// Opens the bytes of a checkpoint in one piece.
    pub(crate) fn from_bytes(name: &str, config_json: &str, safetensors: Bytes) -> Result<Self, CheckpointError> {
        let config = Config::parse(config_json)?;
        let blocks = Blocks::parse(config_json)?;
        let architecture = Architecture { config, blocks, json: Some(config_json.to_owned()), quantised: None };
        Ok(Self::new(name.to_owned(), Place::Embedded, architecture, Weights::from_bytes(safetensors)?))
    }

    fn new(name: String, place: Place, architecture: Architecture, mut weights: Weights) -> Self {
        let Architecture { config, blocks, json, quantised } = architecture;
        let layers = config.num_hidden_layers;
        let is_mtp = |name: &str| layer_of(name).is_some_and(|layer| layer >= layers);
        let mut skipped = Tensors::default();
        for (name, info) in std::mem::take(&mut weights.tensors) {
            match families::stored(&config, &name) {
                Stored::Used(own) if !is_mtp(&own) => {
                    weights.tensors.extend(families::unpacked(&config, own, info));
                }
                // What becomes of MTP layers is known by their names here.
                Stored::Used(own) => skipped.extend([(own, info)]),
                Stored::Skipped => skipped.extend([(name, info)]),
            }
        }
        let copied = copies::copied(&weights, config.sites(), &config.roles);
        let is_copy = |name: &str| is_indexer_tensor(name) && layer_of(name).is_some_and(|l| copied.contains(&l));
        let (copies, tensors) = std::mem::take(&mut weights.tensors).into_iter().partition(|(name, _)| is_copy(name));
        weights.tensors = tensors;
        Self(Arc::new(Inner {
            name,
            place,
            config,
            json,
            quantised,
            blocks,
            weights,
            skipped,
            copies,
            base: None,
            fingerprint: OnceLock::new(),
        }))
    }

    /// Returns the checkpoint under another name for people.
    pub(super) fn named(mut self, name: &str) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            name.clone_into(&mut inner.name);
        }
        self
    }

    /// Returns the same weights with another config.
    pub(super) fn with(&self, config: Config, weights: Weights) -> Self {
        let Inner { name, place, json, quantised, blocks, skipped, copies, .. } = &*self.0;
        Self(Arc::new(Inner {
            name: name.clone(),
            place: place.clone(),
            config,
            json: json.clone(),
            quantised: quantised.clone(),
            blocks: *blocks,
            weights,
            skipped: skipped.clone(),
            copies: copies.clone(),
            base: Some(self.base().clone()),
            fingerprint: OnceLock::new(),
        }))
    }

    /// Returns the checkpoint as it was opened, before another index source or k was chosen.
    pub fn base(&self) -> &Self {
        self.0.base.as_ref().unwrap_or(self)
    }

    pub(super) fn weights(&self) -> &Weights {
        &self.0.weights
    }

    /// Returns the name for people: the folder's, or the one given.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the folder; `None` for a GGUF file and for a checkpoint that is part of the program.
    pub fn dir(&self) -> Option<&Path> {
        if let Place::Folder(dir) = &self.0.place { Some(dir) } else { None }
    }

    /// Returns whether the checkpoint is part of the program.
    pub fn is_embedded(&self) -> bool {
        matches!(self.0.place, Place::Embedded)
    }

    /// Returns the tokenizer that a GGUF file holds; `None` for other checkpoints.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        if let Place::Gguf(vocabulary) = &self.0.place { Some(vocabulary) } else { None }
    }

    /// Returns the architecture.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns config.json as it is, or what a GGUF file's metadata says in its words; `None` for dense GGUF files.
    pub fn config_json(&self) -> Option<&str> {
        self.0.json.as_deref()
    }

    /// Returns the quantised format that the weights are in, where it is none that is read, such as `modelopt NVFP4`.
    pub fn quantised(&self) -> Option<&str> {
        self.0.quantised.as_deref()
    }

    /// Returns the blocks of FP8 weights that share a scale.
    pub fn blocks(&self) -> Blocks {
        self.0.blocks
    }

    /// Returns a tensor's dtype and shape; those of MTP layers and copied indexers are not found.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.0.weights.tensors.get(name)
    }

    /// Iterates over the tensors of the main layers and the ends, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.0.weights.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// Returns the stored bytes of a tensor, little-endian and not necessarily aligned.
    ///
    /// # Errors
    /// [`CheckpointError::NoTensor`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], CheckpointError> {
        let info = self.tensor(name).ok_or_else(|| CheckpointError::NoTensor(name.to_owned()))?;
        Ok(&self.0.weights.shards[info.shard][info.start..info.end])
    }

    /// Returns every tensor that tells the checkpoint from others with its bytes, by name: copied indexers included.
    pub(super) fn identifying(&self) -> BTreeMap<&str, (&TensorInfo, &[u8])> {
        let Weights { tensors, shards } = &self.0.weights;
        let bytes = |info: &TensorInfo| &shards[info.shard][info.start..info.end];
        tensors.iter().chain(&self.0.copies).map(|(name, info)| (name.as_str(), (info, bytes(info)))).collect()
    }

    /// Has the system read a tensor's bytes ahead.
    pub fn prefetch(&self, info: &TensorInfo) {
        self.0.weights.shards[info.shard].prefetch(info.start..info.end);
    }

    /// Gives the memory of a tensor's bytes back; they are read again when they are touched again.
    pub fn release(&self, info: &TensorInfo) {
        self.0.weights.shards[info.shard].release(info.start..info.end);
    }

    /// Returns whether `layer` can be Full: it has all tensors of an indexer, or the oracle needs none.
    pub fn has_indexer(&self, layer: usize) -> bool {
        self.config().index.is_oracle()
            || layout::indexer_tensors(self.config(), layer).iter().all(|demand| self.stores(&demand.name))
    }

    /// Returns whether the files hold a weight, in whatever pieces its format stores it.
    fn stores(&self, name: &str) -> bool {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let pieces = || self.0.weights.tensors.range(format!("{module}.")..).next();
        self.tensor(name).is_some()
            || self.quantised().is_some() && pieces().is_some_and(|(piece, _)| piece.starts_with(&format!("{module}.")))
    }

    /// Returns the Shared layers whose stored indexer only repeats their source's, bit for bit.
    pub fn copied_indexers(&self) -> LayerSet {
        self.0.copies.keys().filter_map(|name| layer_of(name)).collect()
    }

    /// Iterates over the names of all tensors of main layers' indexers in the files, copies included.
    pub fn indexer_tensors(&self) -> impl Iterator<Item = &str> {
        let names = self.0.weights.tensors.keys().chain(self.0.copies.keys());
        names.map(String::as_str).filter(|name| is_indexer_tensor(name))
    }

    /// Returns whether the files hold an indexer for `layer`, a copy of its source's included.
    pub fn stores_indexer(&self, layer: usize) -> bool {
        self.has_indexer(layer) || self.copied_indexers().contains(layer)
    }

    /// Returns which patterns are possible: layers without an indexer of their own are locked Shared.
    pub fn constraints(&self) -> Constraints {
        let sites = self.config().sites();
        let locked = sites.iter().enumerate().filter(|&(_, layer)| !self.has_indexer(layer));
        Constraints { sites, locked_shared: locked.map(|(site, _)| site).collect() }
    }

    /// Returns the checkpoint's own pattern.
    ///
    /// # Errors
    /// [`CheckpointError::Roles`] where config.json makes the first site Shared.
    pub fn native(&self) -> Result<Pattern, CheckpointError> {
        let roles = &self.config().roles;
        Ok(Pattern::from_fn(roles.len(), |site| roles[site])?)
    }

    /// Returns bytes and elements by part, the skipped MTP layers and copied indexers included.
    pub fn parts(&self) -> Vec<PartSize> {
        let skipped = self.0.skipped.iter().chain(&self.0.copies).map(|(name, info)| (name.as_str(), info));
        parts::sum(self.config(), self.tensors().chain(skipped))
    }

    /// Returns the bytes that the model's weights need when loaded at `bytes_per_element`.
    pub fn needed_bytes(&self, bytes_per_element: usize) -> u64 {
        let weights = self.tensors().filter(|(name, _)| !is_scale(name));
        weights.map(|(_, info)| (info.elements() * bytes_per_element) as u64).sum()
    }

    /// Returns the bytes that the largest piece needs when loaded at `bytes_per_element`: a layer, embedding or head.
    pub fn largest_piece_bytes(&self, bytes_per_element: usize) -> u64 {
        let mut pieces: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, info) in self.tensors().filter(|(name, _)| !is_scale(name)) {
            // Layers by "model.layers.N", the ends by their whole names.
            let piece = match layer_of(name) {
                Some(_) => name.match_indices('.').nth(2).map_or(name, |(end, _)| &name[..end]),
                None => name,
            };
            *pieces.entry(piece).or_default() += (info.elements() * bytes_per_element) as u64;
        }
        pieces.into_values().max().unwrap_or(0)
    }

    /// Returns a short hash that tells checkpoints apart, `v2:` and 16 hex digits: what it covers stands in
    /// `checkpoint::fingerprint`.
    pub fn fingerprint(&self) -> &str {
        self.0.fingerprint.get_or_init(|| fingerprint::fingerprint(self))
    }

    /// Returns the fingerprints by which files of earlier versions name this checkpoint.
    pub fn former_fingerprints(&self) -> Vec<String> {
        vec![fingerprint::before_0_2(self)]
    }

    /// Compares the tensors with what the config demands.
    ///
    /// # Errors
    /// The first missing or misshapen tensor, unsupported dtype, or Full layer without an indexer, by name.
    pub fn check(&self) -> Result<(), CheckpointError> {
        self.native()?;
        if let (Place::Gguf(_), Attention::Mla) = (&self.0.place, self.config().attention) {
            return Err(CheckpointError::GgufDsa(self.config().family.model_type().to_owned()));
        }
        match (self.check_tensors(), self.quantised()) {
            // What is missing or misshapen is so because of the format.
            (Err(_), Some(format)) => Err(CheckpointError::Quantised(format.to_owned())),
            (result, _) => result,
        }
    }

    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let config = self.config();
        // Listing what is demanded takes as long as the list is; no more of it can be there than the headers have.
        let experts = 3 * config.n_routed_experts * config.mlp.iter().filter(|&&kind| kind == MlpKind::Sparse).count();
        if experts > 100_000 + self.tensors().count() {
            let reason = format!("the checkpoint has only {} tensors", self.tensors().count());
            return super::config::wrong("n_routed_experts", config.n_routed_experts, &reason);
        }
        layout::demands(self.config()).iter().try_for_each(|demand| self.check_tensor(demand))?;
        if self.config().index.is_oracle() {
            return Ok(());
        }
        for (layer, &role) in self.config().sites().iter().zip(&self.config().roles) {
            let indexer = layout::indexer_tensors(self.config(), layer);
            if indexer.iter().any(|demand| self.tensor(&demand.name).is_some()) {
                indexer.iter().try_for_each(|demand| self.check_tensor(demand))?;
            } else if role == Role::Full {
                return Err(CheckpointError::FullWithoutIndexer { layer });
            }
        }
        Ok(())
    }

    fn check_tensor(&self, demand: &Demand) -> Result<(), CheckpointError> {
        let Demand { name, shape, integers } = demand.clone();
        let found = self.tensor(&name);
        // Errors spell the name as the file does.
        let spelt = families::spelt(self.config(), &name);
        let Some(info) = found else {
            return Err(CheckpointError::MissingTensor { name: spelt, shape });
        };
        if info.shape != shape {
            return Err(CheckpointError::Shape { name: spelt, got: info.shape.clone(), want: shape });
        }
        if if integers { info.dtype.is_integer() } else { info.dtype.is_supported() } {
            return Ok(());
        }
        let Some(scales) = self.0.blocks.scales_of(&name, info) else {
            return Err(CheckpointError::UnsupportedDtype { name: spelt, dtype: info.dtype.clone() });
        };
        match self.tensor(&scales.name) {
            None => {
                let missing = families::spelt(self.config(), &scales.name);
                Err(CheckpointError::MissingScales { name: spelt, scales: missing, shape: scales.shape })
            }
            Some(info) if info.dtype.is_float8() => {
                Err(CheckpointError::UnsupportedDtype { name: scales.name, dtype: info.dtype.clone() })
            }
            Some(_) => self.check_tensor(&scales),
        }
    }
}
