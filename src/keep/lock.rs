//! One run at a time on a HAProxy process: locks that end with their holder, however it ends.
//!
//! A lock is `flock(2)` on a file of the [folder](super::folder). The kernel releases it when its holder dies, so a
//! leftover file never blocks. The holder writes its process id and what it does into the file, for others who wait. It
//! removes the file while it still holds the lock; whoever then locks the removed file notices that the name leads
//! elsewhere, and starts over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::folder::{Folder, Unavailable};
use crate::model::error::{Error, ErrorKind};
use crate::model::text::excerpt;
use crate::time::interrupt::Interrupt;

/// How long to wait between two attempts.
const PAUSE: Duration = Duration::from_millis(25);

/// How often a lock file may vanish during locking before something else must be wrong.
const GONE_MAX: u32 = 1000;

/// How much of a note is shown, and how much of a holder's note is read, in bytes.
const NOTE_SHOWN: usize = 150;
const NOTE_MAX: usize = 1000;

/// What to lock, and why.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The keys of the processes, in any order ([`Process::key`](crate::model::server::Process::key)).
    pub keys: &'a [String],
    /// What this run is about to do, for others who wait, such as `web1 to maint`.
    pub note: &'a str,
    /// The longest wait for all of them together.
    pub timeout: Duration,
}

/// Why the locks were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// Another run holds one ([`ErrorKind::Locked`]), or a signal ended the wait: the run cannot go on.
    Failed(Error),
    /// Locks cannot be taken here at all, whoever else runs.
    Unavailable(Unavailable),
}

/// Locks that are held until this is dropped.
#[derive(Debug, Default)]
pub struct LockSet {
    held: Vec<Held>,
}

impl LockSet {
    /// Takes a lock for each key, and reports each holder that it waits for through `on_wait`, once.
    ///
    /// All runs take the keys in the same order, so that no two wait for each other. Every key is tried at least once,
    /// even without any time.
    ///
    /// # Errors
    /// When the time is up, a signal has arrived, or a lock file cannot be opened; then none is held.
    pub fn take(
        folder: &Folder,
        ask: &Ask<'_>,
        interrupt: &Interrupt,
        on_wait: &dyn Fn(&str),
    ) -> Result<Self, NotTaken> {
        let deadline = Instant::now().checked_add(ask.timeout);
        let mut keys: Vec<&str> = ask.keys.iter().map(String::as_str).collect();
        keys.sort_unstable();
        // Two opens of one file exclude each other even within a process.
        keys.dedup();
        let mut set = Self::default();
        for key in keys {
            let mut last = None;
            let held = loop {
                let attempt =
                    try_existing(folder, key).map_err(|why| NotTaken::Unavailable(unavailable(folder, &why)))?;
                let holder = match attempt {
                    Attempt::Held(held) => break held,
                    Attempt::HeldBy(holder) => holder,
                };
                if let Some(interrupted) = interrupt.check() {
                    return Err(NotTaken::Failed(interrupted));
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Err(NotTaken::Failed(too_late(&holder, ask.timeout)));
                }
                if last.as_ref() != Some(&holder) {
                    on_wait(&format!("waiting for {holder}"));
                    last = Some(holder);
                }
                std::thread::sleep(PAUSE);
            };
            held.write(ask.note);
            set.held.push(held);
        }
        Ok(set)
    }
}

impl LockSet {
    /// Takes over the locks of another set.
    pub fn join(&mut self, other: Self) {
        self.held.extend(other.held);
    }
}

/// One lock.
#[derive(Debug)]
struct Held {
    folder: Folder,
    name: String,
    file: Flock<File>,
}

/// The result of one attempt.
enum Attempt {
    Held(Held),
    /// Somebody else has it, as a phrase.
    HeldBy(String),
}

/// Tries once, on the file that the name still leads to after it is locked.
fn try_existing(folder: &Folder, key: &str) -> io::Result<Attempt> {
    for _ in 0..GONE_MAX {
        if let Some(attempt) = try_lock(folder, key)? {
            return Ok(attempt);
        }
    }
    Err(io::Error::other("the lock file keeps vanishing"))
}

/// Tries once; `None` if the file was removed in the meantime, so that another one counts now.
fn try_lock(folder: &Folder, key: &str) -> io::Result<Option<Attempt>> {
    let name = format!("{key}.lock");
    if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(io::Error::other(format!("'{}' is not a valid lock name", excerpt(key.as_bytes(), NOTE_SHOWN))));
    }
    let file = folder.file(&name, OFlag::O_RDWR | OFlag::O_CREAT, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((file, Errno::EWOULDBLOCK)) => return Ok(Some(Attempt::HeldBy(holder(&file)))),
        Err((_, errno)) => return Err(errno.into()),
    };
    let held = Held { folder: folder.clone(), name, file };
    Ok(held.counts().then_some(Attempt::Held(held)))
}

