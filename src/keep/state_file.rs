//! HAProxy's server-state file, kept in step with what was read back, so that a reload restores it.
//!
//! [`Dump`] decides what belongs in the file, [`StateFile`] reads and replaces it, and [`not_loaded`] tells whether HAProxy's
//! configuration loads it.

mod content;
mod loading;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

pub use self::content::{Comparison, Coverage, Dump};
pub use self::loading::not_loaded;
use super::replace::{Rights, replace};
use super::walk::open_folder;
use crate::model::error::{Error, ErrorKind, Result};
use crate::model::memory::{FOR_A_BYTE, could_have};

/// The largest state file that is read, in bytes.
const FILE_MAX: u64 = 256 << 20;

/// Device and inode of the folder, and the name in it: the same for all paths to one file.
pub type Location = (u64, u64, OsString);

/// A state file as it was read, and the folder that it is in.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    existing: Option<Existing>,
}

/// The file on disk.
#[derive(Debug)]
struct Existing {
    content: Vec<u8>,
    rights: Rights,
}

impl StateFile {
    /// Reads the file, which may be missing.
    ///
    /// # Errors
    /// When the path is not absolute, leads to anything but a regular file, or cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |why: &str| Error::new(ErrorKind::StateFile, format!("the state file {} {why}", path.display()));
        let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
            return Err(refuse("is not an absolute path of a file; give one such as /var/lib/haproxy/server-state"));
        };
        let folder = open_folder(parent).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => refuse("cannot be written, because its folder does not exist; create it"),
            _ => refuse(&format!("cannot be written, because its folder cannot be opened ({error})")),
        })?;
        let existing = read(&folder, name).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => {
                refuse("is a symbolic link, which is never followed; give the path of the file itself")
            }
            Some(Errno::ENOMEM) => {
                let msg = format!(
                    "there is not enough memory for the state file {}; allow this program more",
                    path.display()
                );
                Error::new(ErrorKind::Resources, msg)
            }
            _ => refuse(&format!("cannot be read ({error})")),
        })?;
        Ok(Self { path: path.to_owned(), folder, name: name.to_owned(), existing })
    }

    /// Checks that the existing file may be replaced.
    ///
    /// # Errors
    /// When it is not a state file.
    pub fn check(&self) -> Result<()> {
        let existing = self.existing.as_ref().map(|existing| existing.content.as_slice());
        content::check(existing.unwrap_or_default()).map_err(|why| self.left_alone(&why))
    }

    /// Returns what identifies the file, however its path was spelled.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn location(&self) -> Result<Location> {
        let stat = fstat(&self.folder).map_err(|errno| {
            let path = self.path.display();
            Error::new(ErrorKind::StateFile, format!("the folder of the state file {path} cannot be read ({errno})"))
        })?;
        Ok((stat.st_dev, stat.st_ino, self.name.clone()))
    }

    /// Compares the file with what it should contain for the matched servers (backend, server).
    ///
    /// # Errors
    /// When it is not a state file, which is left alone.
    pub fn compare(&self, dump: &Dump, coverage: &Coverage, matched: &[(&str, &str)]) -> Result<Comparison> {
        let existing = self.existing.as_ref().map(|existing| existing.content.as_slice());
        let mut comparison = dump.compare(coverage, existing, matched).map_err(|why| self.left_alone(&why))?;
        for warning in &mut comparison.warnings {
            *warning = format!("state file {}: {warning}", self.path.display());
        }
        Ok(comparison)
    }

    fn left_alone(&self, why: &str) -> Error {
        Error::new(ErrorKind::StateFile, format!("the state file {} is left alone: {why}", self.path.display()))
    }

    /// Replaces the file atomically and keeps its owner and mode.
    ///
    /// # Errors
    /// When it cannot be written; the existing file is then unchanged.
    pub fn replace(&self, content: &[u8]) -> Result<()> {
        let rights = self.existing.as_ref().map(|existing| existing.rights);
        replace(&self.folder, &self.name, content, rights).map_err(|error| {
            Error::new(
                ErrorKind::StateFile,
                format!(
                    "the state file {} could not be written ({error}) and is unchanged, so a reload of HAProxy would \
                     forget the change; fix that and run this again",
                    self.path.display()
                ),
            )
        })
    }
}

