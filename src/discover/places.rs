//! The places where distribution packages put stats sockets.
//!
//! They are searched if a configuration cannot be read, or if `/proc` shows no HAProxy or hides some. Nothing then says
//! which account HAProxy uses, so the account called haproxy is assumed: the packages of Debian and Red Hat give
//! `/run/haproxy` and `/var/lib/haproxy` to that account.

use super::accounts;
use super::trust::Owners;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The account that the packages create.
const ACCOUNT: &str = "haproxy";

/// The most entries of a folder to examine.
const ENTRIES_MAX: usize = 4096;

/// Trusts root, the caller, and the account that the packages create.
pub(super) fn owners(caller: u32) -> Owners {
    let user = accounts::user(ACCOUNT).map(|(user, _)| user);
    Owners::new(caller).with(user, accounts::group(ACCOUNT))
}

/// Lists the sockets in `/run/haproxy/*.sock`, `/run/haproxy-*/*.sock`, `/run/haproxy.sock`, `/var/lib/haproxy*/stats`.
pub(super) fn sockets(root: &Path) -> Vec<PathBuf> {
    let (run, lib) = (root.join("run"), root.join("var/lib"));
    let mut found = vec![run.join("haproxy.sock")];
    for folder in entries(&run, |name| name == "haproxy" || name.starts_with("haproxy-")) {
        found.extend(entries(&folder, |name| name.ends_with(".sock") && !name.starts_with('.')));
    }
    found.extend(entries(&lib, |name| name.starts_with("haproxy")).into_iter().map(|folder| folder.join("stats")));
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
        for folder in ["run/haproxy", "run/haproxy-ldap", "run/nginx", "var/lib/haproxy", "var/lib/haproxy-x"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let names = ["run/haproxy.sock", "run/haproxy/a.sock", "run/haproxy-ldap/b.sock", "var/lib/haproxy/stats"];
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
