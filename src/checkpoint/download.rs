//! Checkpoints from the Hugging Face Hub into its local cache, over HTTP.
//!
//! The Hub names a revision's commit and every file's size and hash: SHA-256 for files in LFS, git's SHA-1 for others. A
//! file is written to `blobs/HASH.incomplete`, where a download that broke off goes on, and becomes `blobs/HASH` once it
//! has that hash. The snapshot's links come after all files, the weights' last, and the ref after them: whatever stops a
//! download, nothing is left that could be taken for a whole checkpoint.

mod error;
mod partial;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256, digest::DynDigest};
use ureq::config::RedirectAuthHeaders;

pub use error::DownloadError;
use partial::{Broken, Partial};

use super::hub::home;
use super::safetensors::Index;
use super::{CONFIG_FILE, CheckpointError, HubId, INDEX_FILE, SINGLE_FILE};

/// Where the Hub is, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// How long the Hub may take to accept a connection, to answer, and to send the next bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the longest list of files that is read.
const LONGEST_LIST: u64 = 64 << 20;

/// A server that speaks the Hub's protocol.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// What the Hub tells about a revision.
#[derive(Debug, Deserialize)]
struct Revision {
    sha: String,
    siblings: Vec<Entry>,
}

/// A file of a revision.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    rfilename: String,
    size: u64,
    blob_id: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

impl Entry {
    /// Returns the file's hash, which is also its name in the cache.
    fn hash(&self) -> &str {
        self.lfs.as_ref().map_or(&self.blob_id, |lfs| &lfs.sha256)
    }

    /// Returns what computes that hash.
    fn hasher(&self) -> Box<dyn DynDigest> {
        if self.lfs.is_some() {
            return Box::new(Sha256::new());
        }
        Box::new(Sha1::new_with_prefix(format!("blob {}\0", self.size)))
    }
}

impl Hub {
    /// Returns the server at `endpoint`, to which `token` is sent.
    pub fn new(endpoint: &str, token: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("indexscope/", env!("CARGO_PKG_VERSION")))
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE));
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, agent: config.build().into() }
    }

    /// Returns the server that the user's environment names, by `HF_ENDPOINT`, `HF_TOKEN` or the file `token` of
    /// `HF_HOME`; `None` where `HF_HUB_OFFLINE` forbids any.
    pub fn from_env() -> Option<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if set("HF_HUB_OFFLINE").is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str())) {
            return None;
        }
        let stored = || std::fs::read_to_string(home().join("token")).ok().map(|text| text.trim().to_owned());
        let token = set("HF_TOKEN").or_else(stored).filter(|token| !token.is_empty());
        Some(Self::new(&set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()), token))
    }

    /// Downloads what a checkpoint needs and the cache lacks: config, tokenizer, chat template and weights.
    ///
    /// `tell` is called with the bytes that are there and those of all files.
    ///
    /// # Errors
    /// [`DownloadError`], after which the same call goes on with what is left; [`CheckpointError::Malformed`] for the
    /// index of the shards.
    pub fn download(&self, id: &HubId, cache: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<(), CheckpointError> {
        let revision = self.revision(id)?;
        let model = id.folder(cache);
        let blobs = model.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(DownloadError::io(&blobs))?;
        let url = |entry: &Entry| {
            format!("{}/{}/resolve/{}/{}", self.endpoint, id.repo, revision.sha, escape(&entry.rfilename))
        };

        let entry = |name: &str| revision.siblings.iter().find(|entry| entry.rfilename == name);
        let shards = match entry(INDEX_FILE).filter(|_| entry(SINGLE_FILE).is_none()) {
            None => BTreeSet::from([SINGLE_FILE.to_owned()]),
            Some(index) => {
                let path = self.fetch(index, &url(index), &blobs, &mut |_| {})?;
                let text = std::fs::read_to_string(&path).map_err(|e| CheckpointError::io(&path, e))?;
                Index::parse(&text)?.weight_map.into_values().collect()
            }
        };
        let files = wanted(&revision.siblings, &shards).ok_or_else(|| no_model(id, &revision.siblings))?;
        let total = files.iter().map(|entry| entry.size).sum();
        let mut before = 0;
        for entry in &files {
            self.fetch(entry, &url(entry), &blobs, &mut |have| tell(before + have, total))?;
            before += entry.size;
        }
        Ok(publish(&model, id, &revision.sha, &files)?)
    }

    /// Asks for the commit and the files of a revision.
    fn revision(&self, id: &HubId) -> Result<Revision, DownloadError> {
        let url = format!("{}/api/models/{}/revision/{}?blobs=true", self.endpoint, id.repo, escape(&id.revision));
        let wrong = |reason: String| DownloadError::Answer { url: url.clone(), reason };
        let body = self.get(&url, 0)?.into_body().into_with_config().limit(LONGEST_LIST).reader();
        let revision: Revision = serde_json::from_reader(body).map_err(|e| wrong(e.to_string()))?;
        // These become names of files.
        if let Some(hash) =
            revision.siblings.iter().map(Entry::hash).chain([revision.sha.as_str()]).find(|hash| !is_hash(hash))
        {
            return Err(wrong(format!("'{hash}' is no hash")));
        }
        Ok(revision)
    }

    /// Asks for the bytes of `url` from position `from` on.
    fn get(&self, url: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>, DownloadError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::StatusCode(status) => DownloadError::Refused { url: url.to_owned(), status },
            other => DownloadError::Unreachable { url: url.to_owned(), reason: other.to_string() },
        })
    }

    /// Makes sure that a file is among the blobs, and returns its path there.
    fn fetch(
        &self,
        entry: &Entry,
        url: &str,
        blobs: &Path,
        tell: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, DownloadError> {
        let path = blobs.join(entry.hash());
        if path.is_file() {
            return Ok(path);
        }
        let part = blobs.join(format!("{}.incomplete", entry.hash()));
        let failed = || DownloadError::io(&part);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&part).map_err(failed())?;
        file.try_lock().map_err(|_| DownloadError::Busy(part.clone()))?;
        let mut partial = Partial { file, hasher: entry.hasher(), have: 0, size: entry.size };
        partial.read_back().map_err(failed())?;
        while partial.have < entry.size {
            let had = partial.have;
            let answer = self.get(url, had)?;
            if had > 0 && answer.status() != 206 {
                partial.clear(entry.hasher()).map_err(failed())?;
            }
            let ended = partial.append(answer.into_body().into_reader(), tell);
            match ended {
                Err(Broken::Disk(source)) => return Err(DownloadError::Io { path: part, source }),
                Err(Broken::Net(reason)) if partial.have <= had => {
                    let (file, have) = (entry.rfilename.clone(), partial.have);
                    return Err(DownloadError::BrokenOff { file, have, size: entry.size, reason });
                }
                Err(Broken::Net(_)) | Ok(()) => {}
            }
        }
        let got = hex(&partial.hasher.finalize());
        if got != entry.hash() {
            std::fs::remove_file(&part).map_err(failed())?;
            let (file, want) = (entry.rfilename.clone(), entry.hash().to_owned());
            return Err(DownloadError::Damaged { file, want, got });
        }
        partial.file.sync_all().and_then(|()| std::fs::rename(&part, &path)).map_err(failed())?;
        Ok(path)
    }
}

