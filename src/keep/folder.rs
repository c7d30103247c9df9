//! The folder of locks and owners: `/run/haproxy_server`, or the caller's own.
//!
//! Others may list it and read the owners, so that a monitoring user sees who took a server out; hence 0755. The names
//! contain process ids and starts, which everybody sees in `/proc` anyway. The lock files are 0600, since whoever can
//! open a file can lock it. A folder that others can write in is not used.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{Uid, geteuid, mkdir};

use crate::time::clock;

/// The folder of root.
pub const OF_ROOT: &str = "/run/haproxy_server";

/// The name of another caller's folder, below `XDG_RUNTIME_DIR`.
pub(super) const OF_CALLER: &str = "haproxy_server";

/// The mode bits that let anybody but the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// How long ago a file must have been written before it counts as left by a run that was killed.
const LEFT_AFTER: i64 = 600;

/// The most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 4096;

/// Why there is no usable folder, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// The folder, held open, so that everything happens in this very one.
#[derive(Debug, Clone)]
pub struct Folder {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder of the caller, and creates it if it is missing.
    ///
    /// # Errors
    /// Says why there is none, or why it cannot be trusted.
    pub fn of_caller() -> Result<Self, Unavailable> {
        let caller = geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR");
        Self::open(&place(caller, runtime.as_deref())?, caller)
    }

    /// Opens the folder of root, in which others may read the owners, if there is one that can be trusted.
    #[must_use]
    pub fn of_root() -> Option<Self> {
        Self::open_existing(Path::new(OF_ROOT), Uid::from_raw(0)).ok()
    }

    /// Opens the folder of the caller if there is one that can be trusted, without creating it.
    #[must_use]
    pub fn of_caller_if_any() -> Option<Self> {
        let caller = geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR");
        Self::open_existing(&place(caller, runtime.as_deref()).ok()?, caller).ok()
    }

    /// Opens a folder that belongs to `owner`, and creates it if it is missing.
    ///
    /// # Errors
    /// Says why it cannot be created or opened, or who else could write in it.
    pub fn open(path: &Path, owner: Uid) -> Result<Self, Unavailable> {
        let created = match mkdir(path, Mode::from_bits_truncate(0o700)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(unavailable(path, "cannot be created", errno)),
        };
        let folder = Self::open_existing(path, owner)?;
        if created {
            // Whatever the umask is.
            fchmod(&folder, Mode::from_bits_truncate(0o755))
                .map_err(|errno| unavailable(path, "cannot be made readable for others", errno))?;
        }
        Ok(folder)
    }