fn read(folder: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<Option<Existing>> {
    // Opening a FIFO or a device must neither block nor have an effect.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let stat = fstat(&file)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // It is read once more before it is written, and both are compared with what HAProxy has.
    let size = usize::try_from(stat.st_size).unwrap_or_default();
    if u64::try_from(size).is_ok_and(|size| size <= FILE_MAX) && !could_have(size.saturating_mul(FOR_A_BYTE)) {
        return Err(Errno::ENOMEM.into());
    }
    let mut content = Vec::new();
    (&file).take(FILE_MAX + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX} bytes")));
    }
    Ok(Some(Existing { content, rights: Rights::of(&stat) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::geteuid;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    const FULL: &str = "HAPROXY_SERVER_TEST_FULL";

    fn dump() -> Dump {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/2.6/show_servers_state.txt");
        let mut dump = Dump::default();
        fs::read_to_string(file).unwrap().lines().for_each(|line| dump.line(line.as_bytes()).unwrap());
        dump
    }

    #[test]
    fn it_is_written_read_and_found_to_be_the_same() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let missing = StateFile::read(&path).unwrap();
        let comparison = missing.compare(&dump(), &Coverage::All, &[]).unwrap();
        missing.replace(&comparison.content).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let there = StateFile::read(&path).unwrap();
        assert!(!there.compare(&dump(), &Coverage::All, &[]).unwrap().differs);
        there.replace(b"1\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
    }

    #[test]
    fn only_a_regular_file_by_its_whole_path_will_do() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path();
        let victim = top.join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, top.join("link")).unwrap();
        symlink(top.join("nowhere"), top.join("dangling")).unwrap();
        nix::unistd::mkfifo(&top.join("fifo"), Mode::S_IRWXU).unwrap();
        File::create(top.join("large")).unwrap().set_len(FILE_MAX + 1).unwrap();
        let table = [
            (top.join("link"), "is a symbolic link"),
            (top.join("dangling"), "is a symbolic link"),
            (top.join("fifo"), "not a regular file"),
            (top.join("large"), "larger than"),
            (top.to_owned(), "not a regular file"),
            (top.join("no/where"), "folder does not exist"),
            (victim.join("x"), "folder cannot be opened"),
            (PathBuf::from("relative"), "not an absolute path"),
            (PathBuf::from("/"), "not an absolute path"),
            (top.join(".."), "not an absolute path"),
        ];
        for (path, expected) in table {
            let error = StateFile::read(&path).unwrap_err();
            assert_eq!(error.kind, ErrorKind::StateFile);
            assert!(error.msg.contains(expected), "{error}");
        }
        let file = StateFile::read(&victim).unwrap();
        for other in [file.check().unwrap_err(), file.compare(&dump(), &Coverage::All, &[]).unwrap_err()] {
            assert_eq!(other.kind, ErrorKind::StateFile);
            assert!(other.msg.contains("is left alone: it is not a server-state file"), "{other}");
        }
        StateFile::read(&top.join("missing")).unwrap().check().unwrap();
    }

    #[test]
    fn a_link_that_comes_meanwhile_is_not_written_through() {
        let place = tempfile::tempdir().unwrap();
        let (path, victim) = (place.path().join("state"), place.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        let file = StateFile::read(&path).unwrap();
        symlink(&victim, &path).unwrap();
        file.replace(b"1\n").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
    }

    #[test]
    fn a_full_disk_loses_nothing() {
        if !geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs \"$0\" && exec \"$@\""])
            .arg(place.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "keep::state_file::tests::writes_to_a_full_disk", "--ignored", "--nocapture"])
            .env(FULL, place.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        // Without the right to mount a file system there is nothing to test.
        assert!(said.contains("nothing was lost") || !said.contains("running"), "{said}");
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn writes_to_a_full_disk() {
        let Some(place) = std::env::var_os(FULL) else { return };
        let path = Path::new(&place).join("state");
        fs::write(&path, "1\n").unwrap();
        let file = StateFile::read(&path).unwrap();
        let error = file.replace(&vec![b'#'; 1 << 20]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::StateFile);
        assert!(error.msg.contains("No space left") && error.msg.contains("is unchanged"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"1\n");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        println!("nothing was lost");
    }
}
