//! Finds every HAProxy of this host, without opening a socket.
//!
//! It goes from the processes through their command lines and configurations to their stats sockets:
//!
//! 1. `process`: the HAProxy processes in `/proc` that serve, are not workers of another, and were not replaced.
//! 2. `config`: what their configurations say, the `stats socket` lines above all, as HAProxy reads them.
//! 3. `mounts` and `trust`: anything that belongs to somebody else is left out, with a warning that says why.
//! 4. `places`: where a configuration cannot be read, or `/proc` shows nothing, the sockets in the usual places.
//!
//! Two processes are never taken for one because their paths are equal: HAProxy lets a second process take the path of
//! a socket, and a configuration may be started twice. `serving` tells, once the sockets have answered, which process
//! was reached and which was not.
//!
//! # Trust
//!
//! This program usually runs as root, and anybody can start a process called haproxy. So:
//!
//! - The process must see the files that this program sees. A process in another mount namespace does, if the same
//!   place of the same device is mounted at the path of its configuration and of its sockets: Debian's service has its
//!   own namespace (`BindReadOnlyPaths=`) with the host's `/etc` and `/run`, a container has others.
//! - HAProxy's own account is trusted: the user haproxy, or who owns the folder that root has made for HAProxy in
//!   `/run` or `/var/lib` (see `accounts`). With root and the caller it is called the house below.
//! - The configuration, and each folder above it, must be the house's alone to write.
//! - The process must run as one of the house, or as the user that this configuration names: a `haproxy -D` with
//!   `user www-data` is a process of that user. That a process of anybody else cannot be reached is not a failure.
//! - The folder of a socket must be the house's, or that user's or group's, alone to write: Debian's `/run/haproxy` is
//!   2775 haproxy:haproxy.
//! - The `-S` address, and the sockets that the kernel says a process listens on, count for a process of the house
//!   only, as nothing but the process says them.
//!
//! The environment and the working folder of a process are trusted, because whatever they lead to is checked.
//!
//! # Limits
//!
//! `budget` bounds everything together, so that processes of an ordinary user cost root almost nothing. A process of
//! root, the caller or HAProxy's own account comes before all others, and nothing that others could have written is
//! opened.

pub mod account;
mod accounts;
mod acl;
mod budget;
mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod listening;
mod mounts;
mod naming;
mod places;
pub mod predecessors;
mod process;
pub mod select;
pub mod serving;
mod subject;
mod trust;
pub mod twins;

pub use accounts::user_name;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::error::Result as Checked;
use crate::model::name::{Address, InstanceName, Pattern};
use crate::model::text::excerpt;
use crate::time::interrupt::Interrupt;
use accounts::House;
use budget::{Budget, Spent};
use config::Settings;
pub use config::servers::Configured;
pub use config::state_files::{Loads, StateFileRules};
use process::{Process, Standing};
use subject::{Files, Subject};
use trust::{Owners, Refusal};

/// The most warnings to keep; anybody can start any number of processes called haproxy.
const WARNINGS_MAX: usize = 20;

/// The longest path that a warning shows, in bytes.
const SHOWN_MAX: usize = 200;

/// How to reach what discovery leaves out.
const BY_ADDRESS: &str = "to manage it, name the address of its stats socket in 'instances'";

/// What explains a process that is not as its configuration says.
const PERHAPS_CHANGED: &str = "perhaps changed since HAProxy started; reload it";

/// One HAProxy of this host, not yet connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The name, by its configuration or else by its socket; distinct among those that have a configuration.
    pub name: InstanceName,
    /// The name that it would have if it were alone.
    pub plain_name: InstanceName,
    /// The file that declares the first stats socket, or the first `-f` file if none does.
    pub config: Option<PathBuf>,
    /// The process that was found: the master, or the only one.
    pub pid: Option<u32>,
    /// When that was started, in clock ticks since the host was; 0 where there is none.
    pub start: u64,
    /// The stats sockets in the configuration's order (those in an `.if` that cannot be decided last), then the master
    /// CLI.
    ///
    /// They all belong to one HAProxy, though they may differ in level; it is enough that one answers.
    pub sockets: Vec<Address>,
    /// Those of the sockets that are the master CLI.
    pub masters: Vec<Address>,
    /// How it is known.
    pub origin: Origin,
    /// Which state files its configuration loads, where the whole of it is known.
    pub state_files: Option<Arc<StateFileRules>>,
    /// Where its configuration has its servers, where that was to be read and is known.
    pub servers: Option<Arc<Configured>>,
}

