//! The HAProxy processes of this host, as shown in `/proc`, and what their command lines say.
//!
//! The command line is read as `haproxy_init_args()` of HAProxy's `src/haproxy.c` reads it (2.2 to 3.5 agree): an
//! option is known by its first letter or two, whatever follows them, and its operand is always the next word.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::budget::{Budget, FILES_MAX, OF_ACCOUNT_MAX, Spent, Unexamined};

/// The names of the command, as the kernel has them: HAProxy's own, and that of its Enterprise packages.
const COMMANDS: [&[u8]; 2] = [b"haproxy", b"hapee-lb"];

/// The longest of them with the end of its line, in bytes.
const COMMAND_MAX: usize = 9;

/// The longest command line or environment that is read, in bytes; the kernel allows 6 MiB.
pub(super) const WORDS_MAX: usize = 256 << 10;

/// The longest other file of `/proc` that is read, in bytes.
const PROC_FILE_MAX: usize = 4 << 20;

/// The most `-S` options and the most processes of a `-sf` to keep from a command line.
pub(super) const MASTER_SOCKETS_MAX: usize = 16;
pub(super) const OLD_PIDS_MAX: usize = 1024;

/// One HAProxy process that is not a worker of another.
#[derive(Debug)]
pub(super) struct Process {
    /// The process id.
    pub(super) pid: u32,
    /// The real user id: a set-user-id program counts as its starter's.
    pub(super) uid: u32,
    /// When it was started, in clock ticks since boot.
    pub(super) start: u64,
    /// What its command line says.
    pub(super) arguments: Arguments,
    /// Its workers.
    pub(super) workers: Vec<Seen>,
    /// The process id in its own namespace, and how deep that is.
    own_pid: OwnPid,
}

impl Process {
    /// Lists the process and its workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        std::iter::once(self.pid).chain(self.workers.iter().map(|worker| worker.pid)).collect()
    }

    /// Returns when the newest of the process and its workers was started, which is when the configuration was read.
    pub(super) fn last_start(&self) -> u64 {
        self.workers.iter().map(|worker| worker.start).fold(self.start, u64::max)
    }
}

/// The process id that a process has for itself, and how many namespaces that is below this one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnPid {
    /// The process id.
    pub(super) pid: u32,
    /// 1 in the namespace of this program.
    depth: usize,
}

impl OwnPid {
    /// Tells whether it is the process id that this program sees.
    pub(super) fn is_ours(&self) -> bool {
        self.depth == 1
    }
}

/// What a command line of HAProxy says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// The configuration files and folders (`-f`, and all that follows `--`).
    pub(super) configs: Vec<PathBuf>,
    /// The folder that it changes to before it reads them (`-C`).
    pub(super) change_dir: Option<PathBuf>,
    /// The master CLI's addresses with their options (`-S`).
    pub(super) master_sockets: Vec<Vec<u8>>,
    /// The name of the local peer (`-L`).
    pub(super) local_peer: Option<Vec<u8>>,
    /// The processes that it was started to replace (`-sf`, `-st`).
    pub(super) old_pids: Vec<u32>,
}

impl Arguments {
    /// Reads the words of a command line; `None` if this HAProxy does not serve, as with `haproxy -c`.
    pub(super) fn parse(cmdline: &[u8]) -> Option<Self> {
        let mut read = Self::default();
        let mut words = cmdline.strip_suffix(&[0]).unwrap_or(cmdline).split(|byte| *byte == 0).skip(1).peekable();
        while let Some(word) = words.next() {
            match word.strip_prefix(b"-")? {
                // They show something and end: -v -vv -vq…, -c, -cc, and the dumps -dC… and -dK….
                [b'v' | b'c', ..] | [b'd', b'C' | b'K', ..] => return None,
                b"dt" => drop(words.next_if(|next| !next.starts_with(b"-"))),
                [b'd' | b'V' | b'D' | b'W' | b'q' | b'4', ..] => {}
                [b'x', ..] => drop(words.next()?),
                [b'S', ..] => {
                    let address = words.next()?;
                    if read.master_sockets.len() < MASTER_SOCKETS_MAX {
                        read.master_sockets.push(address.to_vec());
                    }
                }
                [b's', b'f' | b't', ..] => {
                    while let Some(pid) = words.next_if(|next| !next.starts_with(b"-")) {
                        read.old_pids.extend(number::<u32>(pid).filter(|_| read.old_pids.len() < OLD_PIDS_MAX));
                    }
                }
                // One more than the limit shows that there are too many.
                b"-" => {
                    let room = (FILES_MAX + 1).saturating_sub(read.configs.len());
                    read.configs.extend(words.by_ref().map(path).take(room));
                    break;
                }
                [b'C', ..] => read.change_dir = Some(path(words.next()?)),
                [b'f', ..] => {
                    let config = words.next()?;
                    if read.configs.len() <= FILES_MAX {
                        read.configs.push(path(config));
                    }
                }
                [b'L', ..] => read.local_peer = Some(words.next()?.to_vec()),
                [b'n' | b'm' | b'N' | b'p', ..] => drop(words.next()?),
                _ => return None,
            }
        }
        // HAProxy puts each -S before the last one.
        read.master_sockets.reverse();
        if read.configs.is_empty() { None } else { Some(read) }
    }
}

