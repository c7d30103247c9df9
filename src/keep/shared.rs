//! Keeps root's runs and those of other users apart, whose own locks are in different folders.
//!
//! Root's folder has a lock file for each socket that a run of root has worked on. Those may open it who may open the
//! socket, and only to read, which is enough to lock it. So nobody can hold up root who could not also do so by taking all
//! connections of that socket, nobody can fill the disk, and no path of another user is followed. Only root makes such a
//! file. It stays until its socket is gone, because others could not make it again.
//!
//! Root takes those of all sockets of a process, so that it does not matter which of them the other one uses.
//!
//! While root makes one, a run of another user may be at work that has not found it. Root waits for those, but not for
//! longer than `FIRST_WAIT`, and only this once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};

use super::folder::{Folder, OF_CALLER, Unavailable};
use super::lock::{NotTaken, Patience, is_still_named};
use crate::discover::listening;
use crate::haproxy::open::Contact;
use crate::model::error::ErrorKind;
use crate::model::name::Address;

/// How long root waits for runs of other users that are at work while the first lock file is made.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// Where the folders of users are, by their ids.
const USERS: &str = "/run/user";

/// The beginning of the files' names.
const PREFIX: &str = "shared-";

/// The most entries of a folder that are looked at, and the longest path in a file.
const ENTRIES_MAX: usize = 4096;
const PATH_MAX: u64 = 4096;

/// Lists the sockets on which runs of other users may work on a process.
#[must_use]
pub fn sockets_of(contact: &Contact) -> Vec<Address> {
    let mut addresses = contact.addresses.to_vec();
    // Others may neither see the rest nor lock it.
    if let (Address::Unix(path), true) = (&contact.address, geteuid().is_root()) {
        addresses.extend(listening::sockets_of(contact.process.pid, path).into_iter().map(Address::Unix));
    }
    addresses
}

/// A socket and who may lock it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    name: String,
    /// Where it is, if it is a file.
    path: Option<PathBuf>,
    user: u32,
    group: u32,
    mode: u32,
}

/// Locks that are shared with other users, held until this is dropped.
#[derive(Debug, Default)]
pub struct SharedSet {
    /// By the names of the files.
    held: BTreeMap<String, Flock<File>>,
    /// Why runs of root are not kept out, if they are not.
    pub unavailable: Option<Unavailable>,
}

impl SharedSet {
    /// Returns the names of the locks.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.held.keys().cloned().collect()
    }

    /// Takes the locks of sockets that this run does not hold yet; `keys` are the names of the caller's own locks on the
    /// processes behind them.
    ///
    /// A user other than root takes those that root has made.
    ///
    /// # Errors
    /// When the time is up or a signal has arrived; then none is held.
    pub fn take(
        addresses: impl IntoIterator<Item = Address>,
        held: &BTreeSet<String>,
        keys: &[String],
        patience: &Patience<'_>,
    ) -> Result<Self, NotTaken> {
        let mut set = Self::default();
        let Some(folder) = Folder::of_root() else { return Ok(set) };
        let mut sockets: Vec<Socket> = addresses.into_iter().filter_map(|address| Socket::at(&address)).collect();
        sockets.retain(|socket| !held.contains(&socket.name));
        sockets.sort();
        sockets.dedup();
        let is_root = geteuid().is_root();
        if is_root {
            // All are made before any is locked: whoever is waited for here may wait for one of them.
            let made = sockets.iter().map(|socket| socket.make(&folder)).collect::<io::Result<Vec<Made>>>();
            match made {
                Ok(made) if made.contains(&Made::Now) => wait_for_others(keys, patience)?,
                Ok(_) => {}
                Err(error) => {
                    set.unavailable = Some(unavailable(&folder, &error));
                    return Ok(set);
                }
            }
        }
        for socket in sockets {
            match patience.until(|| socket.try_lock(&folder)) {
                Ok(held) => set.held.extend(held.map(|file| (socket.name.clone(), file))),
                Err(NotTaken::Unavailable(why)) => set.unavailable = Some(why),
                Err(failed @ NotTaken::Failed(_)) => return Err(failed),
            }
        }
        Ok(set)
    }

    /// Takes over the locks of another set.
    pub fn join(&mut self, other: Self) {
        self.held.extend(other.held);
        self.unavailable = self.unavailable.take().or(other.unavailable);
    }
}

