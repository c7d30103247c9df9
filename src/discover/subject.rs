//! One process with its configuration: what it sees, what it reads, and where it listens.

use nix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::accounts::House;
use super::budget::{Budget, Spent};
use super::config::lexer::{Environment, Variable};
use super::config::{Reader, Settings};
use super::listening::unix_sockets;
use super::mounts::Sight;
use super::process::{Process, Standing, WORDS_MAX, read, read_to};
use super::trust::{Owners, Refusal, absolute};
use super::{Extent, SHOWN_MAX, shown};
use crate::model::name::Address;
use crate::model::text::excerpt;

/// How long a clock tick of `/proc` is (`USER_HZ` is 100).
const MILLISECONDS_PER_TICK: u64 = 10;

/// How exact the starts of processes and the times of files are.
const PRECISION: Duration = Duration::from_millis(100);

/// What is known about a process before its configuration is read.
pub(super) struct Subject<'a> {
    /// The process.
    pub(super) process: &'a Process,
    sight: Sight,
    environment: Environment,
    base: Option<PathBuf>,
}

/// The configuration files of a process.
pub(super) struct Files {
    /// The files, in the order in which HAProxy reads them.
    pub(super) list: Vec<ConfigFile>,
    /// What they say.
    pub(super) settings: Settings,
    /// Why they were not read to their end.
    pub(super) cut: Option<Spent>,
    /// When one of them, or of their folders, changed last.
    pub(super) changed: SystemTime,
}

/// One configuration file.
pub(super) struct ConfigFile {
    /// Where HAProxy finds it.
    pub(super) path: PathBuf,
    /// The same without links.
    real: PathBuf,
    /// The `-f` argument that it comes from: itself or its folder.
    pub(super) argument: PathBuf,
}

impl<'a> Subject<'a> {
    /// Looks at what `/proc` shows of a process.
    pub(super) fn of(proc: &Path, process: &'a Process) -> Self {
        let folder = proc.join(process.pid.to_string());
        let sight = Sight::of(proc, process.pid);
        // The part that was cut off may name any variable, so none is known.
        let environ = read_to(&folder.join("environ"), WORDS_MAX).ok();
        let mut environment = Environment::new(environ.as_deref().filter(|environ| environ.len() < WORDS_MAX));
        let base = base(process, &folder, &sight, &environment);
        let peer = process.arguments.local_peer.clone().or_else(|| {
            let name = read(&proc.join("sys/kernel/hostname")).ok()?;
            Some(name.trim_ascii().to_vec())
        });
        environment.set(b"HAPROXY_LOCALPEER", peer);
        Self { process, sight, environment, base }
    }

    /// Reads all configuration files of a process, or as many as a limit allows.
    pub(super) fn read(&self, house: &House, extent: Extent, budget: &Budget<'_>) -> Result<Files, Refusal> {
        let owners = &house.configurations;
        let reader = Reader::new(self.environment.clone());
        let mut reader = match extent {
            Extent::Instances => reader,
            Extent::Servers => reader.with_servers(),
        };
        let mut list = Vec::new();
        let mut changed = UNIX_EPOCH;
        for argument in &self.process.arguments.configs {
            let argument = absolute(self.base.as_deref(), argument).ok_or_else(|| {
                Refusal::Unreadable(format!("{} is relative to a folder that cannot be seen", shown(argument)))
            })?;
            let expanded = owners.expand(&argument, budget)?;
            changed = changed.max(expanded.folder.as_ref().map_or(UNIX_EPOCH, changed_at));
            for (path, file) in expanded.files {
                let content = owners.read(&file, budget)?;
                reader.file(&content.bytes);
                changed = changed.max(changed_at(&file.metadata));
                list.push(ConfigFile { path, real: file.real, argument: argument.clone() });
                if content.cut.is_some() {
                    return Ok(Files { list, settings: reader.finish(), cut: content.cut, changed });
                }
            }
        }
        Ok(Files { list, settings: reader.finish(), cut: None, changed })
    }

