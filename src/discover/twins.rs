//! Recognises two addresses of the same HAProxy: only proof counts, since two containers of one image that start in the
//! same second have the same process id, start and names.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::haproxy::observe::Observation;
use crate::haproxy::open::Contact;
use crate::model::name::Address;

/// Tells whether the same HAProxy has answered at two addresses.
#[must_use]
pub fn is_same_haproxy(one: &Observation, other: &Observation) -> bool {
    one.contact.process.is(&other.contact.process)
        && one.rest.backends == other.rest.backends
        && one.servers.len() == other.servers.len()
        && one.servers.iter().zip(&other.servers).all(|(one, other)| one.identity() == other.identity())
        && is_proven(one, other)
}

fn is_proven(one: &Observation, other: &Observation) -> bool {
    let (first, second) = (&one.contact, &other.contact);
    if first.address == second.address || is_one_socket(&first.address, &second.address) {
        return true;
    }
    // If only one visible HAProxy has this id, it has answered at both.
    match seen_as(first.process.pid).as_slice() {
        [only] => [first, second].iter().all(|contact| is_served_by(contact, *only)),
        _ => false,
    }
}

/// Finds the HAProxy processes that know themselves by a process id, and returns their ids here: each container may
/// have one.
fn seen_as(pid: u32) -> Vec<u32> {
    let calls_itself_so = |folder: &Path| {
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let own: u32 = value("NSpid:")?.rsplit(char::is_whitespace).next()?.parse().ok()?;
        (own == pid && value("Name:")?.starts_with("ha")).then(|| value("Pid:")?.parse().ok()).flatten()
    };
    processes().filter_map(|folder| calls_itself_so(&folder)).collect()
}

/// Tells whether the process that listens at an address can be seen from here, so that no other container has it.
fn is_served_by(contact: &Contact, pid: u32) -> bool {
    match &contact.address {
        Address::Unix(_) | Address::Abstract(_) | Address::AbstractExact(_) => contact.peer.is_some(),
        Address::Tcp(address) => holders(&listening_at(*address)).contains(&pid),
    }
}

/// Tells whether both paths lead to the same socket.
fn is_one_socket(first: &Address, second: &Address) -> bool {
    let inode = |address: &Address| match address {
        Address::Unix(path) => fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino())),
        Address::Abstract(_) | Address::AbstractExact(_) | Address::Tcp(_) => None,
    };
    inode(first).is_some_and(|inode_of_first| inode(second) == Some(inode_of_first))
}

/// Finds the sockets that listen at an address (`/proc/net/tcp`, `tcp6`): at it itself, or at all addresses with its port.
fn listening_at(address: SocketAddr) -> BTreeSet<u64> {
    const LISTEN: &str = "0A";
    let port = format!("{:04X}", address.port());
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let is_it = *state == LISTEN && local.rsplit(':').next() == Some(port.as_str());
        is_it.then(|| inode.parse().ok()).flatten()
    };
    let inodes: BTreeSet<u64> = tables.iter().flat_map(|table| table.lines().skip(1).filter_map(inode)).collect();
    // Two listeners at one port could be two HAProxy processes.
    if inodes.len() == 1 { inodes } else { BTreeSet::new() }
}

/// Finds the processes that hold a socket open.
fn holders(inodes: &BTreeSet<u64>) -> BTreeSet<u32> {
    if inodes.is_empty() {
        return BTreeSet::new();
    }
    let links: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let is_held_by = |folder: &Path| {
        let open = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
        let mut targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| target.to_str().is_some_and(|target| links.contains(target)))
    };
    let pid = |folder: PathBuf| folder.file_name()?.to_str()?.parse().ok();
    processes().filter(|folder| is_held_by(folder)).filter_map(pid).collect()
}

/// Returns the folders of all processes that can be seen.
fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())))
        .map(|entry| entry.path())
}
