//! Downloads from a Hub that the tests serve themselves: layout of the cache, broken connections, damaged files.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use indexscope::checkpoint::{Checkpoint, CheckpointError, DownloadError, Hub, HubId};
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What is served, and how badly.
#[derive(Default)]
struct Served {
    /// Names and contents; safetensors and GGUF files are in LFS.
    files: Vec<(String, Vec<u8>)>,
    /// Bytes of LFS files after which the connection is closed, one entry per answer.
    cuts: Vec<usize>,
    /// Whether a byte of LFS files is changed on the way.
    damaged: bool,
    /// What was asked for: path, range, token.
    asked: Vec<(String, Option<String>, Option<String>)>,
}

fn is_lfs(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "safetensors" || e == "gguf")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn hash(name: &str, bytes: &[u8]) -> String {
    if is_lfs(name) {
        return hex(&Sha256::digest(bytes));
    }
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

impl Served {
    /// Serves the files of a folder, with some that no checkpoint needs.
    fn folder(folder: &str) -> Arc<Mutex<Self>> {
        let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        files.extend(["README.md", "pytorch_model.bin", "onnx/model.safetensors"].map(|n| (n.to_owned(), vec![7; 9])));
        Arc::new(Mutex::new(Self { files, ..Self::default() }))
    }

    /// Returns what the API says of the files.
    fn listing(&self) -> String {
        let siblings: Vec<_> = self
            .files
            .iter()
            .map(|(name, bytes)| {
                let hash = hash(name, bytes);
                let lfs = is_lfs(name).then(|| json!({"sha256": hash, "size": bytes.len(), "pointerSize": 134}));
                let blob = if is_lfs(name) { "f".repeat(40) } else { hash.clone() };
                json!({"rfilename": name, "size": bytes.len(), "blobId": blob, "lfs": lfs})
            })
            .collect();
        json!({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).to_string()
    }

    /// Answers one request.
    fn answer(&mut self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let path = lines.next().unwrap()?.split(' ').nth(1).unwrap().to_owned();
        let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            head.iter().find_map(|l| l.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name))).map(|h| h.1)
        };
        let range = header("range").map(str::to_owned);
        self.asked.push((path.clone(), range.clone(), header("authorization").map(str::to_owned)));
        if path == "/api/models/org/tiny/revision/main?blobs=true"
            || path.ends_with("/revision/refs%2Fpr%2F1?blobs=true")
        {
            let body = self.listing();
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        let resolved = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"));
        // LFS files lie elsewhere, as on the Hub.
        if let Some(name) = resolved.filter(|name| is_lfs(name)) {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: /cdn/{name}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
        }
        let name = resolved.or(path.strip_prefix("/cdn/"));
        let Some((name, bytes)) = self.files.iter().find(|(n, _)| Some(n.as_str()) == name) else {
            return write!(stream, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        };
        let from = range.map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let mut rest = bytes[from..].to_vec();
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", rest.len())?;
        if is_lfs(name) {
            if self.damaged {
                rest[0] ^= 1;
            }
            if !self.cuts.is_empty() {
                rest.truncate(self.cuts.remove(0));
            }
        }
        stream.write_all(&rest)
    }
}

/// Starts a server and returns its address.
fn serve(served: &Arc<Mutex<Served>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = served.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that goes away early is its own business.
            let _ = served.lock().unwrap().answer(&mut stream.unwrap());
        }
    });
    address
}

/// A served folder and an empty cache.
struct Fixture {
    served: Arc<Mutex<Served>>,
    hub: Hub,
    endpoint: String,
    cache: tempfile::TempDir,
}

impl Fixture {
    fn new(folder: &str) -> Self {
        let served = Served::folder(folder);
        let endpoint = serve(&served);
        let hub = Hub::new(&endpoint, Some("secret".to_owned()));
        Self { served, hub, endpoint, cache: tempfile::tempdir().unwrap() }
    }

    fn download(&self, name: &str) -> Result<Vec<(u64, u64)>, CheckpointError> {
        let mut told = Vec::new();
        self.hub.download(&id(name), self.cache.path(), &mut |have, all| told.push((have, all)))?;
        Ok(told)
    }

