//! The files of a model's folder: regular ones that lie in it, or where the Hub's cache keeps its files.
//!
//! A folder comes from others. A link in it could lead to any file of the user, and a named pipe would block for ever.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::hub::hub_cache;
use crate::input;

/// A model's folder.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    dir: PathBuf,
    /// Where a file of it may really lie.
    roots: Vec<PathBuf>,
}

impl ModelFolder {
    /// Returns the folder at `dir`.
    pub fn new(dir: &Path) -> Self {
        let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        // Snapshots of the Hub's cache are links to `blobs` beside `snapshots`.
        let snapshots = real.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"));
        let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
        let roots = blobs.into_iter().chain([real]).collect();
        Self { dir: dir.to_owned(), roots }
    }

    /// Returns where the file of this name lies; `None` where there is none.
    ///
    /// # Errors
    /// For a name that is more than a name, a link that leads elsewhere, and what is no regular file.
    pub fn file(&self, name: &str) -> io::Result<Option<PathBuf>> {
        if !is_plain(name) {
            return Err(io::Error::other(format!("'{name}' is not a plain file name")));
        }
        let path = self.dir.join(name);
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if !self.roots.iter().any(|root| real.starts_with(root)) && !is_blob(&real) {
            return Err(io::Error::other("it is a link that leads out of the model's folder"));
        }
        if !real.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Some(real))
    }

    /// Returns whether there is such a file, whatever is wrong with it.
    pub fn has(&self, name: &str) -> bool {
        !matches!(self.file(name), Ok(None))
    }

    /// Reads the text of a small file; `None` where there is none.
    ///
    /// # Errors
    /// As [`file`](Self::file), and those of reading.
    pub fn text(&self, name: &str) -> io::Result<Option<String>> {
        self.file(name)?.map(|path| input::text(&path, input::TEXT)).transpose()
    }
}

/// Returns whether `name` names a file of a folder, and nothing above or below it.
pub(super) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains('\\')
}

/// Returns whether a path lies among the blobs of the Hub's cache.
fn is_blob(real: &Path) -> bool {
    let cache = hub_cache().canonicalize();
    let inside = cache.ok().and_then(|cache| real.strip_prefix(cache).ok().map(Path::to_owned));
    inside.is_some_and(|path| path.components().nth(1).is_some_and(|part| part.as_os_str() == "blobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_names() {
        for name in ["../config.json", "a/b", "/etc/shadow", "..", ".", "", "a\\b", "./a", "a/"] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("model-00001-of-00002.safetensors"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_inside_the_folder_and_the_cache_only() {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().unwrap();
        let (model, blobs) = (place.path().join("models--o--n/snapshots/abc"), place.path().join("models--o--n/blobs"));
        std::fs::create_dir_all(&model).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("1"), "blob").unwrap();
        std::fs::write(model.join("own"), "own").unwrap();
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        for (to, name) in [("../../blobs/1", "blob"), ("own", "alias"), ("../../../secret", "out"), (".", "folder")] {
            symlink(to, model.join(name)).unwrap();
        }
        symlink("nowhere", model.join("dangling")).unwrap();
        let folder = ModelFolder::new(&model);
        assert_eq!(folder.text("blob").unwrap().as_deref(), Some("blob"));
        assert_eq!(folder.text("alias").unwrap().as_deref(), Some("own"));
        assert!(folder.text("out").unwrap_err().to_string().contains("leads out"));
        assert!(folder.text("folder").unwrap_err().to_string().contains("not a regular file"));
        assert!(folder.text("dangling").unwrap().is_none() && !folder.has("missing") && folder.has("out"));
        // A folder that is itself reached by a link.
        let link = place.path().join("link");
        symlink(&model, &link).unwrap();
        assert_eq!(ModelFolder::new(&link).text("blob").unwrap().as_deref(), Some("blob"));
    }
}
