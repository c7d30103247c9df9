//! Who could have changed a file or put a socket in its place.
//!
//! A configuration and every folder above it must belong to root or the caller, and nobody else may write there: what
//! it says decides which sockets this program, mostly as root, talks to. The folder of a socket may also belong to the
//! user and group that the configuration itself names, for that is who HAProxy is; Debian's `/run/haproxy` is 2775
//! haproxy:haproxy. A folder that all may write with the sticky bit, such as `/tmp`, is fine above an entry of a
//! trusted owner, but no place for a socket: with nothing bound, anybody could bind there.
//!
//! Only metadata is looked at, along the real path; the one file that is opened is checked again once it is open.

use super::shown;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest configuration file that is read, in bytes.
pub(super) const CONFIG_MAX: u64 = 16 << 20;

/// Who may own and write what is trusted.
#[derive(Debug, Clone)]
pub(super) struct Owners {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

/// Why a configuration is not used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else could have written it.
    Untrusted(String),
    /// It cannot be read.
    Unreadable(String),
}

/// Whether a folder may be one that everybody can write, with the sticky bit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Fine,
    Refused,
}

impl Refusal {
    /// Says that a file or folder cannot be read.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let known = error.raw_os_error().map(|code| nix::errno::Errno::from_raw(code).desc().to_owned());
        Self::Unreadable(format!("{} cannot be read: {}", shown(path), known.unwrap_or_else(|| error.to_string())))
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

    /// Reads a configuration file that nobody else could have written.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, Refusal> {
        let unreadable = |error| Refusal::unreadable(path, &error);
        let real = fs::canonicalize(path).map_err(unreadable)?;
        self.folders(real.parent().unwrap_or(&real), Shared::Fine)?;
        // A FIFO or a device must not hold the run up or notice it.
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW | nix::libc::O_NOCTTY;
        let regular = |metadata: &Metadata| match metadata.is_file() {
            true => Ok(()),
            false => Err(Refusal::Unreadable(format!("{} is no regular file", shown(&real)))),
        };
        regular(&fs::symlink_metadata(&real).map_err(unreadable)?)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&real).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        regular(&metadata)?;
        self.entry(&real, &metadata, Shared::Refused)?;
        if metadata.len() > CONFIG_MAX {
            return Err(Refusal::Unreadable(format!("{} is larger than {CONFIG_MAX} bytes", shown(&real))));
        }
        content(file).map_err(unreadable)
    }

    /// Checks the folder that a socket is in, and the folders above it.
    ///
    /// A folder that may not be looked at is no ground for refusal: its socket cannot be reached either, which the
    /// report then says. For one that does not exist, the nearest that does must be trusted.
    pub(super) fn socket_folder(&self, socket: &Path) -> Result<(), Refusal> {
        let real = fs::canonicalize(socket).ok();
        let mut folder = real.as_deref().unwrap_or(socket).parent().unwrap_or(Path::new("/")).to_owned();
        loop {
            match fs::canonicalize(&folder) {
                Ok(real) => return self.folders(&real, Shared::Refused),
                Err(error) if error.kind() == io::ErrorKind::NotFound && folder.pop() => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// Checks a folder and all above it; only the first may not be shared, if it is so asked.
    fn folders(&self, folder: &Path, mut shared: Shared) -> Result<(), Refusal> {
        for above in folder.ancestors() {
            // What may not be looked at cannot be passed through either.
            let Ok(metadata) = fs::symlink_metadata(above) else { continue };
            self.entry(above, &metadata, shared)?;
            shared = Shared::Fine;
        }
        Ok(())
    }

    fn entry(&self, path: &Path, metadata: &Metadata, shared: Shared) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::Untrusted(format!("{} {why}", shown(path))));
        let is_sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0 && shared == Shared::Fine;
        if !self.uids.contains(&metadata.uid()) {
            refuse(format!("belongs to user id {}", metadata.uid()))
        } else if metadata.mode() & 0o002 != 0 && !is_sticky {
            refuse("can be written by everybody".to_owned())
        } else if metadata.mode() & 0o020 != 0 && !is_sticky && !self.gids.contains(&metadata.gid()) {
            refuse(format!("can be written by group id {}", metadata.gid()))
        } else {
            Ok(())
        }
    }
}

fn content(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(CONFIG_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Makes a path absolute and drops its `.` parts, without looking at the file system.
pub(super) fn absolute(base: Option<&Path>, path: &Path) -> Option<PathBuf> {
    let joined = if path.is_absolute() { path.to_owned() } else { base?.join(path) };
    joined.is_absolute().then(|| joined.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    fn caller() -> Owners {
        Owners::new(nix::unistd::geteuid().as_raw())
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
            let read = caller().read(&config);
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
        assert_eq!(caller().read(&folder.join("link.cfg")).unwrap(), b"x");
        mode(&open, 0o777);
        assert!(matches!(caller().read(&folder.join("link.cfg")), Err(Refusal::Untrusted(_))));
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let (_place, folder) = place();
        nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        File::create(folder.join("large")).unwrap().set_len(CONFIG_MAX + 1).unwrap();
        for name in ["fifo", "large", "missing", "."] {
            assert!(matches!(caller().read(&folder.join(name)), Err(Refusal::Unreadable(_))), "{name}");
        }
        assert!(caller().read(Path::new("/dev/null")).is_err());
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
        assert!(caller().read(&folder.join("a.cfg")).is_err());
    }

    #[test]
    fn relative_paths_need_a_base() {
        assert_eq!(absolute(Some(Path::new("/a")), Path::new("./b")), Some(PathBuf::from("/a/b")));
        assert_eq!(absolute(None, Path::new("/b")), Some(PathBuf::from("/b")));
        assert_eq!(absolute(None, Path::new("b")), None);
        assert_eq!(absolute(Some(Path::new("a")), Path::new("b")), None);
    }
}