/// How a candidate is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A running process and its configuration: if nothing answers, the instance is unreachable.
    Running,
    /// A socket alone, which may be left over or be something else's.
    Guess,
    /// A process of a user that nothing vouches for, with sockets that nobody else could have made.
    Stranger,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The candidates, sorted by name, configuration and first socket.
    pub candidates: Vec<Candidate>,
    /// What was left out and why, a sentence each.
    pub warnings: Vec<String>,
}

/// How much of the configurations is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What leads to the instances, and which state files they load.
    Instances,
    /// Where their servers are as well.
    Servers,
}

/// Finds every HAProxy of this host, within the limits that are left to it, but for those of an ignored name.
///
/// # Errors
/// When a signal ends it.
pub fn discover(ignored: &[Pattern], extent: Extent, interrupt: &Interrupt) -> Checked<Discovery> {
    let discovery = Host::real(extent).discover(ignored, &Budget::new(interrupt));
    interrupt.check().map_or(Ok(discovery), Err)
}

/// Where to look: the real host, or a tree made for a test.
struct Host {
    /// The folder of the processes.
    proc: PathBuf,
    /// The folder that the usual places are under.
    root: PathBuf,
    /// The user id of this program.
    caller: u32,
    /// How much of the configurations is read.
    extent: Extent,
}

/// Why a process is not a candidate, or what is to be known about one that is.
enum Verdict {
    /// It is left out.
    LeftOut(String),
    /// No limit is left to examine it.
    Unexamined(Spent),
    /// What its configuration says cannot be known from here; its stats socket may be in one of the usual places.
    Unknown(String),
}

/// What a process comes to.
struct Examined {
    candidate: Option<Candidate>,
    verdict: Option<Verdict>,
}

/// The sockets of a process that can be used.
#[derive(Default)]
struct Usable {
    addresses: Vec<Address>,
    /// Those of them that are the master's.
    masters: Vec<Address>,
    /// Which file declares the first of them.
    file: Option<usize>,
    /// Why the others cannot.
    refused: Vec<String>,
}

impl Host {
    fn real(extent: Extent) -> Self {
        Self { proc: "/proc".into(), root: "/".into(), caller: nix::unistd::geteuid().as_raw(), extent }
    }

    fn discover(&self, ignored: &[Pattern], budget: &Budget<'_>) -> Discovery {
        let house = House::of(self.caller, &self.root);
        let survey = process::survey(&self.proc, |uid| house.standing(uid), budget);
        let mut found = Discovery::default();
        let mut unexamined = survey.unexamined;
        let mut must_look_around = survey.processes.is_empty() || survey.hidden;
        let is_ignored = |name: &InstanceName| ignored.iter().any(|pattern| pattern.matches(name.as_str().as_bytes()));
        for process in survey.processes.iter().filter(|process| !is_ignored(&process_name(process))) {
            let examined = match budget.time() {
                Ok(()) => self.examine(process, &house, budget),
                Err(spent) => Examined { candidate: None, verdict: Some(Verdict::Unexamined(spent)) },
            };
            if examined.candidate.as_ref().is_some_and(|candidate| is_ignored(&candidate.name)) {
                continue;
            }
            found.candidates.extend(examined.candidate);
            // A process that has ended in the meantime needs no explanation.
            match examined.verdict.filter(|_| process::is_there(&self.proc, process.pid)) {
                None => {}
                Some(Verdict::LeftOut(warning)) => found.warnings.push(warning),
                Some(Verdict::Unexamined(spent)) => unexamined.process(process.pid, spent),
                Some(Verdict::Unknown(warning)) => {
                    must_look_around = true;
                    found.warnings.push(warning);
                }
            }
        }
        if must_look_around {
            self.look_around(&house, &mut found);
        }
        drop_namesakes(&mut found);
        naming::distinguish(&mut found.candidates);
        found.candidates.retain(|candidate| !is_ignored(&candidate.name));
        found.candidates.sort_by_cached_key(|one| {
            (one.name.clone(), one.config.clone(), one.sockets.first().map(ToString::to_string), one.pid)
        });
        found.warnings.extend(unexamined.sentences());
        shorten(&mut found.warnings);
        found
    }