/// What was found in `/proc`.
#[derive(Debug)]
pub(super) struct Survey {
    /// The processes: those of root, the caller and HAProxy's own account first, of each account the newest first.
    pub(super) processes: Vec<Process>,
    /// Whether `/proc` hides processes of other users from this one (its mount option `hidepid`).
    pub(super) hidden: bool,
    /// What was not examined.
    pub(super) unexamined: Unexamined,
}

/// How much the account of a process counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Root or the caller.
    Own,
    /// The account that HAProxy runs as on this host.
    OfHaproxy,
    /// Anybody else, who needs a configuration of the former to vouch for them.
    Stranger,
}

/// What the kernel says about a process called haproxy; none of it is the process's own claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The process id.
    pub(super) pid: u32,
    /// The same as the process itself has it.
    pub(super) own_pid: OwnPid,
    /// The process id of the parent.
    pub(super) parent: u32,
    /// The real user id.
    pub(super) uid: u32,
    /// When it was started, in clock ticks since boot.
    pub(super) start: u64,
}

/// Finds the HAProxy processes that are neither workers of another nor about to end.
///
/// A master's worker has the same command line as its master. A process that a younger one was started to replace
/// (`-sf`) no longer listens, so it would be reported as unreachable until its last session ends.
pub(super) fn survey(proc: &Path, standing: impl Fn(u32) -> Standing, budget: &Budget<'_>) -> Survey {
    let mut hidden = fs::symlink_metadata(proc.join("1")).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let mut unexamined = Unexamined::default();
    let mut seen = Vec::new();
    for pid in pids(proc) {
        if let Err(spent) = budget.time() {
            unexamined.stop(spent);
            break;
        }
        let folder = proc.join(pid.to_string());
        match is_called_haproxy(&folder) {
            Ok(true) => seen.extend(see(&folder, pid)),
            Ok(false) => {}
            Err(error) => hidden |= error.kind() == ErrorKind::PermissionDenied,
        }
    }
    // Masters before their workers; among strangers, system accounts before those of people.
    seen.sort_by_key(|one| (standing(one.uid), one.uid, one.start, one.pid));
    let mut found: Vec<Process> = Vec::new();
    let mut of_account = HashMap::new();
    for one in seen {
        if let Some(master) = found.iter_mut().find(|other| is_worker_of(&one, other)) {
            master.workers.push(one);
            continue;
        }
        let count: &mut usize = of_account.entry(one.uid).or_default();
        *count += 1;
        let is_bounded = standing(one.uid) != Standing::Own;
        let process = match budget.time() {
            Ok(()) if is_bounded && *count > OF_ACCOUNT_MAX => Err(Spent::Account(one.uid)),
            Ok(()) => read_process(proc, one, budget),
            Err(spent) => Err(spent),
        };
        match process {
            Ok(process) => found.extend(process),
            Err(spent) => unexamined.process(one.pid, spent),
        }
    }
    let is_kept = |one: &Process| !found.iter().any(|other| is_replaced_by(one, other));
    let kept: Vec<bool> = found.iter().map(is_kept).collect();
    let mut processes: Vec<Process> =
        found.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(one, _)| one).collect();
    processes.sort_by_key(|one| (standing(one.uid), one.uid, std::cmp::Reverse((one.start, one.pid))));
    Survey { processes, hidden, unexamined }
}