    fn open(&self, name: &str) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_cached(&id(name), self.cache.path())
    }

    fn change(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().unwrap());
    }

    /// Returns the ranges that were asked for.
    fn ranges(&self) -> Vec<String> {
        self.served
            .lock()
            .unwrap()
            .asked
            .iter()
            .filter_map(|(path, range, _)| range.clone().filter(|_| path.starts_with("/cdn/")))
            .collect()
    }

    /// Returns the names in a folder of the model's.
    fn names(&self, folder: &str) -> Vec<String> {
        let folder = self.model().join(folder);
        let mut names: Vec<String> = fs::read_dir(folder)
            .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    fn model(&self) -> PathBuf {
        self.cache.path().join("models--org--tiny")
    }
}

fn id(name: &str) -> HubId {
    HubId::parse(name).unwrap()
}

fn reason(error: CheckpointError) -> DownloadError {
    match error {
        CheckpointError::Download(error) => error,
        other => panic!("{other}"),
    }
}

const WEIGHTS: &str = "model.safetensors";

#[test]
fn what_a_checkpoint_needs_is_downloaded_into_the_standard_layout() {
    let fixture = Fixture::new("tests/data/qwen3_norm");
    assert!(matches!(fixture.open("org/tiny"), Err(CheckpointError::NotCached { .. })));
    let told = fixture.download("org/tiny").unwrap();
    let checkpoint = fixture.open("org/tiny").unwrap();
    checkpoint.check().unwrap();
    assert_eq!(checkpoint.name(), "org/tiny");

    assert_eq!(fs::read_to_string(fixture.model().join("refs/main")).unwrap(), COMMIT);
    let snapshot = format!("snapshots/{COMMIT}");
    let names = fixture.names(&snapshot);
    assert!(names.contains(&"config.json".to_owned()) && names.contains(&WEIGHTS.to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| ["README.md", "pytorch_model.bin", "onnx"].contains(&name.as_str())), "{names:?}");
    assert_eq!(fixture.names("blobs").len(), names.len());
    for name in names {
        let link = fs::read_link(fixture.model().join(&snapshot).join(&name)).unwrap();
        let bytes = fs::read(Path::new("tests/data/qwen3_norm").join(&name)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(hash(&name, &bytes)), "{name}");
    }
    let (have, all) = *told.last().unwrap();
    assert!(have == all && told.is_sorted() && all > 0, "{told:?}");

    // What is there is not asked for again, but for the list; the token stays with the server that it is for.
    let asked = fixture.served.lock().unwrap().asked.len();
    fixture.download("org/tiny@refs/pr/1").unwrap();
    let requests = &fixture.served.lock().unwrap().asked;
    assert_eq!(requests.len(), asked + 1);
    assert!(requests.iter().all(|(_, _, token)| token.as_deref() == Some("Bearer secret")), "{requests:?}");
    assert_eq!(fs::read_to_string(fixture.model().join("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn shards_come_as_the_index_names_them_and_complete_what_is_cached_in_part() {
    let fixture = Fixture::new("tests/data/glm_sharded");
    let snapshot = fixture.model().join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(fixture.model().join("refs")).unwrap();
    fs::write(fixture.model().join("refs/main"), COMMIT).unwrap();
    let part = fixture.open("org/tiny").unwrap_err();
    assert!(part.to_string().ends_with("but without config.json"), "{part}");
    for name in ["config.json", "model.safetensors.index.json"] {
        fs::copy(Path::new("tests/data/glm_sharded").join(name), snapshot.join(name)).unwrap();
    }
    let part = fixture.open("org/tiny").unwrap_err();
    assert!(part.to_string().contains("but without shard 'model-00001-of-"), "{part}");
    fixture.download("org/tiny").unwrap();
    fixture.open("org/tiny").unwrap().check().unwrap();
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let fixture = Fixture::new("tests/data/qwen3_norm");
    fixture.change(|served| served.cuts = vec![1000, 500, 0]);
    let broken = reason(fixture.download("org/tiny").unwrap_err());
    assert!(matches!(&broken, DownloadError::BrokenOff { file, have: 1500, .. } if file == WEIGHTS), "{broken}");
    assert_eq!(fixture.ranges(), ["bytes=1000-", "bytes=1500-"]);
    assert!(matches!(fixture.open("org/tiny"), Err(CheckpointError::NotCached { .. })));
    assert_eq!(fixture.names("blobs").iter().filter(|name| name.ends_with(".incomplete")).count(), 1);

    fixture.change(|served| served.asked.clear());
    let told = fixture.download("org/tiny").unwrap();
    assert_eq!(fixture.ranges(), ["bytes=1500-"]);
    assert!(told.iter().all(|(have, _)| *have > 1500), "{told:?}");
    fixture.open("org/tiny").unwrap().check().unwrap();
    assert!(!fixture.names("blobs").iter().any(|name| name.ends_with(".incomplete")));
}

#[test]
fn damaged_files_are_thrown_away() {
    let fixture = Fixture::new("tests/data/qwen3_norm");
    let bytes = fs::read(Path::new("tests/data/qwen3_norm").join(WEIGHTS)).unwrap();
    let blob = hash(WEIGHTS, &bytes);
    let refused = || {
        let damaged = reason(fixture.download("org/tiny").unwrap_err());
        assert!(matches!(&damaged, DownloadError::Damaged { want, .. } if *want == blob), "{damaged}");
        assert!(!fixture.names("blobs").iter().any(|name| name.starts_with(&blob)));
        assert!(fixture.names("snapshots").is_empty() && fixture.names("refs").is_empty());
        assert!(matches!(fixture.open("org/tiny"), Err(CheckpointError::NotCached { .. })));
    };
    fixture.change(|served| served.damaged = true);
    refused();
    // Damage in the part that an earlier download left is found as well.
    fixture.change(|served| served.damaged = false);
    fs::write(fixture.model().join(format!("blobs/{blob}.incomplete")), vec![0; 100]).unwrap();
    refused();
    fixture.download("org/tiny").unwrap();
    fixture.open("org/tiny").unwrap().check().unwrap();
}

#[test]
fn one_gguf_file_is_a_model_and_several_are_none() {
    let fixture = Fixture::new("tests/data/qwen3_norm");
    fixture.change(|served| served.files = vec![("tiny.gguf".into(), vec![1; 10]), ("README.md".into(), vec![2])]);
    fixture.download("org/tiny").unwrap();
    assert_eq!(fixture.names(&format!("snapshots/{COMMIT}")), ["tiny.gguf"]);
    fixture.change(|served| served.files.push(("other.gguf".into(), vec![3; 10])));
    let several = reason(fixture.download("org/tiny").unwrap_err()).to_string();
    assert!(several.contains("tiny.gguf, other.gguf"), "{several}");
    let unknown = reason(fixture.download("org/unknown").unwrap_err());
    assert!(matches!(unknown, DownloadError::Refused { status: 404, .. }) && unknown.hint().contains("name"));
    let away = Hub::new("http://127.0.0.1:9", None).download(&id("org/tiny"), fixture.cache.path(), &mut |_, _| {});
    assert!(matches!(reason(away.unwrap_err()), DownloadError::Unreachable { .. }));
}

#[test]
fn the_program_downloads_unless_it_is_told_to_stay_offline() {
    let fixture = Fixture::new("tests/data/qwen3_norm");
    let info = |offline: &str| -> Output {
        Command::new(env!("CARGO_BIN_EXE_indexscope"))
            .args(["info", "org/tiny"])
            .env("HF_ENDPOINT", &fixture.endpoint)
            .env("HF_HUB_CACHE", fixture.cache.path())
            .env("HF_HOME", fixture.cache.path())
            .env("HF_HUB_OFFLINE", offline)
            .env_remove("HF_TOKEN")
            .output()
            .expect("the binary runs")
    };
    let offline = info("1");
    let stderr = String::from_utf8_lossy(&offline.stderr);
    assert!(offline.status.code() == Some(1) && stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
    assert!(fixture.served.lock().unwrap().asked.is_empty());
    let found = info("");
    let stderr = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success() && stderr.is_empty(), "{stderr}");
    assert!(String::from_utf8_lossy(&found.stdout).starts_with("org/tiny: qwen3"));
    assert!(info("1").status.success());
}