    /// Finds out what a process is.
    fn examine(&self, process: &Process, house: &House, budget: &Budget<'_>) -> Examined {
        let subject = Subject::of(&self.proc, process);
        let files = subject.read(house, self.extent, budget);
        let left_out = |why: &str| Verdict::LeftOut(left_out(process, why));
        match subject.sees_what_we_see(&files, budget) {
            Ok(true) => {}
            Ok(false) => {
                return Verdict::LeftOut(format!(
                    "{} is left out because it sees another file system, as in a container; {BY_ADDRESS}, if it can be \
                     reached from here",
                    label(process)
                ))
                .into();
            }
            Err(spent) => return Verdict::Unexamined(spent).into(),
        }
        match files {
            Ok(Files { cut: Some(spent), .. }) if house.standing(process.uid) == Standing::Stranger => {
                Verdict::Unexamined(spent).into()
            }
            Ok(files) => self.running(&subject, files, house),
            Err(Refusal::Untrusted(why)) => left_out(&why).into(),
            Err(Refusal::Spent(spent)) => Verdict::Unexamined(spent).into(),
            Err(Refusal::Unreadable(why) | Refusal::Missing(why)) => self.unknown(&subject, &why, house),
        }
    }

    /// Makes the candidate for a process whose configuration could be read.
    fn running(&self, subject: &Subject<'_>, files: Files, house: &House) -> Examined {
        let process = subject.process;
        let owners = house.with_accounts(&files.settings);
        let mut usable = usable(subject, &files.settings, &owners, house);
        let has_changed = subject.started_before(files.changed);
        let mut origin = Origin::Running;
        if !owners.has(process.uid) {
            // Anybody can name this configuration, but nobody else can listen in the folders of its sockets.
            origin = Origin::Stranger;
            usable.addresses.retain(|address| matches!(address, Address::Unix(_)));
            if usable.addresses.is_empty() {
                let why = format!(
                    "it runs as user id {}, which is not root, the caller, HAProxy's own account, or the user that its \
                     configuration names",
                    process.uid
                );
                return Verdict::LeftOut(left_out(process, &why)).into();
            }
        }
        let mut remarks: Vec<String> = Vec::new();
        remarks.extend(files.cut.map(|spent| format!("{} was examined in part, because {spent}", label(process))));
        let is_missing =
            |address: &&Address| matches!(address, Address::Unix(path) if fs::symlink_metadata(path).is_err());
        let is_hidden = files.settings.sockets.iter().any(|declared| declared.address.is_none());
        if has_changed || is_hidden || usable.addresses.iter().any(|address| is_missing(&address)) {
            let listening = subject.listening(&self.proc, files.settings.chroot.as_deref(), &owners, house);
            if let Some(listening) = listening.filter(|listening| usable.is_elsewhere(listening)) {
                // Which of them is a stats socket is not known where the configuration has none.
                if usable.declares_none() {
                    origin = Origin::Guess;
                }
                usable.replace(listening);
                if !is_hidden {
                    remarks.push(format!(
                        "{} does not listen on the stats socket of its configuration, which has {PERHAPS_CHANGED}; the \
                         sockets that it listens on are used",
                        label(process)
                    ));
                }
            }
        }
        let source = usable.file.and_then(|file| files.list.get(file)).or(files.list.first());
        let Some(source) = source.filter(|_| !usable.addresses.is_empty()) else {
            return Verdict::LeftOut(without_socket(process, &files.settings, &usable.refused, has_changed)).into();
        };
        let name = naming::name_of(&source.path, &source.argument);
        let candidate = Candidate {
            plain_name: name.clone(),
            name,
            config: Some(source.path.clone()),
            pid: Some(process.pid),
            start: process.start,
            sockets: usable.addresses,
            masters: usable.masters,
            origin,
            state_files: files.cut.is_none().then(|| Arc::new(files.settings.state_files)),
            servers: files.settings.servers.filter(|_| files.cut.is_none()).map(Arc::new),
        };
        let verdict = (!remarks.is_empty()).then(|| Verdict::LeftOut(remarks.join("; ")));
        Examined { candidate: Some(candidate), verdict }
    }

