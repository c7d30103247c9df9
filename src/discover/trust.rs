//! Who could have changed a file or put a socket in its place.
//!
//! A configuration and every folder above it must belong to root or the caller, and nobody else may write there: what
//! it says decides which sockets this program, usually as root, talks to. The folder of a socket may also belong to the
//! user and group that the configuration itself names, because HAProxy runs as them; Debian's `/run/haproxy` is 2775
//! haproxy:haproxy. A world-writable folder with the sticky bit, such as `/tmp`, is fine above an entry of a trusted
//! owner, but not as the folder of a socket: while nothing is bound there, anybody could bind.
//!
//! A path is followed part by part, and each folder and link is judged by its metadata before anything below it is
//! touched: an ordinary user's process can name a file system that never answers. The file that is finally opened is
//! checked again once it is open.

use super::acl::{self, Writers};
use super::budget::{Budget, Spent};
use super::shown;
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// How many links a path may contain, as in the kernel.
const LINKS_MAX: usize = 40;

/// How much is read at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Who may own and write trusted files.
#[derive(Debug, Clone)]
pub(super) struct Owners {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Somebody else could have written it.
    #[error("{0}")]
    Untrusted(String),
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It does not exist, or no longer.
    #[error("{0}")]
    Missing(String),
    /// No limit is left to read it.
    #[error("{0}")]
    Spent(#[from] Spent),
}

/// Whether a folder may be world-writable with the sticky bit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Fine,
    Refused,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) struct Reached {
    /// The path without links.
    pub(super) real: PathBuf,
    /// The metadata there, not yet judged.
    pub(super) metadata: Metadata,
}

/// What a `-f` argument stands for.
#[derive(Debug)]
pub(super) struct Expanded {
    /// What the argument is, where it is a folder.
    pub(super) folder: Option<Metadata>,
    /// The files, each with the path by which HAProxy finds it.
    pub(super) files: Vec<(PathBuf, Reached)>,
}

/// What a configuration file says.
#[derive(Debug)]
pub(super) struct Content {
    /// The file, or its first part.
    pub(super) bytes: Vec<u8>,
    /// Why it is only the first part.
    pub(super) cut: Option<Spent>,
}

/// Why a path leads nowhere.
enum Astray {
    Refused(Refusal),
    /// A part of it is missing or may not be seen; the folders before it are judged.
    Unseen {
        folder: PathBuf,
        error: io::Error,
    },
}

impl Refusal {
    /// Says that a file or folder cannot be read.
    fn unreadable(path: &Path, error: &io::Error) -> Self {
        let known = error.raw_os_error().map(|code| Errno::from_raw(code).desc().to_owned());
        let why = format!("{} cannot be read: {}", shown(path), known.unwrap_or_else(|| error.to_string()));
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing(why),
            _ => Self::Unreadable(why),
        }
    }
}

impl Owners {
    /// Trusts root and the caller.
    pub(super) fn new(caller: u32) -> Self {
        Self { uids: vec![0, caller], gids: vec![0] }
    }

    /// Trusts these users and groups as well.
    pub(super) fn with(&self, uids: impl IntoIterator<Item = u32>, gids: impl IntoIterator<Item = u32>) -> Self {
        let mut owners = self.clone();
        owners.uids.extend(uids);
        owners.gids.extend(gids);
        owners
    }

    /// Tells whether the user is one of them.
    pub(super) fn has(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }

    /// Finds what a path leads to, through folders and links of trusted owners only.
    pub(super) fn reach(&self, path: &Path, budget: &Budget<'_>) -> Result<Reached, Refusal> {
        budget.file()?;
        self.walk(path).map_err(|astray| match astray {
            Astray::Refused(refusal) => refusal,
            Astray::Unseen { error, .. } => Refusal::unreadable(path, &error),
        })
    }

