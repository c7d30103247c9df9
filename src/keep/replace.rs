//! Replaces a file atomically and whole: never through a link, and never in part.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};

/// How many names for the new file are tried; other runs may be using some.
const NAMES_MAX: u32 = 100;

/// How many names are looked at for what killed runs have left: more than runs at once, as the first free one is taken.
const SWEPT: u32 = 16;

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    owner: Uid,
    group: Gid,
    mode: Mode,
}

impl Rights {
    /// The rights of an existing file, without set-user-id and the like.
    pub(super) fn of(stat: &FileStat) -> Self {
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
        Self { owner: Uid::from_raw(stat.st_uid), group: Gid::from_raw(stat.st_gid), mode }
    }
}

/// Replaces a file in a folder, or creates it; any failure before the last step leaves the old one as it was.
pub(super) fn replace(folder: impl AsFd, name: &OsStr, content: &[u8], rights: Option<Rights>) -> io::Result<()> {
    let folder = folder.as_fd();
    let (new, file) = create(&folder)?;
    let done = fill(&file, content, rights).and_then(|()| Ok(renameat(folder, new.as_str(), folder, name)?));
    if let Err(error) = done {
        let _ = unlinkat(folder, new.as_str(), UnlinkatFlags::NoRemoveDir);
        return Err(error);
    }
    fsync(folder).map_err(io::Error::from)
}

/// Creates the new file under a temporary name, and removes those that killed runs have left there.
///
/// Whoever writes such a file holds a lock on it, which the kernel releases when its holder dies.
fn create(folder: &impl AsFd) -> nix::Result<(String, Flock<File>)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut created = None;
    for number in 0..NAMES_MAX {
        if created.is_some() && number >= SWEPT {
            break;
        }
        let name = format!(".haproxy_server-{number}.new");
        if fstatat(folder, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
            remove_if_left(folder, &name);
        }
        if created.is_none() {
            match openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
                Ok(fd) => created = hold(File::from(fd)).map(|file| (name, file)),
            }
        }
    }
    created.ok_or(Errno::EEXIST)
}

/// Locks a new file; `None` if another run has taken it for one that was left, and has removed it or is about to.
fn hold(file: File) -> Option<Flock<File>> {
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    fstat(&*file).is_ok_and(|stat| stat.st_nlink > 0).then_some(file)
}

/// Removes a temporary file that nobody writes any more.
fn remove_if_left(folder: &impl AsFd, name: &str) {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Ok(fd) = openat(folder, name, flags, Mode::empty()) else { return };
    let Ok(file) = Flock::lock(File::from(fd), FlockArg::LockExclusiveNonblock) else { return };
    let is_at_its_name = fstat(&*file).is_ok_and(|stat| {
        let is_regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        let now = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        is_regular && now.is_ok_and(|now| (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino))
    });
    // As long as it is locked, nobody else renames or removes it.
    if is_at_its_name {
        let _ = unlinkat(folder, name, UnlinkatFlags::NoRemoveDir);
    }
}

fn fill(mut file: &File, content: &[u8], rights: Option<Rights>) -> io::Result<()> {
    file.write_all(content)?;
    let Some(rights) = rights else {
        fchmod(file, Mode::from_bits_truncate(0o644))?;
        return file.sync_all();
    };
    let now = Rights::of(&fstat(file)?);
    if (now.owner, now.group) != (rights.owner, rights.group) {
        fchown(file, Some(rights.owner), Some(rights.group))?;
    }
    fchmod(file, rights.mode)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::geteuid;
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn the_new_file_has_the_rights_of_the_old() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let folder = File::open(place.path()).unwrap();
        replace(&folder, OsStr::new("state"), b"one", None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
        }
        let before = fs::metadata(&path).unwrap();
        let rights = Rights::of(&fstat(File::open(&path).unwrap()).unwrap());
        replace(&folder, OsStr::new("state"), b"two", Some(rights)).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o640);
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(place.path()), ["state"]);
    }

    #[test]
    fn a_link_is_replaced_and_never_written_through() {
        let place = tempfile::tempdir().unwrap();
        let victim = place.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let inside = place.path().join("inside");
        fs::create_dir(&inside).unwrap();
        symlink(&victim, inside.join("state")).unwrap();
        for number in 0..3 {
            symlink(&victim, inside.join(format!(".haproxy_server-{number}.new"))).unwrap();
        }
        replace(File::open(&inside).unwrap(), OsStr::new("state"), b"new", None).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(fs::symlink_metadata(inside.join("state")).unwrap().is_file());
    }

    #[test]
    fn what_killed_runs_have_left_is_removed_and_what_others_write_is_not() {
        let place = tempfile::tempdir().unwrap();
        let folder = File::open(place.path()).unwrap();
        let name = |number: u32| place.path().join(format!(".haproxy_server-{number}.new"));
        for number in [0, 1, 3, 9] {
            fs::write(name(number), "left").unwrap();
        }
        let other = File::create(name(2)).unwrap();
        let other = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap();
        for _ in 0..2 {
            replace(&folder, OsStr::new("state"), b"new", None).unwrap();
            let mut names = names(place.path());
            names.sort();
            assert_eq!(names, [".haproxy_server-2.new", "state"]);
        }
        drop(other);
        fs::write(name(0), "left").unwrap();
        fs::write(name(1), "left").unwrap();
        replace(&folder, OsStr::new("state"), b"new", None).unwrap();
        assert_eq!(names(place.path()), ["state"]);
    }

    #[test]
    fn those_who_replace_one_file_at_once_do_not_disturb_each_other() {
        let place = tempfile::tempdir().unwrap();
        let folder = File::open(place.path()).unwrap();
        std::thread::scope(|scope| {
            for number in 0..4u8 {
                let folder = &folder;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(folder, OsStr::new("state"), &[b'0' + number; 10_000], None).unwrap();
                        let seen = fs::read(format!("/proc/self/fd/{}/state", std::os::fd::AsRawFd::as_raw_fd(folder)));
                        let seen = seen.unwrap();
                        assert!(seen.len() == 10_000 && seen.iter().all(|byte| Some(byte) == seen.first()));
                    }
                });
            }
        });
        assert_eq!(names(place.path()), ["state"]);
    }

    #[test]
    fn what_cannot_be_replaced_leaves_no_trace() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("state/full")).unwrap();
        assert!(replace(File::open(place.path()).unwrap(), OsStr::new("state"), b"new", None).is_err());
        assert_eq!(names(place.path()), ["state"]);
    }
}
