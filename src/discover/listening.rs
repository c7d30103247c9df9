//! The sockets that a process listens on, as the kernel has them; nobody but root and its own user may see them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::process::read_to;

/// The most of a table of sockets that is read, in bytes.
const TABLE_MAX: usize = 64 << 20;

/// The most file descriptors of a process that are gone through.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// The flag of a Unix socket that listens (`__SO_ACCEPTCON`), and the state of a TCP socket that does (`TCP_LISTEN`).
const ACCEPTS: &[u8] = b"00010000";
const LISTEN: &[u8] = b"0A";

/// Lists the Unix sockets with a path that one of the processes listens on; none where that may not be seen.
pub(super) fn unix_sockets(proc: &Path, pids: &[u32]) -> Option<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for pid in pids {
        let folder = proc.join(pid.to_string());
        let descriptors = descriptors(&folder)?;
        let table = read_to(&folder.join("net/unix"), TABLE_MAX).ok()?;
        for (inode, name) in table.split(|byte| *byte == b'\n').filter_map(unix_row) {
            let path = name.filter(|_| descriptors.contains(inode)).map(without_temporary_name);
            paths.extend(path.filter(|path| path.starts_with(b"/")).map(|path| PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    paths.sort();
    paths.dedup();
    Some(paths)
}

/// Lists all Unix sockets of the process that listens at this one, which is among them; none if that may not be seen, or if
/// another process of this host has that id.
#[must_use]
pub fn sockets_of(pid: u32, at: &Path) -> Vec<PathBuf> {
    let listed = unix_sockets(Path::new("/proc"), &[pid]).unwrap_or_default();
    let paths: Vec<PathBuf> = listed.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let is_among = fs::canonicalize(at).is_ok_and(|at| paths.contains(&at));
    if is_among { paths } else { Vec::new() }
}

/// Tells whether one of the processes listens on anything; nothing where that may not be seen.
pub(super) fn listens(proc: &Path, pids: &[u32]) -> Option<bool> {
    for pid in pids {
        let folder = proc.join(pid.to_string());
        let descriptors = descriptors(&folder)?;
        let table = |name: &str| read_to(&folder.join("net").join(name), TABLE_MAX).unwrap_or_default();
        let unix = table("unix");
        let unix = unix.split(|byte| *byte == b'\n').filter_map(unix_row).map(|(inode, _)| inode);
        let tcp = [table("tcp"), table("tcp6")];
        let tcp = tcp.iter().flat_map(|table| table.split(|byte| *byte == b'\n')).filter_map(tcp_row);
        if unix.chain(tcp).any(|inode| descriptors.contains(inode)) {
            return Some(true);
        }
    }
    Some(false)
}

/// Lists the inodes of the sockets that a process has open.
fn descriptors(folder: &Path) -> Option<HashSet<Vec<u8>>> {
    let entries = fs::read_dir(folder.join("fd")).ok()?.flatten().take(DESCRIPTORS_MAX);
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: PathBuf| {
        let inode = link.as_os_str().as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        Some(inode.to_vec())
    };
    Some(links.filter_map(inode).collect())
}

/// Reads a row of `/proc/net/unix`: the inode of a socket that listens, and its name if it has one.
pub(super) fn unix_row(row: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    // Num RefCount Protocol Flags Type St Inode Path; the path may hold spaces.
    let mut fields = row.splitn(4, |byte| *byte == b' ');
    let (flags, rest) = fields.nth(3).and_then(|rest| rest.split_at_checked(ACCEPTS.len()))?;
    if flags != ACCEPTS {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let mut fields = rest.splitn(3, |byte| *byte == b' ');
    let after_state = fields.nth(2)?.trim_ascii_start();
    let mut fields = after_state.splitn(2, |byte| *byte == b' ');
    Some((fields.next()?, fields.next()))
}

/// Reads a row of `/proc/net/tcp`: the inode of a socket that listens.
pub(super) fn tcp_row(row: &[u8]) -> Option<&[u8]> {
    // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
    let mut fields = row.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    if fields.nth(3)? == LISTEN { fields.nth(5) } else { None }
}

/// Returns the path that HAProxy gives a socket once it is bound.
///
/// It binds `PATH.PID.tmp` and renames that, which the kernel does not notice (`sock_unix_bind_receiver()` of
/// `src/sock_unix.c`).
pub(super) fn without_temporary_name(name: &[u8]) -> &[u8] {
    let Some(rest) = name.strip_suffix(b".tmp") else { return name };
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.split_at_checked(rest.len() - digits) {
        Some((path, digits)) if !digits.is_empty() => path.strip_suffix(b".").unwrap_or(name),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn rows_of_the_kernels_tables_are_read() {
        let row = b"ffff8880: 00000002 00000000 00010000 0001 01 31337 /run/with space/a.sock.12.tmp";
        assert_eq!(unix_row(row), Some((b"31337".as_slice(), Some(b"/run/with space/a.sock.12.tmp".as_slice()))));
        assert_eq!(unix_row(b"ffff8880: 00000002 00000000 00010000 0001 01 31337"), Some((b"31337".as_slice(), None)));
        assert_eq!(unix_row(b"ffff8880: 00000002 00000000 00000000 0001 03 31337 /run/a"), None);
        assert_eq!(unix_row(b"Num       RefCount Protocol Flags    Type St Inode Path"), None);
        let row = b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4242 1 0 100 0";
        assert_eq!(tcp_row(row), Some(b"4242".as_slice()));
        assert_eq!(tcp_row(&row.map(|byte| if byte == b'A' { b'1' } else { byte })), None);
    }

    #[test]
    fn the_final_name_of_a_socket_counts() {
        for (name, expected) in [
            ("/run/a.sock.1234.tmp", "/run/a.sock"),
            ("/run/a.sock", "/run/a.sock"),
            ("/run/a.tmp", "/run/a.tmp"),
            ("/run/a..tmp", "/run/a..tmp"),
            ("/run/12.tmp", "/run/12.tmp"),
        ] {
            assert_eq!(without_temporary_name(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn the_sockets_of_this_very_process_are_found() {
        let place = tempfile::tempdir().unwrap();
        let (proc, pids) = (Path::new("/proc"), [std::process::id()]);
        let path = place.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let _tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(unix_sockets(proc, &pids).unwrap().contains(&path));
        assert_eq!(listens(proc, &pids), Some(true));
        let other = place.path().join("b.sock");
        assert!(sockets_of(pids[0], &path).contains(&path));
        assert_eq!(sockets_of(pids[0], &other), Vec::<PathBuf>::new());
        drop(listener);
        assert!(!unix_sockets(proc, &pids).unwrap().contains(&path));
        assert_eq!(unix_sockets(proc, &[u32::MAX]), None);
        assert_eq!(listens(proc, &[u32::MAX]), None);
        assert_eq!(listens(proc, &[]), Some(false));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (unix_row(&bytes), tcp_row(&bytes), without_temporary_name(&bytes));
        }
    }
}