    /// Reads a configuration file that nobody else could have written, piece by piece, within the limits.
    pub(super) fn read(&self, file: &Reached, budget: &Budget<'_>) -> Result<Content, Refusal> {
        let real = &file.real;
        let unreadable = |error| Refusal::unreadable(real, &error);
        let regular = |metadata: &Metadata| match metadata.is_file() {
            true => Ok(()),
            false => Err(Refusal::Unreadable(format!("{} is not a regular file", shown(real)))),
        };
        regular(&file.metadata)?;
        self.entry(real, &file.metadata, Shared::Refused)?;
        // A FIFO or a device must not block the run or be affected by it.
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW | nix::libc::O_NOCTTY;
        let mut opened = OpenOptions::new().read(true).custom_flags(flags).open(real).map_err(unreadable)?;
        let metadata = opened.metadata().map_err(unreadable)?;
        regular(&metadata)?;
        self.entry(real, &metadata, Shared::Refused)?;
        let mut content = Content { bytes: Vec::new(), cut: None };
        loop {
            let mut chunk = Read::by_ref(&mut opened).take(u64::try_from(CHUNK).unwrap_or(u64::MAX));
            let count = chunk.read_to_end(&mut content.bytes).map_err(unreadable)?;
            content.cut = budget.bytes(count).err();
            if count == 0 || content.cut.is_some() {
                return Ok(content);
            }
        }
    }

    /// Lists the files that a `-f` argument stands for (`cfgfiles_expand_directories()` of `src/haproxy.c`).
    pub(super) fn expand(&self, argument: &Path, budget: &Budget<'_>) -> Result<Expanded, Refusal> {
        let reached = self.reach(argument, budget)?;
        if !reached.metadata.is_dir() {
            return Ok(Expanded { folder: None, files: vec![(argument.to_owned(), reached)] });
        }
        self.entry(&reached.real, &reached.metadata, Shared::Fine)?;
        let unreadable = |error| Refusal::unreadable(argument, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&reached.real).map_err(unreadable)? {
            budget.time()?;
            let name = entry.map_err(unreadable)?.file_name();
            if is_config_name(&name) {
                names.push(name);
            }
        }
        names.sort();
        let mut files = Vec::new();
        for name in names {
            let path = argument.join(name);
            let file = self.reach(&path, budget)?;
            if file.metadata.is_file() {
                files.push((path, file));
            }
        }
        Ok(Expanded { folder: Some(reached.metadata), files })
    }

    /// Checks the folder of a socket, and the folders above it.
    ///
    /// An inaccessible folder is not a reason to refuse: its socket cannot be reached either, and the report says so.
    /// If the folder does not exist, the closest existing one must be trusted.
    pub(super) fn socket_folder(&self, socket: &Path) -> Result<PathBuf, Refusal> {
        let real = match self.walk(socket) {
            Ok(reached) => reached.real.parent().unwrap_or(Path::new("/")).to_owned(),
            Err(Astray::Unseen { folder, .. }) => folder,
            Err(Astray::Refused(refusal)) => return Err(refusal),
        };
        match fs::symlink_metadata(&real) {
            Ok(metadata) => self.entry(&real, &metadata, Shared::Refused).map(|()| real),
            Err(_) => Ok(real),
        }
    }