impl Held {
    /// Tells whether the name still leads to the file that is locked.
    fn counts(&self) -> bool {
        match (fstat(&*self.file), self.folder.stat(&self.name)) {
            (Ok(mine), Ok(named)) => (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Writes into the file who holds it. Only people read that, so a full disk does not matter.
    fn write(&self, note: &str) {
        let text = format!("{} {}", std::process::id(), excerpt(note.as_bytes(), NOTE_SHOWN));
        let _ = self.file.write_all_at(text.as_bytes(), 0);
        let _ = self.file.set_len(u64::try_from(text.len()).unwrap_or(0));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.counts() {
            let _ = unlinkat(&self.folder, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Reads from a lock file who holds it.
fn holder(file: &File) -> String {
    let mut buffer = [0; NOTE_MAX];
    let length = file.read_at(&mut buffer, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    match text.split_once(' ') {
        Some((pid, note)) if pid.parse::<u32>().is_ok() => {
            let note: String = note.chars().filter(|sign| !sign.is_control()).collect();
            format!("process {pid} ({note})")
        }
        _ => "another run".to_owned(),
    }
}

fn too_late(holder: &str, timeout: Duration) -> Error {
    Error::new(
        ErrorKind::Locked,
        format!(
            "{holder} is working on the same HAProxy and did not finish within {} s; run this again when it has finished, or raise \
             'lock_timeout'",
            timeout.as_secs_f64()
        ),
    )
}

fn unavailable(folder: &Folder, why: &io::Error) -> Unavailable {
    Unavailable(format!("cannot take a lock in {} ({why})", folder.path().display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::{Process, Start};
    use nix::unistd::geteuid;
    use std::cell::RefCell;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    const CHILD: &str = "HAPROXY_SERVER_TEST_LOCK";

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("kept"), geteuid()).unwrap();
        (place, folder)
    }

    fn take(folder: &Folder, keys: &[&str], note: &str, milliseconds: u64) -> Result<LockSet, NotTaken> {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let ask = Ask { keys: &keys, note, timeout: Duration::from_millis(milliseconds) };
        LockSet::take(folder, &ask, &Interrupt::default(), &|_| {})
    }

    fn files(folder: &Folder) -> Vec<PathBuf> {
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn one_holds_it_and_the_other_is_told_who() {
        let (_place, folder) = folder();
        let first = take(&folder, &["1-2"], "web1 to maint", 0).unwrap();
        let said = RefCell::new(Vec::new());
        let keys = ["1-2".to_owned()];
        let ask = Ask { keys: &keys, note: "", timeout: Duration::from_millis(200) };
        let started = Instant::now();
        let failed =
            LockSet::take(&folder, &ask, &Interrupt::default(), &|text| said.borrow_mut().push(text.to_owned()));
        assert!(started.elapsed() >= Duration::from_millis(200));
        let holder = format!("process {} (web1 to maint)", std::process::id());
        assert_eq!(said.into_inner(), [format!("waiting for {holder}")]);
        let Err(NotTaken::Failed(error)) = failed else { panic!("{failed:?}") };
        assert_eq!(error.kind, ErrorKind::Locked);
        assert!(error.msg.starts_with(&holder) && error.msg.contains("within 0.2 s"), "{error}");
        assert!(take(&folder, &["1-3"], "", 0).is_ok());
        drop(first);
        assert!(take(&folder, &["1-2"], "", 0).is_ok());
        assert_eq!(files(&folder), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_exact_start_is_part_of_the_key() {
        let process = |start| Process::new("3.2.4", 812, start, (1_700_000_100, Instant::now()));
        assert_eq!(process(Start::At(1_700_000_000)).key(), "812-1700000000");
        assert_eq!(process(Start::Ago(60)).key(), "812");
    }

    #[test]
    fn only_the_caller_can_open_a_lock() {
        let (_place, folder) = folder();
        let _held = take(&folder, &["1"], "", 0).unwrap();
        assert_eq!(std::fs::metadata(folder.path().join("1.lock")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_had_whole_is_not_had_at_all() {
        let (_place, folder) = folder();
        let second = take(&folder, &["2"], "", 0).unwrap();
        assert!(take(&folder, &["2", "1", "3", "1"], "", 60).is_err());
        assert!(take(&folder, &["1"], "", 0).is_ok());
        drop(second);
        assert!(take(&folder, &["2", "1", "3", "1"], "", 0).is_ok());
    }

    #[test]
    fn bad_keys_and_lost_folders_are_no_deadlock() {
        let (_place, folder) = folder();
        assert!(matches!(take(&folder, &["../x"], "", 0), Err(NotTaken::Unavailable(_))));
        std::fs::remove_dir(folder.path()).unwrap();
        assert!(matches!(take(&folder, &["1"], "", 0), Err(NotTaken::Unavailable(_))));
    }

    #[test]
    fn many_threads_take_turns_whatever_their_order() {
        let (_place, folder) = folder();
        let (inside, turns) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (folder, inside, turns) = (&folder, &inside, &turns);
                scope.spawn(move || {
                    let keys = if number % 2 == 0 { ["7", "8"] } else { ["8", "7"] };
                    for _ in 0..20 {
                        let held = take(folder, &keys, "turn", 60_000).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        turns.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), 160);
        assert_eq!(files(&folder), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_killed_process_leaves_nothing_that_blocks() {
        let (_place, folder) = folder();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keep::lock::tests::holds_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        assert!(out.lines().map_while(Result::ok).any(|line| line.contains("held")));
        let Err(NotTaken::Failed(error)) = take(&folder, &["1"], "", 50) else { panic!() };
        assert!(error.msg.contains(&format!("process {} (a child)", child.id())), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(files(&folder), [folder.path().join("1.lock")]);
        drop(take(&folder, &["1"], "", 0).unwrap());
        assert_eq!(files(&folder), Vec::<PathBuf>::new());
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn holds_until_it_is_killed() {
        let Some(path) = std::env::var_os(CHILD) else { return };
        let folder = Folder::open(Path::new(&path), geteuid()).unwrap();
        let _held = take(&folder, &["1"], "a child", 0).unwrap();
        println!("held");
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_file_that_was_removed_under_its_holder_is_not_mistaken() {
        let (_place, folder) = folder();
        let first = take(&folder, &["1"], "", 0).unwrap();
        std::fs::remove_file(folder.path().join("1.lock")).unwrap();
        let _second = take(&folder, &["1"], "", 0).unwrap();
        drop(first);
        assert_eq!(files(&folder), [folder.path().join("1.lock")]);
        assert!(take(&folder, &["1"], "", 0).is_err());
    }
}
