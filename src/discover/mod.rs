//! Finds every HAProxy of this host, without opening a socket.
//!
//! It goes from the processes through their command lines and configurations to their stats sockets:
//!
//! 1. `process`: the HAProxy processes in `/proc` that serve, are not workers of another, and were not replaced.
//! 2. `config`, with `lexer` and `condition`: the `stats socket` lines of their configurations, as HAProxy reads them.
//! 3. `mounts` and `trust`: anything that belongs to somebody else is left out, with a warning that says why.
//! 4. `places`: where a configuration cannot be read, or `/proc` shows nothing, the sockets in the usual places.
//!
//! # Trust
//!
//! This program usually runs as root, and anybody can start a process called haproxy. So:
//!
//! - The process must see the files that this program sees. A process in another mount namespace does, if the same
//!   place of the same device is mounted at the path of its configuration and of its sockets: Debian's service has its
//!   own namespace (`BindReadOnlyPaths=`) with the host's `/etc` and `/run`, a container has others.
//! - The configuration, and each folder above it, must be writable by nobody but root or the caller.
//! - The process must run as root, as the caller, or as the user that this configuration names: a `haproxy -D` with
//!   `user haproxy` is a process of that user.
//! - The folder of a socket must be writable by nobody but root, the caller, or that user or group: Debian's
//!   `/run/haproxy` is 2775 haproxy:haproxy.
//! - The `-S` address counts only for a process of root or the caller, because only the process itself names it.
//!
//! The environment and the working folder of a process are trusted, because whatever they lead to is checked.
//!
//! # Limits
//!
//! `budget` bounds everything together, so that processes of an ordinary user cost root almost nothing. A process of
//! root, the caller or HAProxy's own account comes before all others, and nothing that others could have written is
//! opened.

mod accounts;
mod acl;
mod budget;
mod condition;
mod config;
pub(crate) mod lexer;
mod mounts;
mod places;
pub mod predecessors;
mod process;
pub mod select;
mod trust;
pub mod twins;

use crate::model::error::Result as Checked;
use crate::model::name::{Address, InstanceName};
use crate::model::text::excerpt;
use crate::time::interrupt::{Interrupt, PATIENT};
use budget::{Budget, Spent};
use config::{Account, Reader, Settings};
use lexer::Environment;
use mounts::Sight;
use process::{Process, Standing, WORDS_MAX};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use trust::{Owners, Refusal, absolute};

/// The most warnings to keep; anybody can start any number of processes called haproxy.
const WARNINGS_MAX: usize = 20;

/// The longest path that a warning shows, in bytes.
const SHOWN_MAX: usize = 200;

/// How to reach what discovery leaves out.
const BY_ADDRESS: &str = "to manage it, name the address of its stats socket in 'instances'";

/// One HAProxy of this host, not yet connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The name, from its configuration or else from its socket.
    pub name: InstanceName,
    /// The file that declares the first stats socket, or the first `-f` file if none does.
    pub config: Option<PathBuf>,
    /// The process that was found: the master, or the only one.
    pub pid: Option<u32>,
    /// The stats sockets in the configuration's order (those in an `.if` that cannot be decided last), then the master
    /// CLI.
    ///
    /// They all belong to one HAProxy, though they may differ in level; it is enough that one answers.
    pub sockets: Vec<Address>,
    /// Those of the sockets that are the master CLI.
    pub masters: Vec<Address>,
    /// How it is known.
    pub origin: Origin,
    /// All files of its configuration, in the order in which HAProxy reads them.
    pub files: Vec<PathBuf>,
}

/// How a candidate is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A running process and its configuration: if nothing answers, the instance is unreachable.
    Running,
    /// Only a socket file, which may be a leftover or belong to something else.
    UsualPlace,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The candidates, sorted by name, configuration and first socket; two may have the same name.
    pub candidates: Vec<Candidate>,
    /// What was left out and why, a sentence each.
    pub warnings: Vec<String>,
}

/// Reads a configuration file that was found and trusted before.
#[must_use]
pub fn configuration(path: &Path) -> Option<Vec<u8>> {
    let budget = Budget::new(&PATIENT);
    let owners = Owners::new(Host::real().caller);
    owners.read(&owners.reach(path, &budget).ok()?, &budget).ok().map(|content| content.bytes)
}