    /// Follows a path part by part, without being redirected by others.
    fn walk(&self, path: &Path) -> Result<Reached, Astray> {
        let mut real = PathBuf::from("/");
        let mut ahead = parts(path);
        let mut links = 0;
        let mut metadata = self.examine(&real)?;
        while let Some(part) = ahead.pop() {
            if metadata.is_dir() {
                self.entry(&real, &metadata, Shared::Fine).map_err(Astray::Refused)?;
            }
            let folder = real.clone();
            if part == OsStr::new("..") {
                real.pop();
            } else if part == OsStr::new("/") {
                real = PathBuf::from("/");
            } else {
                real.push(&part);
            }
            if real == Path::new("/proc") {
                // `/dev/stdin` and `/dev/fd/3` lead here: to files of this process, not of HAProxy.
                let why = format!("{} was HAProxy's alone to read", shown(path));
                return Err(Astray::Refused(Refusal::Missing(why)));
            }
            let unseen = |error| Astray::Unseen { folder: folder.clone(), error };
            metadata = fs::symlink_metadata(&real).map_err(unseen)?;
            if metadata.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(unseen(Errno::ELOOP.into()));
                }
                if !self.has(metadata.uid()) {
                    let why = format!("{} is a link of user id {}", shown(&real), metadata.uid());
                    return Err(Astray::Refused(Refusal::Untrusted(why)));
                }
                ahead.extend(parts(&fs::read_link(&real).map_err(unseen)?));
                metadata = self.examine(&folder)?;
                real = folder;
            }
        }
        Ok(Reached { real, metadata })
    }

    fn examine(&self, path: &Path) -> Result<Metadata, Astray> {
        fs::symlink_metadata(path).map_err(|error| Astray::Unseen { folder: path.to_owned(), error })
    }

    fn entry(&self, path: &Path, metadata: &Metadata, shared: Shared) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::Untrusted(format!("{} {why}", shown(path))));
        let is_sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0 && shared == Shared::Fine;
        if !self.has(metadata.uid()) {
            return refuse(format!("belongs to user id {}", metadata.uid()));
        }
        if is_sticky {
            return Ok(());
        }
        if metadata.mode() & 0o002 != 0 {
            return refuse("can be written by everybody".to_owned());
        }
        if metadata.mode() & 0o020 == 0 {
            return Ok(());
        }
        // With an access control list, the group's bits are those of the mask.
        let group_alone = || Writers { group_of_file: true, ..Writers::default() };
        let writers = match acl::writers(path) {
            Ok(writers) => writers.unwrap_or_else(group_alone),
            Err(error) => {
                return refuse(format!("may be writable by others: its access control list cannot be read ({error})"));
            }
        };
        let group_of_file = writers.group_of_file.then(|| metadata.gid());
        let groups = writers.groups.iter().copied().chain(group_of_file);
        if let Some(user) = writers.users.iter().find(|user| !self.has(**user)) {
            return refuse(format!("can be written by user id {user}"));
        }
        match groups.into_iter().find(|group| !self.gids.contains(group)) {
            Some(group) => refuse(format!("can be written by group id {group}")),
            None => Ok(()),
        }
    }
}

/// Splits a path into its parts, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    let mut parts: Vec<OsString> = parts.map(|part| part.as_os_str().to_owned()).collect();
    parts.reverse();
    parts
}

/// Tells whether HAProxy reads a file of that name if `-f` names a folder.
fn is_config_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    // It treats the first `.cfg` as the end, so `a.cfg.cfg` does not count.
    let first = bytes.windows(4).position(|part| part == b".cfg");
    first.is_some_and(|first| first + 4 == bytes.len()) && !bytes.starts_with(b".")
}

/// Makes a path absolute and drops its `.` parts, without accessing the file system.
pub(super) fn absolute(base: Option<&Path>, path: &Path) -> Option<PathBuf> {
    let joined = if path.is_absolute() { path.to_owned() } else { base?.join(path) };
    joined.is_absolute().then(|| joined.components().collect())
}

#[cfg(test)]
mod tests {
    use super::super::budget::BYTES_MAX;
    use super::*;
    use crate::time::interrupt::PATIENT;
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    fn caller() -> Owners {
        Owners::new(nix::unistd::geteuid().as_raw())
    }

    fn read(owners: &Owners, path: &Path) -> Result<Vec<u8>, Refusal> {
        let budget = Budget::new(&PATIENT);
        owners.read(&owners.reach(path, &budget)?, &budget).map(|content| content.bytes)
    }

