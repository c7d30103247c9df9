//! Replaces a file atomically and whole: never through a link, and never in part.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};

use super::folder::old_files;

/// How many names for the new file are tried; killed runs may have left some.
const NAMES_MAX: u32 = 100;

/// How the names of new files begin and end.
const PREFIX: &str = ".haproxy_server-";
const SUFFIX: &str = ".new";

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
///
/// New files that killed runs have left are removed.
pub(super) fn replace(folder: impl AsFd, name: &OsStr, content: &[u8], rights: Option<Rights>) -> io::Result<()> {
    let folder = folder.as_fd();
    let (new, file) = create(&folder)?;
    let done = fill(&file, content, rights).and_then(|()| Ok(renameat(folder, new.as_str(), folder, name)?));
    if let Err(error) = done {
        let _ = unlinkat(folder, new.as_str(), UnlinkatFlags::NoRemoveDir);
        return Err(error);
    }
    for left in old_files(folder).iter().filter(|left| left.starts_with(PREFIX) && left.ends_with(SUFFIX)) {
        let _ = unlinkat(folder, left.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    fsync(folder).map_err(io::Error::from)
}

/// Creates the new file under a temporary name.
fn create(folder: &impl AsFd) -> nix::Result<(String, File)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut number = 0;
    loop {
        let name = format!("{PREFIX}{}-{number}{SUFFIX}", std::process::id());
        match openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Err(Errno::EEXIST) if number < NAMES_MAX => number += 1,
            Err(errno) => return Err(errno),
            Ok(fd) => return Ok((name, File::from(fd))),
        }
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
    fn what_killed_runs_have_left_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(700);
        for (name, is_old) in [
            (".haproxy_server-1-0.new", true),
            (".haproxy_server-2-0.new", false),
            (".another-1.new", true),
            (".haproxy_server-1.bak", true),
        ] {
            let file = File::create(place.path().join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        }
        replace(File::open(place.path()).unwrap(), OsStr::new("state"), b"one", None).unwrap();
        let mut left = names(place.path());
        left.sort();
        assert_eq!(left, [".another-1.new", ".haproxy_server-1.bak", ".haproxy_server-2-0.new", "state"]);
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
            symlink(&victim, inside.join(format!("{PREFIX}{}-{number}{SUFFIX}", std::process::id()))).unwrap();
        }
        replace(File::open(&inside).unwrap(), OsStr::new("state"), b"new", None).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(fs::symlink_metadata(inside.join("state")).unwrap().is_file());
    }

    #[test]
    fn what_cannot_be_replaced_leaves_no_trace() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("state/full")).unwrap();
        assert!(replace(File::open(place.path()).unwrap(), OsStr::new("state"), b"new", None).is_err());
        assert_eq!(names(place.path()), ["state"]);
    }
}