/// Whether a lock file had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Before,
    Now,
}

impl Socket {
    /// Finds out who may open a socket.
    fn at(address: &Address) -> Option<Self> {
        let Address::Unix(path) = address else {
            // Anybody may connect.
            return Some(Self { name: name(&address.to_string()), path: None, user: 0, group: 0, mode: 0o444 });
        };
        let path = fs::canonicalize(path).ok()?;
        let socket = fs::symlink_metadata(&path).ok().filter(|it| it.file_type().is_socket())?;
        let above: Option<Vec<Metadata>> =
            path.ancestors().skip(1).map(|folder| fs::symlink_metadata(folder).ok()).collect();
        let mode = may_open(&socket, &above?);
        Some(Self {
            name: name(&path.to_string_lossy()),
            user: socket.uid(),
            group: socket.gid(),
            mode,
            path: Some(path),
        })
    }

    /// Makes the lock file if it is missing, and lets those open it who may open the socket now.
    fn make(&self, folder: &Folder) -> io::Result<Made> {
        let new = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let (file, made) = match folder.file(&self.name, new, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => (file, Made::Now),
            Err(Errno::EEXIST) => (folder.file(&self.name, OFlag::O_RDONLY, Mode::empty())?, Made::Before),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&file)?;
        if (stat.st_uid, stat.st_gid) != (self.user, self.group) {
            fchown(&file, Some(Uid::from_raw(self.user)), Some(Gid::from_raw(self.group)))?;
        }
        if stat.st_mode & 0o7777 != self.mode {
            fchmod(&file, Mode::from_bits_truncate(self.mode))?;
        }
        if made == Made::Now {
            if let Some(path) = &self.path {
                // For those who remove it when the socket is gone; if that cannot be written, it stays.
                let _ = (&file).write_all(path.as_os_str().as_encoded_bytes());
            }
            remove_those_without_socket(folder);
        }
        Ok(made)
    }

    /// Tries once; `Ok(Ok(None))` if there is no such lock for a user.
    fn try_lock(&self, folder: &Folder) -> Result<Result<Option<Flock<File>>, String>, Unavailable> {
        let file = match folder.file(&self.name, OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(Ok(None)),
            Err(errno) => return Err(unavailable(folder, &errno.into())),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) if is_still_named(folder, &file, &self.name) => Ok(Ok(Some(file))),
            Ok(_) => Ok(Err("another run".to_owned())),
            Err((file, Errno::EWOULDBLOCK)) => Ok(Err(holder(&file))),
            Err((_, errno)) => Err(unavailable(folder, &errno.into())),
        }
    }
}

/// Returns the rights to read that go with the rights to open a socket in these folders.
///
/// A socket with an access control list shows its mask for its group, so that its group may lock it as well.
fn may_open(socket: &Metadata, above: &[Metadata]) -> u32 {
    let passes = |class: u32, id: fn(&Metadata) -> u32| {
        above.iter().all(|folder| {
            folder.mode() & 0o001 != 0 || (id(folder) == id(socket) && folder.mode() & (0o001 << class) != 0)
        })
    };
    let of_user = if socket.mode() & 0o200 != 0 && passes(6, Metadata::uid) { 0o400 } else { 0 };
    let of_group = if socket.mode() & 0o020 != 0 && passes(3, Metadata::gid) { 0o040 } else { 0 };
    let is_open = above.iter().all(|folder| folder.mode() & 0o001 != 0);
    let of_others = if socket.mode() & 0o002 != 0 && is_open { 0o004 } else { 0 };
    of_user | of_group | of_others
}

/// Returns a file name for a socket, whose path cannot be one.
fn name(socket: &str) -> String {
    let mut hasher = DefaultHasher::new();
    socket.hash(&mut hasher);
    format!("{PREFIX}{:016x}", hasher.finish())
}

