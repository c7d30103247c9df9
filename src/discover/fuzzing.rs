//! What must hold for any configuration and any process: see [`crate::fuzzing`].

#![allow(clippy::unwrap_used, reason = "a property fails by panicking")]

use std::path::Path;

use super::acl::Writers;
use super::budget::FILES_MAX;
use super::config::Reader;
use super::config::lexer::Environment;
use super::listening::{tcp_row, unix_row, without_temporary_name};
use super::mounts::Mounts;
use super::process::{Arguments, MASTER_SOCKETS_MAX, OLD_PIDS_MAX, Seen};
use crate::model::name::Address;
use crate::model::text::is_unsafe;

/// Separates the parts of an input; it is in no UTF-8 text.
const NEXT: u8 = 0xff;

/// Several files of one configuration: what it says can be used.
pub(crate) fn config(bytes: &[u8]) {
    let mut reader = Reader::new(Environment::new(Some(b"PATH=/bin\0A=b\0"))).with_servers();
    bytes.split(|byte| *byte == NEXT).for_each(|file| reader.file(file));
    let settings = reader.finish();
    assert!(settings.sockets.is_sorted_by_key(|declared| declared.is_open));
    for declared in settings.sockets.iter().filter_map(|declared| declared.address.as_deref()) {
        if let Ok(address) = Address::parse(&String::from_utf8_lossy(declared)) {
            assert!(!address.to_string().contains(is_unsafe), "{address}");
        }
    }
    let _ = settings.state_files.loads(Path::new("/nowhere/state"), "app");
    let servers = settings.servers.unwrap();
    assert!(servers.elsewhere("app", "web1", "127.0.0.1:80").is_none_or(|_| !servers.lacks("app", "web1")));
}

/// What the kernel shows of a process, its sockets and its files: little is kept of it.
pub(crate) fn discovery(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == NEXT).collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    if let Some(arguments) = Arguments::parse(part(0)) {
        assert!(!arguments.configs.is_empty() && arguments.configs.len() <= FILES_MAX + 1);
        assert!(arguments.master_sockets.len() <= MASTER_SOCKETS_MAX && arguments.old_pids.len() <= OLD_PIDS_MAX);
    }
    let _ = Seen::parse(1, part(1), part(2));
    let mounts = Mounts::parse(part(3));
    let place = mounts.place(Path::new("/run/haproxy/admin.sock"));
    assert!(place.is_none_or(|(device, _)| !device.contains(&b' ')));
    for row in part(4).split(|byte| *byte == b'\n') {
        if let Some((_, Some(name))) = unix_row(row) {
            assert!(name.starts_with(without_temporary_name(name)));
        }
        assert!(tcp_row(row).is_none_or(|inode| !inode.is_empty()));
    }
    let _ = Writers::parse(part(5));
}
