//! Writes a checkpoint without the indexer tensors of Shared layers, and with trained ones in the place of others.
//!
//! Some engines cannot load such tensors (vLLM 0.33.0 on CUDA and ROCm), and none needs them. MTP layers keep theirs:
//! they always run their own indexer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::retrained::{Replaced, Retrained, of_sidecar, replaced};
use super::shard::{Copied, Shard};
use super::{ExportError, config};
use crate::atomic::{self, Disk, Draft, sync};
use crate::checkpoint::{CONFIG_FILE, Checkpoint, INDEX_FILE, ModelFolder, Sidecar, is_indexer_tensor, layer_of};
use crate::domain::Pattern;
use crate::input;

/// What a pruned checkpoint lacks, and how its files came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Tensors left out.
    pub dropped: usize,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Tensors with other numbers than the original's.
    pub replaced: usize,
    /// Files written anew.
    pub rewritten: Vec<String>,
    /// Files that are hard links to the original's.
    pub linked: Vec<String>,
    /// Files that were copied: all but shards, and shards where the file system cannot link.
    pub copied: Vec<String>,
    /// What is not taken along: folders, links that lead out of the folder, and what is no regular file.
    pub skipped: Vec<String>,
}

/// Writes `checkpoint` to the new folder `out` with `pattern` as its own and without indexers of Shared layers.
///
/// The folder appears in one step when everything is written; untouched shards are hard links where possible.
///
/// # Errors
/// [`ExportError::Exists`] where `out` exists, [`ExportError::Pattern`] where the model cannot have the pattern, and
/// whatever reading and writing may bring; then nothing is left behind.
pub fn prune(checkpoint: &Checkpoint, pattern: Pattern, out: &Path) -> Result<Pruned, ExportError> {
    write(checkpoint, pattern, Replaced::new(), out)
}

/// Does the same with the indexers of a sidecar in the place of the checkpoint's own.
///
/// # Errors
/// As [`prune_retrained`]; [`ExportError::Checkpoint`] for a sidecar of another model.
pub fn prune_with(
    checkpoint: &Checkpoint,
    pattern: Pattern,
    sidecar: &Sidecar,
    out: &Path,
) -> Result<Pruned, ExportError> {
    prune_retrained(checkpoint, pattern, &of_sidecar(checkpoint, sidecar)?, out)
}

/// Does the same with other numbers in some tensors, stored in the dtypes that the checkpoint stores them in.
///
/// # Errors
/// As [`prune`]; [`ExportError::Retrained`] where the checkpoint has no such tensor, or in a dtype that is not written.
pub fn prune_retrained(
    checkpoint: &Checkpoint,
    pattern: Pattern,
    tensors: &[Retrained],
    out: &Path,
) -> Result<Pruned, ExportError> {
    write(checkpoint, pattern, replaced(checkpoint, pattern, tensors)?, out)
}

fn write(checkpoint: &Checkpoint, pattern: Pattern, replaced: Replaced, out: &Path) -> Result<Pruned, ExportError> {
    let dir = checkpoint.dir().ok_or_else(|| ExportError::NoFolder(checkpoint.name().to_owned()))?;
    checkpoint.constraints().check(pattern)?;
    if out.symlink_metadata().is_ok() {
        return Err(ExportError::Exists(out.to_owned()));
    }
    let draft = Draft::beside(out).map_err(|e| ExportError::io(out, e))?;
    let mut work = Work {
        pattern,
        replaced,
        from: ModelFolder::new(dir),
        to: draft.path().to_owned(),
        report: Pruned::default(),
        total: Copied::default(),
    };
    for path in files(dir)? {
        work.file(&path)?;
    }
    let shards = work.index(dir)?;
    if let Some(shard) = shards.iter().find(|shard| !draft.path().join(shard).is_file()) {
        return Err(ExportError::malformed(
            &dir.join(INDEX_FILE),
            format!("it names the shard '{shard}', which was not among the files to write"),
        ));
    }
    let written = Checkpoint::open(draft.path())?;
    // Not `check`: quantised checkpoints, which cannot be run here, are served too.
    written.constraints().check(pattern)?;
    if written.native()? != pattern {
        return Err(ExportError::malformed(&out.join(CONFIG_FILE), "it does not hold the pattern after writing"));
    }
    draft.publish(out).map_err(|e| ExportError::io(out, e))?;
    Ok(work.report)
}

struct Work {
    pattern: Pattern,
    /// What takes the place of tensors that are kept.
    replaced: Replaced,
    from: ModelFolder,
    to: PathBuf,
    report: Pruned,
    total: Copied,
}