/// Finds every HAProxy of this host, within its limits.
///
/// # Errors
/// When a signal ends it.
pub fn discover(interrupt: &Interrupt) -> Checked<Discovery> {
    let discovery = Host::real().discover(&Budget::new(interrupt));
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
}

/// Why a process is not a candidate.
enum Verdict {
    /// It is left out.
    LeftOut(String),
    /// No limit is left to examine it.
    Unexamined(Spent),
    /// What its configuration says cannot be known from here.
    Unknown(String),
}

/// The configuration files of a process.
struct Files {
    /// The files, in the order in which HAProxy reads them.
    list: Vec<ConfigFile>,
    /// What they say.
    settings: Settings,
    /// Why they were not read to their end.
    cut: Option<Spent>,
}

/// One configuration file.
struct ConfigFile {
    /// Where HAProxy finds it.
    path: PathBuf,
    /// The same without links.
    real: PathBuf,
    /// The `-f` argument that it comes from: itself or its folder.
    argument: PathBuf,
}

/// What is known about a process before its configuration is read.
struct Subject<'a> {
    process: &'a Process,
    sight: Sight,
    environment: Environment,
    base: Option<PathBuf>,
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
    fn real() -> Self {
        Self { proc: "/proc".into(), root: "/".into(), caller: nix::unistd::geteuid().as_raw() }
    }

    fn discover(&self, budget: &Budget<'_>) -> Discovery {
        let owners = places::owners(self.caller);
        let standing = |uid| match uid {
            _ if Owners::new(self.caller).has(uid) => Standing::Own,
            _ if owners.has(uid) => Standing::OfHaproxy,
            _ => Standing::Stranger,
        };
        let survey = process::survey(&self.proc, standing, budget);
        let mut found = Discovery::default();
        let mut unexamined = survey.unexamined;
        let mut must_search_usual_places = survey.processes.is_empty() || survey.hidden;
        for process in &survey.processes {
            let Err(verdict) = self.examine(process, standing(process.uid), budget, &mut found) else { continue };
            // A process that has ended in the meantime needs no explanation.
            if !process::is_there(&self.proc, process.pid) {
                continue;
            }
            match verdict {
                Verdict::LeftOut(warning) => found.warnings.push(warning),
                Verdict::Unexamined(spent) => unexamined.process(process.pid, spent),
                Verdict::Unknown(warning) => {
                    must_search_usual_places = true;
                    found.warnings.push(warning);
                }
            }
        }
        if must_search_usual_places {
            self.search_usual_places(&mut found);
        }
        found.candidates.sort_by_cached_key(|one| {
            (one.name.clone(), one.config.clone(), one.sockets.first().map(ToString::to_string), one.pid)
        });
        found.warnings.extend(unexamined.sentences());
        shorten(&mut found.warnings);
        found
    }

    /// Adds the candidate for a process.
    fn examine(
        &self,
        process: &Process,
        standing: Standing,
        budget: &Budget<'_>,
        found: &mut Discovery,
    ) -> Result<(), Verdict> {
        budget.time().map_err(Verdict::Unexamined)?;
        let subject = self.subject(process);
        let files = self.read(&subject, budget);
        if !subject.sees_what_we_see(&files, budget).map_err(Verdict::Unexamined)? {
            let label = label(process);
            return Err(Verdict::LeftOut(format!(
                "{label} is left out because it sees another file system, as in a container; {BY_ADDRESS}, \
                 if it can be reached from here"
            )));
        }
        let candidate = match files {
            Ok(Files { cut: Some(spent), .. }) if standing == Standing::Stranger => {
                return Err(Verdict::Unexamined(spent));
            }
            Ok(files) => {
                let cut = files.cut.map(|spent| format!("{} was examined in part, because {spent}", label(process)));
                let candidate = self.running(&subject, files)?;
                found.warnings.extend(cut);
                candidate
            }
            Err(Refusal::Untrusted(why)) => return Err(Verdict::LeftOut(left_out(process, &why))),
            Err(Refusal::Spent(spent)) => return Err(Verdict::Unexamined(spent)),
            Err(Refusal::Unreadable(why) | Refusal::Missing(why)) => {
                return Err(self.unknown(&subject, &why, &mut found.candidates));
            }
        };
        add(&mut found.candidates, candidate);
        Ok(())
    }

    fn subject<'a>(&self, process: &'a Process) -> Subject<'a> {
        let folder = self.proc.join(process.pid.to_string());
        let sight = Sight::of(&self.proc, process.pid);
        // The part that was cut off may name any variable, so none is known.
        let environ = process::read_to(&folder.join("environ"), WORDS_MAX).ok();
        let mut environment = Environment::new(environ.as_deref().filter(|environ| environ.len() < WORDS_MAX));
        let base = base(process, &folder, &sight, &environment);
        let peer = process.arguments.local_peer.clone().or_else(|| {
            let name = process::read(&self.proc.join("sys/kernel/hostname")).ok()?;
            Some(name.trim_ascii().to_vec())
        });
        environment.set(b"HAPROXY_LOCALPEER", peer);
        Subject { process, sight, environment, base }
    }

    /// Reads all configuration files of a process, or as many as a limit allows.
    fn read(&self, subject: &Subject<'_>, budget: &Budget<'_>) -> Result<Files, Refusal> {
        let owners = Owners::new(self.caller);
        let mut reader = Reader::new(subject.environment.clone());
        let mut list = Vec::new();
        for argument in &subject.process.arguments.configs {
            let argument = absolute(subject.base.as_deref(), argument).ok_or_else(|| {
                Refusal::Unreadable(format!("{} is relative to a folder that cannot be seen", shown(argument)))
            })?;
            for (path, file) in owners.expand(&argument, budget)? {
                let content = owners.read(&file, budget)?;
                reader.file(&content.bytes);
                list.push(ConfigFile { path, real: file.real, argument: argument.clone() });
                if content.cut.is_some() {
                    return Ok(Files { list, settings: reader.finish(), cut: content.cut });
                }
            }
        }
        Ok(Files { list, settings: reader.finish(), cut: None })
    }

    /// Makes the candidate for a process whose configuration could be read.
    fn running(&self, subject: &Subject<'_>, files: Files) -> Result<Candidate, Verdict> {
        let process = subject.process;
        let owners = with_accounts(&Owners::new(self.caller), &files.settings);
        if !owners.has(process.uid) {
            let why = format!(
                "it runs as user id {}, which is not root, the caller, or the user that its configuration names",
                process.uid
            );
            return Err(Verdict::LeftOut(left_out(process, &why)));
        }
        let usable = self.usable(subject, &files.settings, &owners);
        let source = usable.file.and_then(|file| files.list.get(file)).or(files.list.first());
        match (usable.addresses.is_empty(), source) {
            (false, Some(file)) => Ok(Candidate {
                name: name_of(&file.path, &file.argument),
                config: Some(file.path.clone()),
                pid: Some(process.pid),
                sockets: usable.addresses,
                masters: usable.masters,
                origin: Origin::Running,
                files: files.list.iter().map(|file| file.path.clone()).collect(),
            }),
            _ => Err(Verdict::LeftOut(without_socket(process, &usable.refused))),
        }
    }

    /// Checks the stats sockets and the master CLI.
    fn usable(&self, subject: &Subject<'_>, settings: &Settings, owners: &Owners) -> Usable {
        let mut usable = Usable::default();
        for declared in &settings.sockets {
            let address =
                declared.address.as_deref().ok_or("a variable in a `stats socket` line cannot be seen".into());
            let checked = address.and_then(|text| subject.address(text, settings.chroot.as_deref(), owners));
            let is_first = usable.addresses.is_empty();
            usable.take(checked);
            if is_first && !usable.addresses.is_empty() {
                usable.file = Some(declared.file);
            }
        }
        for address in self.master_addresses(subject, settings.chroot.as_deref(), owners) {
            usable.masters.extend(address.as_ref().ok().cloned());
            usable.take(address);
        }
        usable
    }

    /// Reads the `-S` options of a process of root or the caller.
    fn master_addresses(
        &self,
        subject: &Subject<'_>,
        chroot: Option<&Path>,
        owners: &Owners,
    ) -> Vec<Result<Address, String>> {
        let process = subject.process;
        if !Owners::new(self.caller).has(process.uid) {
            return Vec::new();
        }
        // `ADDRESS,option,…` (`mworker_cli_master_proxy_new_listener()` of `src/cli.c`)
        let addresses =
            process.arguments.master_sockets.iter().filter_map(|text| text.split(|byte| *byte == b',').next());
        let expanded = addresses.map(|text| subject.environment.expand(text).ok_or(text));
        let checked = expanded.map(|text| match text {
            Ok(text) => subject.address(&text, chroot, owners),
            Err(text) => Err(format!("a variable in {} cannot be seen", excerpt(text, SHOWN_MAX))),
        });
        checked.collect()
    }

    /// Says that the configuration cannot be read, and keeps the master CLI that the command line names.
    ///
    /// This does not apply to root and somebody else's process: root can read whatever exists, and anybody can name
    /// what does not.
    fn unknown(&self, subject: &Subject<'_>, why: &str, candidates: &mut Vec<Candidate>) -> Verdict {
        let process = subject.process;
        if self.caller == 0 && process.uid != 0 {
            return Verdict::LeftOut(left_out(process, why));
        }
        let owners = places::owners(self.caller);
        let sockets: Vec<Address> = self.master_addresses(subject, None, &owners).into_iter().flatten().collect();
        if let (false, Some(config)) = (sockets.is_empty(), process.arguments.configs.first()) {
            let name = InstanceName::from_path(config);
            let origin = Origin::UsualPlace;
            add(
                candidates,
                Candidate {
                    name,
                    config: None,
                    pid: Some(process.pid),
                    masters: sockets.clone(),
                    sockets,
                    origin,
                    files: Vec::new(),
                },
            );
        }
        Verdict::Unknown(format!(
            "{} has a configuration that is not known here ({why}), so only the usual places were searched for its \
             stats socket; run as root, or name the socket's address in 'instances'",
            label(process)
        ))
    }

    /// Adds the sockets in the usual places that no candidate has yet.
    fn search_usual_places(&self, found: &mut Discovery) {
        let owners = places::owners(self.caller);
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
            match (owners.socket_folder(&path), address) {
                (Ok(_), Some(Ok(address))) => found.candidates.push(Candidate {
                    name: InstanceName::from_path(&path),
                    config: None,
                    pid: None,
                    sockets: vec![address],
                    masters: Vec::new(),
                    origin: Origin::UsualPlace,
                    files: Vec::new(),
                }),
                (Err(why), _) => found.warnings.push(format!(
                    "the socket {} is left out because {why}; to use it, name it in 'instances'",
                    shown(&path)
                )),
                (Ok(_), _) => {}
            }
        }
    }
}