    /// Tells whether HAProxy has read its configuration before that moment.
    pub(super) fn started_before(&self, moment: SystemTime) -> bool {
        // A process's start is counted from the boot, by a clock that nobody sets.
        let Ok(since_boot) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return false };
        let started = Duration::from_millis(self.process.last_start().saturating_mul(MILLISECONDS_PER_TICK));
        let age = Duration::from(since_boot).saturating_sub(started);
        moment.elapsed().is_ok_and(|elapsed| elapsed + PRECISION < age)
    }

    /// Returns the folder that the process has for its root, where it is another one.
    pub(super) fn other_root(&self) -> Option<&Path> {
        self.sight.other_root()
    }

    /// Lists the Unix sockets that a process of the house listens on and that can be used, where that may be seen.
    pub(super) fn listening(
        &self,
        proc: &Path,
        chroot: Option<&Path>,
        owners: &Owners,
        house: &House,
    ) -> Option<Vec<Address>> {
        if house.standing(self.process.uid) == Standing::Stranger {
            return None;
        }
        let paths = unix_sockets(proc, &self.process.pids())?;
        let checked = paths.iter().filter_map(|path| self.address(path.as_os_str().as_bytes(), chroot, owners).ok());
        Some(checked.collect())
    }

    /// Reads the `-S` options of a process of the house.
    pub(super) fn master_addresses(
        &self,
        chroot: Option<&Path>,
        owners: &Owners,
        house: &House,
    ) -> Vec<Result<Address, String>> {
        if house.standing(self.process.uid) == Standing::Stranger {
            return Vec::new();
        }
        // `ADDRESS,option,…` (`mworker_cli_master_proxy_new_listener()` of `src/cli.c`)
        let addresses =
            self.process.arguments.master_sockets.iter().filter_map(|text| text.split(|byte| *byte == b',').next());
        let expanded = addresses.map(|text| self.environment.expand(text).ok_or(text));
        let checked = expanded.map(|text| match text {
            Ok(text) => self.address(&text, chroot, owners),
            Err(text) => Err(format!("a variable in {} cannot be seen", excerpt(text, SHOWN_MAX))),
        });
        checked.collect()
    }

    /// Tells whether the process has the files that this program finds under the paths of its configuration.
    pub(super) fn sees_what_we_see(&self, files: &Result<Files, Refusal>, budget: &Budget<'_>) -> Result<bool, Spent> {
        let chroot = match files {
            Ok(files) => files.settings.chroot.as_deref(),
            // What it makes its root is not known; what it then listens on is checked by who answers there.
            Err(Refusal::Missing(_)) if self.sight.has_our_mounts() => self.sight.other_root(),
            Err(Refusal::Missing(_) | Refusal::Unreadable(_) | Refusal::Untrusted(_) | Refusal::Spent(_)) => None,
        };
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
    pub(super) fn address(&self, text: &[u8], chroot: Option<&Path>, owners: &Owners) -> Result<Address, String> {
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

/// Returns when a file or folder changed, or came to its place.
fn changed_at(metadata: &Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).unwrap_or(UNIX_EPOCH)
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
        Variable::Set(path) => {
            let started_in = Path::new(OsStr::from_bytes(path));
            Some(change.map_or_else(|| started_in.to_owned(), |change| started_in.join(change)))
        }
        Variable::Unset | Variable::Unknown => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_our_own_reader_takes_them() {
        let table = [
            ("/run/a.sock", "/run/a.sock"),
            ("unix@/run/a.sock", "/run/a.sock"),
            ("uxst@a.sock", "/base/a.sock"),
            ("stream+unix@./a.sock", "/base/a.sock"),
            ("mptcp@127.0.0.1:1", "tcp@127.0.0.1:1"),
            ("mptcp6@::1:1", "tcp6@::1:1"),
            ("abns@a", "abns@a"),
        ];
        for (text, expected) in table {
            assert_eq!(plain_address(text.as_bytes(), Some(Path::new("/base"))).unwrap(), expected, "{text}");
        }
        assert_eq!(plain_address(b"unix@a", None), None);
        assert_eq!(plain_address(b"/\xff", None), None);
    }
}