impl Work {
    /// Brings one entry of the original folder over; the index waits until the shards are known.
    fn file(&mut self, path: &Path) -> Result<(), ExportError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = self.to.join(&name);
        // Folders of the hub's cache hold relative symbolic links, which would dangle elsewhere.
        // What the model needs was opened through the same check; of the rest, only what lies here is copied.
        let Ok(Some(path)) = self.from.file(&name) else {
            self.report.skipped.push(name);
            return Ok(());
        };
        if name == CONFIG_FILE {
            let mut json = read_object(&path)?;
            let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
            config::patch(&mut json, config::keys(&self.pattern.roles().collect::<Vec<_>>(), &model_type));
            self.write_json(name, &Value::Object(json))?;
        } else if Path::new(&name).extension().is_some_and(|ext| ext == "safetensors") {
            self.shard(&path, &to, name)?;
        } else if name != INDEX_FILE {
            self.copy(&path, &to, name)?;
        }
        Ok(())
    }

    fn shard(&mut self, path: &Path, to: &Path, name: String) -> Result<(), ExportError> {
        let pattern = self.pattern;
        let shard = Shard::open(path)?;
        if !shard.has_any(|tensor| is_unused(tensor, pattern) || self.replaced.contains_key(tensor)) {
            return self.link(path, to, name);
        }
        let copied = shard.copy(to, |tensor| is_unused(tensor, pattern), &self.replaced)?;
        self.report.dropped += copied.dropped;
        self.report.replaced += copied.replaced;
        self.report.dropped_bytes += copied.dropped_bytes;
        self.total.dropped_bytes += copied.dropped_bytes;
        self.total.dropped_elements += copied.dropped_elements;
        if copied.kept > 0 {
            self.report.rewritten.push(name);
        }
        Ok(())
    }

    /// Rewrites the index without the dropped tensors; returns the shards that it still names.
    fn index(&mut self, dir: &Path) -> Result<BTreeSet<String>, ExportError> {
        let path = dir.join(INDEX_FILE);
        let Some(real) = self.from.file(INDEX_FILE).map_err(|e| ExportError::io(&path, e))? else {
            return Ok(BTreeSet::new());
        };
        let mut index = read_object(&real)?;
        let map = index.get_mut("weight_map").and_then(Value::as_object_mut);
        let map = map.ok_or_else(|| ExportError::malformed(&path, "it has no weight_map"))?;
        map.retain(|tensor, _| !is_unused(tensor, self.pattern));
        let shards = map.values().filter_map(|shard| shard.as_str().map(str::to_owned)).collect();
        if let Some(metadata) = index.get_mut("metadata").and_then(Value::as_object_mut) {
            let less = [("total_size", self.total.dropped_bytes), ("total_parameters", self.total.dropped_elements)];
            for (key, less) in less {
                if let Some(total) = metadata.get_mut(key) {
                    *total = json!(total.as_u64().unwrap_or_default().saturating_sub(less));
                }
            }
        }
        self.write_json(INDEX_FILE.to_owned(), &Value::Object(index))?;
        Ok(shards)
    }

    /// Links a shard, or copies it where the file system cannot link.
    fn link(&mut self, path: &Path, to: &Path, name: String) -> Result<(), ExportError> {
        if fs::hard_link(path, to).is_err() {
            return self.copy(path, to, name);
        }
        self.report.linked.push(name);
        Ok(())
    }

    /// Copies a file, so that editing the copy leaves the original alone.
    fn copy(&mut self, path: &Path, to: &Path, name: String) -> Result<(), ExportError> {
        let copy = || {
            let mut from = input::regular(path)?;
            let to = File::create_new(to)?;
            io::copy(&mut from, &mut Disk(&to))?;
            sync(&to)
        };
        copy().map_err(|e| ExportError::io(to, e))?;
        self.report.copied.push(name);
        Ok(())
    }

    fn write_json(&mut self, name: String, json: &Value) -> Result<(), ExportError> {
        let to = self.to.join(&name);
        atomic::write(&to, format!("{json:#}\n").as_bytes()).map_err(|e| ExportError::io(&to, e))?;
        self.report.rewritten.push(name);
        Ok(())
    }
}

/// Returns whether a tensor belongs to the indexer of a Shared main layer.
fn is_unused(tensor: &str, pattern: Pattern) -> bool {
    is_indexer_tensor(tensor) && layer_of(tensor).is_some_and(|layer| layer < pattern.len() && !pattern.is_full(layer))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let io = |e| ExportError::io(dir, e);
    let entries = fs::read_dir(dir).map_err(io)?;
    let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(io)?;
    paths.sort();
    Ok(paths)
}

fn read_object(path: &Path) -> Result<Map<String, Value>, ExportError> {
    let text = input::text(path, input::TEXT).map_err(|e| ExportError::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| ExportError::malformed(path, e))
}
