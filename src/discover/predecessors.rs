//! Finds the processes that a HAProxy has replaced and that still run, if no master CLI lists them.
//!
//! They are the other workers of its master, the processes that it was started to replace (`-sf`, `-st`), and those
//! that these replaced. Only processes with the same configuration count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::process::{Arguments, Seen, WORDS_MAX, is_called_haproxy, read_to, see};
use crate::haproxy::open::Contact;

/// How many processes to follow back.
const MOST: usize = 64;

/// Returns the ids of the processes that the answering one has replaced and that still run.
#[must_use]
pub fn predecessors(contact: &Contact) -> Vec<u32> {
    let own = contact.process.pid;
    let Some(process) = Running::of(own).filter(|_| is_seen_from_here(own)) else { return Vec::new() };
    let mut masters = vec![own];
    let mut found: BTreeMap<u32, Running> = BTreeMap::new();
    let mut ahead = process.replaced(&mut masters);
    while let Some(pid) = ahead.pop() {
        if found.len() >= MOST || found.contains_key(&pid) || masters.contains(&pid) {
            continue;
        }
        if let Some(older) = Running::of(pid).filter(|older| older.was_before(&process)) {
            ahead.extend(older.replaced(&mut masters));
            found.insert(pid, older);
        }
    }
    found.into_keys().filter(|pid| !masters.contains(pid)).collect()
}

/// Tells whether a process knows itself by the id that it has here; in a container it may have another one.
fn is_seen_from_here(pid: u32) -> bool {
    let status = fs::read_to_string(folder(pid).join("status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().eq([pid.to_string().as_str()])
}

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// A running HAProxy.
struct Running {
    seen: Seen,
    arguments: Arguments,
}

impl Running {
    fn of(pid: u32) -> Option<Self> {
        let folder = folder(pid);
        is_called_haproxy(&folder).ok().filter(|is_it| *is_it)?;
        let arguments = Arguments::parse(&read_to(&folder.join("cmdline"), WORDS_MAX).ok()?)?;
        Some(Self { seen: see(&folder, pid)?, arguments })
    }

    /// Tells whether it serves the same configuration as another one, and started before it.
    fn was_before(&self, other: &Self) -> bool {
        self.arguments.configs == other.arguments.configs
            && self.seen.uid == other.seen.uid
            && self.seen.start <= other.seen.start
    }

    /// Returns the processes that it may have replaced, and notes its master.
    fn replaced(&self, masters: &mut Vec<u32>) -> Vec<u32> {
        let mut pids = self.arguments.old_pids.clone();
        let master = Self::of(self.seen.parent).filter(|master| master.arguments.configs == self.arguments.configs);
        if let Some(master) = master {
            masters.push(master.seen.pid);
            pids.extend(&master.arguments.old_pids);
            pids.extend(children(master.seen.pid));
        }
        pids
    }
}

/// Lists the children of a process, which a HAProxy starts from its first thread.
fn children(pid: u32) -> Vec<u32> {
    let list = folder(pid).join("task").join(pid.to_string()).join("children");
    let list = fs::read_to_string(list).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