    /// Makes do without a configuration: with what the kernel and the command line say of a process of the house.
    ///
    /// This does not apply to root and somebody else's process: root can read whatever exists, and anybody can name
    /// what does not.
    fn unknown(&self, subject: &Subject<'_>, why: &str, house: &House) -> Examined {
        let process = subject.process;
        let is_strange = house.standing(process.uid) == Standing::Stranger;
        if self.caller == 0 && is_strange {
            return Verdict::LeftOut(left_out(process, why)).into();
        }
        let mut usable = Usable::default();
        let root = subject.other_root();
        let listening = subject.listening(&self.proc, root, &house.sockets, house).unwrap_or_default();
        usable.addresses.extend(listening);
        usable.take_masters(subject, root, &house.sockets, house);
        let is_seen = usable.addresses.len() > usable.masters.len();
        let name = process_name(process);
        let candidate = (!usable.addresses.is_empty()).then(|| Candidate {
            plain_name: name.clone(),
            name,
            config: process.arguments.configs.first().filter(|_| is_seen).cloned(),
            pid: Some(process.pid),
            start: process.start,
            sockets: usable.addresses,
            masters: usable.masters,
            origin: Origin::Guess,
            state_files: None,
            servers: None,
        });
        let label = label(process);
        let verdict = if is_seen {
            Verdict::LeftOut(format!(
                "{label} has a configuration that is not known here ({why}) and has {PERHAPS_CHANGED}; the sockets that \
                 it listens on are used"
            ))
        } else {
            Verdict::Unknown(format!(
                "{label} has a configuration that is not known here ({why}), so only the usual places were \
                 searched for its stats socket; {}name the socket's address in 'instances'",
                if self.caller == 0 { "" } else { "run as root, or " }
            ))
        };
        Examined { candidate, verdict: Some(verdict) }
    }

    /// Adds the sockets in the usual places that no candidate has yet.
    fn look_around(&self, house: &House, found: &mut Discovery) {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let sockets = found.candidates.iter().flat_map(|candidate| &candidate.sockets);
        let known: Vec<PathBuf> = sockets
            .filter_map(|address| match address {
                Address::Unix(path) => Some(real(path)),
                Address::Abstract(_) | Address::AbstractExact(_) | Address::Tcp(_) => None,
            })
            .collect();
        for path in places::sockets(&self.root) {
            if known.contains(&real(&path)) {
                continue;
            }
            let address = path.to_str().map(Address::parse);
            match (house.sockets.socket_folder(&path), address) {
                (Ok(_), Some(Ok(address))) => {
                    let name = InstanceName::from_path(&path);
                    found.candidates.push(Candidate {
                        plain_name: name.clone(),
                        name,
                        config: None,
                        pid: None,
                        start: 0,
                        sockets: vec![address],
                        masters: Vec::new(),
                        origin: Origin::Guess,
                        state_files: None,
                        servers: None,
                    });
                }
                (Err(why), _) => found.warnings.push(format!(
                    "the socket {} is left out because {why}; to use it, name it in 'instances'",
                    shown(&path)
                )),
                (Ok(_), _) => {}
            }
        }
    }
}

impl From<Verdict> for Examined {
    fn from(verdict: Verdict) -> Self {
        Self { candidate: None, verdict: Some(verdict) }
    }
}

impl Usable {
    fn take(&mut self, checked: Result<Address, String>) {
        match checked {
            Ok(address) if self.addresses.contains(&address) => {}
            Ok(address) => self.addresses.push(address),
            Err(why) => self.refused.push(why),
        }
    }

    /// Adds the `-S` options of a process of the house.
    fn take_masters(&mut self, subject: &Subject<'_>, chroot: Option<&Path>, owners: &Owners, house: &House) {
        for address in subject.master_addresses(chroot, owners, house) {
            self.masters.extend(address.as_ref().ok().cloned());
            self.take(address);
        }
    }

    /// Tells whether no stats socket is declared.
    fn declares_none(&self) -> bool {
        self.addresses.iter().all(|address| self.masters.contains(address))
    }

    /// Tells whether the process listens on Unix sockets, but on none of those that are declared.
    ///
    /// What else is declared cannot be compared, and is believed.
    fn is_elsewhere(&self, listening: &[Address]) -> bool {
        let mut declared = self.addresses.iter().filter(|address| !self.masters.contains(address));
        let is_other = |address: &Address| matches!(address, Address::Unix(_)) && !listening.contains(address);
        let mut unknown = listening.iter().filter(|address| !self.masters.contains(address));
        unknown.next().is_some() && declared.all(is_other)
    }