impl Subject<'_> {
    /// Tells whether the process has the files that this program finds under the paths of its configuration.
    fn sees_what_we_see(&self, files: &Result<Files, Refusal>, budget: &Budget<'_>) -> Result<bool, Spent> {
        let chroot = files.as_ref().ok().and_then(|files| files.settings.chroot.as_deref());
        let shares = |path: &Path| budget.time().map(|()| self.sight.shares(path, chroot));
        if let Ok(files) = files {
            for file in &files.list {
                if !(shares(&file.path)? && shares(&file.real)?) {
                    return Ok(false);
                }
            }
        } else if self.sight.is_blind() {
            return Ok(true);
        }
        for argument in &self.process.arguments.configs {
            let path = absolute(self.base.as_deref(), argument).unwrap_or_else(|| "/".into());
            if !shares(&path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads an address as HAProxy does, and checks that it is safe to connect to it.
    fn address(&self, text: &[u8], chroot: Option<&Path>, owners: &Owners) -> Result<Address, String> {
        let refuse = |why: &str| Err(format!("{} {why}", excerpt(text, SHOWN_MAX)));
        let Some(plain) = plain_address(text, self.base.as_deref()) else {
            return refuse("is not an address in plain text");
        };
        match Address::parse(&plain) {
            Err(why) => refuse(&why.to_string()),
            Ok(Address::Unix(path)) => match owners.socket_folder(&path) {
                Ok(folder) if self.sight.shares(&folder, chroot) => Ok(Address::Unix(path)),
                Ok(_) => refuse("is in another file system"),
                Err(refusal) => refuse(&format!("is not safe: {refusal}")),
            },
            Ok(_) if self.sight.has_other_network() => refuse("is in another network namespace"),
            Ok(address @ (Address::Abstract(_) | Address::AbstractExact(_) | Address::Tcp(_))) => Ok(address),
        }
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
}

/// Adds a candidate, unless one that is the same in all but the process was added before.
fn add(candidates: &mut Vec<Candidate>, new: Candidate) {
    let is_same = |old: &Candidate| (&old.name, &old.config, &old.sockets) == (&new.name, &new.config, &new.sockets);
    if !candidates.iter().any(is_same) {
        candidates.push(new);
    }
}

/// Finds the folder that relative paths start from: where the process was when it read its configuration.
///
/// A running process has already followed `-C`. After `chroot` it has left that folder, and only the folder named by
/// its starter remains.
fn base(process: &Process, folder: &Path, sight: &Sight, environment: &Environment) -> Option<PathBuf> {
    let change = process.arguments.change_dir.as_deref();
    if let Some(absolute) = change.filter(|change| change.is_absolute()) {
        return Some(absolute.to_owned());
    }
    if sight.other_root().is_none() {
        return fs::read_link(folder.join("cwd")).ok();
    }
    match environment.get(b"PWD") {
        lexer::Variable::Set(path) => {
            let started_in = Path::new(OsStr::from_bytes(path));
            Some(change.map_or_else(|| started_in.to_owned(), |change| started_in.join(change)))
        }
        lexer::Variable::Unset | lexer::Variable::Unknown => None,
    }
}

/// Names the instance by its `-f` argument: the file, or the folder that holds the file.
///
/// A folder name that only says that it holds configurations is skipped: `/etc/haproxy-ldap/conf.d` gives `ldap`.
fn name_of(file: &Path, argument: &Path) -> InstanceName {
    const SAYS_NOTHING: [&str; 6] = ["cfg", "cfg.d", "conf", "conf.d", "config", "config.d"];
    if file == argument {
        return InstanceName::from_path(file);
    }
    let says_nothing =
        |folder: &&Path| folder.file_name().is_some_and(|name| SAYS_NOTHING.iter().any(|one| name == *one));
    let folder = argument.ancestors().find(|folder| !says_nothing(folder)).unwrap_or(argument);
    // If a stem says nothing, the folder's name is used.
    InstanceName::from_path(&folder.join("haproxy.cfg"))
}

/// Also trusts the users and groups that the configuration names, including a user's own group.
fn with_accounts(owners: &Owners, settings: &Settings) -> Owners {
    let users = settings.users.iter().filter_map(|user| match user {
        Account::Id(id) => Some((*id, None)),
        Account::Name(name) => accounts::user(name).map(|(user, group)| (user, Some(group))),
    });
    let users: Vec<(u32, Option<u32>)> = users.collect();
    let groups = settings.groups.iter().filter_map(|group| match group {
        Account::Id(id) => Some(*id),
        Account::Name(name) => accounts::group(name),
    });
    owners.with(users.iter().map(|user| user.0), users.iter().filter_map(|user| user.1).chain(groups))
}

/// Writes an address so that [`Address::parse`] reads it: with a whole path, and TCP instead of MPTCP.
fn plain_address(text: &[u8], base: Option<&Path>) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix("stream+").unwrap_or(text);
    let text = text
        .strip_prefix('m')
        .filter(|rest| rest.starts_with("ptcp"))
        .map_or(text, |rest| rest.get(1..).unwrap_or(rest));
    match text.strip_prefix("unix@").or_else(|| text.strip_prefix("uxst@")) {
        Some(path) => absolute(base, Path::new(path))?.to_str().map(str::to_owned),
        None => Some(text.to_owned()),
    }
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

fn without_socket(process: &Process, refused: &[String]) -> String {
    let add = "add `stats socket /run/haproxy/admin.sock mode 660 level admin` or the like to its global section";
    if refused.is_empty() {
        format!("{} is left out because it has no stats socket; {add}", label(process))
    } else {
        format!("{} is left out because it has no usable stats socket ({}); {add}", label(process), refused.join(", "))
    }
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