    #[test]
    fn a_folder_is_read_as_haproxy_reads_it() {
        for (name, is_read) in [
            ("a.cfg", true),
            ("abc.cfg", true),
            (".cfg", false),
            (".a.cfg", false),
            ("a.cfg.cfg", false),
            ("a.cfg~", false),
            ("a", false),
            ("ab", false),
            ("abc", false),
            ("cfg", false),
            ("abcd", false),
        ] {
            assert_eq!(is_config_name(OsStr::new(name)), is_read, "{name}");
        }
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().canonicalize().unwrap().join("folder");
        fs::create_dir(&folder).unwrap();
        mode(&folder, 0o755);
        (place, folder)
    }

    #[test]
    fn a_configuration_is_the_trusted_ones_alone() {
        let (_place, folder) = place();
        let config = folder.join("a.cfg");
        fs::write(&config, "global\n").unwrap();
        // tempfile's folder is 0700 of the caller, in a sticky /tmp.
        let table = [
            (0o755, 0o644, true),
            (0o755, 0o640, true),
            (0o755, 0o646, false),
            (0o757, 0o644, false),
            (0o1777, 0o644, true),
            (0o1777, 0o666, false),
        ];
        for (of_folder, of_file, expected) in table {
            mode(&folder, of_folder);
            mode(&config, of_file);
            let read = read(&caller(), &config);
            assert_eq!(read.is_ok(), expected, "{of_folder:o} {of_file:o} {read:?}");
        }
    }

    #[test]
    fn links_are_followed_to_what_is_checked() {
        let (_place, folder) = place();
        let open = folder.join("open");
        fs::create_dir(&open).unwrap();
        fs::write(open.join("a.cfg"), "x").unwrap();
        symlink(open.join("a.cfg"), folder.join("link.cfg")).unwrap();
        mode(&open, 0o755);
        assert_eq!(read(&caller(), &folder.join("link.cfg")).unwrap(), b"x");
        mode(&open, 0o777);
        assert!(matches!(read(&caller(), &folder.join("link.cfg")), Err(Refusal::Untrusted(_))));
    }

