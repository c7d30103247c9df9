//! The places where distribution packages put stats sockets.
//!
//! They are searched where a configuration cannot be read, or where `/proc` shows no HAProxy or hides some.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The most entries of a folder to examine.
const ENTRIES_MAX: usize = 4096;

/// Lists the sockets in `/run/haproxy/*.sock`, `/run/haproxy-*/*.sock`, `/run/hapee-*/*.sock`, `/run/haproxy.sock`,
/// `/var/lib/haproxy*/stats` and `/var/lib/haproxy*/run/*.sock`.
pub(super) fn sockets(root: &Path) -> Vec<PathBuf> {
    let (run, lib) = (root.join("run"), root.join("var/lib"));
    let is_folder = |name: &str| name == "haproxy" || name.starts_with("haproxy-") || name.starts_with("hapee-");
    let is_socket = |name: &str| name.ends_with(".sock") && !name.starts_with('.');
    let mut found = vec![run.join("haproxy.sock")];
    for folder in entries(&run, is_folder) {
        found.extend(entries(&folder, is_socket));
    }
    for folder in entries(&lib, |name| name.starts_with("haproxy")) {
        found.push(folder.join("stats"));
        found.extend(entries(&folder.join("run"), is_socket));
    }
    found.retain(|path| fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()));
    found
}

/// Lists the entries of a folder with matching names, sorted.
fn entries(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let wanted = entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted));
    let mut paths: Vec<PathBuf> = wanted.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_in_the_usual_places_are_found() {
        let root = tempfile::tempdir().unwrap();
        let folders = [
            "run/haproxy",
            "run/haproxy-ldap",
            "run/hapee-2.8",
            "run/nginx",
            "var/lib/haproxy/run",
            "var/lib/haproxy-x",
        ];
        for folder in folders {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let names = [
            "run/haproxy.sock",
            "run/hapee-2.8/hapee-lb.sock",
            "run/haproxy/a.sock",
            "run/haproxy-ldap/b.sock",
            "var/lib/haproxy/stats",
            "var/lib/haproxy/run/haproxy.sock",
        ];
        for name in names.into_iter().chain(["run/nginx/c.sock", "run/haproxy/stats", "run/haproxy/.d.sock"]) {
            drop(UnixListener::bind(root.path().join(name)).unwrap());
        }
        fs::write(root.path().join("run/haproxy/plain.sock"), "").unwrap();
        fs::create_dir(root.path().join("var/lib/haproxy-x/stats")).unwrap();
        let expected: Vec<_> = names.iter().map(|name| root.path().join(name)).collect();
        assert_eq!(sockets(root.path()), expected);
        assert!(sockets(&root.path().join("none")).is_empty());
    }
}
