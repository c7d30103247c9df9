//! A test's own temporary folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

/// A folder directly under `/tmp`, so that socket paths stay short; it goes with its last owner.
#[derive(Debug, Clone)]
pub(crate) struct Folder(Arc<TempDir>);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hs-").tempdir_in("/tmp").expect("a folder under /tmp");
        Self(Arc::new(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }
}