/// Returns the files that a checkpoint needs, its weights last; `None` where they are not all there.
fn wanted<'a>(files: &'a [Entry], shards: &BTreeSet<String>) -> Option<Vec<&'a Entry>> {
    let all = |fits: &dyn Fn(&str) -> bool| -> Vec<&'a Entry> {
        files.iter().filter(|entry| !entry.rfilename.contains(['/', '\\']) && fits(&entry.rfilename)).collect()
    };
    let has_config = files.iter().any(|entry| entry.rfilename == CONFIG_FILE);
    if !has_config {
        let gguf = all(&|name| Path::new(name).extension().is_some_and(|e| e == "gguf"));
        return Some(gguf).filter(|files| files.len() == 1);
    }
    let weights = all(&|name| shards.contains(name));
    let is_small = |name: &str| {
        [CONFIG_FILE, INDEX_FILE].contains(&name) || name.starts_with("tokenizer") || name.starts_with("chat_template.")
    };
    (weights.len() == shards.len()).then(|| [all(&is_small), weights].concat())
}

fn no_model(id: &HubId, files: &[Entry]) -> DownloadError {
    let is_weights = |name: &&str| [".gguf", ".safetensors", ".bin", ".pt", ".pth"].iter().any(|e| name.ends_with(e));
    let names: Vec<&str> = files.iter().map(|entry| entry.rfilename.as_str()).filter(is_weights).collect();
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let files = match names.len() {
        0 => "no weights at all".to_owned(),
        1..=5 => shown,
        n => format!("{shown} and {} more", n - 5),
    };
    DownloadError::NoModel { repo: id.repo.clone(), files }
}

/// Makes the snapshot of downloaded files, and then the ref.
fn publish(model: &Path, id: &HubId, commit: &str, files: &[&Entry]) -> Result<(), DownloadError> {
    let snapshot = model.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot).map_err(DownloadError::io(&snapshot))?;
    for entry in files {
        let path = snapshot.join(&entry.rfilename);
        if !path.exists() {
            link(&model.join("blobs"), entry.hash(), &path).map_err(DownloadError::io(&path))?;
        }
    }
    if id.revision == commit {
        return Ok(());
    }
    let path = model.join("refs").join(&id.revision);
    let folder = path.parent().unwrap_or(model);
    std::fs::create_dir_all(folder).map_err(DownloadError::io(folder))?;
    let part = folder.join(format!("{commit}.incomplete"));
    std::fs::write(&part, commit).and_then(|()| std::fs::rename(&part, &path)).map_err(DownloadError::io(&path))
}

/// Links `path` in a snapshot to a blob.
#[cfg(unix)]
fn link(_blobs: &Path, hash: &str, path: &Path) -> io::Result<()> {
    // A link whose blob has gone is in the way.
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), path)
}

/// Links `path` in a snapshot to a blob.
#[cfg(not(unix))]
fn link(blobs: &Path, hash: &str, path: &Path) -> io::Result<()> {
    std::fs::hard_link(blobs.join(hash), path)
}

fn is_hash(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Escapes everything in a path segment but letters, digits, `-`, `_` and `.`.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text + &char::from(byte).to_string(),
        _ => format!("{text}%{byte:02X}"),
    })
}
