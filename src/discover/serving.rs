//! Whether a process that was found is the one that answers at a socket, and whether it still serves.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::listening::listens;
use super::process::{Seen, all, is_there, replaced_by, see};

/// The longest chain of parents that is followed.
const PARENTS_MAX: usize = 8;

/// How many reloads are followed back, and how many processes of each.
const GENERATIONS_MAX: usize = 4;
const PROCESSES_MAX: usize = 8;

/// What becomes of a process that no answer accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// It, or a worker of it, listens.
    Yes,
    /// It has ended, or no longer listens.
    No,
    /// That may not be seen.
    Unknown,
}

/// The HAProxy processes of this host as they are now, for comparison with what answers.
#[derive(Debug)]
pub struct Processes {
    proc: PathBuf,
    seen: OnceCell<Table>,
}

/// The processes by their ids; there may be very many, of anybody.
#[derive(Debug, Default)]
struct Table {
    by_pid: HashMap<u32, Seen>,
    /// The same by the ids that they have for themselves.
    by_own_pid: HashMap<u32, Vec<u32>>,
}

impl Processes {
    /// Looks at them when asked.
    #[must_use]
    pub fn now() -> Self {
        Self::of(Path::new("/proc"))
    }

    fn of(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), seen: OnceCell::new() }
    }

    /// Tells whether the process that answers at a socket, by the `Pid` of its `show info`, is the one whose
    /// configuration has that socket.
    ///
    /// It is where it is that process, a worker of it, one that was started to replace it, or, in the middle of a reload,
    /// one that it replaces. HAProxy says the process id of its own namespace, which is the last one of `NSpid` (proc(5)).
    #[must_use]
    pub fn are_one(&self, found: u32, answered: u32) -> bool {
        let see = |pid: u32| see(&self.proc.join(pid.to_string()), pid);
        let Some(process) = see(found) else { return found == answered };
        if process.own_pid.pid == answered {
            return true;
        }
        // Most are a worker and its master.
        if see(answered).is_some_and(|one| one.own_pid.is_ours() && one.parent == found) {
            return true;
        }
        let called = self.seen().by_own_pid.get(&answered).into_iter().flatten();
        let mut called = called.filter_map(|pid| self.get(*pid));
        called.any(|one| self.descends(one, found) || self.is_successor(one.pid, process.own_pid.pid))
            || self.is_successor(found, answered)
    }

    /// Tells whether a process that answers at the socket of another instance is the one that was found.
    ///
    /// Where processes have a namespace of their own, as in containers, two of them can have one process id.
    #[must_use]
    pub fn is_accounted_for(&self, found: u32, answered: u32) -> bool {
        let process = see(&self.proc.join(found.to_string()), found);
        process.is_some_and(|process| process.own_pid.is_ours()) && self.are_one(found, answered)
    }

    /// Tells whether the process runs.
    #[must_use]
    pub fn is_there(&self, pid: u32) -> bool {
        is_there(&self.proc, pid)
    }

    /// Tells whether a process that was found still serves.
    #[must_use]
    pub fn serving(&self, found: u32) -> Serving {
        if !self.is_there(found) {
            return Serving::No;
        }
        let family = self.seen().by_pid.values().filter(|one| self.descends(one, found)).map(|one| one.pid);
        match listens(&self.proc, &family.collect::<Vec<u32>>()) {
            Some(true) => Serving::Yes,
            Some(false) => Serving::No,
            None => Serving::Unknown,
        }
    }

    fn seen(&self) -> &Table {
        self.seen.get_or_init(|| {
            let mut table = Table::default();
            for one in all(&self.proc) {
                table.by_own_pid.entry(one.own_pid.pid).or_default().push(one.pid);
                table.by_pid.insert(one.pid, one);
            }
            table
        })
    }

    fn get(&self, pid: u32) -> Option<&Seen> {
        self.seen().by_pid.get(&pid)
    }

    /// Tells whether a process was started to replace another one, or one that replaced that.
    fn is_successor(&self, pid: u32, old: u32) -> bool {
        let mut generation = vec![pid];
        for _ in 0..GENERATIONS_MAX {
            let replaced: Vec<u32> = generation.iter().flat_map(|pid| replaced_by(&self.proc, *pid)).collect();
            if replaced.contains(&old) {
                return true;
            }
            let here = replaced.iter().filter_map(|pid| self.seen().by_own_pid.get(pid)).flatten();
            generation = here.copied().take(PROCESSES_MAX).collect();
        }
        false
    }

    /// Tells whether a process is the other one or a worker of it.
    fn descends(&self, one: &Seen, ancestor: u32) -> bool {
        let chain = std::iter::successors(Some(one), |one| self.get(one.parent));
        chain.take(PARENTS_MAX).any(|one| one.pid == ancestor)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;

    /// A `/proc` with processes called haproxy: process id, parent, `NSpid`, arguments.
    pub(in crate::discover) fn host(processes: &[(u32, u32, &str, &str)]) -> (tempfile::TempDir, Processes) {
        let folder = tempfile::tempdir().unwrap();
        for (pid, parent, own, line) in processes {
            let folder = folder.path().join(pid.to_string());
            fs::create_dir_all(folder.join("fd")).unwrap();
            fs::create_dir_all(folder.join("net")).unwrap();
            fs::write(folder.join("comm"), "haproxy\n").unwrap();
            fs::write(folder.join("cmdline"), format!("haproxy {line} ").replace(' ', "\0")).unwrap();
            fs::write(folder.join("status"), format!("PPid:\t{parent}\nUid:\t0\nNSpid:\t{own}\n")).unwrap();
            fs::write(folder.join("stat"), format!("{pid} (haproxy) S {}{pid} 0\n", "0 ".repeat(18))).unwrap();
        }
        let processes = Processes::of(folder.path());
        (folder, processes)
    }

    pub(in crate::discover) fn listen(place: &tempfile::TempDir, pid: u32) {
        let folder = place.path().join(pid.to_string());
        std::os::unix::fs::symlink(format!("socket:[{pid}]"), folder.join("fd/3")).unwrap();
        fs::write(folder.join("net/unix"), format!("0: 00000002 00000000 00010000 0001 01 {pid} /a\n")).unwrap();
    }

    #[test]
    fn a_master_its_workers_and_its_successors_are_one() {
        let (_place, processes) = host(&[
            (10, 1, "10", "-W -f a"),
            (11, 10, "11", "-W -f a"),
            (12, 11, "12", "-W -f a"),
            (20, 1, "20", "-D -f a"),
            (21, 1, "21", "-D -f a -sf 20"),
            (22, 1, "22", "-D -f a -sf 21"),
            (23, 1, "23", "-D -f a -sf 22"),
            (30, 1, "30", "-D -f b"),
        ]);
        for (found, answered, expected) in [
            (10, 10, true),
            (10, 11, true),
            (10, 12, true),
            (10, 20, false),
            (11, 10, false),
            (20, 20, true),
            (20, 21, true),
            (21, 20, true),
            (20, 23, true),
            (23, 20, true),
            (30, 23, false),
            (99, 99, true),
            (99, 10, false),
        ] {
            assert_eq!(processes.are_one(found, answered), expected, "{found} {answered}");
        }
        assert!(processes.is_accounted_for(10, 11));
    }

    #[test]
    fn containers_have_process_ids_of_their_own() {
        let (_place, processes) = host(&[
            (1010, 1, "1010 7", "-W -f a"),
            (1011, 1010, "1011 8", "-W -f a"),
            (2010, 1, "2010 7", "-W -f a"),
            (8, 1, "8", "-D -f b"),
        ]);
        assert!(processes.are_one(1010, 8) && processes.are_one(1010, 7));
        assert!(!processes.are_one(1010, 1011));
        assert!(!processes.is_accounted_for(1010, 8) && !processes.is_accounted_for(2010, 7));
        assert!(processes.is_accounted_for(8, 8));
    }

    #[test]
    fn a_process_serves_while_it_or_a_worker_listens() {
        let (place, processes) =
            host(&[(10, 1, "10", "-W -f a"), (11, 10, "11", "-W -f a"), (20, 1, "20", "-f a"), (30, 1, "30", "-f a")]);
        listen(&place, 11);
        assert_eq!(processes.serving(10), Serving::Yes);
        assert_eq!(processes.serving(20), Serving::No);
        assert_eq!(processes.serving(99), Serving::No);
        fs::remove_dir(place.path().join("30/fd")).unwrap();
        assert_eq!(processes.serving(30), Serving::Unknown);
    }
}
