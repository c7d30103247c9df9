//! Reaches a folder without being led astray on the way.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;

/// How many links a path may contain, as in the kernel.
const LINKS_MAX: usize = 40;

/// Opens a folder by its absolute path, following only links of root and the caller.
///
/// Otherwise anybody who can write in one of the folders above could redirect a run of root.
pub(super) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let step = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = || open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut folder = root()?;
    let mut ahead = parts(path);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == "/" {
            folder = root()?;
            continue;
        }
        let next = openat(&folder, part.as_os_str(), step, Mode::empty())?;
        let stat = fstat(&next)?;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => folder = next,
            SFlag::S_IFLNK if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() => {
                let link = part.to_string_lossy();
                return Err(io::Error::other(format!(
                    "it leads through '{link}', a link owned by user id {}",
                    stat.st_uid
                )));
            }
            SFlag::S_IFLNK => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP.into());
                }
                ahead.extend(parts(&PathBuf::from(readlinkat(&next, "")?)));
            }
            _ => return Err(Errno::ENOTDIR.into()),
        }
    }
    // A folder opened for walking cannot be synced.
    Ok(openat(&folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Splits a path into its parts, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    #[test]
    fn folders_are_reached_through_trusted_links_alone() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("real/inner")).unwrap();
        symlink(top.join("real"), top.join("link")).unwrap();
        symlink("../link/./inner/..", top.join("real/up")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        fs::write(top.join("file"), "").unwrap();
        let inode = |fd: OwnedFd| fstat(fd).unwrap().st_ino;
        let real = fs::metadata(top.join("real")).unwrap().ino();
        for path in ["real", "link", "link/inner/..", "real/up", "./real/.", "link/../real"] {
            assert_eq!(inode(open_folder(&top.join(path)).unwrap()), real, "{path}");
        }
        for path in ["loop", "file", "missing", "file/x"] {
            assert!(open_folder(&top.join(path)).is_err(), "{path}");
        }
        if geteuid().is_root() {
            lchown(top.join("link"), Some(1234), Some(1234)).unwrap();
            let why = open_folder(&top.join("link")).unwrap_err().to_string();
            assert!(why.contains("a link owned by user id 1234"), "{why}");
            assert!(open_folder(&top.join("real/up")).is_err());
        }
    }
}