/// Waits until no other user holds one of these locks in a folder of their own.
fn wait_for_others(keys: &[String], patience: &Patience<'_>) -> Result<(), NotTaken> {
    let first = patience.at_most(FIRST_WAIT);
    let is_free =
        || if keys.iter().any(|key| is_held_by_others(key)) { Err("a run of another user".into()) } else { Ok(()) };
    match first.until(|| Ok(is_free())) {
        // They had their time.
        Err(NotTaken::Failed(error)) if !patience.is_over() && error.kind == ErrorKind::Locked => Ok(()),
        result => result,
    }
}

fn is_held_by_others(key: &str) -> bool {
    let users = fs::read_dir(USERS).into_iter().flatten().flatten().take(ENTRIES_MAX);
    users.filter_map(|user| Some((user.path(), user.file_name().to_str()?.parse().ok()?))).any(|(path, uid)| {
        let folder = Folder::open_existing(&path.join(OF_CALLER), Uid::from_raw(uid));
        let file = folder.ok().and_then(|it| it.file(&format!("{key}.lock"), OFlag::O_RDONLY, Mode::empty()).ok());
        file.is_some_and(|file| {
            matches!(Flock::lock(file, FlockArg::LockExclusiveNonblock), Err((_, Errno::EWOULDBLOCK)))
        })
    })
}

/// Removes lock files whose sockets are gone and that nobody holds.
fn remove_those_without_socket(folder: &Folder) {
    let Ok(mut entries) =
        Dir::openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    else {
        return;
    };
    let names =
        entries.iter().take(ENTRIES_MAX).filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        let Ok(file) = folder.file(&name, OFlag::O_RDONLY, Mode::empty()) else { continue };
        let mut path = Vec::new();
        let is_read = io::Read::read_to_end(&mut io::Read::take(&file, PATH_MAX), &mut path).is_ok();
        let path = Path::new(std::ffi::OsStr::new(std::str::from_utf8(&path).unwrap_or_default()));
        let is_gone =
            path.is_absolute() && fs::symlink_metadata(path).is_err_and(|it| it.kind() == io::ErrorKind::NotFound);
        if is_read && is_gone {
            if let Ok(held) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                let _ = unlinkat(folder, name.as_str(), UnlinkatFlags::NoRemoveDir);
                drop(held);
            }
        }
    }
}

/// Finds out who holds a lock, which is not written into a file that users only read.
fn holder(file: &File) -> String {
    let find = || {
        let stat = file.metadata().ok()?;
        let (major, minor) = (nix::sys::stat::major(stat.dev()), nix::sys::stat::minor(stat.dev()));
        let id = format!("{major:02x}:{minor:02x}:{}", stat.ino());
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let line = locks.lines().find(|line| line.split_whitespace().nth(5) == Some(&id) && !line.contains("->"))?;
        line.split_whitespace().nth(4)?.parse::<u32>().ok().filter(|pid| *pid > 0)
    };
    find().map_or_else(|| "another run".to_owned(), |pid| format!("process {pid}"))
}

fn unavailable(folder: &Folder, why: &io::Error) -> Unavailable {
    Unavailable(format!("cannot share a lock in {} ({why})", folder.path().display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::net::UnixListener;

    #[test]
    fn whoever_may_open_a_socket_may_lock_it() {
        let place = tempfile::tempdir().unwrap();
        let (folder, path) = (place.path().join("run"), place.path().join("run/a.sock"));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        if !geteuid().is_root() {
            return;
        }
        // The mode of the socket, that of its folder and its group, and who may lock it.
        for (socket, above, group, expected) in [
            (0o600, 0o755, 0, 0o400),
            (0o660, 0o755, 0, 0o440),
            (0o666, 0o755, 0, 0o444),
            (0o646, 0o755, 0, 0o404),
            (0o444, 0o755, 0, 0),
            (0o666, 0o750, 33, 0o440),
            (0o666, 0o750, 34, 0o400),
            (0o666, 0o700, 33, 0o400),
        ] {
            chown(&path, Some(0), Some(33)).unwrap();
            chown(&folder, Some(0), Some(group)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(socket)).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(above)).unwrap();
            let found = Socket::at(&Address::Unix(path.clone())).unwrap();
            assert_eq!(format!("{:o}", found.mode), format!("{expected:o}"), "{socket:o} in {above:o} of {group}");
        }
        assert_eq!(Socket::at(&Address::parse("127.0.0.1:9999").unwrap()).unwrap().mode, 0o444);
    }
}