    #[test]
    fn nothing_is_reached_through_what_belongs_to_others() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (_place, folder) = place();
        let theirs = folder.join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::write(folder.join("a.cfg"), "x").unwrap();
        symlink(folder.join("a.cfg"), folder.join("link.cfg")).unwrap();
        symlink(folder.join("a.cfg"), theirs.join("link.cfg")).unwrap();
        symlink("loop.cfg", folder.join("loop.cfg")).unwrap();
        assert!(read(&caller(), &folder.join("link.cfg")).is_ok());
        assert!(matches!(read(&caller(), &folder.join("loop.cfg")), Err(Refusal::Unreadable(_))));
        std::os::unix::fs::lchown(folder.join("link.cfg"), Some(1234), None).unwrap();
        std::os::unix::fs::chown(&theirs, Some(1234), None).unwrap();
        for name in ["link.cfg", "theirs/link.cfg", "theirs/missing.cfg", "theirs/../a.cfg"] {
            let refusal = read(&caller(), &folder.join(name)).unwrap_err();
            assert!(matches!(refusal, Refusal::Untrusted(_)), "{name}: {refusal}");
        }
        assert!(caller().with([1234], []).reach(&theirs.join("link.cfg"), &Budget::new(&PATIENT)).is_ok());
    }

    #[test]
    fn only_regular_files_are_read_and_only_so_much_of_them() {
        let (_place, folder) = place();
        nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["fifo", "."] {
            assert!(matches!(read(&caller(), &folder.join(name)), Err(Refusal::Unreadable(_))), "{name}");
        }
        for name in ["missing", "missing/x", "fifo/x", "/dev/stdin", "/dev/fd/3", "/proc/self/fd/0"] {
            assert!(matches!(read(&caller(), &folder.join(name)), Err(Refusal::Missing(_))), "{name}");
        }
        assert!(read(&caller(), Path::new("/dev/null")).is_err());
        let large = folder.join("large");
        File::create(&large).unwrap().set_len(u64::try_from(BYTES_MAX).unwrap() + 1).unwrap();
        let budget = Budget::new(&PATIENT);
        let content = caller().read(&caller().reach(&large, &budget).unwrap(), &budget).unwrap();
        assert_eq!((content.cut, content.bytes.len()), (Some(Spent::Bytes), BYTES_MAX + 1));
    }

    #[test]
    fn a_socket_is_where_nobody_else_can_bind() {
        let (_place, folder) = place();
        for (bits, expected) in [(0o755, true), (0o2755, true), (0o757, false), (0o1777, false)] {
            mode(&folder, bits);
            assert_eq!(caller().socket_folder(&folder.join("a.sock")).is_ok(), expected, "{bits:o}");
            assert_eq!(caller().socket_folder(&folder.join("not/yet/a.sock")).is_ok(), expected, "{bits:o}");
        }
        assert!(caller().socket_folder(Path::new("/tmp/a.sock")).is_err());
        assert!(caller().socket_folder(Path::new("/run/a.sock")).is_ok());
    }

    #[test]
    fn an_access_control_list_counts_as_what_it_allows() {
        let (user, group_of_file, group) = (2, 4, 8);
        let us = nix::unistd::geteuid().as_raw();
        let table = [
            (vec![(group_of_file, 5, u32::MAX), (user, 7, 65534)], 7, Some("user id 65534")),
            (vec![(group_of_file, 5, u32::MAX), (group, 7, 65534)], 7, Some("group id 65534")),
            (vec![(group_of_file, 5, u32::MAX), (user, 7, 65534)], 5, None),
            (vec![(group_of_file, 5, u32::MAX), (user, 5, 65534)], 7, None),
            (vec![(group_of_file, 5, u32::MAX), (user, 7, 0), (user, 7, us), (group, 7, 0)], 7, None),
        ];
        for (entries, mask, expected) in table {
            // The folder of a configuration, the file, and the folder of a socket.
            let (_place, folder) = place();
            let config = folder.join("a.cfg");
            fs::write(&config, "x").unwrap();
            for path in [&folder, &config] {
                if !acl::tests::set(path, &entries, mask) {
                    return;
                }
                let results = [read(&caller(), &config).map(drop), caller().socket_folder(&folder.join("s")).map(drop)];
                let results = if path == &config { &results[..1] } else { &results[..] };
                for result in results {
                    match (result, expected) {
                        (Ok(()), None) => {}
                        (Err(why), Some(expected)) => assert!(why.to_string().contains(expected), "{why}"),
                        (other, _) => panic!("{entries:?} {mask}: {other:?}, not {expected:?}"),
                    }
                }
                mode(&folder, 0o755);
                rustix::fs::removexattr(&folder, "system.posix_acl_access").ok();
            }
        }
    }

    #[test]
    fn the_users_of_the_configuration_may_have_the_sockets_folder() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (_place, folder) = place();
        std::os::unix::fs::chown(&folder, Some(1234), Some(1234)).unwrap();
        mode(&folder, 0o2775);
        let socket = folder.join("a.sock");
        assert!(caller().socket_folder(&socket).is_err());
        assert!(caller().with([1234], []).socket_folder(&socket).is_err());
        assert!(caller().with([1234], [1234]).socket_folder(&socket).is_ok());
        fs::write(folder.join("a.cfg"), "").unwrap();
        assert!(read(&caller(), &folder.join("a.cfg")).is_err());
    }

    #[test]
    fn relative_paths_need_a_base() {
        assert_eq!(absolute(Some(Path::new("/a")), Path::new("./b")), Some(PathBuf::from("/a/b")));
        assert_eq!(absolute(None, Path::new("/b")), Some(PathBuf::from("/b")));
        assert_eq!(absolute(None, Path::new("b")), None);
        assert_eq!(absolute(Some(Path::new("a")), Path::new("b")), None);
    }
}
