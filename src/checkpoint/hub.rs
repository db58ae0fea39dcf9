//! Checkpoints by their name on the Hugging Face Hub, found in the local cache without any network.
//!
//! The cache holds `models--ORG--NAME/refs/REVISION`, a file with a commit, and `models--ORG--NAME/snapshots/COMMIT/`,
//! the files of that commit.

use std::path::{Path, PathBuf};

use super::folder::is_plain;
use super::safetensors::CONFIG_FILE;
use super::{Checkpoint, CheckpointError};
use crate::input;

/// Revision where none is given.
pub(super) const MAIN: &str = "main";

/// A name such as `HuggingFaceTB/SmolLM2-135M` with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// Owner and name.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl HubId {
    /// Reads `ORG/NAME[@REVISION]`; `None` for anything else, such as paths.
    pub fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (org, name) = repo.split_once('/')?;
        let is_word = |word: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !word.is_empty() && !word.starts_with(['.', '-']) && word.chars().all(fits)
        };
        let is_revision = !revision.is_empty() && !revision.contains("..") && !revision.starts_with('/');
        (is_word(org) && is_word(name) && is_revision)
            .then(|| Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }

    /// Returns the model's folder in a cache.
    pub(super) fn folder(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.repo.replace('/', "--")))
    }

    /// Returns the folder of the revision's files in a cache.
    fn snapshot(&self, cache: &Path) -> Option<PathBuf> {
        let model = self.folder(cache);
        let commit = input::text(&model.join("refs").join(&self.revision), input::TEXT);
        let commit = commit.map_or_else(|_| self.revision.clone(), |text| text.trim().to_owned());
        Some(model.join("snapshots").join(Some(commit).filter(|name| is_plain(name))?)).filter(|folder| folder.is_dir())
    }
}

/// Returns the value of an environment variable that is not empty.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Returns the folder of everything of the Hub: `HF_HOME`, else `huggingface` of the user's caches.
pub(super) fn home() -> PathBuf {
    let user = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    set("HF_HOME").unwrap_or_else(|| user().unwrap_or_default().join("huggingface"))
}

/// Returns the cache's folder: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` of the user's caches.
pub fn hub_cache() -> PathBuf {
    set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home().join("hub"))
}

impl Checkpoint {
    /// Opens a checkpoint of a Hub cache: safetensors, or the only GGUF file of a repository without config.json.
    ///
    /// # Errors
    /// [`CheckpointError::NotCached`] where it was never downloaded, [`CheckpointError::PartlyCached`] where config or
    /// weights are missing; else as [`Checkpoint::open`].
    pub fn open_cached(id: &HubId, cache: &Path) -> Result<Self, CheckpointError> {
        let not_cached = || CheckpointError::NotCached { id: id.clone(), cache: cache.to_owned() };
        let folder = id.snapshot(cache).ok_or_else(not_cached)?;
        let without = |lacks: String| CheckpointError::PartlyCached { id: id.clone(), cache: cache.to_owned(), lacks };
        if folder.join(CONFIG_FILE).is_file() {
            return match Self::open(&folder) {
                Ok(checkpoint) => Ok(checkpoint.named(&id.repo)),
                Err(CheckpointError::NoWeights(_) | CheckpointError::OtherWeights { .. }) => {
                    Err(without("its safetensors".to_owned()))
                }
                Err(CheckpointError::MissingShard { shard }) => Err(without(format!("shard '{shard}'"))),
                Err(other) => Err(other),
            };
        }
        let files = std::fs::read_dir(&folder).map_err(|e| CheckpointError::io(&folder, e))?;
        let files = files.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files = files.filter(|path| path.extension().is_some_and(|e| e == "gguf"));
        match (files.next(), files.next()) {
            (Some(file), None) => Self::open(&file),
            (Some(_), Some(_)) => Err(CheckpointError::Ambiguous { folder }),
            (None, _) => Err(without(CONFIG_FILE.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let id = |repo: &str, revision: &str| Some(HubId { repo: repo.into(), revision: revision.into() });
        assert_eq!(HubId::parse("org/name"), id("org/name", "main"));
        assert_eq!(HubId::parse("Qwen/Qwen2.5-0.5B@refs/pr/3"), id("Qwen/Qwen2.5-0.5B", "refs/pr/3"));
        for path in ["name", "./name", "../name", "/org/name", "a/b/c", "org/", "org/name@", "org/name@../x", "o r/g"] {
            assert_eq!(HubId::parse(path), None, "{path}");
        }
    }

    #[test]
    fn branches_and_commits_lead_to_their_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--name");
        std::fs::create_dir_all(model.join("refs/pr")).unwrap();
        std::fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        std::fs::write(model.join("refs/main"), "abc\n").unwrap();
        std::fs::write(model.join("refs/pr/1"), "gone").unwrap();
        let found = |text: &str| HubId::parse(text).unwrap().snapshot(cache.path());
        assert_eq!(found("org/name"), Some(model.join("snapshots/abc")));
        assert_eq!(found("org/name@abc"), Some(model.join("snapshots/abc")));
        assert_eq!(found("org/name@pr/1"), None);
        std::fs::write(model.join("refs/out"), "../../..").unwrap();
        assert_eq!(found("org/name@out"), None);
        assert_eq!(found("org/other"), None);
    }
}