/// Tells whether the process is still there; one that has ended and waits for its parent has no command line.
pub(super) fn is_there(proc: &Path, pid: u32) -> bool {
    read(&proc.join(pid.to_string()).join("cmdline")).is_ok_and(|cmdline| !cmdline.is_empty())
}

/// Reads one file of `/proc`, whole but bounded.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_to(path, PROC_FILE_MAX)
}

/// Reads no more than the first `max` bytes of a file of `/proc`.
pub(super) fn read_to(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(4096);
    File::open(path)?.take(u64::try_from(max).unwrap_or(u64::MAX)).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads the name of the command, in one call: this is done for every process of the host.
pub(super) fn is_called_haproxy(folder: &Path) -> io::Result<bool> {
    let mut name = [0; COMMAND_MAX];
    let length = File::open(folder.join("comm"))?.read(&mut name)?;
    let name = name.get(..length).and_then(|name| name.strip_suffix(b"\n"));
    Ok(name.is_some_and(|name| COMMANDS.contains(&name)))
}

/// Lists the process ids.
fn pids(proc: &Path) -> impl Iterator<Item = u32> {
    let names = fs::read_dir(proc).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Reads what the kernel says about a process; `None` if it ends meanwhile.
pub(super) fn see(folder: &Path, pid: u32) -> Option<Seen> {
    let status = read(&folder.join("status")).ok()?;
    Seen::parse(pid, &status, &read(&folder.join("stat")).ok()?)
}

impl Seen {
    /// Reads `/proc/PID/status` and `/proc/PID/stat`.
    pub(super) fn parse(pid: u32, status: &[u8], stat: &[u8]) -> Option<Self> {
        // The name in parentheses may contain anything, even parentheses; numbers follow the last one (proc(5)).
        let after_name = stat.rsplit(|byte| *byte == b')').next()?;
        let start = number(after_name.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(19)?)?;
        // The last number is the innermost namespace's; a kernel without namespaces has none.
        let own: Vec<u32> = fields(status, b"NSpid:").filter_map(number).collect();
        let own_pid = OwnPid { pid: own.last().copied().unwrap_or(pid), depth: own.len().max(1) };
        Some(Self { pid, own_pid, parent: field(status, b"PPid:")?, uid: field(status, b"Uid:")?, start })
    }
}

/// Reads the command line of a process; `None` if it ends meanwhile, or is something else called haproxy, such as a
/// shell script.
fn read_process(proc: &Path, seen: Seen, budget: &Budget<'_>) -> Result<Option<Process>, Spent> {
    let Seen { pid, own_pid, parent: _, uid, start } = seen;
    let Ok(cmdline) = read_to(&proc.join(pid.to_string()).join("cmdline"), WORDS_MAX) else { return Ok(None) };
    budget.command_line(cmdline.len())?;
    let Some(arguments) = Arguments::parse(&cmdline) else { return Ok(None) };
    if cmdline.len() == WORDS_MAX {
        return Err(Spent::CommandLine);
    }
    budget.named(arguments.configs.len())?;
    Ok(Some(Process { pid, uid, start, arguments, workers: Vec::new(), own_pid }))
}

/// Lists every process of the host that is called haproxy, and that may be seen.
pub(super) fn all(proc: &Path) -> Vec<Seen> {
    let folders = pids(proc).map(|pid| (pid, proc.join(pid.to_string())));
    let called = folders.filter(|(_, folder)| is_called_haproxy(folder).is_ok_and(|is_called| is_called));
    called.filter_map(|(pid, folder)| see(&folder, pid)).collect()
}

/// Reads the numbers of a line of `/proc/PID/status`.
fn fields<'a>(status: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Reads the first of them.
fn field(status: &[u8], name: &[u8]) -> Option<u32> {
    number(fields(status, name).next()?)
}

/// Tells whether the other process is the master of this one.
fn is_worker_of(one: &Seen, other: &Process) -> bool {
    one.parent == other.pid && one.pid != other.pid && (other.uid == 0 || other.uid == one.uid)
}

/// Tells whether the other process was started to replace this one; a process id that was used again does not count,
/// nor does one of another namespace.
fn is_replaced_by(one: &Process, other: &Process) -> bool {
    other.arguments.old_pids.contains(&one.own_pid.pid)
        && other.own_pid.depth == one.own_pid.depth
        && other.start > one.start
        && (other.uid == 0 || other.uid == one.uid)
}

/// Lists the processes that a process was started to replace, by the ids that they have in its namespace.
pub(super) fn replaced_by(proc: &Path, pid: u32) -> Vec<u32> {
    let cmdline = read_to(&proc.join(pid.to_string()).join("cmdline"), WORDS_MAX).ok();
    cmdline.and_then(|cmdline| Arguments::parse(&cmdline)).map(|arguments| arguments.old_pids).unwrap_or_default()
}

fn number<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    std::str::from_utf8(word).ok()?.trim().parse().ok()
}

fn path(word: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(word.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::interrupt::PATIENT;
    use proptest::prelude::*;

    fn parse(line: &str) -> Option<Arguments> {
        Arguments::parse(format!("/usr/sbin/haproxy {line} ").replace(' ', "\0").as_bytes())
    }

    fn configs(line: &str) -> Vec<String> {
        parse(line).map(|read| read.configs.iter().map(|path| path.display().to_string()).collect()).unwrap_or_default()
    }

    #[test]
    fn the_command_line_is_read_as_haproxy_reads_it() {
        let table: [(&str, &[&str]); 16] = [
            ("-f a.cfg", &["a.cfg"]),
            ("-f a.cfg -f b.cfg -D", &["a.cfg", "b.cfg"]),
            (
                "-Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock",
                &["/etc/haproxy/haproxy.cfg"],
            ),
            ("-sf 12 13 -x sockpair@3 -Ws -f a.cfg", &["a.cfg"]),
            ("-Ws -st 1 2 3 -f a.cfg", &["a.cfg"]),
            ("-f a.cfg -- b.cfg -c -x", &["a.cfg", "b.cfg", "-c", "-x"]),
            // Text attached to -f is not its file: HAProxy takes the next word.
            ("-fa.cfg b.cfg", &["b.cfg"]),
            ("-f -D", &["-D"]),
            ("-dt h1:+all -f a.cfg", &["a.cfg"]),
            ("-dt -f a.cfg", &["a.cfg"]),
            ("-dMfail -dr -V -q -4 -W -db -n 5 -N 6 -m 7 -L peer -f a.cfg", &["a.cfg"]),
            ("-c -f a.cfg", &[]),
            ("-vv -f a.cfg", &[]),
            ("-f", &[]),
            ("a.cfg", &[]),
            ("-z 1 -f a.cfg", &[]),
        ];
        for (line, expected) in table {
            assert_eq!(configs(line), expected, "{line}");
        }
    }

    #[test]
    fn operands_are_kept_where_they_matter() {
        let read = parse("-W -S /a,level,user -S /b -C /srv -L me -sf 5 6 -f x").unwrap();
        assert_eq!(read.master_sockets, [b"/b".to_vec(), b"/a,level,user".to_vec()]);
        assert_eq!(read.change_dir, Some(PathBuf::from("/srv")));
        assert_eq!(read.local_peer, Some(b"me".to_vec()));
        assert_eq!(read.old_pids, [5, 6]);
    }

    struct Fake {
        proc: tempfile::TempDir,
    }

    impl Fake {
        fn new() -> Self {
            let proc = tempfile::tempdir().unwrap();
            fs::create_dir(proc.path().join("1")).unwrap();
            fs::write(proc.path().join("1/comm"), "init\n").unwrap();
            Self { proc }
        }

        fn add(&self, pid: u32, parent: u32, start: u64, comm: &str, line: &str) {
            self.add_of(7, pid, parent, start, comm, line);
        }

        fn add_of(&self, uid: u32, pid: u32, parent: u32, start: u64, comm: &str, line: &str) {
            let folder = self.proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(folder.join("cmdline"), format!("{line} ").replace(' ', "\0")).unwrap();
            fs::write(folder.join("status"), format!("Name:\t{comm}\nPPid:\t{parent}\nUid:\t{uid}\t8\t8\t8\n"))
                .unwrap();
            let fields = (4..22).map(|_| "0").collect::<Vec<_>>().join(" ");
            fs::write(folder.join("stat"), format!("{pid} (a) b) S {fields} {start} 9 9\n")).unwrap();
        }

        fn survey(&self) -> Survey {
            let standing = |uid| if uid == 0 || uid == 7 { Standing::Own } else { Standing::Stranger };
            survey(self.proc.path(), standing, &Budget::new(&PATIENT))
        }

        fn pids(&self) -> Vec<u32> {
            self.survey().processes.iter().map(|one| one.pid).collect()
        }
    }

    #[test]
    fn workers_replaced_processes_and_namesakes_are_left_out() {
        let fake = Fake::new();
        fake.add(10, 1, 5, "haproxy", "haproxy -W -f a.cfg");
        fake.add(11, 10, 6, "haproxy", "haproxy -sf 9 -W -f a.cfg");
        fake.add(20, 1, 7, "nginx", "nginx -f a.cfg");
        fake.add(30, 1, 8, "haproxy", "/bin/sh /etc/init.d/haproxy start");
        fake.add(31, 30, 9, "haproxy", "haproxy -f under-a-script.cfg");
        fake.add(40, 1, 10, "haproxy", "haproxy -D -f b.cfg");
        fake.add(41, 1, 11, "haproxy", "haproxy -D -f b.cfg -sf 40");
        fake.add(42, 1, 12, "haproxy", "haproxy -c -f c.cfg");
        assert_eq!(fake.pids(), [41, 31, 10]);
        let survey = fake.survey();
        assert!(!survey.hidden);
        assert_eq!(survey.processes.first().map(|one| (one.uid, one.start)), Some((7, 11)));
    }

    #[test]
    fn a_process_id_that_was_used_again_is_not_replaced() {
        let fake = Fake::new();
        fake.add(40, 1, 20, "haproxy", "haproxy -D -f a.cfg");
        fake.add(41, 1, 11, "haproxy", "haproxy -D -f b.cfg -sf 40");
        assert_eq!(fake.pids(), [40, 41]);
    }

    #[test]
    fn strangers_come_last_and_only_so_many_of_them() {
        let fake = Fake::new();
        for pid in 100..200 {
            fake.add_of(65534, pid, 1, 5, "haproxy", "haproxy -f a.cfg");
        }
        fake.add_of(33, 200, 1, 6, "haproxy", "haproxy -f a.cfg");
        fake.add(300, 1, 7, "haproxy", &format!("haproxy -f {}", "x".repeat(WORDS_MAX)));
        fake.add_of(0, 301, 1, 8, "haproxy", "haproxy -f a.cfg");
        // A worker does not count, whoever it runs as.
        fake.add_of(65534, 302, 301, 9, "haproxy", "haproxy -f a.cfg");
        let survey = fake.survey();
        let pids: Vec<u32> = survey.processes.iter().map(|one| one.pid).collect();
        assert_eq!(pids.get(..2), Some([301, 200].as_slice()));
        assert_eq!(pids.len(), 2 + OF_ACCOUNT_MAX);
        let sentences = survey.unexamined.sentences().join("\n");
        assert!(sentences.contains("the process 300,") && sentences.contains("256 KiB"), "{sentences}");
        assert!(sentences.contains("36 processes") && sentences.contains("user id 65534"), "{sentences}");
    }

    #[test]
    fn few_arguments_are_kept() {
        let many = parse(&format!("-sf {}{}-- {}", "1 ".repeat(5000), "-S x ".repeat(50), "f ".repeat(5000))).unwrap();
        let lengths = (many.old_pids.len(), many.master_sockets.len(), many.configs.len());
        assert_eq!(lengths, (OLD_PIDS_MAX, MASTER_SOCKETS_MAX, FILES_MAX + 1));
        let fake = Fake::new();
        fake.add(100, 1, 5, "haproxy", &format!("haproxy -- {}", "a ".repeat(2000)));
        assert!(fake.survey().unexamined.sentences().concat().contains("1000 configuration files"));
    }

    #[test]
    fn hidden_processes_are_noticed() {
        let fake = Fake::new();
        assert!(!fake.survey().hidden);
        fs::remove_dir_all(fake.proc.path().join("1")).unwrap();
        assert!(fake.survey().hidden);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Arguments::parse(&line);
        }
    }
}