    /// Uses these sockets instead of those that are declared.
    fn replace(&mut self, listening: Vec<Address>) {
        self.addresses = listening;
        let masters = self.masters.iter().filter(|master| !self.addresses.contains(master)).cloned();
        let masters: Vec<Address> = masters.collect();
        self.addresses.extend(masters);
    }
}

/// Checks the stats sockets and the master CLI.
fn usable(subject: &Subject<'_>, settings: &Settings, owners: &Owners, house: &House) -> Usable {
    let chroot = settings.chroot.as_deref();
    let mut usable = Usable::default();
    for declared in &settings.sockets {
        let address = declared.address.as_deref().ok_or("a variable in a `stats socket` line cannot be seen".into());
        let checked = address.and_then(|text| subject.address(text, chroot, owners));
        let is_first = usable.addresses.is_empty();
        usable.take(checked);
        if is_first && !usable.addresses.is_empty() {
            usable.file = Some(declared.file);
        }
    }
    usable.take_masters(subject, chroot, owners, house);
    usable
}

/// Names a process by its command line.
fn process_name(process: &Process) -> InstanceName {
    let first = process.arguments.configs.first().map_or(Path::new("/"), PathBuf::as_path);
    naming::name_of(first, first)
}

/// Shows a path that somebody else may have chosen.
fn shown(path: &Path) -> String {
    excerpt(path.as_os_str().as_bytes(), SHOWN_MAX)
}

/// Names a process in a warning.
fn label(process: &Process) -> String {
    let config = process.arguments.configs.first().map(|path| shown(path)).unwrap_or_default();
    format!("HAProxy process {} ({config})", process.pid)
}

fn left_out(process: &Process, why: &str) -> String {
    format!("{} is left out because {why}; {BY_ADDRESS}", label(process))
}

/// Says that a process has no socket to manage it by, and how to give it one; never what its configuration has already.
fn without_socket(process: &Process, settings: &Settings, refused: &[String], has_changed: bool) -> String {
    const EXAMPLE: &str = "/run/haproxy/admin.sock";
    let label = label(process);
    let mut declared = settings.sockets.iter().filter_map(|declared| declared.address.as_deref());
    let advice = if declared.any(|address| address.ends_with(EXAMPLE.as_bytes())) {
        "let only root and HAProxy's own account write to the folder of its stats socket".to_owned()
    } else {
        format!("add 'stats socket {EXAMPLE} mode 660 level admin' or the like to its global section")
    };
    let why = match refused {
        [] => String::new(),
        refused => format!(" that can be used ({})", refused.join(", ")),
    };
    let changed = if has_changed { format!("; its configuration has {PERHAPS_CHANGED}") } else { String::new() };
    format!("{label} is left out because it has no stats socket{why}; {advice}{changed}")
}

/// Drops the processes of strangers that only have the sockets of another candidate: asking for them once more would
/// let anybody multiply what a run asks of HAProxy.
fn drop_namesakes(found: &mut Discovery) {
    let (strangers, mut kept): (Vec<Candidate>, Vec<Candidate>) =
        std::mem::take(&mut found.candidates).into_iter().partition(|one| one.origin == Origin::Stranger);
    for one in strangers {
        if one.sockets.iter().all(|socket| kept.iter().any(|other| other.sockets.contains(socket))) {
            let config = one.config.as_deref().map(shown).unwrap_or_default();
            found.warnings.push(format!(
                "HAProxy process {} ({config}) is left out because its user is not that of its configuration, and another \
                 process has its stats socket",
                one.pid.unwrap_or_default()
            ));
        } else {
            kept.push(one);
        }
    }
    found.candidates = kept;
}

/// Drops excess warnings, and says so.
fn shorten(warnings: &mut Vec<String>) {
    warnings.sort();
    warnings.dedup();
    if let Some(more @ 1..) = warnings.len().checked_sub(WARNINGS_MAX) {
        warnings.truncate(WARNINGS_MAX);
        warnings.push(format!("{more} more HAProxy processes or sockets are left out; {BY_ADDRESS}"));
    }
}

#[cfg(test)]
mod tests;