    /// Opens an existing folder that belongs to `owner`.
    ///
    /// # Errors
    /// Says why it cannot be opened, or who else could write in it.
    pub fn open_existing(path: &Path, owner: Uid) -> Result<Self, Unavailable> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(Unavailable(format!(
                    "{} is a link or not a folder, so nothing can be kept there; remove it",
                    path.display()
                )));
            }
            Err(errno) => return Err(unavailable(path, "cannot be opened", errno)),
        };
        let stat = fstat(&fd).map_err(|errno| unavailable(path, "cannot be examined", errno))?;
        check(&stat, owner).map_err(|why| Unavailable(format!("{} {why}", path.display())))?;
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// Returns where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file in the folder, never through a link.
    pub(super) fn file(&self, name: &str, flags: OFlag, mode: Mode) -> nix::Result<File> {
        // Anything but a regular file must not block the run.
        let always = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        openat(self, name, flags | always, mode).map(File::from)
    }

    /// Lists the names of files that were last written so long ago that only a run that was killed can have left them.
    pub(super) fn old_files(&self) -> Vec<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut entries) = Dir::openat(self, ".", flags, Mode::empty()) else { return Vec::new() };
        let now = i64::try_from(clock::now()).unwrap_or(i64::MAX);
        let is_old = |name: &String| self.stat(name).is_ok_and(|stat| now.saturating_sub(stat.st_mtime) > LEFT_AFTER);
        let names = entries.iter().take(ENTRIES_MAX).flatten();
        names.filter_map(|entry| Some(entry.file_name().to_str().ok()?.to_owned())).filter(is_old).collect()
    }

    /// Examines a file in the folder without opening it.
    pub(super) fn stat(&self, name: &str) -> nix::Result<FileStat> {
        fstatat(self, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Chooses the folder of a caller.
fn place(caller: Uid, runtime: Option<&OsStr>) -> Result<PathBuf, Unavailable> {
    if caller.is_root() {
        return Ok(PathBuf::from(OF_ROOT));
    }
    match runtime.map(Path::new).filter(|path| path.is_absolute()) {
        Some(path) => Ok(path.join(OF_CALLER)),
        None => Err(Unavailable(format!(
            "user id {caller} has no folder for locks and owners; run as root, or set XDG_RUNTIME_DIR"
        ))),
    }
}

/// Checks that nobody but its owner can write in the folder.
fn check(stat: &FileStat, owner: Uid) -> Result<(), String> {
    if stat.st_uid != owner.as_raw() {
        Err(format!("belongs to user id {}, not to {owner}, so nothing can be kept there; remove it", stat.st_uid))
    } else if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        Err("is writable by others, so nothing can be kept there; run chmod go-w on it".into())
    } else {
        Ok(())
    }
}

fn unavailable(path: &Path, what: &str, errno: Errno) -> Unavailable {
    Unavailable(format!("the folder {} {what} ({})", path.display(), errno.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    fn mode(path: &Path, bits: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    #[test]
    fn it_is_created_once_and_for_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("kept");
        for _ in 0..2 {
            Folder::open(&path, geteuid()).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o755, geteuid().as_raw()));
        }
        mode(&path, 0o700);
        Folder::open(&path, geteuid()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn one_that_others_can_write_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("kept");
        fs::create_dir(&path).unwrap();
        for (bits, expected) in [(0o755, true), (0o711, true), (0o775, false), (0o757, false), (0o1777, false)] {
            mode(&path, bits);
            assert_eq!(Folder::open(&path, geteuid()).is_ok(), expected, "{bits:o}");
        }
        mode(&path, 0o755);
        let other = Uid::from_raw(geteuid().as_raw() + 1);
        let why = Folder::open(&path, other).unwrap_err().to_string();
        assert!(why.contains("belongs to user id"), "{why}");
        if geteuid().is_root() {
            chown(&path, Some(1234), None).unwrap();
            assert!(Folder::open(&path, geteuid()).is_err());
        }
    }

    #[test]
    fn one_that_an_access_control_list_opens_to_others_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("kept");
        fs::create_dir(&path).unwrap();
        // user::rwx, user:65534:rwx, group::r-x, mask::rwx, other::r-x; the mode shows the mask as the group's bits.
        let entries = [
            (0x01u16, 7u16, u32::MAX),
            (0x02, 7, 65534),
            (0x04, 5, u32::MAX),
            (0x10, 7, u32::MAX),
            (0x20, 5, u32::MAX),
        ];
        let entry = |(tag, allowed, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &allowed.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list: Vec<u8> = [2, 0, 0, 0].into_iter().chain(entries.into_iter().flat_map(entry)).collect();
        if rustix::fs::setxattr(&path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).is_ok() {
            assert!(Folder::open(&path, geteuid()).is_err());
        }
    }

    #[test]
    fn neither_a_link_nor_a_file_is_a_folder() {
        let place = tempfile::tempdir().unwrap();
        let (real, link, file) = (place.path().join("real"), place.path().join("link"), place.path().join("file"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        fs::write(&file, "").unwrap();
        for path in [&link, &file] {
            assert!(Folder::open(path, geteuid()).unwrap_err().to_string().contains("is a link or not a folder"));
        }
        assert!(Folder::open(&place.path().join("no/where"), geteuid()).is_err());
        assert!(Folder::open_existing(&place.path().join("missing"), geteuid()).is_err());
    }

    #[test]
    fn its_files_are_never_links() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("kept"), geteuid()).unwrap();
        let victim = place.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, folder.path().join("a")).unwrap();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        assert_eq!(folder.file("a", flags, Mode::S_IRWXU).unwrap_err(), Errno::ELOOP);
        assert!(folder.file("b", flags, Mode::S_IRWXU).is_ok());
    }

    #[test]
    fn each_caller_has_its_place() {
        let user = Uid::from_raw(1000);
        let runtime = |path: &'static str| Some(OsStr::new(path));
        assert_eq!(place(Uid::from_raw(0), runtime("/run/user/0")), Ok(PathBuf::from(OF_ROOT)));
        assert_eq!(place(user, runtime("/run/user/1000")), Ok(PathBuf::from("/run/user/1000/haproxy_server")));
        assert!(place(user, None).is_err());
        assert!(place(user, runtime("")).is_err());
        assert!(place(user, runtime("relative")).is_err());
    }
}
