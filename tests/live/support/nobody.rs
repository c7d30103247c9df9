//! The program as an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde_json::Value;

use super::program::copy_program;
use super::{Folder, Program, skipped};

const NOBODY: u32 = 65_534;

/// The program as a user with nothing but the right to open the socket, and folders of its own.
pub(crate) struct Nobody {
    folder: Folder,
    binary: PathBuf,
    pub(crate) runtime: PathBuf,
}

impl Nobody {
    /// `None` where the test may not become somebody else.
    pub(crate) fn new() -> Option<Self> {
        if !geteuid().is_root() {
            skipped("only root can run the program as somebody else");
            return None;
        }
        let folder = Folder::new();
        open_to_all(folder.path(), 0o755);
        let binary = folder.join("haproxy_server");
        copy_program(&binary);
        let mut nobody = Self { folder, binary, runtime: PathBuf::new() };
        nobody.runtime = nobody.own_folder("runtime");
        Some(nobody)
    }

    /// Makes a folder of its own.
    pub(crate) fn own_folder(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir(&path).expect("a folder");
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("a folder of its own");
        path
    }

    pub(crate) fn request(&self, request: &Value) -> Program {
        self.request_under(request, &[] as &[&str])
    }

    /// Runs the program by another one, both as this user.
    pub(crate) fn request_under<S: AsRef<OsStr>>(&self, request: &Value, words: &[S]) -> Program {
        let who = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(OsStr::new);
        let words = who.into_iter().chain(words.iter().map(AsRef::as_ref));
        Program::request(request).binary(&self.binary).env("XDG_RUNTIME_DIR", &self.runtime).under(words)
    }
}

/// Sets the mode of a file or folder.
pub(crate) fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file of our own");
}
