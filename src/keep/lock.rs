//! One run at a time on a HAProxy process: locks that end with their holder, however it ends.
//!
//! A lock is `flock(2)` on a file of the [folder](super::folder). The kernel releases it when its holder dies, so a
//! leftover file never blocks. The holder writes its process id and what it does into the file, for others who wait. It
//! removes the file while it still holds the lock; whoever then locks the removed file notices that the name leads
//! elsewhere, and starts over. Files that killed runs have left are removed in the same way.

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

/// How the names of the files end.
const SUFFIX: &str = ".lock";

/// How long to wait between two attempts.
const PAUSE: Duration = Duration::from_millis(25);

/// How often a lock file may vanish during locking before something else must be wrong.
const GONE_MAX: u32 = 1000;

/// How much of a note is shown, and how much of a holder's note is read, in bytes.
const NOTE_SHOWN: usize = 150;
const NOTE_MAX: usize = 1000;

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
    pub fn take(folder: &Folder, keys: &[String], note: &str, patience: &Patience<'_>) -> Result<Self, NotTaken> {
        let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        keys.sort_unstable();
        // Two opens of one file exclude each other even within a process.
        keys.dedup();
        let mut set = Self::default();
        for key in keys {
            let held = patience.until(|| try_existing(folder, key).map_err(|why| unavailable(folder, &why)))?;
            held.write(note);
            set.held.push(held);
        }
        Ok(set)
    }
}

/// How long, and with what signals and progress, somebody else's locks are waited for.
pub struct Patience<'a> {
    timeout: Duration,
    deadline: Option<Instant>,
    interrupt: &'a Interrupt,
    on_wait: &'a dyn Fn(&str),
}

impl<'a> Patience<'a> {
    /// Starts a wait.
    #[must_use]
    pub fn new(timeout: Duration, interrupt: &'a Interrupt, on_wait: &'a dyn Fn(&str)) -> Self {
        Self { timeout, deadline: Instant::now().checked_add(timeout), interrupt, on_wait }
    }

    /// Returns a wait that ends after this time at the latest.
    pub(super) fn at_most(&self, time: Duration) -> Self {
        let end = Instant::now() + time;
        Self { deadline: Some(self.deadline.map_or(end, |deadline| deadline.min(end))), ..*self }
    }

    /// Tells whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Tries again and again while somebody else is in the way, at least once; an attempt says who that is.
    ///
    /// # Errors
    /// When the time is over, a signal has arrived, or an attempt fails.
    pub(super) fn until<T>(
        &self,
        mut attempt: impl FnMut() -> Result<Result<T, String>, Unavailable>,
    ) -> Result<T, NotTaken> {
        let mut last = None;
        loop {
            let holder = match attempt().map_err(NotTaken::Unavailable)? {
                Ok(held) => return Ok(held),
                Err(holder) => holder,
            };
            if let Some(interrupted) = self.interrupt.check() {
                return Err(NotTaken::Failed(interrupted));
            }
            if self.is_over() {
                return Err(NotTaken::Failed(too_late(&holder, self.timeout)));
            }
            if last.as_ref() != Some(&holder) {
                (self.on_wait)(&format!("waiting for {holder}"));
                last = Some(holder);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl LockSet {
    /// Takes over the locks of another set.
    pub fn join(&mut self, other: Self) {
        self.held.extend(other.held);
    }
}

/// Removes lock files that killed runs have left, as those of processes that have gone since.
pub fn remove_leftovers(folder: &Folder) {
    for name in folder.old_files() {
        if let Some(key) = name.strip_suffix(SUFFIX) {
            // Whoever holds it still works; the others go when this is dropped.
            let _left = try_lock(folder, key);
        }
    }
}

/// One lock.
#[derive(Debug)]
struct Held {
    folder: Folder,
    name: String,
    file: Flock<File>,
}

/// Tries once, on the file that the name still leads to after it is locked.
fn try_existing(folder: &Folder, key: &str) -> io::Result<Result<Held, String>> {
    for _ in 0..GONE_MAX {
        if let Some(attempt) = try_lock(folder, key)? {
            return Ok(attempt);
        }
    }
    Err(io::Error::other("the lock file keeps vanishing"))
}

/// Tries once; `None` if the file was removed in the meantime, so that another one counts now.
fn try_lock(folder: &Folder, key: &str) -> io::Result<Option<Result<Held, String>>> {
    let name = format!("{key}{SUFFIX}");
    if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(io::Error::other(format!("'{}' is not a valid lock name", excerpt(key.as_bytes(), NOTE_SHOWN))));
    }
    let file = folder.file(&name, OFlag::O_RDWR | OFlag::O_CREAT, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((file, Errno::EWOULDBLOCK)) => return Ok(Some(Err(holder(&file)))),
        Err((_, errno)) => return Err(errno.into()),
    };
    let held = Held { folder: folder.clone(), name, file };
    Ok(held.counts().then_some(Ok(held)))
}

impl Held {
    /// Tells whether the name still leads to the file that is locked.
    fn counts(&self) -> bool {
        is_still_named(&self.folder, &self.file, &self.name)
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

/// Tells whether the name of a file still leads to it.
pub(super) fn is_still_named(folder: &Folder, file: &File, name: &str) -> bool {
    match (fstat(file), folder.stat(name)) {
        (Ok(mine), Ok(named)) => (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino),
        (Err(_), _) | (_, Err(_)) => false,
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
        let never = Interrupt::default();
        LockSet::take(folder, &keys, note, &Patience::new(Duration::from_millis(milliseconds), &never, &|_| {}))
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
        let (started, never) = (Instant::now(), Interrupt::default());
        let on_wait = |text: &str| said.borrow_mut().push(text.to_owned());
        let failed = LockSet::take(&folder, &keys, "", &Patience::new(Duration::from_millis(200), &never, &on_wait));
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
    fn leftovers_go_unless_they_are_held() {
        let (_place, folder) = folder();
        let old = std::time::SystemTime::now() - Duration::from_secs(700);
        let held = take(&folder, &["1"], "", 0).unwrap();
        for name in ["1.lock", "2.lock", "3.lock", "shared-4", "not a key.lock"] {
            let file = File::options().create(true).append(true).open(folder.path().join(name)).unwrap();
            if name != "3.lock" {
                file.set_modified(old).unwrap();
            }
        }
        remove_leftovers(&folder);
        let mut left = files(&folder);
        left.sort();
        let names = ["1.lock", "3.lock", "not a key.lock", "shared-4"];
        assert_eq!(left, names.map(|name| folder.path().join(name)));
        drop(held);
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
